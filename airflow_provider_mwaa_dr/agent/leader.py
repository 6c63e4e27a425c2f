"""What only the leading agent of a region does: reconcile its runs, keep its ledger, finish an abandoned plan."""

from __future__ import annotations

from functools import cached_property

from airflow_provider_mwaa_dr.agent.closing import RunCloser
from airflow_provider_mwaa_dr.agent.hold_alarm import HoldAlarm
from airflow_provider_mwaa_dr.agent.housekeeping import Housekeeping
from airflow_provider_mwaa_dr.agent.ledger_keeper import LedgerKeeper
from airflow_provider_mwaa_dr.agent.ledger_wait import LedgerWait
from airflow_provider_mwaa_dr.agent.notifier import NotificationKeeper, StartSender
from airflow_provider_mwaa_dr.agent.plan_finisher import PlanFinisher
from airflow_provider_mwaa_dr.agent.ports import RegionDb
from airflow_provider_mwaa_dr.agent.process import Process
from airflow_provider_mwaa_dr.agent.reconcile import Reconciler
from airflow_provider_mwaa_dr.agent.restoring import SetRestorer
from airflow_provider_mwaa_dr.agent.snapshots import SnapshotKeeper
from airflow_provider_mwaa_dr.agent.state_reader import StateReader
from airflow_provider_mwaa_dr.agent.unpublished import UnpublishedRuns
from airflow_provider_mwaa_dr.core.bookkeeping import Bookkeeper
from airflow_provider_mwaa_dr.core.ports import Clock, RunsStore, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.core.translation import Era


class Leader:
    """
    The work of a region's leading agent, in each turn in which it leads. Two leaders do no harm: all is idempotent.

    :ivar closer: has the number of runs that this agent closed, and of those that it still has to close.
    :ivar ledger: has the region's ledger and its errors.
    :ivar hold_alarm: has the number of alarms about halted failovers.
    :ivar restorer: has the version under which this agent restored the recorded set.

    :param runs: the ledger; None if no runs table is set.
    :param start_sender: starts a process that sends notifications; None: this agent sends none.
    """

    def __init__(
        self,
        process: Process,
        *,
        store: StateStore,
        runs: RunsStore | None,
        db: RegionDb,
        clock: Clock,
        reader: StateReader,
        ledger_wait: LedgerWait,
        housekeeping: Housekeeping,
        start_sender: StartSender | None,
    ) -> None:
        config = process.config
        region = config.region
        unpublished = UnpublishedRuns(store, region=region)
        self._process = process
        self._store = store
        self._db = db
        self._clock = clock
        self.hold_alarm = HoldAlarm(clock)
        self.closer = RunCloser(db, reader, region=region)
        era = Era.of(process.airflow_version)
        self.ledger = LedgerKeeper(
            Bookkeeper(runs, db, clock, region=region, peers=reader.peers, era=era) if runs is not None else None,
            store,
            clock,
            region=region,
            reader=reader,
            wait=ledger_wait,
            unpublished=unpublished,
            lead_ends_after_s=3 * config.refresh_s,
        )
        self._reconciler = Reconciler(
            store,
            db,
            clock,
            region=region,
            reader=reader,
            ledger=self.ledger,
            closer=self.closer,
            unpublished=unpublished,
            queued_for_s=max(5.0, 2 * config.refresh_s),
        )
        self._snapshots = SnapshotKeeper(store, db, clock, region=region)
        self.restorer = SetRestorer(store, db, region=region)
        self._housekeeping = housekeeping
        self._notifications = (
            NotificationKeeper(store, clock, config, start=start_sender) if start_sender is not None else None
        )

    def turn(self, state: DRState, known: int | None, schedulers: tuple[str, ...]) -> bool:
        """
        Do the leading agent's work of one turn.

        :param known: the epoch to which the region's open runs belong.
        :return: whether this turn reconciled the open runs with the state's epoch.
        """
        self.ledger.lead()
        has_reconciled = self._reconciler.turn(state, known)
        if has_reconciled or known == state.epoch:
            self.ledger.keep(state)
            self.restorer.turn(state)
        if not has_reconciled:
            if self._lists_dags(state):
                self._snapshots.turn(state)
            if state.phase is not Phase.STEADY or state.active_region != self._process.config.region:
                # Until a promoted plan ends, no region executes.
                self._finisher.turn(state)
        self._housekeeping.lead(schedulers, state.lease_s)
        if self._notifications is not None:
            self._notifications.turn(state)
        return has_reconciled

    def _lists_dags(self, state: DRState) -> bool:
        """Whether the region is active and no failover has paused a DAG of it."""
        is_graceful = state.phase is Phase.DRAINING and state.plan is not None and not state.plan.is_forced
        return state.active_region == self._process.config.region and (state.phase is Phase.STEADY or is_graceful)

    def stop(self) -> None:
        """Report open runs and errors of the ledger no longer: another agent leads now."""
        self.closer.unclosed = 0
        self.restorer.version = None
        self.ledger.stop_leading()

    def forget(self) -> None:
        """Forget the region's items, too: another environment writes them."""
        self.stop()
        self._snapshots.forget()

    @cached_property
    def _finisher(self) -> PlanFinisher:
        region = self._process.config.region
        return PlanFinisher(
            self._store,
            self._db,
            self._clock,
            region=region,
            owner=f"agent of {region} (job {self._db.job_id} on {self._process.host})",
            takeover_s=Timing.from_config(self._process.config).takeover_s,
            alarm=self.hold_alarm,
        )
