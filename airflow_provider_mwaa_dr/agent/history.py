"""Copying the history: the active site exports, a standby imports. Both only in a steady phase, between two turns."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.gate import Role, View, role_of
from airflow_provider_mwaa_dr.core.history.database import HistoryDb, Imported, RowIds, Sweep
from airflow_provider_mwaa_dr.core.history.exporting import Exporter
from airflow_provider_mwaa_dr.core.history.importing import Importer
from airflow_provider_mwaa_dr.core.history.pages import HistoryRun
from airflow_provider_mwaa_dr.core.history.store import HistoryStore
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import Clock, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.core.translation import Era
from airflow_provider_mwaa_dr.exceptions import StaleLedgerError, StateAccessError, StateError, TableNotFoundError

log = get_logger(__name__)

_IDLE_S = 3.0
"""Time between two looks for new history, if the last one found none."""
_RETRY_S = 30.0
_REFUSED_RETRY_S = 600.0
"""Time until the agent tries again what its permissions do not allow."""
_MOST_SHOWN = 10
_ERROR_CHARS = 300


class LedgerView(Protocol):
    """What the history reads of the ledger; see :class:`.Bookkeeper`."""

    @property
    def unfinished(self) -> Collection[RunKey] | None:
        """The runs that the site's own ledger lists as unfinished; None if it is not read yet."""

    def last_successes(self, dag_ids: Collection[str]) -> Sequence[LedgerRun]:
        """Return the last successes of DAGs in the ledgers of other sites."""


class HistoryKeeper:
    """
    Copies the history for the leading agent of a site. Each call of :meth:`step` is short, and never raises.

    :param guard: is entered around each use of the database, so that the scheduler does not fork meanwhile. It is not
        entered around requests to the table.
    :ivar error: why the history is not copied; None if it is, or if the site has nothing to copy.
    """

    def __init__(
        self,
        store: HistoryStore,
        db: HistoryDb,
        clock: Clock,
        *,
        config: DRConfig,
        states: StateStore,
        guard: AbstractContextManager[object],
        era: Era | None,
    ) -> None:
        guarded = _GuardedDb(db, guard)
        self._clock = clock
        self._site = config.region
        self._states = states
        self._peers: Collection[str] = ()
        self._ledger: LedgerView | None = None
        self._exporter = Exporter(store, guarded, clock, site=config.region, days=config.history_days)
        self._importer = Importer(
            store,
            guarded,
            clock,
            site=config.region,
            peers=lambda: self._peers,
            era=era,
            successes=self._successes,
            is_eventual=config.eventual_mode is not None,
        )
        self._steps: Iterator[None] | None = None
        self._epoch: int | None = None
        self._next_at = float("-inf")
        self._error: LogOnChange[str | None] = LogOnChange(None)

    @property
    def error(self) -> str | None:
        """Why the history is not copied; None if it is."""
        return self._error.value

    @property
    def texts(self) -> tuple[str, ...]:
        """What users should know about the history: what was copied, and which runs were not imported and why."""
        if self._steps is None and not self._importer.imported:
            if not self._exporter.exported:
                return ()
            older = "" if self._exporter.is_complete else "; older ones follow"
            return (f"runs exported since this scheduler started: {self._exporter.exported}{older}",)
        waiting = f"; {self._importer.waiting} wait for a later run of their DAG" if self._importer.waiting else ""
        kept = self._importer.kept
        return (
            f"runs imported since this scheduler started: {self._importer.imported}{waiting}",
            *(f"not imported: {text}" for text in kept[-_MOST_SHOWN:]),
        )

    def step(
        self,
        view: View | None,
        *,
        peers: Collection[str],
        is_leading: bool,
        ledger: LedgerView | None,
    ) -> None:
        """
        Copy some runs, if this site may do it now.

        :param view: the last read of the state.
        :param peers: the other sites.
        :param is_leading: whether this agent leads the site.
        :param ledger: None if the site keeps none; it then copies no history.
        """
        state = view.state if view is not None else None
        role = role_of(view, self._site)
        if (
            view is None
            or state is None
            or not is_leading
            or ledger is None
            or role is Role.UNKNOWN
            or view.problem is not None
            or state.phase is not Phase.STEADY
            or view.reconciled_epoch != state.epoch
        ):
            self._stop()
            return
        if self._epoch != state.epoch:
            self._stop()
            self._epoch = state.epoch
        if self._clock.monotonic() < self._next_at:
            return
        self._peers, self._ledger = peers, ledger
        try:
            has_more = self._export(state, ledger) if role is Role.ACTIVE else self._import()
        except Exception as error:  # the history must not disturb anything else
            self._stop()
            self._note(error)
        else:
            self._next_at = self._clock.monotonic() + (0.0 if has_more else _IDLE_S)
            self._note(None)

    def _export(self, state: DRState, ledger: LedgerView) -> bool:
        if ledger.unfinished is None:
            return False  # the site's own ledger is not read yet

        def may_write() -> bool:
            now = self._states.observe(self._site).state
            return (
                now is not None
                and now.active_region == self._site
                and now.epoch == state.epoch
                and now.phase is Phase.STEADY
            )

        return self._exporter.step(state.epoch, may_write=may_write, unfinished=lambda: ledger.unfinished or ())

    def _import(self) -> bool:
        if self._steps is None:
            self._steps = self._importer.steps()
        if next(self._steps, self) is self:
            self._steps = None
            return False
        return True

    def _successes(self, dag_ids: Collection[str]) -> Sequence[LedgerRun]:
        return () if self._ledger is None else self._ledger.last_successes(dag_ids)

    def _stop(self) -> None:
        """Stop where it is: another agent, or another role, may continue."""
        if self._epoch is None:
            return
        self._steps, self._epoch = None, None
        self._exporter.forget()
        self._importer.forget()

    def _note(self, error: Exception | None) -> None:
        text = None if error is None else f"{type(error).__name__}: {error}".splitlines()[0][:_ERROR_CHARS]
        if error is not None:
            is_refused = isinstance(error, (StateAccessError, TableNotFoundError))
            is_stale = isinstance(error, StaleLedgerError)
            wait_s = _IDLE_S if is_stale else (_REFUSED_RETRY_S if is_refused else _RETRY_S)
            self._next_at = self._clock.monotonic() + wait_s
        if self._error.changes_to(text) and error is not None:
            log.warning(
                "The history of %s is not copied: %s. Runs, roles and the ledger do not depend on it.",
                self._site,
                error,
                exc_info=None if isinstance(error, StateError) else error,
            )


class _GuardedDb:
    """A :class:`.HistoryDb` whose calls are made inside a guard."""

    def __init__(self, db: HistoryDb, guard: AbstractContextManager[object]) -> None:
        self._db = db
        self._guard = guard

    def history_ids(self, *, above: int | None) -> RowIds:
        with self._guard:
            return self._db.history_ids(above=above)

    def ended_history(self, ids: Collection[int]) -> Sweep:
        with self._guard:
            return self._db.ended_history(ids)

    def sweep_history(self, *, above: int, up_to: int, since: datetime, limit: int) -> Sweep:
        with self._guard:
            return self._db.sweep_history(above=above, up_to=up_to, since=since, limit=limit)

    def import_history(
        self, runs: Sequence[HistoryRun], notes: Mapping[RunKey, str], successes: Sequence[LedgerRun]
    ) -> Imported:
        with self._guard:
            return self._db.import_history(runs, notes, successes)
