"""
Keeping the region's ledger in each turn, and taking over from the ledgers of other regions.

While the ledger cannot be used, the region closes no run that the ledger has not accepted, and does not become active:
it would repeat runs of another region.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from airflow_provider_mwaa_dr.agent.ledger_wait import LedgerWait
from airflow_provider_mwaa_dr.agent.state_reader import StateReader
from airflow_provider_mwaa_dr.agent.unpublished import UnpublishedRuns
from airflow_provider_mwaa_dr.core.announced_runs import get_announced_runs
from airflow_provider_mwaa_dr.core.bookkeeping import Bookkeeper
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ended_in_standby import add_runs
from airflow_provider_mwaa_dr.core.ledger import RunKey
from airflow_provider_mwaa_dr.core.ports import Clock, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Plan, promoted_plan
from airflow_provider_mwaa_dr.exceptions import (
    StaleLedgerError,
    StateError,
    StateUnreachableError,
    UnreadableItemError,
)

log = get_logger(__name__)

T = TypeVar("T")

_ENTRIES_WAIT_S = 20.0
"""How long a region that becomes active waits until entries of another region's ledger reach its replica."""


class LedgerError(Exception):
    """The ledger did not answer, or refused. Steps that need it wait for the next turn; the other steps continue."""


class LedgerKeeper:
    """
    Uses the region's ledger for the leading agent.

    :ivar has_more: whether there are more runs to adopt than one turn adopts.

    :param bookkeeper: None if no runs table is set.
    :param lead_ends_after_s: an agent that did not lead for so long reads the region's own ledger again.
    """

    def __init__(
        self,
        bookkeeper: Bookkeeper | None,
        store: StateStore,
        clock: Clock,
        *,
        region: str,
        reader: StateReader,
        wait: LedgerWait,
        unpublished: UnpublishedRuns,
        lead_ends_after_s: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._region = region
        self._reader = reader
        self._unpublished = unpublished
        self._lead_ends_after_s = lead_ends_after_s
        self._led_at: float | None = None
        self._entries_awaited_until: tuple[int, float] | None = None
        self.bookkeeper = bookkeeper
        self.wait = wait
        self.has_more = False

    # The lead.

    @property
    def is_leading(self) -> bool:
        """Whether this agent led the region in its last turn."""
        return self._led_at is not None

    @property
    def is_publishing(self) -> bool:
        """Whether this agent publishes the ends of the region's runs."""
        return self.is_leading and self.bookkeeper is not None

    def lead(self) -> None:
        """Read the region's own ledger again after a time without the lead: another agent may have written it."""
        now = self._clock.monotonic()
        has_led = self._led_at is not None and now - self._led_at <= self._lead_ends_after_s
        if self.bookkeeper is not None and not has_led:
            self.bookkeeper.forget_own_ledger()
        self._led_at = now

    def stop_leading(self) -> None:
        """Forget what only a leading agent reports: another agent leads now."""
        self._led_at = None
        self.has_more = False
        self.wait.forget()

    # Calls.

    def call(self, call: Callable[[Bookkeeper], T], otherwise: T) -> T:
        """
        Return the result of *call*, or *otherwise* if the region has no ledger.

        :raises LedgerError: the ledger did not answer or refused, or another agent of the region wrote first.
        """
        if self.bookkeeper is None:
            return otherwise
        try:
            try:
                answer = call(self.bookkeeper)
            except StaleLedgerError:
                # Another agent of the region has written. The bookkeeper reads its entries now.
                answer = call(self.bookkeeper)
        except StateError as error:
            self.wait.note(str(error))
            raise LedgerError(str(error)) from error
        self.wait.note(None)
        return answer

    def keep(self, state: DRState) -> None:
        """Read other regions' ledgers, publish, adopt and resume; an error of the ledger does not end the turn."""
        self.has_more = False

        def keep(bookkeeper: Bookkeeper) -> None:
            unread: UnreadableItemError | None = None
            try:
                bookkeeper.follow()
            except UnreadableItemError as error:
                unread = error
            if state.active_region != self._region:
                if unread is not None:
                    raise unread
                bookkeeper.apply_outcomes()
                self.has_more = bookkeeper.adopt()
                return
            if state.phase is not Phase.PROMOTING:
                self._begin_role(bookkeeper, state)
            has_published = self._publish_changes(bookkeeper, state)
            if unread is not None:
                # Publishing does not need another region's ledger; the steps below do.
                raise unread
            bookkeeper.apply_outcomes()
            if has_published and state.phase is not Phase.DRAINING:
                self._reader.confirm(state)
                # Usually done before the role began; not if the region began it without its ledger, or while a plan was
                # moving the role away again.
                self._resolve(bookkeeper, state)
                bookkeeper.resume(epoch=state.epoch)
                bookkeeper.make_room()

        with contextlib.suppress(LedgerError):
            self.call(keep, None)

    # Changes of the role.

    def begin_role(self, state: DRState) -> None:
        """
        Publish that the region executes under the state's epoch.

        :raises LedgerError: the ledger has not accepted it.
        """
        self.call(lambda bookkeeper: self._begin_role(bookkeeper, state), None)

    def publish_interrupted(self, state: DRState, known: int | None) -> None:
        """
        Publish in the ledger which runs this agent is about to close, so that a region resumes them.

        :param known: the epoch that the runs belong to.
        :raises LedgerError: the ledger has not accepted it.
        """
        if known is not None:
            self.call(
                lambda bookkeeper: bookkeeper.interrupt(state, epoch=known, read_stopped=self._stopped_if_readable),
                None,
            )

    def become_active(self, state: DRState) -> bool:
        """
        Adopt history, then resume unfinished runs, of the other regions; return whether all of it is done.

        :raises LedgerError: the ledger could not be used.
        """

        def become_active(bookkeeper: Bookkeeper) -> bool:
            bookkeeper.follow(is_thorough=True)
            if self._awaits_entries(bookkeeper, state) or bookkeeper.adopt():
                return False
            # Before the role begins: it publishes every ended run that is inserted later as one of its own.
            bookkeeper.apply_outcomes()
            self._reader.confirm(state)
            if self._resolve(bookkeeper, state):
                return False
            bookkeeper.begin(state.epoch)
            # An earlier agent may have begun the role. Publish what executed since, so that it is not resumed.
            if not self._publish_changes(bookkeeper, state):
                return False
            bookkeeper.apply_outcomes()
            self._reader.confirm(state)
            # A region that is being drained starts no run, so it resumes none.
            return state.phase is Phase.DRAINING or not bookkeeper.resume(epoch=state.epoch)

        return self.call(become_active, True)

    def _resolve(self, bookkeeper: Bookkeeper, state: DRState) -> bool:
        def list_runs(runs: Sequence[str]) -> None:
            add_runs(self._store, runs, region=self._region, epoch=state.epoch, at=self._clock.now())

        return bookkeeper.resolve(epoch=state.epoch, list_runs=list_runs)

    def _begin_role(self, bookkeeper: Bookkeeper, state: DRState) -> None:
        """Begin the region's role in the ledger; first publish the runs that were closed while the ledger refused."""
        if bookkeeper.has_begun(state.epoch):
            return
        closed = self._unpublished.of(state)
        if closed is None:
            bookkeeper.begin(state.epoch)
            return
        bookkeeper.publish_closed([_to_key(run) for run in closed.runs], epoch=closed.begun_epoch, closed_at=closed.at)
        bookkeeper.begin(state.epoch, first_id=closed.first_id)

    def _awaits_entries(self, bookkeeper: Bookkeeper, state: DRState) -> bool:
        """Whether the region waits until another region's entries reach its replica; for 20 seconds at most."""
        awaited = list(bookkeeper.missing)
        plan = promoted_plan(state)
        if plan is not None and self._awaits_final(bookkeeper, state, plan):
            awaited.append(f"the final ledger entry of {plan.source} for plan {plan.id} has not arrived")
        if not awaited:
            return False
        now = self._clock.monotonic()
        if self._entries_awaited_until is None or self._entries_awaited_until[0] != state.epoch:
            self._entries_awaited_until = state.epoch, now + _ENTRIES_WAIT_S
        if now < self._entries_awaited_until[1]:
            return True
        log.warning(
            "%s becomes active without these ledger entries, so their runs may run again, or wait: %s",
            self._region,
            "; ".join(awaited),
        )
        return False

    def _awaits_final(self, bookkeeper: Bookkeeper, state: DRState, plan: Plan) -> bool:
        """Whether the source has to publish a final entry for the plan, and this region has not read it."""
        has_to = not plan.is_forced and plan.drained and bookkeeper.epoch_of(plan.source) == state.epoch - 1
        return has_to and not bookkeeper.has_read_final(plan.source, plan.id)

    def _publish_changes(self, bookkeeper: Bookkeeper, state: DRState) -> bool:
        return bookkeeper.publish(
            state,
            read_state=lambda: self._store.observe(self._region).state,
            read_stopped=self._read_stopped,
        )

    def _read_stopped(self, set_id: str) -> tuple[str, ...]:
        announced = get_announced_runs(self._store, set_id)
        if announced is None:
            raise StateUnreachableError(
                f"The set {set_id} of stopped runs has not arrived.",
                advice="The agent reads it again in its next turn.",
            )
        return announced

    def _stopped_if_readable(self, set_id: str) -> tuple[str, ...]:
        """Return the runs of a set of stopped runs; empty if the set has expired, or cannot be read."""
        try:
            announced = get_announced_runs(self._store, set_id)
        except UnreadableItemError as error:
            log.warning("%s Runs of this set that the ledger does not list are not published.", error.message)
            return ()
        return announced or ()


def _to_key(run: str) -> RunKey:
    """Return the key of a run that is listed as ``DAG_ID RUN_ID``; a DAG id contains no space."""
    dag_id, _, run_id = run.partition(" ")
    return dag_id, run_id
