"""What a figure of a failover shows: regions, their roles over time, moves of the role, and runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_mwaa_dr.core.ports import FailoverRecord
from airflow_provider_mwaa_dr.core.reporting.run_outcome import Bar


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """
    A time in which a region was lost.

    :param how: killed, frozen, cut off.
    :param until: when the drill restored it; None if it did not.
    """

    region: str
    how: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """
    The content of a figure.

    :param bars: the runs.
    :param records: the failover, and the failback if there was one, oldest first.
    :param moves: when each region became active; the first one is the start of the figure.
    :param outages: the times in which a region was lost.
    :param marks: other important moments, each with a short text.
    """

    bars: Sequence[Bar]
    records: Sequence[FailoverRecord]
    moves: Sequence[tuple[datetime, str]]
    outages: Sequence[Outage] = ()
    marks: Sequence[tuple[datetime, str]] = ()

    @property
    def regions(self) -> Sequence[str]:
        """The regions; the first one is the region that was active at the start."""
        first = self.records[0]
        return tuple(dict.fromkeys([self.moves[0][1], first.source, first.target]))

    def active_at(self, at: datetime) -> str:
        """Return the region that was active at *at*."""
        return active_at(self.moves, at)


def active_at(moves: Sequence[tuple[datetime, str]], at: datetime) -> str:
    """Return the region that was active at *at*, given when each region became active, oldest first."""
    return [region for since, region in moves if since <= at or since == moves[0][0]][-1]
