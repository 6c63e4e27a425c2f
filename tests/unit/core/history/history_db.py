"""A metadata database in memory, as the history uses it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from airflow_provider_mwaa_dr.core.history.database import Imported, RowIds, Sweep
from airflow_provider_mwaa_dr.core.history.pages import HistoryRun, HistoryTask
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey, RunStatus

AT = datetime(2026, 10, 1, tzinfo=timezone.utc)


def run(number: int, *, ended_at: datetime = AT, tasks: int = 1, state: str = "success", dag: str = "d") -> HistoryRun:
    """A run that has ended."""
    ledger_run = LedgerRun(
        dag_id=dag, run_id=f"r{number}", run_type="scheduled", status=RunStatus.SUCCESS, epoch=0,
        logical_date=AT + timedelta(hours=number), ended_at=ended_at,
    )  # fmt: skip
    return HistoryRun(
        run=ledger_run,
        tasks=tuple(HistoryTask(task_id=f"t{each}", map_index=-1, state=state) for each in range(tasks)),
        row_id=number,
    )


@dataclass
class FakeHistoryDb:
    """
    A :class:`.HistoryDb`.

    :ivar open: ids of open runs.
    :ivar ended: the runs that have ended, by id.
    :ivar foreign: ids of ended runs that did not end by themselves in this site.
    :ivar waiting: keys of runs that an import may not write yet.
    :ivar kept: keys of runs of this site, with the reason why they stay.
    :ivar written: what was imported, by key; each part in order.
    :ivar most: how many runs fit one answer.
    :ivar batches: the number of runs in each transaction.
    """

    open: set[int] = field(default_factory=set)
    ended: dict[int, HistoryRun] = field(default_factory=dict)
    foreign: set[int] = field(default_factory=set)
    waiting: set[RunKey] = field(default_factory=set)
    kept: dict[RunKey, str] = field(default_factory=dict)
    written: dict[RunKey, HistoryRun] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    notes: dict[RunKey, str] = field(default_factory=dict)
    error: Exception | None = None
    most: int = 1000

    def end(self, *runs: HistoryRun) -> None:
        for each in runs:
            self.open.discard(each.row_id)
            self.ended[each.row_id] = each

    def begin(self, number: int) -> None:
        self.ended.pop(number, None)
        self.open.add(number)

    def history_ids(self, *, above: int | None) -> RowIds:
        self._fail()
        ended = frozenset() if above is None else frozenset(number for number in self.ended if number > above)
        newest = max([0, *self.open, *self.ended])
        return RowIds(newest=newest, open=frozenset(self.open), ended=ended)

    def ended_history(self, ids: Collection[int]) -> Sweep:
        self._fail()
        first = sorted(ids)[: self.most]
        found = [self.ended[each] for each in first if each in self.ended and each not in self.foreign]
        return Sweep(up_to=first[-1], runs=tuple(found))

    def sweep_history(self, *, above: int, up_to: int, since: datetime, limit: int) -> Sweep:
        self._fail()
        found = [
            each
            for number, each in sorted(self.ended.items())
            if above < number <= up_to and number not in self.foreign and (each.run.ended_at or AT) >= since
        ][:limit]
        return Sweep(up_to=found[-1].row_id if len(found) == limit else up_to, runs=tuple(found))

    def import_history(
        self, runs: Sequence[HistoryRun], notes: Mapping[RunKey, str], successes: Sequence[LedgerRun]
    ) -> Imported:
        self._fail()
        self.batches.append(len(runs))
        self.notes |= notes
        found = Imported()
        for each in runs:
            if each.key in self.kept:
                found.kept[each.key] = self.kept[each.key]
            elif each.key in self.waiting:
                found.waiting.add(each.key)
            elif each.part == 0:
                self.written[each.key] = each
                found.written.add(each.key)
            else:
                known = self.written[each.key]
                self.written[each.key] = replace(known, tasks=known.tasks + each.tasks)
        return found

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error
