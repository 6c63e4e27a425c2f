"""Reads the ledgers of other regions, with run ids as the own version of Airflow knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from airflow_provider_mwaa_dr.core.ledger import CheckpointInfo, Head, LedgerRun, LogEntry, RegionLedger
from airflow_provider_mwaa_dr.core.translation import Era, as_known_in


class LedgerReader(Protocol):
    """The methods of :class:`.ports.RunsStore` that read a ledger."""

    def log(self, region: str, *, after: int) -> Sequence[LogEntry]:
        """See :meth:`.ports.RunsStore.log`."""

    def checkpoint_info(self, region: str) -> CheckpointInfo | None:
        """See :meth:`.ports.RunsStore.checkpoint_info`."""

    def checkpoint(self, region: str) -> RegionLedger:
        """See :meth:`.ports.RunsStore.checkpoint`."""


class PeerRuns:
    """
    Reads ledgers of other regions; see :func:`.translation.as_known_in`.

    :param era: of the own region's Airflow.
    """

    def __init__(self, runs: LedgerReader, era: Era) -> None:
        self._runs = runs
        self._era = era

    def log(self, region: str, *, after: int) -> Sequence[LogEntry]:
        """See :meth:`.ports.RunsStore.log`."""
        return [
            replace(entry, runs=tuple(map(self._known, entry.runs))) if entry.runs else entry
            for entry in self._runs.log(region, after=after)
        ]

    def checkpoint_info(self, region: str) -> CheckpointInfo | None:
        """See :meth:`.ports.RunsStore.checkpoint_info`."""
        return self._runs.checkpoint_info(region)

    def checkpoint(self, region: str) -> RegionLedger:
        """See :meth:`.ports.RunsStore.checkpoint`."""
        ledger = self._runs.checkpoint(region)
        ledger.runs = {run.key: run for run in map(self._known, ledger.runs.values())}
        ledger.heads = {dag_id: self._known_head(head) for dag_id, head in ledger.heads.items()}
        return ledger

    def _known(self, run: LedgerRun) -> LedgerRun:
        return as_known_in(run, self._era)

    def _known_head(self, head: Head) -> Head:
        finished = None if head.finished is None else self._known(head.finished)
        succeeded = tuple(map(self._known, head.succeeded))
        return replace(head, finished=finished, succeeded=succeeded) if finished or succeeded else head
