"""Following the ledgers of the other regions."""

from __future__ import annotations

from collections.abc import Callable, Collection

from airflow_provider_mwaa_dr.core.bookkeeping.peer_runs import LedgerReader
from airflow_provider_mwaa_dr.core.bookkeeping.replay import LogReplay
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import Gap, LogEntry, RegionLedger, RunKey
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.timer import Timer
from airflow_provider_mwaa_dr.exceptions import UnreadableCheckpointError, UnreadableItemError

log = get_logger(__name__)

_GAP_EVERY_S = 30.0
"""Time between two reads of the checkpoint of a region whose log has an entry that cannot be read."""
_MOST_LISTED = 20
"""The most elements of a list in a heartbeat."""
_LIVES_EVERY_S = 60.0
"""Time between two checks whether a ledger began another life."""


class PeerLedgers:
    """
    The ledgers of the other regions, as far as this region's agent has read them.

    :ivar ledgers: by region.
    :ivar unread: regions whose ledger has not been read yet.
    :ivar missing: by region, why an entry is missing in this copy of the table, although it has later ones.
    :ivar to_adopt: DAGs for which a ledger has news since this region adopted their last runs.

    :param regions: returns the regions of the set; called repeatedly.
    """

    def __init__(
        self,
        runs: LedgerReader,
        clock: Clock,
        replay: LogReplay,
        *,
        region: str,
        regions: Callable[[], Collection[str]],
    ) -> None:
        self._runs = runs
        self._clock = clock
        self._replay = replay
        self._region = region
        self._regions = regions
        self._lives = Timer(clock, _LIVES_EVERY_S, is_due=False)
        self._next_gap_read_at: dict[str, float] = {}
        self.ledgers: dict[str, RegionLedger] = {}
        self.unread: set[str] = set()
        self.missing: dict[str, str] = {}
        self.to_adopt: set[str] = set()

    def follow(self, *, is_thorough: bool = False) -> None:
        """
        Read what the other regions have published since the last call: one query each if they published nothing.

        :param is_thorough: also check whether a ledger has begun another life; otherwise once a minute.
        :raises UnreadableItemError: an item of one region cannot be read, or was not replicated yet. The ledgers of the
            other regions were read.
        """
        peers = [region for region in self._regions() if region != self._region]
        self.unread = {region for region in peers if region not in self.ledgers}
        self.missing = {region: why for region, why in self.missing.items() if region in peers}
        if self._lives.is_due:
            is_thorough = True
            self._lives.restart()
        failures = [error for region in peers if (error := self._try_to_follow(region, is_thorough)) is not None]
        if failures:
            if is_thorough:
                self._lives.make_due()
            raise failures[0]

    def may_have(self, key: RunKey) -> bool:
        """Whether the ledger of another region has the run, or was not read yet."""
        return any(key in ledger.runs for ledger in self.ledgers.values()) or bool(self.unread)

    def epoch_of(self, region: str) -> int | None:
        """Return the last epoch in which *region* published as the active region, as far as its ledger was read."""
        ledger = self.ledgers.get(region)
        return None if ledger is None else ledger.epoch

    def has_read_final(self, region: str, plan_id: str) -> bool:
        """Whether this agent has read *region*'s final ledger entry for the plan *plan_id*."""
        ledger = self.ledgers.get(region)
        return ledger is not None and ledger.final_plan_id == plan_id

    def last_read(self) -> list[str]:
        """Return a sentence for each other region: up to which entry its ledger was read. Sends no request."""
        found = []
        for region, ledger in sorted(self.ledgers.items()):
            unfinished = sorted(" ".join(key) for key, run in ledger.runs.items() if run.is_unfinished)
            shown = ", ".join(unfinished[:_MOST_LISTED]) + (", ..." if len(unfinished) > _MOST_LISTED else "")
            found.append(
                f"{region}: read up to entry {ledger.number} (epoch {ledger.epoch}); unfinished up to this entry: "
                + (f"{len(unfinished)} runs: {shown}" if unfinished else "no run")
            )
        return found or ["the ledger of no other region has been read since this scheduler started"]

    def _try_to_follow(self, region: str, is_thorough: bool) -> UnreadableItemError | None:
        try:
            self._follow(region, is_thorough=is_thorough)
        except UnreadableItemError as error:
            return error
        self.unread.discard(region)
        return None

    def _follow(self, region: str, *, is_thorough: bool) -> None:
        ledger = self.ledgers.get(region)
        if ledger is None:
            ledger = self._checkpoint_of(region)
            self.to_adopt |= set(ledger.heads)
        elif (
            is_thorough
            and (saved := self._runs.checkpoint_info(region)) is not None
            and saved.life not in {None, ledger.life}
        ):
            # New entries may have the same numbers as entries that were read.
            log.warning(
                "The ledger of %s has begun another life (%s, before: %s). The agent reads it again.",
                region,
                saved.life,
                ledger.life,
            )
            ledger = self._checkpoint_of(region)
            self.to_adopt |= set(ledger.heads)
        elif ledger.gap is not None and (later := self._checkpoint_after(region, ledger.gap)) is not None:
            ledger = later
            self.to_adopt |= set(ledger.heads)
        while entries := self._runs.log(region, after=ledger.number):
            before = ledger.number
            if entries[0].number == before + 1:
                self.to_adopt |= ledger.apply(entries).heads
            if ledger.number == before:
                # The entries in between have expired, or this copy is not up to date, or the ledger has begun another
                # life. The checkpoint contains them, now or after replication.
                later = self._runs.checkpoint(region)
                if later.number <= before and later.life in {None, ledger.life}:
                    self.ledgers[region], self.missing[region] = ledger, _why_missing(region, before, entries[0])
                    return
                ledger = later
                self.to_adopt |= set(ledger.heads)
        self.ledgers[region] = ledger
        self.missing.pop(region, None)

    def _checkpoint_of(self, region: str) -> RegionLedger:
        """
        Return another region's checkpoint. If it cannot be read, return the result of the region's whole log.

        :raises UnreadableCheckpointError: the checkpoint cannot be read, and the first entries of the log have expired.
        :raises StateUnreachableError: the log is not completely read yet; the next turn continues.
        """
        try:
            return self._runs.checkpoint(region)
        except UnreadableCheckpointError:
            if not self._replay.is_begun(region):
                first = next(iter(self._runs.log(region, after=0)), None)
                if first is None or first.number != 1:
                    raise
        return self._replay.read(region, RegionLedger())

    def _checkpoint_after(self, region: str, gap: Gap) -> RegionLedger | None:
        """Return the region's checkpoint if it contains the entries of *gap*; None if it does not contain them yet."""
        now = self._clock.monotonic()
        if now < self._next_gap_read_at.get(region, now):
            return None
        self._next_gap_read_at[region] = now + _GAP_EVERY_S
        try:
            later = self._runs.checkpoint(region)
        except UnreadableItemError:
            return None
        return later if later.number >= gap.number or later.life not in {None, self.ledgers[region].life} else None


def _why_missing(region: str, number: int, first: LogEntry) -> str:
    if first.number > number + 1:
        return (
            f"entry {number + 1} of the ledger of {region} is missing, but later ones exist: it is not replicated to "
            "this copy of the table yet, or was deleted"
        )
    return (
        f"entry {first.number} of the ledger of {region} belongs to another life of this ledger, and the checkpoint of "
        "that life is missing: it is not replicated to this copy of the table yet, or was deleted"
    )
