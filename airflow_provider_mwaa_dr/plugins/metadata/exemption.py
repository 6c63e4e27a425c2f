"""Which DAGs the provider never changes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import or_, select

from airflow_provider_mwaa_dr.core.config import CONTROL_TAG
from airflow_provider_mwaa_dr.plugins.metadata.schema import TAGS


class Exemption:
    """
    The exempt DAGs: those with the control tag, and those of ``[dr] exempt_dags``.

    :param dag_ids: the value of the option.
    """

    def __init__(self, dag_ids: Collection[str]) -> None:
        self._dag_ids = tuple(sorted(dag_ids))

    def has_id(self, dag_id: str) -> bool:
        """Whether ``[dr] exempt_dags`` has the DAG, which may not be in this region."""
        return dag_id in self._dag_ids

    def covers(self, dag_id: Any) -> Any:
        """Return the condition that the DAG in the column *dag_id* is exempt."""
        tagged = select(TAGS.c.dag_id).where(TAGS.c.name == CONTROL_TAG)
        return or_(dag_id.in_(self._dag_ids), dag_id.in_(tagged))
