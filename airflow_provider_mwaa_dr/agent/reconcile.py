"""Bringing the region's open runs and the state's epoch together, when the region's role changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from airflow_provider_mwaa_dr.agent.closing import RunCloser
from airflow_provider_mwaa_dr.agent.ledger_keeper import LedgerError, LedgerKeeper
from airflow_provider_mwaa_dr.agent.ports import RegionDb
from airflow_provider_mwaa_dr.agent.state_reader import StateReader
from airflow_provider_mwaa_dr.agent.unpublished import UnpublishedRuns
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ports import Clock, StateStore, Unpublished
from airflow_provider_mwaa_dr.core.state import DRState, Phase, unresumed_plan

log = get_logger(__name__)


class Reconciler:
    """
    Reconciles the open runs of one region with the epoch of the state, for the leading agent.

    :param queued_for_s: a standby closes runs that stay queued for so long.
    """

    def __init__(
        self,
        store: StateStore,
        db: RegionDb,
        clock: Clock,
        *,
        region: str,
        reader: StateReader,
        ledger: LedgerKeeper,
        closer: RunCloser,
        unpublished: UnpublishedRuns,
        queued_for_s: float,
    ) -> None:
        self._store = store
        self._db = db
        self._clock = clock
        self._region = region
        self._reader = reader
        self._role = reader.role
        self._ledger = ledger
        self._closer = closer
        self._unpublished = unpublished
        self._queued_for_s = queued_for_s

    def turn(self, state: DRState, known: int | None) -> bool:
        """
        Bring the region's open runs and the state's epoch together; level-triggered, idempotent.

        :param known: the epoch to which the open runs belong; gate and fence hold until it equals the state's epoch.
        :return: whether this turn made them equal; False also if they were equal before.
        """
        is_active = state.active_region == self._region
        is_promoting = is_active and state.phase is Phase.PROMOTING
        if known == state.epoch:
            if is_active:
                self._closer.unclosed = 0
            else:
                # Users create runs in a standby, too, for example through the REST API under a paused DAG. The agent
                # closes those that stay queued; the gate skips those that start.
                self._closer.close(
                    state, known, spared_since=self._spared_since(state, known), queued_for_s=self._queued_for_s
                )
            return False
        if is_active and known is None and not is_promoting:
            return self._start_first_role(state)
        if is_promoting or (not is_active and known is not None):
            self._closer.pause_all(state)
        try:
            # Only the ledger shows a role if the agent ended before its first heartbeat, or if the state table refused
            # the heartbeats.
            begun = self._ledger.call(lambda bookkeeper: bookkeeper.unreconciled_epoch(), None)
            if begun is not None and known is None:
                self._closer.pause_all(state)
            if begun is not None and (known is None or begun > known):
                known = begun
            has_reconciled = self._reconcile_epoch(state, known)
        except LedgerError:
            self._reader.show_ledger_wait(state)  # the notes of held runs name the cause
            # A standby waits without limit: another region resumes only the runs that the ledger has accepted.
            if not is_active or state.phase is Phase.DRAINING or not self._ledger.wait.is_over(state):
                return False
            has_reconciled = self._become_active_without_ledger(state, known)
        else:
            self._ledger.wait.end()
        if has_reconciled:
            log.info("%s has reconciled its open runs with epoch %d (before: %s)", self._region, state.epoch, known)
        return has_reconciled

    def _start_first_role(self, state: DRState) -> bool:
        """
        Return whether an active region that has never reconciled its runs may execute; its open runs continue.

        The ledger must accept the role first. Otherwise the region could not publish its runs when it loses the role.
        """
        try:
            self._ledger.begin_role(state)
        except LedgerError:
            self._reader.show_ledger_wait(state)  # the notes of held runs name the cause
            if not self._ledger.wait.is_over(state):
                return False
        self._ledger.wait.end()
        log.info("%s is active (epoch %d): its open runs belong to that epoch and continue.", self._region, state.epoch)
        return True

    def _reconcile_epoch(self, state: DRState, known: int | None) -> bool:
        """
        Publish and close the runs that began in an earlier epoch; in the active region, then start the role.

        :return: whether all of it is done.
        :raises LedgerError: the ledger could not be used; every closed run is one that it had accepted.
        """
        is_active = state.active_region == self._region
        if known is None and not is_active and self._may_get_its_first_role_back(state):
            return False
        # If an earlier turn or agent has begun the role, it has closed the runs of earlier epochs. The runs that are
        # open now were queued in this epoch.
        has_begun = is_active and self._ledger.call(lambda bookkeeper: bookkeeper.has_begun(state.epoch), False)
        if has_begun or (is_active and known is None and self._is_first_to_execute()):
            self._closer.unclosed = 0
        else:
            self._ledger.publish_interrupted(state, known)
            self._closer.close(state, known, spared_since=self._spared_since(state, known))
            if self._closer.unclosed:
                # The scheduler has locked these runs; the next turn closes them.
                return False
        if is_active:
            return self._ledger.become_active(state)
        self._ledger.call(lambda bookkeeper: bookkeeper.publish_complete(state.epoch), None)
        # The same as a read that shows the epoch reconciled: runs that open from now on were requested after it.
        self._role.standby = state.epoch, self._role.read_at
        return True

    def _is_first_to_execute(self) -> bool:
        """
        Return whether no region of the set has executed with a ledger. The open runs then continue, as in a first role.

        They are the runs that the gate has held, perhaps since this region lost a role before it could begin it. If the
        agent closed them, no ledger would show whether their intervals have executed.
        """
        return self._ledger.call(lambda bookkeeper: bookkeeper.is_unused(), False)

    def _may_get_its_first_role_back(self, state: DRState) -> bool:
        """
        Return whether this standby lost its first role before it could begin it, and no region may execute yet.

        If the role comes back before the target resumes, the runs that the gate has held continue. If the agent closed
        them, no ledger would show whether their intervals have executed.
        """
        plan = unresumed_plan(state)
        return plan is not None and plan.source == self._region and self._is_first_to_execute()

    def _become_active_without_ledger(self, state: DRState, known: int | None) -> bool:
        """
        Become active without the other region's history, and store a list of the runs that could not be taken over.

        The list is stored before a run is closed: the agent publishes these runs as soon as the ledger accepts them.

        :return: whether every run of an earlier epoch is closed.
        :raises StateError: the list could not be stored; no run was closed, and the next turn retries.
        """
        spared_since = self._spared_since(state, known, with_ledger=False)
        gap = self._unpublished.stored(state)  # an earlier turn or an earlier agent may have stored it
        if gap is None:
            newest = self._db.newest_run()
            bookkeeper = self._ledger.bookkeeper
            gap = Unpublished(
                id=f"{self._region}-epoch-{state.epoch}",
                region=self._region,
                epoch=state.epoch,
                begun_epoch=known if known is not None else 0,
                at=self._clock.now(),
                why=self._ledger.wait.error or "",
                first_id=newest,
                runs=self._closer.open_runs(),
                unread=tuple(bookkeeper.last_read()) if bookkeeper is not None else (),
            )
            self._unpublished.put(gap)
        self._closer.close(state, known, spared_since=spared_since)
        if self._closer.unclosed:
            return False
        # Runs that users requested after the role had come to this region are not closed, and continue.
        still_open = set(self._closer.open_runs())
        gap = replace(gap, runs=tuple(run for run in gap.runs if run not in still_open))
        self._unpublished.complete(gap)
        self._ledger.wait.end()
        log.error(
            "%s becomes active without its ledger, which refused for %.0f s (epoch %d): %s. Runs that another region "
            "finished may execute again. Unfinished runs of another region start when the ledger works again. "
            "mwaa-dr status lists the runs that this region closed, under %s. When you have read the list, run "
            "mwaa-dr check --acknowledge %s.",
            self._region, self._ledger.wait.limit_s, state.epoch, gap.why, gap.id, gap.id,
        )  # fmt: skip
        return True

    def _spared_since(self, state: DRState, known: int | None, *, with_ledger: bool = True) -> datetime | None:
        """
        Return the time after which the agent closes no run, because a user may have requested it for the new role.

        This is the time of the last read that showed a standby. A later run continues, or the gate decides on it
        again. None: the agent closes runs of any time. It publishes them, and another region resumes them.

        :param with_ledger: also read in the ledger whether the region itself had the earlier role.
        :raises LedgerError: the ledger could not be used.
        """
        is_active = state.active_region == self._region
        if not is_active and (known is None or known != state.epoch):
            return None
        if self._role.standby is not None and self._role.standby[0] == known:
            return self._role.standby[1]
        if not is_active:
            return None
        # This agent started after the role had come, so only earlier agents' heartbeats can answer this.
        if (
            known is not None
            and with_ledger
            and self._ledger.call(lambda bookkeeper: bookkeeper.has_begun(known), True)
        ):
            return None
        reads = [agent.standby_as_of for agent in self._store.agents(self._region) if agent.reconciled_epoch == known]
        at = max((at for at in reads if at is not None), default=None)
        if at is None and known is None:
            # No agent has read that the region is a standby. A run that was queued after the first read of the new
            # role belongs to this role. The heartbeat keeps the time for the next agent.
            at = self._role.active[1]
            self._role.standby = None, at
        return at
