"""The outcome of each run, as bars over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum


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
