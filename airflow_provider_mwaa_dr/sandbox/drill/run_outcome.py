"""The outcome of each run of a drill, as bars over time. It comes from the lines of task bodies, not from states."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime

from airflow_provider_mwaa_dr.core.reporting.run_outcome import Bar, RunOutcome
from airflow_provider_mwaa_dr.sandbox.drill.report import Line, Report


def bars(report: Report) -> Sequence[Bar]:
    """Return a bar for each execution of a run, complete or not, for each forced run and for each lost run."""
    forced = {(attempt.region, attempt.run_id) for attempt in report.attempts}
    # With two versions of Airflow, two runs may have one id, and then they have different intervals.
    of_run: dict[tuple[str, str, datetime | None], list[Line]] = defaultdict(list)
    for line in report.lines:
        of_run[line.dag_id, line.run_id, line.interval_end].append(line)
    found: list[Bar] = []
    for execution in _executions(report.lines):
        first, last = execution[0], execution[-1]
        run, all_lines = f"{first.dag_id} {first.run_id}", of_run[first.dag_id, first.run_id, first.interval_end]
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
