"""What all steps of an engine have in common: its settings, and the objects that live as long as the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.config import is_exempt
from airflow_provider_mwaa_dr.core.environments import known_region
from airflow_provider_mwaa_dr.core.failover.records import Progress
from airflow_provider_mwaa_dr.core.failover.table import StateTable
from airflow_provider_mwaa_dr.core.heartbeats import Silence
from airflow_provider_mwaa_dr.core.notifications import Courier
from airflow_provider_mwaa_dr.core.ports import Clock, DagInfo, Environment
from airflow_provider_mwaa_dr.core.timing import Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """
    What an engine works with. It lives as long as the engine and knows no plan; :class:`OwnedPlan` has the plan.

    :param environments: the DR set's environments by region.
    :param owner: the name of this process; unique among all engines of the set.
    :param exempt_dags: ids of exempt DAGs, in addition to DAGs tagged ``dr:control``.
    :param eventual: whether the state table has eventual consistency.
    :param courier: sends notifications in the background.
    :param new_token: returns the random part of a plan's id.
    """

    table: StateTable
    environments: Mapping[str, Environment]
    clock: Clock
    timing: Timing
    owner: str
    progress: Progress
    silence: Silence
    exempt_dags: frozenset[str]
    eventual: bool
    courier: Courier
    new_token: Callable[[], str]

    def environment(self, region: str) -> Environment:
        """Return the environment of *region*. :raises ConfigError: the region is not in the DR set."""
        return self.environments[known_region(region, self.environments)]

    def exempt(self, dags: Sequence[DagInfo]) -> frozenset[str]:
        """Return the ids of the exempt DAGs."""
        return frozenset(dag.dag_id for dag in dags if is_exempt(dag.dag_id, dag.tags, self.exempt_dags))

    def unpaused(self, dags: Sequence[DagInfo]) -> list[str]:
        """Return the ids of the DAGs that are unpaused and not exempt."""
        exempt = self.exempt(dags)
        return [dag.dag_id for dag in dags if not dag.is_paused and dag.dag_id not in exempt]

    def regions(self) -> frozenset[str]:
        """Return the regions of the set: the registered ones, and those in this caller's settings."""
        return self.table.retry(self.table.store.regions).union(self.environments)
