"""Operators that pause all DAGs of a region, and later unpause exactly the same DAGs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.utils.mixins import aws_template_fields

from airflow_provider_mwaa_dr.core import pausing
from airflow_provider_mwaa_dr.core.ports import Environment
from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.hooks.errors import airflow_error


class _RegionOperator(AwsBaseOperator):
    """
    Changes the paused flags of one region's DAGs.

    A refusal (a failover is in progress) and a wrong setting fail the task without a retry. Airflow may retry all other
    errors.
    """

    aws_hook_class = DRStateHook
    region: str | None = None  # Amazon provider 8.28 (MWAA 2.10.1) has a property of this name, which cannot be set
    template_fields: Sequence[str] = aws_template_fields("region")

    def __init__(self, *, region: str, aws_conn_id: str | None = None, **kwargs: Any) -> None:
        super().__init__(aws_conn_id=aws_conn_id, **kwargs)
        self.region = region

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return ``{"changed", "dags"}``: whether a flag changed, and the recorded set."""
        try:
            if not self.region:
                raise ConfigError("The region is empty.", option="region", advice="Name a region of the DR set.")
            found = self._change(self.hook, self.hook.environment(self.region))
        except DRError as error:
            raise airflow_error(error) from error
        self.log.info("%s: %d of %d DAGs changed", self.region, len(found.changed), len(found.dag_ids))
        return {"changed": bool(found.changed), "dags": list(found.dag_ids)}

    @abstractmethod
    def _change(self, hook: DRStateHook, environment: Environment) -> pausing.Pausing:
        """Change the flags of *environment*'s DAGs."""

    def _on_progress(self, done: int, total: int) -> None:
        self.log.info("%s: %d of %d DAGs", self.region, done, total)


class PauseAllDagsOperator(_RegionOperator):
    """
    Pause all DAGs of a region except the exempt ones (tag ``dr:control``, ``[dr] exempt_dags``), and record them.

    Idempotent: a second run adds the DAGs that were unpaused since the first one, and removes no DAG from the recorded
    set.

    :param region: region of the environment (templated).
    :param aws_conn_id: connection with the credentials; None for the environment's own role (templated).
    """

    def _change(self, hook: DRStateHook, environment: Environment) -> pausing.Pausing:
        return pausing.pause(
            hook.store,
            environment,
            at=hook.clock.now(),
            exempt_dags=hook.settings.exempt_dags,
            on_progress=self._on_progress,
        )


class UnpauseAllDagsOperator(_RegionOperator):
    """
    Unpause exactly the DAGs that :class:`PauseAllDagsOperator` or ``mwaa-dr pause`` recorded, then clear the record.

    Idempotent: a no-op when no DAG is recorded.

    :param region: region of the environment (templated).
    :param aws_conn_id: connection with the credentials; None for the environment's own role (templated).
    """

    def _change(self, hook: DRStateHook, environment: Environment) -> pausing.Pausing:
        return pausing.unpause(hook.store, environment, at=hook.clock.now(), on_progress=self._on_progress)
