"""What the history reads and changes in the metadata database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from airflow_provider_mwaa_dr.core.history.pages import HistoryRun
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RowIds:
    """
    Ids of rows of runs.

    :param newest: the highest id.
    :param open: of the runs that are queued or running.
    :param ended: of the runs above the asked id that have ended.
    """

    newest: int
    open: frozenset[int]
    ended: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """
    A part of the history.

    :param up_to: the rows up to this id were read.
    :param runs: those of them that are exported.
    """

    up_to: int
    runs: tuple[HistoryRun, ...] = ()


@dataclass(slots=True, kw_only=True)
class Imported:
    """
    What became of some runs.

    :ivar written: runs that were written, or whose row had the same content.
    :ivar waiting: runs that may be written later.
    :ivar kept: runs of this site that stay as they are, with the reason.
    """

    written: set[RunKey] = field(default_factory=set)
    waiting: set[RunKey] = field(default_factory=set)
    kept: dict[RunKey, str] = field(default_factory=dict)


class HistoryDb(Protocol):
    """What the history needs from the metadata database; see :class:`plugins.metadata.database.MetadataDb`."""

    def history_ids(self, *, above: int | None) -> RowIds:
        """
        Return ids of rows, without those of exempt DAGs and of imported runs.

        :param above: None: no ended runs.
        """

    def ended_history(self, ids: Collection[int]) -> Sweep:
        """
        Return those of these runs that ended by themselves in this site, with their task instances.

        A run that this site adopted, imported or closed is not among them. If the runs have very many task instances,
        only the first runs, by id, are read.
        """

    def sweep_history(self, *, above: int, up_to: int, since: datetime, limit: int) -> Sweep:
        """Return the first *limit* runs above *above* that ended since *since*, or fewer, as :meth:`ended_history`."""

    def import_history(
        self, runs: Sequence[HistoryRun], notes: Mapping[RunKey, str], successes: Sequence[LedgerRun]
    ) -> Imported:
        """
        Write runs of another site, in one short transaction. Idempotent.

        It changes no DAG, deadline or event, and calls no callback. Ids and dates follow this version of Airflow.

        :param successes: the last successes of the DAGs in the ledger.
        """
