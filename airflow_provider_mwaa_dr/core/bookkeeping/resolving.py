"""
Resolving the ends that this region gave runs as a standby, before it executes again.

As a standby, the region ends every run: failed, and marked as its own (plugins/metadata/own_ends.py). This end must not
remain when the region executes: Airflow's look-backs would take it for a result. So each such run

- gets its result, if a region has published one;
- is queued again, if it is unfinished (resuming.py);
- is deleted if it executed nothing, and listed for users unless the scheduler creates it by itself.

If a task of it began, and no region knows more about it, its row stays as a failure, with a note, and is listed, too:
its task instances and logs are the only trace of that work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.bookkeeping.adoption import note_of_adopted
from airflow_provider_mwaa_dr.core.bookkeeping.database import LedgerDb, RunRow, open_runs
from airflow_provider_mwaa_dr.core.bookkeeping.own_ledger import OwnLedger
from airflow_provider_mwaa_dr.core.bookkeeping.peer_ledgers import PeerLedgers
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import (
    SCHEDULED,
    LedgerRun,
    RegionLedger,
    RunKey,
    history,
    last_successes,
    passed_by,
    results,
    unfinished_runs,
)
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.timer import Timer

log = get_logger(__name__)

_SUCCESSES = 500
"""The most successes that one turn adopts."""
_ROWS = 1000
"""The most runs that one turn resolves, so that the agent's other work does not wait."""
_DOUBT_EVERY_S = 30.0
"""Time between two attempts while a part of the ledger cannot be read."""
_MOST_LOGGED = 20
"""The most runs that a line of the log names."""
_REPEATED = "closed: its date may have executed in"
_KEPT = "failed: it was interrupted, and no region knows how it would have ended"

ListRuns = Callable[[Sequence[str]], None]
"""Records runs for users, as ``DAG_ID RUN_ID``; called before the first of them is deleted."""


class Resolver:
    """Resolves the own ends of one region, once for each role. Idempotent: a new leader begins again."""

    def __init__(self, own: OwnLedger, peers: PeerLedgers, db: LedgerDb, clock: Clock, *, region: str) -> None:
        self._own = own
        self._peers = peers
        self._db = db
        self._region = region
        self._epoch: int | None = None
        self._above = 0
        self._successes: list[LedgerRun] = []
        self._is_done = False
        self._retry = Timer(clock, _DOUBT_EVERY_S)

    def resolve(self, *, epoch: int, list_runs: ListRuns) -> bool:
        """
        Resolve a part of the own ends; return whether more are to be resolved now.

        While a part of the ledger cannot be read, runs that may be in it stay as they are; a later call finds them.
        """
        own = self._own.load()
        if self._epoch != epoch:
            self._epoch, self._is_done = epoch, False
            self._begin(own)
        elif self._is_done or not self._retry.is_due:
            return False
        has_begun = own.epoch == epoch
        if self._successes and not has_begun:
            batch = self._of_others(own, self._successes[:_SUCCESSES])
            if adopted := self._db.adopt(batch, note_of_adopted(self._peers)):
                log.info("Adopted %d runs that may be the previous success of later ones", adopted)
            self._successes = self._successes[_SUCCESSES:]
            if self._successes:
                return True
        if not has_begun and self._end_repeated(own):
            return True
        # Later rows belong to the present role.
        up_to = own.first_id if has_begun else self._db.newest_run()
        rows = self._db.own_ends(above=self._above, up_to=up_to, limit=_ROWS)
        if rows:
            self._resolve(own, rows, list_runs)
            self._above = rows[-1].id
        if len(rows) == _ROWS:
            return True
        self._is_done = not self._has_doubt(own)
        self._above = 0
        self._retry.restart()
        return False

    def _begin(self, own: RegionLedger) -> None:
        self._above = 0
        peers = list(self._peers.ledgers.values())
        dag_ids = sorted({dag_id for ledger in peers for dag_id in ledger.heads})
        adopted = {run.key for run in history(peers, dag_ids)}
        self._successes = [run for run in last_successes([own, *peers], dag_ids) if run.key not in adopted]
        self._retry.make_due()

    def _end_repeated(self, own: RegionLedger) -> bool:
        """
        End the queued runs of users whose date another region may have executed; return whether one of them is locked.

        Airflow refuses to create a run for a date that has one. These were created here before this region knew of the
        other one: while it was cut off, or while the role was coming to it. The runs are listed, as all own ends.
        """
        _, still_open = open_runs(self._db)
        unfinished = unfinished_runs([own, *self._peers.ledgers.values()])
        unknown = [key for key in still_open if key not in unfinished]
        repeated: dict[str, list[RunKey]] = defaultdict(list)
        for row in self._db.runs(unknown) if unknown else ():
            if row.state == "queued" and row.holds_date and row.logical_date is not None:
                region = passed_by(row.logical_date, row.key, own, self._peers.ledgers)
                if region is not None:
                    repeated[region].append(row.key)
        number = sum(map(len, repeated.values()))
        ended = sum(self._db.end_queued(keys, f"{_REPEATED} {region}") for region, keys in repeated.items())
        if ended:
            log.warning("%s ended %d queued runs of users: %s another region", self._region, ended, _REPEATED)
        return ended < number

    def _has_doubt(self, own: RegionLedger) -> bool:
        """Whether a part of the ledger that may contain a run cannot be read."""
        ledgers = [own, *self._peers.ledgers.values()]
        return any(ledger.gap is not None for ledger in ledgers) or bool(self._peers.missing or self._peers.unread)

    def _resolve(self, own: RegionLedger, rows: Sequence[RunRow], list_runs: ListRuns) -> None:
        peers = list(self._peers.ledgers.values())
        note = note_of_adopted(self._peers)
        # A run of another version of Airflow has another id here. Adoption finds its row.
        self._db.adopt(self._of_others(own, history(peers, sorted({row.dag_id for row in rows}))), note)
        rows = self._db.own_ends(above=rows[0].id - 1, up_to=rows[-1].id, limit=len(rows))
        unfinished = unfinished_runs([own, *peers])
        left = [row for row in rows if row.key not in unfinished]
        known = results([own, *peers], [row.key for row in left])
        if known:
            self._db.apply_outcomes(list(known.values()), "the run ended in this or another region")
        left = [row for row in left if row.key not in known]
        if self._has_doubt(own):
            # The scheduler creates its intervals again. No program requests the other runs again.
            left = [row for row in left if row.is_skipped and row.run_type == SCHEDULED]
        heads = {dag_id for ledger in (own, *peers) for dag_id in ledger.heads}
        # The history of a DAG that no ledger has is not known: its intervals may have executed.
        dropped = [row for row in left if row.is_skipped and (row.run_type != SCHEDULED or row.dag_id in heads)]
        kept = [row for row in left if not row.is_skipped]
        listed = [" ".join(row.key) for row in (*dropped, *kept) if row.run_type != SCHEDULED or not row.is_skipped]
        if listed:
            list_runs(listed)
            for some in batched(listed, _MOST_LOGGED):
                log.warning(
                    "%s ended these runs as a standby, and no region continues them. If they are needed, trigger them "
                    "again: %s", self._region, ", ".join(some),
                )  # fmt: skip
        if kept:
            self._db.keep_own_ends({row.id: _KEPT for row in kept})
        if dropped:
            runs = self._of_others(own, history(peers, sorted({row.dag_id for row in dropped})))
            number = self._db.drop_own_ends([row.id for row in dropped], runs, note)
            log.info("Deleted %d runs that %s ended as a standby; none had executed", number, self._region)

    def _of_others(self, own: RegionLedger, runs: Sequence[LedgerRun]) -> list[LedgerRun]:
        """Return the runs that did not begin again. Leave out those with a newer result of this region."""
        unfinished = unfinished_runs([own, *self._peers.ledgers.values()])
        return [
            run
            for run in runs
            if run.key not in unfinished and (run.dag_id not in own.heads or not own.heads[run.dag_id].has(run))
        ]
