"""The outcome of each run of a drill, as bars over time. It comes from the lines of task bodies, not from states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from airflow_provider_mwaa_dr.sandbox.drill.report import Line, Report


class RunOutcome(str, Enum):
    """The outcome of a run. A later value is drawn over an earlier one, so the most important value is the last."""

    ONCE = "once"
    UNFINISHED = "unfinished"
    """Its last task body had not run yet when the drill ended."""
    INTERRUPTED = "interrupted"
    """It started in this region, and did not end in it."""
    WENT_ON = "went-on"
    """Taken over from the other region, where it was interrupted or never started."""
    AGAIN = "again"
    """Executed more than once, with a reason that allows it."""
    TWICE = "twice"
    """Executed more than once, without a valid reason."""
    FORCED = "forced"
    """Forced in a standby, and no task executed."""
    IN_STANDBY = "in-standby"
    """Executed in a standby."""
    LOST = "lost"
    """Expected, and never executed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """
    One or more runs of a DAG with the same outcome, in one region.

    :param begin: time of the first task body of the first run. For a run without a task body: when the drill forced it,
        or its scheduled time.
    :param end: time of the last task body.
    :param due: the scheduled time; None for a manual run.
    :param what: the run's id, and details.
    :param runs: the number of runs.
    """

    region: str
    dag_id: str
    outcome: RunOutcome
    begin: datetime
    end: datetime
    due: datetime | None = None
    what: str = ""
    runs: int = 1


def bars(report: Report) -> Sequence[Bar]:
    """Return a bar for each execution of a run, complete or not, for each forced run and for each lost run."""
    forced = {(attempt.region, attempt.run_id) for attempt in report.attempts}
    of_run: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in report.lines:
        of_run[line.dag_id, line.run_id].append(line)
    found: list[Bar] = []
    for execution in _executions(report.lines):
        first, last = execution[0], execution[-1]
        run, all_lines = f"{first.dag_id} {first.run_id}", of_run[first.dag_id, first.run_id]
        why = ""
        if (first.region, first.run_id) in forced or any(
            line.region != report.active_at(line.at) for line in execution
        ):
            outcome = RunOutcome.IN_STANDBY
        elif run in report.repeated and last.is_end:
            why = report.repeated[run]
            outcome = RunOutcome.AGAIN if why else RunOutcome.TWICE
        elif not last.is_end:
            has_ended = run in report.lost or any(line.is_end for line in all_lines)
            outcome = RunOutcome.INTERRUPTED if has_ended else RunOutcome.UNFINISHED
        elif (first.region, first.dag_id, first.run_id) in report.went_on or any(
            line.at < first.at for line in all_lines
        ):
            outcome = RunOutcome.WENT_ON
        else:
            outcome = RunOutcome.ONCE
        # A run that ends because its region is lost writes no line.
        ends = [outage.since for outage in report.outages if outage.region == first.region and outage.since > last.at]
        epoch = "unknown" if first.epoch is None else str(first.epoch)
        found.append(
            Bar(
                region=first.region, dag_id=first.dag_id, outcome=outcome, begin=first.at,
                end=min(ends, default=last.at) if outcome is RunOutcome.INTERRUPTED else last.at,
                due=first.interval_end if first.is_scheduled else None,
                what=f"{first.run_id}, epoch {epoch}" + (f": {why}" if why else ""),
            )
        )  # fmt: skip
    ran = {(line.region, line.run_id) for line in report.lines}
    found += [
        Bar(
            region=attempt.region,
            dag_id=attempt.dag_id,
            outcome=RunOutcome.FORCED,
            begin=attempt.at,
            end=attempt.at,
            what=attempt.run_id,
        )
        for attempt in report.attempts
        if attempt.at is not None and (attempt.region, attempt.run_id) not in ran
    ]
    for name, at in report.lost.items():
        if at is not None:
            dag_id, _, run = name.partition(" ")
            region = report.active_at(at)
            found.append(Bar(region=region, dag_id=dag_id, outcome=RunOutcome.LOST, begin=at, end=at, what=run))
    return found


def merged(found: Sequence[Bar], *, gap_s: float) -> Sequence[Bar]:
    """
    Return *found* with adjacent bars of the same outcome as one bar, so that thousands of runs remain readable.

    :param gap_s: bars of a DAG in a region become one if the gap between them is at most this long. Bars with different
        outcomes are never merged.
    """
    rows: dict[tuple[str, str, RunOutcome], list[Bar]] = defaultdict(list)
    for bar in sorted(found, key=lambda bar: bar.begin):
        row = rows[bar.region, bar.dag_id, bar.outcome]
        if row and (bar.begin - row[-1].end).total_seconds() <= gap_s:
            last = row[-1]
            scheduled = [due for due in (last.due, bar.due) if due is not None]
            row[-1] = replace(
                last,
                end=max(last.end, bar.end),
                due=min(scheduled, default=None),
                runs=last.runs + bar.runs,
                what="",
            )
        else:
            row.append(bar)
    return [bar for row in rows.values() for bar in row]


def _executions(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """Yield the lines of each execution of a run, from its first to its last task body."""
    open_: dict[tuple[str, str, str], list[Line]] = {}
    for line in sorted(lines, key=lambda line: line.at):
        key = line.region, line.dag_id, line.run_id
        begun = open_.get(key)
        if begun and None not in {begun[0].epoch, line.epoch} and begun[0].epoch != line.epoch:
            # The run was interrupted. After the failback all its tasks ran again.
            yield open_.pop(key)
        open_.setdefault(key, []).append(line)
        if line.is_end:
            yield open_.pop(key)
    yield from open_.values()
