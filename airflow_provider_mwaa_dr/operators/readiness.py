"""The operator that runs the readiness checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_mwaa_dr._compat import AirflowFailException
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.documents import check_documents
from airflow_provider_mwaa_dr.core.readiness.examination import Examination, examine
from airflow_provider_mwaa_dr.core.readiness.model import Verdict
from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.hooks.errors import airflow_error


class ReadinessOperator(AwsBaseOperator):
    """
    Check whether a failover would succeed. The task fails if a check fails, and its message says what to do.

    Changes nothing. Runs in the active region, in a control environment, and in a standby if its DAG has the tag
    ``dr:control``. The returned list is that of ``mwaa-dr check --json``. It is in XCom also when the task fails.

    :param region: the target of the failover; None for the only standby (templated).
    :param fail_on_warn: fail on warnings, too.
    :param accept: intended differences, ``CHECK`` or ``CHECK:NAME`` each, in addition to
        ``[dr] accepted_differences`` (templated).
    :param aws_conn_id: connection with the credentials; None for the environment's own role (templated).
    :raises AirflowFailException: a check failed, or a setting of the DR set is wrong: a retry would fail, too.
    :raises AirflowException: the state table did not answer.
    """

    aws_hook_class = DRStateHook
    region: str | None = None  # Amazon provider 8.28 (MWAA 2.10.1) has a property of this name, which cannot be set
    template_fields: Sequence[str] = aws_template_fields("region", "accept")

    def __init__(
        self,
        *,
        region: str | None = None,
        fail_on_warn: bool = False,
        accept: Sequence[str] = (),
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(aws_conn_id=aws_conn_id, **kwargs)
        self.region = region
        self.fail_on_warn = fail_on_warn
        self.accept = accept

    def execute(self, context: Any) -> list[dict[str, str]]:
        """Return the result of each check."""
        try:
            examination = self._examine()
        except DRError as error:
            raise airflow_error(error) from error
        found = check_documents(examination.results)
        bad = [Verdict.FAIL, *([Verdict.WARN] if self.fail_on_warn else [])]
        problems = [
            f"{result.name}: {result.why}. {result.advice}".rstrip()
            for verdict in bad
            for result in examination.results
            if result.verdict is verdict
        ]
        if problems:
            # A task that fails has no return value, and the user needs the list to find the cause.
            context["ti"].xcom_push(key="return_value", value=found)
            raise AirflowFailException(
                f"{examination.target} is not ready to take over from {examination.source}. "
                + visible(" | ".join(problems))
            )
        return found

    def _examine(self) -> Examination:
        hook: DRStateHook = self.hook
        if isinstance(self.accept, str):
            raise ConfigError(f"accept is {self.accept!r}.", option="accept", advice="Use a list of strings.")
        settings = hook.settings
        examination = examine(
            hook.store,
            hook.tables,
            {region: hook.environment(region) for region in hook.environment_names()},
            hook.clock,
            replace(settings, accepted_differences=(*settings.accepted_differences, *self.accept)),
            target=self.region or None,
            on_wait=lambda region: self.log.debug("Waiting for a heartbeat from %s", region),
        )
        for result in examination.results:
            level = self.log.info if result.verdict is Verdict.OK else self.log.warning
            text = visible(result.why + _arrow(result.advice))
            level("%-4s  %-12s  %s", result.verdict.value, result.name, text)
        return examination


def _arrow(advice: str) -> str:
    return f" -> {advice}" if advice else ""
