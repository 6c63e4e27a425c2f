"""Unpausing the recorded set of a failover in the region's own database."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.failover.restore import RegionDags, Restored, restore_set
from airflow_provider_mwaa_dr.core.ports import DAG_SETS, DagSet, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.exceptions import UnreadableItemError

log = get_logger(__name__)


class SetRestorer:
    """
    Makes the recorded set of the plan exactly the unpaused DAGs of its target, while the plan is RESUMING.

    The engine waits for it: the REST API takes half a minute to list ten thousand DAGs. The leading agent repeats it in
    each turn until the plan ends, so a late call of an engine that lost the plan does not last.

    :ivar version: the version of the state under which the set was last restored; None if no plan is RESUMING.
    :ivar left: how many DAGs could not be paused or unpaused then.
    """

    def __init__(self, store: StateStore, dags: RegionDags, *, region: str) -> None:
        self._store = store
        self._dags = dags
        self._region = region
        self._dag_set: DagSet | None = None
        self._logged: Restored | None = None
        self.version: int | None = None
        self.left = 0

    def turn(self, state: DRState) -> None:
        """
        Restore the set of the plan in *state*, if it is RESUMING.

        :raises StateError: the table could not be reached; the next turn tries again.
        """
        plan = state.plan
        if plan is None or plan.set_id is None or state.phase is not Phase.RESUMING or plan.target != self._region:
            self.version, self._dag_set, self._logged = None, None, None
            return
        if self._dag_set is None or self._dag_set.id != plan.set_id:
            try:
                self._dag_set = self._store.get(DAG_SETS, plan.set_id)
            except UnreadableItemError:
                return  # the engine reports it
        if self._dag_set is None:
            return
        # The plan may have ended since the turn began. From then on, the flags belong to the users.
        if self._store.observe(self._region).state != state:
            return
        restored = restore_set(self._dags, plan, frozenset(self._dag_set.dag_ids))
        self.version, self.left = state.version, len(restored.not_unpaused) + len(restored.not_paused)
        if restored != self._logged:
            self._logged = restored
            log.info("Plan %s (epoch %d): %s", plan.id, state.epoch, restored.detail)
