"""Plan for the alarms on one environment's metrics: the existing stack with the alarms, and the changes to it."""

from __future__ import annotations

from airflow_provider_mwaa_dr.aws.deploy.deployment_step import DeploymentStep, DeploySpec
from airflow_provider_mwaa_dr.aws.deploy.stack import Stack
from airflow_provider_mwaa_dr.aws.deploy.template import alarms_stack, alarms_template
from airflow_provider_mwaa_dr.aws.mwaa.control_plane import DeployedEnvironment
from airflow_provider_mwaa_dr.aws.service import Aws

OLD_PARAMETERS = frozenset({"MetricPrefix", "Namespace"})
"""Parameters of earlier templates. CloudFormation refuses parameters that a template does not have."""


class AlarmPlan:
    """
    The stack with the alarms, in the environment's own region. The constructor reads the stack and changes nothing.
    """

    def __init__(self, aws: Aws, environment: DeployedEnvironment, spec: DeploySpec) -> None:
        self._environment = environment
        self._stack = Stack(aws, environment.region, alarms_stack(spec.stack, environment.site))
        self._existing = self._stack.describe()

    def deploy_step(self, spec: DeploySpec, *, lease_s: float) -> DeploymentStep:
        """
        Return the step that creates or updates the alarms.

        The step keeps thresholds that users have set in the stack. It keeps the topic unless *spec* names another one.

        :param lease_s: lease in the state item.
        :raises RefusedError: the stack exists, and CloudFormation accepts no update of it.
        """
        name, existing, stack = f"alarms {self._environment.site.id}", self._existing, self._stack
        if existing is not None:
            stack.require_usable(existing)
        parameters = {"EnvironmentName": self._environment.name, "LeaseSeconds": f"{lease_s:g}"}
        if self._environment.region in spec.alarm_topics:
            parameters["AlarmTopicArn"] = spec.alarm_topics[self._environment.region]
        before = {} if existing is None or existing.is_empty else existing.parameters
        before = {name: value for name, value in before.items() if name not in OLD_PARAMETERS}
        parameters = {**before, **parameters}
        body = alarms_template()
        if existing is not None and not existing.is_busy and existing.body == body and before == parameters:
            return DeploymentStep(name=name, detail=f"exists: {stack}")
        topic = parameters.get("AlarmTopicArn") or "no topic; name an SNS topic with --alarm-topic"
        if before:
            lines = [
                f"{parameter}: {before.get(parameter, '(not set)')} -> {value}"
                for parameter, value in sorted(parameters.items())
                if before.get(parameter) != value
            ]
            if existing is not None and existing.body != body:
                lines.append("the template of this version replaces the existing template")
        else:
            lines = [
                "+ alarms: agent silent, state old, ledger behind, runs held, failover halted",
                f"  they notify {topic}",
                "+ dashboard of the metrics",
                "  the alarm agent silent stays on until the plugin runs and its metrics arrive",
            ]

        def act() -> str:
            return f"{stack.ensure(body, parameters)}: {stack}"

        verb = "update" if before else "create"
        return DeploymentStep(name=name, detail=f"{verb} the {stack}", lines=tuple(lines), act=act)

    def removal_steps(self) -> list[DeploymentStep]:
        """Return the step that deletes the alarms; an empty list if the stack does not exist."""
        if self._existing is None:
            return []
        stack = self._stack

        def act() -> str:
            stack.delete()
            return f"deleted: {stack}"

        return [DeploymentStep(name=f"alarms {self._environment.site.id}", detail=f"delete the {stack}", act=act)]
