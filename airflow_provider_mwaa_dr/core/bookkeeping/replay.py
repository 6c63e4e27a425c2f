"""Reading the whole log of a region."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_mwaa_dr.core.bookkeeping.peer_runs import LedgerReader
from airflow_provider_mwaa_dr.core.ledger import LogEntry, RegionLedger
from airflow_provider_mwaa_dr.exceptions import StateUnreachableError

_REPLAY_PAGES = 10
"""The most pages of a log that one turn reads because the checkpoint cannot be read."""


class LogReplay:
    """
    Reads logs from their beginning, because their checkpoints cannot be read. Several turns may be necessary.
    """

    def __init__(self, runs: LedgerReader) -> None:
        self._runs = runs
        self._replays: dict[str, RegionLedger] = {}

    def is_begun(self, region: str) -> bool:
        """Whether a turn has read a part of the region's log."""
        return region in self._replays

    def read(self, region: str, begin: RegionLedger) -> RegionLedger:
        """
        Return the result of the region's log.

        :param begin: the ledger to which the entries are applied; used only by the first call for a log.
        :raises StateUnreachableError: the log is not completely read yet; the next turn continues.
        """
        replay = self._replays.setdefault(region, begin)
        for _ in range(_REPLAY_PAGES):
            entries = self._runs.log(region, after=replay.number)
            if not entries:
                return self._replays.pop(region)
            apply_all(replay, entries)
        raise StateUnreachableError(
            f"The agent reads the ledger of {region} from its beginning, because its checkpoint cannot be read: "
            f"{replay.number} entries so far.",
            advice="The next turn continues.",
        )


def apply_all(ledger: RegionLedger, entries: Sequence[LogEntry]) -> None:
    """Apply *entries*. Skip entries that are missing before the first of them: they have expired or were deleted."""
    if (first := entries[0].number) > ledger.number + 1:
        ledger.pass_over(first - 1, f"Its entries {ledger.number + 1} to {first - 1} are missing.")
    ledger.apply(entries, any_life=True)
