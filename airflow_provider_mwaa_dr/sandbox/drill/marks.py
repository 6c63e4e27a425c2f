"""
Count by marks: which times of each schedule executed, whatever id and logical date a version of Airflow gave the run.

Pure functions of the lines that task bodies wrote. A mark is the time at which a run is due. A run that other runs
requested has their marks: a consumer of events has those of the producers, a child has that of its parent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from airflow_provider_mwaa_dr.sandbox.drill.report import Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """
    The marks of one DAG.

    :param executed: number of marks for which a last task body ran.
    :param lost: marks for which none ran.
    :param twice: the lines of the last task bodies, by mark, where more than one ran.
    """

    executed: int
    lost: Sequence[datetime] = ()
    twice: Mapping[datetime, Sequence[Line]] = field(default_factory=dict)

    @property
    def expected(self) -> int:
        """Return the number of marks that one Airflow would have executed."""
        return self.executed + len(self.lost)


def count_marks(
    lines: Sequence[Line],
    *,
    every: Mapping[str, timedelta],
    since: Mapping[str, datetime],
    continuous: Collection[str],
    requested_by: Mapping[str, str],
    until: datetime,
) -> Mapping[str, Marks]:
    """
    Return the marks of each DAG, up to *until*.

    :param every: the distance of two marks, by DAG. Each mark between the first and the last executed one is expected.
    :param since: the first expected mark of a DAG; without it, the first executed one.
    :param continuous: DAGs whose next run begins where the last one ended. A gap between two runs is a lost mark.
    :param requested_by: by DAG, the DAG whose runs request its runs. Each executed mark of that DAG is expected.
    """
    ends: dict[str, dict[datetime, list[Line]]] = {
        dag_id: defaultdict(list) for dag_id in (*every, *continuous, *requested_by)
    }
    for line in lines:
        if line.is_end and line.dag_id in ends:
            for mark in line.marks:
                if mark <= until:
                    ends[line.dag_id][mark].append(line)
    expected: dict[str, Collection[datetime]] = {
        **{dag_id: list(_marks(ends[dag_id], distance, since.get(dag_id))) for dag_id, distance in every.items()},
        **{dag_id: _gaps(ends[dag_id]) for dag_id in continuous},
        **{dag_id: ends[parent] for dag_id, parent in requested_by.items()},
    }
    return {
        dag_id: Marks(
            executed=len(found),
            lost=tuple(sorted(set(expected[dag_id]) - found.keys())),
            twice={mark: some for mark, some in found.items() if len(some) > 1},
        )
        for dag_id, found in ends.items()
    }


def _marks(found: Collection[datetime], distance: timedelta, first: datetime | None) -> Iterator[datetime]:
    if not found:
        return
    at = first or min(found)
    while at <= max(found):
        yield at
        at += distance


def _gaps(found: Mapping[datetime, Sequence[Line]]) -> Sequence[datetime]:
    """Return the starts of the runs that do not begin where the run before ended."""
    chain = sorted((mark, lines[0].interval_start) for mark, lines in found.items())
    return [start for (end, _), (_, start) in pairwise(chain) if start is not None and start != end]


def pauses(lines: Sequence[Line], dag_id: str, moves: Sequence[tuple[datetime, str]]) -> Sequence[float]:
    """
    Return for each move the seconds from the last start in the old region to the first start in the new one.

    :param dag_id: a continuous DAG whose task bodies write a line when they start.
    :param moves: when each region became active, oldest first.
    """
    starts = [line for line in lines if line.dag_id == dag_id and not line.is_end]
    found = []
    for (_, source), (at, target) in pairwise(moves):
        last = max(line.at for line in starts if line.region == source and line.at < at)
        first = min(line.at for line in starts if line.region == target and line.at >= at)
        found.append(round((first - last).total_seconds(), 1))
    return found
