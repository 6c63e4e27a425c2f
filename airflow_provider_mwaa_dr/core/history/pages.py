"""
What a site exports: its ended runs with their task instances, in pages.

The pages of a site are numbered, and a page is never written again. If a run ends a second time, because a user cleared
it, a later page has its correction: the number of a page is the generation of all its runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey

PAGE_CHARS = 250_000
"""The most characters of JSON in a page, about. Compressed, a page fits an item of a table."""
PART_TASKS = 1_000
"""The most task instances in one part of a run. A run with more has several parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryTask:
    """
    A task instance of an ended run. The times are those of the site that executed it.

    :param tries: Airflow's ``try_number``.
    :param host: the name of the worker, only as a text; empty if no worker executed the task.
    """

    task_id: str
    map_index: int
    state: str | None
    tries: int = 0
    max_tries: int = 0
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    operator: str | None = None
    pool: str | None = None
    host: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """Task id and map index."""
        return self.task_id, self.map_index


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRun:
    """
    A run that ended by itself in the site that exports it, or a part of one.

    :param run: with the status SUCCESS or FAILED, and without tasks.
    :param note: the text that users wrote.
    :param part: 0 for the first part, which replaces what an importer has of the run. Later parts add task instances.
    :param row_id: of the run in the database of the exporting site. It is not stored.
    """

    run: LedgerRun
    note: str = ""
    tasks: tuple[HistoryTask, ...] = ()
    part: int = 0
    row_id: int = 0

    @property
    def key(self) -> RunKey:
        """DAG id and run id."""
        return self.run.key

    @property
    def chars(self) -> int:
        """About how many characters of JSON it has."""
        texts = sum(len(task.task_id) + len(task.operator or "") + len(task.host) for task in self.tasks)
        return 1_000 + len(self.run.conf or "") + 2 * len(self.note) + texts + 200 * len(self.tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportProgress:
    """
    How far a site has exported its history.

    :param swept_id: of the history from before the first export, the rows up to this id are exported.
    :param sweep_end: the highest id of a row when the export began.
    :param live_at: all runs that ended before this time are exported, except those that the sweep has not reached.
    """

    swept_id: int
    sweep_end: int
    live_at: datetime

    @property
    def is_swept(self) -> bool:
        """Whether the history from before the first export is exported."""
        return self.swept_id >= self.sweep_end


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """
    A page of a site's history.

    :param epoch: of the site when it wrote the page.
    :param progress: after this page.
    :param unreadable: why the page cannot be read; it then has no runs.
    """

    number: int
    at: datetime
    epoch: int
    progress: ExportProgress | None
    runs: tuple[HistoryRun, ...] = ()
    unreadable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A run of a page that the importer could not write yet."""

    number: int
    dag_id: str
    run_id: str

    @property
    def key(self) -> RunKey:
        """DAG id and run id, as the page has them."""
        return self.dag_id, self.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCursor:
    """
    How far a site has imported another site's history.

    The cursor, and not the rows, shows what was imported. So rows that ``airflow db clean`` has deleted stay deleted.

    :param number: of the last page that was read.
    :param waiting: runs of pages up to *number* that are not imported yet.
    :param imported: how many runs were written.
    :param kept: the last runs that were not imported, because this site has a run of its own, ``DAG_ID RUN_ID: WHY``.
    """

    number: int = 0
    waiting: tuple[Waiting, ...] = ()
    imported: int = 0
    kept: tuple[str, ...] = ()


def parts(run: HistoryRun) -> Iterator[HistoryRun]:
    """Yield the parts of a run, with :data:`PART_TASKS` task instances at most."""
    yield replace(run, tasks=run.tasks[:PART_TASKS])
    for part, first in enumerate(range(PART_TASKS, len(run.tasks), PART_TASKS), start=1):
        yield replace(run, tasks=run.tasks[first : first + PART_TASKS], part=part)


def paged(runs: Sequence[HistoryRun]) -> Iterator[tuple[HistoryRun, ...]]:
    """Yield the contents of pages: the runs of one day each, by DAG, and of :data:`PAGE_CHARS` characters at most."""

    def day(run: HistoryRun) -> str:
        return "" if run.run.ended_at is None else run.run.ended_at.date().isoformat()

    for _, of_day in groupby(sorted(runs, key=lambda run: (day(run), run.run.dag_id)), key=day):
        page: list[HistoryRun] = []
        size = 0
        for part in (part for run in of_day for part in parts(run)):
            if page and size + part.chars > PAGE_CHARS:
                yield tuple(page)
                page, size = [], 0
            page.append(part)
            size += part.chars
        if page:
            yield tuple(page)
