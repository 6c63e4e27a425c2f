"""Alarms on one environment's metrics: what there is, and what a stack of their own has to make."""

from __future__ import annotations

from airflow_provider_mwaa_dr.aws.control_plane import Site
from airflow_provider_mwaa_dr.aws.deployment_step import Step, Wanted
from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.aws.stack import Stack
from airflow_provider_mwaa_dr.aws.template import alarms_stack, alarms_template


class AlarmPlan:
    """The stack with the alarms, in the environment's own region; looked at when it is made, nothing is changed."""

    def __init__(self, aws: Aws, site: Site, wanted: Wanted) -> None:
        self._site = site
        self._stack = Stack(aws, site.region, alarms_stack(wanted.stack))
        self._sight = self._stack.look()

    def bring_in(self, wanted: Wanted, *, lease_s: float) -> Step:
        """
        Return the step that makes the alarms, or brings them up to date.

        Thresholds that people have set in the stack stay, and so does its topic where no other is named.

        :param lease_s: of the state item.
        :raises RefusedError: the stack is there, and takes no update.
        """
        name, sight, stack = f"alarms {self._site.region}", self._sight, self._stack
        if sight is not None:
            stack.require_usable(sight)
        parameters = {"EnvironmentName": self._site.name, "LeaseSeconds": f"{lease_s:g}"}
        if self._site.region in wanted.alarm_topics:
            parameters["AlarmTopicArn"] = wanted.alarm_topics[self._site.region]
        before = {} if sight is None or sight.is_empty else sight.parameters
        parameters = {**before, **parameters}
        body = alarms_template()
        if sight is not None and not sight.is_busy and sight.body == body and before == parameters:
            return Step(name=name, detail=f"there: {stack}")
        told = parameters.get("AlarmTopicArn") or "nobody: name an SNS topic with --alarm-topic"
        if before:
            lines = [
                f"{parameter}: {before.get(parameter, '(not set)')} -> {value}"
                for parameter, value in sorted(parameters.items())
                if before.get(parameter) != value
            ]
            if sight is not None and sight.body != body:
                lines.append("this version's template takes the place of the one that is there")
        else:
            lines = [
                "+ alarms: agent silent, state old, ledger behind, runs held",
                f"  they tell {told}",
                "  the first one is on until the plugin runs and its metrics arrive",
            ]

        def act() -> str:
            return f"{stack.ensure(body, parameters)}: {stack}"

        verb = "update" if before else "create"
        return Step(name=name, detail=f"{verb} the {stack}", lines=tuple(lines), act=act)

    def take_out(self) -> list[Step]:
        """Return the step that deletes the alarms, if there are any."""
        if self._sight is None:
            return []
        stack = self._stack

        def act() -> str:
            stack.delete()
            return f"deleted: {stack}"

        return [Step(name=f"alarms {self._site.region}", detail=f"delete the {stack}", act=act)]
