"""Writes the history of other sites into the database of a standby."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.history.database import HistoryDb, Imported
from airflow_provider_mwaa_dr.core.history.pages import HistoryPage, HistoryRun, ImportCursor, Waiting
from airflow_provider_mwaa_dr.core.history.store import HistoryStore
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.timer import Timer
from airflow_provider_mwaa_dr.core.translation import Era, as_known_in

log = get_logger(__name__)

_ARRIVES_WITHIN = timedelta(minutes=10)
"""The time in which a page reaches this replica of a table with eventual consistency."""
_RUNS = 20
"""The most runs in one transaction."""
_TASKS = 1_000
"""About the most task instances in one transaction."""
MOST_WAITING = 2_000
"""The most runs of a source that wait. If more do, the oldest are given up."""
_MOST_KEPT = 50
_RETRY_S = 10.0
"""Time between two attempts to write the runs that wait."""
_RETRIED = 200
"""The most waiting runs in one attempt."""


@dataclass(slots=True)
class _Source:
    """What the importer knows of another site's history."""

    cursor: ImportCursor
    waiting: dict[RunKey, list[tuple[int, HistoryRun]]] = field(default_factory=dict)
    """By key: the parts of a run that waits, with the numbers of their pages."""
    is_changed: bool = False


class Importer:
    """
    Imports what other sites have exported, while this site is a standby. Not thread-safe.

    :param peers: returns the other sites of the set; called repeatedly.
    :param era: of this site's Airflow; None: the other sites have the same.
    :param successes: returns the last successes of DAGs in the ledger, with run ids as this site's Airflow knows them.
    :param is_eventual: whether a page may arrive after a later one.
    :ivar imported: how many runs this agent has written.
    """

    def __init__(
        self,
        store: HistoryStore,
        db: HistoryDb,
        clock: Clock,
        *,
        site: str,
        peers: Callable[[], Collection[str]],
        successes: Callable[[Collection[str]], Sequence[LedgerRun]],
        era: Era | None = None,
        is_eventual: bool = False,
    ) -> None:
        self._store = store
        self._clock = clock
        self._is_eventual = is_eventual
        self._db = db
        self._site = site
        self._peers = peers
        self._era = era
        self._successes = successes
        self._sources: dict[str, _Source] = {}
        self._retry = Timer(clock, _RETRY_S)
        self.imported = 0

    def forget(self) -> None:
        """Read the cursors again at the next step: another agent may have imported."""
        self._sources.clear()

    @property
    def kept(self) -> tuple[str, ...]:
        """The last runs that were not imported, because this site has a run of its own."""
        return tuple(text for source in self._sources.values() for text in source.cursor.kept)

    @property
    def waiting(self) -> int:
        """How many runs wait until this site has adopted later ones."""
        return sum(len(source.waiting) for source in self._sources.values())

    def steps(self) -> Iterator[None]:
        """
        Import what is in the table; yield before each transaction.

        The caller stops the iteration when the site may not import any more. The next iteration continues where this
        one stopped.
        """
        is_retry = self._retry.is_due
        if is_retry:
            self._retry.restart()
        for name in sorted(set(self._peers()) - {self._site}):
            source = self._sources.get(name) or self._open(name)
            if is_retry and source.waiting:
                yield from self._retry_waiting(name, source)
            while pages := self._arrived(source, self._store.pages(name, after=source.cursor.number)):
                for page in pages:
                    yield from self._read(name, source, page)
                self._save(name, source)
            self._save(name, source)

    def _arrived(self, source: _Source, pages: Sequence[HistoryPage]) -> Sequence[HistoryPage]:
        """Return the first of *pages*, up to one that may be followed by an earlier page on its way."""
        last, now = source.cursor.number, self._clock.now()
        for position, page in enumerate(pages):
            is_gap = last > 0 and page.number > last + 1
            if self._is_eventual and is_gap and now - page.at < _ARRIVES_WITHIN:
                return pages[:position]
            last = page.number
        return pages

    def _open(self, name: str) -> _Source:
        """
        Read the cursor of another site, and write it again: without the permission for this, nothing is imported.

        The cursor would not move, and runs that a user has deleted would come back.
        """
        cursor = self._store.cursor(self._site, name)
        self._store.save_cursor(self._site, name, cursor)
        source = _Source(cursor)
        wanted = {(each.number, each.key) for each in source.cursor.waiting}
        for number in sorted({number for number, _ in wanted}):
            page = self._store.page(name, number)
            for run in () if page is None else page.runs:
                if (number, run.key) in wanted:
                    source.waiting.setdefault(self._known(run).key, []).append((number, run))
        self._sources[name] = source
        return source

    def _read(self, name: str, source: _Source, page: HistoryPage) -> Iterator[None]:
        if page.unreadable is not None:
            log.warning("A page of the history of %s cannot be read, and is left out: %s", name, page.unreadable)
        for batch in _batches(page.runs):
            yield
            self._write(name, source, [(page.number, run) for run in batch])
        source.cursor = replace(source.cursor, number=page.number)
        source.is_changed = True

    def _retry_waiting(self, name: str, source: _Source) -> Iterator[None]:
        first = list(source.waiting)[:_RETRIED]
        again = [each for key in first for each in source.waiting.pop(key)]
        numbers = {id(run): number for number, run in again}
        batches = list(_batches([run for _, run in again]))
        try:
            while batches:
                yield
                batch = [(numbers[id(run)], run) for run in batches[0]]
                self._write(name, source, batch)
                batches.pop(0)
        finally:
            # The caller has stopped, or the database did not answer.
            for run in (run for batch in batches for run in batch):
                source.waiting.setdefault(self._known(run).key, []).append((numbers[id(run)], run))
        # Those that still wait go to the end, so that every run has its turn.
        source.waiting = {**{key: source.waiting[key] for key in source.waiting if key not in first}, **source.waiting}

    def _write(self, name: str, source: _Source, runs: Sequence[tuple[int, HistoryRun]]) -> None:
        known = [(number, run, self._known(run)) for number, run in runs]
        for _, run, as_known in known:
            if run.part == 0:
                source.waiting.pop(as_known.key, None)  # this generation replaces an earlier one
        # A later part of a run that waits has to wait, too.
        ready = [each for each in known if each[2].part == 0 or each[2].key not in source.waiting]
        notes = {each.key: f"imported: this run was executed in {name}" for _, _, each in ready}
        found = Imported()
        if ready:
            successes = self._successes(sorted({each.run.dag_id for _, _, each in ready}))
            found = self._db.import_history([each for _, _, each in ready], notes, successes)
        for number, run, as_known in known:
            if as_known.key in found.waiting or (run.part and as_known.key in source.waiting):
                source.waiting.setdefault(as_known.key, []).append((number, run))
        self.imported += len(found.written)
        for key, why in found.kept.items():
            log.info("%s %s of %s is not imported: %s", *key, name, why)
        kept = [f"{dag_id} {run_id}: {why}" for (dag_id, run_id), why in found.kept.items()]
        source.is_changed = source.is_changed or bool(found.written or found.kept)
        source.cursor = replace(
            source.cursor,
            imported=source.cursor.imported + len(found.written),
            kept=tuple(dict.fromkeys([*source.cursor.kept, *kept]))[-_MOST_KEPT:],
        )

    def _save(self, name: str, source: _Source) -> None:
        oldest = sorted(source.waiting, key=lambda key: source.waiting[key][0][0])
        if given_up := oldest[: max(0, len(oldest) - MOST_WAITING)]:
            for key in given_up:
                del source.waiting[key]
            log.warning(
                "%d runs of %s are not imported: more than %d wait for a later run of their DAG. The first: %s %s",
                len(given_up),
                name,
                MOST_WAITING,
                *given_up[0],
            )
        waiting = tuple(
            sorted(
                {
                    Waiting(number=number, dag_id=run.run.dag_id, run_id=run.run.run_id)
                    for runs in source.waiting.values()
                    for number, run in runs
                },
                key=lambda each: (each.number, each.key),
            )
        )
        if source.is_changed or waiting != source.cursor.waiting:
            source.cursor = replace(source.cursor, waiting=waiting)
            self._store.save_cursor(self._site, name, source.cursor)
            source.is_changed = False

    def _known(self, run: HistoryRun) -> HistoryRun:
        return run if self._era is None else replace(run, run=as_known_in(run.run, self._era))


def _batches(runs: Sequence[HistoryRun]) -> Iterator[list[HistoryRun]]:
    """Yield runs in batches that fit one short transaction. A batch has one part of a run at most."""
    batch: list[HistoryRun] = []
    for run in runs:
        tasks = sum(len(each.tasks) for each in batch) + len(run.tasks)
        if batch and (len(batch) >= _RUNS or tasks > _TASKS or any(each.key == run.key for each in batch)):
            yield batch
            batch = []
        batch.append(run)
    if batch:
        yield batch
