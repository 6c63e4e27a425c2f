"""Alarms on one environment's metrics: what there is, and what a stack of their own has to make."""

from __future__ import annotations

from airflow_provider_mwaa_dr.aws.control_plane import DeployedEnvironment
from airflow_provider_mwaa_dr.aws.deployment_step import DeploymentStep, DeploySpec
from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.aws.stack import Stack
from airflow_provider_mwaa_dr.aws.template import alarms_stack, alarms_template


class AlarmPlan:
    """The stack with the alarms, in the environment's own region; looked at when it is made, nothing is changed."""

    def __init__(self, aws: Aws, environment: DeployedEnvironment, spec: DeploySpec) -> None:
        self._environment = environment
        self._stack = Stack(aws, environment.region, alarms_stack(spec.stack))
        self._sight = self._stack.describe()

    def bring_in(self, spec: DeploySpec, *, lease_s: float) -> DeploymentStep:
        """
        Return the step that makes the alarms, or brings them up to date.

        Thresholds that people have set in the stack stay, and so does its topic where no other is named.

        :param lease_s: of the state item.
        :raises RefusedError: the stack is there, and takes no update.
        """
        name, sight, stack = f"alarms {self._environment.region}", self._sight, self._stack
        if sight is not None:
            stack.require_usable(sight)
        parameters = {"EnvironmentName": self._environment.name, "LeaseSeconds": f"{lease_s:g}"}
        if self._environment.region in spec.alarm_topics:
            parameters["AlarmTopicArn"] = spec.alarm_topics[self._environment.region]
        before = {} if sight is None or sight.is_empty else sight.parameters
        parameters = {**before, **parameters}
        body = alarms_template()
        if sight is not None and not sight.is_busy and sight.body == body and before == parameters:
            return DeploymentStep(name=name, detail=f"there: {stack}")
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
        return DeploymentStep(name=name, detail=f"{verb} the {stack}", lines=tuple(lines), act=act)

    def take_out(self) -> list[DeploymentStep]:
        """Return the step that deletes the alarms, if there are any."""
        if self._sight is None:
            return []
        stack = self._stack

        def act() -> str:
            stack.delete()
            return f"deleted: {stack}"

        return [DeploymentStep(name=f"alarms {self._environment.region}", detail=f"delete the {stack}", act=act)]
