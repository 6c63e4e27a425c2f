"""
Compare the lines that task bodies wrote with the runs that a single, restarted Airflow would have executed.

Pure functions. These runs are expected: for a DAG with catchup, every interval between the first and the last one that
ran in any region; for a DAG without catchup, the runs that an active region created; and each manual run that an
Airflow accepted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from airflow_provider_mwaa_dr.core.ledger import ORIGIN, LogEntry, RunStatus
from airflow_provider_mwaa_dr.sandbox.drill.report import Line

Run = tuple[str, str]
"""DAG id and run id. For a run that no Airflow created, the second part is the end of the interval as text."""


Alone = tuple[str, datetime, datetime]
"""A region that was cut off, with the start and the end of that time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """
    The numbers of a drill.

    :param expected: runs that a single Airflow would have executed.
    :param executed: runs whose last task body ran.
    :param lost: expected runs that did not execute, as text.
    :param repeated: runs that executed more than once, with the reason that allows it; empty without such a reason.
    :param unreported: manual runs that only the lost region knew when the role moved.
    :param lost_at: the end of the interval of lost runs, where it is known.
    """

    expected: int
    executed: int
    lost: Sequence[str]
    repeated: Mapping[str, str]
    unreported: int
    lost_at: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def figures(self) -> Mapping[str, int]:
        """The numbers as ``report.json`` has them."""
        return {
            "expected": self.expected,
            "executed": self.executed,
            "lost": len(self.lost),
            "duplicated": len(self.repeated),
            "unreported": self.unreported,
        }


REPLICATED_WITHIN = timedelta(seconds=10)
"""A write to one copy of a table is in the other copy within this time, also on a busy machine."""


def count(
    lines: Sequence[Line],
    *,
    every: Mapping[str, timedelta],
    without_catchup: Collection[str] = (),
    accepted: Collection[Run] = (),
    ledgers: Mapping[str, Sequence[LogEntry]] | None = None,
    moves: Sequence[tuple[datetime, str]] = (),
    unreported: int = 0,
    since: datetime | None = None,
    alone: Sequence[Alone] = (),
) -> Count:
    """
    Count runs.

    :param lines: written by task bodies; a run has executed when its last body ran (``is_end``).
    :param every: length of the intervals of each DAG with catchup.
    :param without_catchup: DAGs with a schedule and without catchup.
    :param accepted: manual runs that an Airflow accepted.
    :param ledgers: entries of the ledger, by region.
    :param moves: when each region became active, oldest first.
    :param since: intervals that ended earlier are ignored.
    :param alone: regions that were cut off with their own copy of the state table and continued, with the times.
    """
    lines = [line for line in lines if not line.is_scheduled or _counts(line.interval_end, since)]
    ledgers = ledgers or {}
    ends: dict[Run, list[Line]] = defaultdict(list)
    for line in lines:
        if line.is_end and (line.is_scheduled or (line.dag_id, line.run_id) in accepted):
            ends[line.dag_id, _own_id(line.run_id)].append(line)
    missing = _missing_intervals(lines, every)
    created = {
        (run.dag_id, _own_id(run.run_id)): run.data_interval_end
        for entries in ledgers.values()
        for entry in entries
        for run in entry.runs
        if run.run_type == "scheduled" and run.dag_id in without_catchup and run.status is RunStatus.OPEN
        if _counts(run.data_interval_end, since)
    }
    lost = missing.keys() | ((created.keys() | set(accepted)) - ends.keys())
    interval_ends = {run: at for run, at in {**created, **missing}.items() if at is not None}
    return Count(
        expected=len(ends) + len(lost),
        executed=len(ends),
        lost=sorted(" ".join(run) for run in lost),
        repeated={
            " ".join(run): _reason(run, found, ledgers, moves, alone) for run, found in ends.items() if len(found) > 1
        },
        unreported=unreported,
        lost_at={" ".join(run): interval_ends[run] for run in lost if run in interval_ends},
    )


def _own_id(run_id: str) -> str:
    """Return the id that a run was created with. The schedules of the load have the same ids in all versions."""
    return run_id.partition(ORIGIN)[0]


def _counts(end: datetime | None, since: datetime | None) -> bool:
    return since is None or end is None or end >= since


def _missing_intervals(lines: Sequence[Line], every: Mapping[str, timedelta]) -> dict[Run, datetime]:
    missing: dict[Run, datetime] = {}
    for dag_id, distance in every.items():
        ran = {line.interval_end for line in lines if line.dag_id == dag_id and line.is_scheduled and line.is_end}
        known = sorted(end for end in ran if end is not None)
        at = known[0] if known else None
        while at is not None and at < known[-1]:
            if at not in ran:
                missing[dag_id, f"interval {at:%H:%M:%S}"] = at
            at += distance
    return missing


def _reason(
    run: Run,
    found: Sequence[Line],
    ledgers: Mapping[str, Sequence[LogEntry]],
    moves: Sequence[tuple[datetime, str]],
    alone: Sequence[Alone],
) -> str:
    """Return the reason that allowed a run to execute again; empty when there is none."""
    first, second = sorted(found, key=lambda line: line.at)[:2]
    for region, begin, end in alone:
        if first.region != second.region and any(line.region == region and begin <= line.at <= end for line in found):
            return (
                f"{region} was cut off with its own copy of the state table, and no other region could read its ledger"
            )
    left_at = next((at for at, region in moves if at > first.at and region != first.region), None)
    if first.region == second.region or left_at is None:
        return ""
    # The last writes before a region was cut off may not have reached the other copies of the tables.
    known_up_to = min([left_at, *(begin - REPLICATED_WITHIN for region, begin, _ in alone if region == first.region)])
    for entry in ledgers.get(first.region, ()):
        if entry.at < known_up_to and any(each.key == run and each.has_ended for each in entry.runs):
            return ""
    return f"it ended in {first.region} at {first.at:%H:%M:%S}, which was not yet in the ledger when the role moved"
