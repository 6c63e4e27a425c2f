"""Giving the region's database what other regions executed."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_mwaa_dr.core.bookkeeping.database import LedgerDb
from airflow_provider_mwaa_dr.core.bookkeeping.own_ledger import OwnLedger
from airflow_provider_mwaa_dr.core.bookkeeping.peer_ledgers import PeerLedgers
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import (
    RunStatus,
    finished_by_others,
    history,
    no_longer_needed,
)

log = get_logger(__name__)

_BATCH = 500
"""The most DAGs whose runs one turn adopts, so that the agent's other work does not wait."""


class Adopter:
    """Writes the outcomes of other regions' runs into one region's metadata database."""

    def __init__(self, own: OwnLedger, peers: PeerLedgers, db: LedgerDb, *, region: str) -> None:
        self._own = own
        self._peers = peers
        self._db = db
        self._region = region

    def adopt(self) -> bool:
        """Adopt runs that other regions finished into this region's history; return whether more are to be adopted."""
        heads = self._own.load().heads
        if not self._peers.to_adopt:
            return False
        batch = sorted(self._peers.to_adopt)[:_BATCH]
        found = history(self._peers.ledgers.values(), batch)
        runs = [run for run in found if run.dag_id not in heads or not heads[run.dag_id].has(run)]
        if runs:
            adopted = self._db.adopt(runs, note_of_adopted(self._peers))
            if adopted:
                log.info("Adopted %d runs that ended in %s", adopted, _others(self._peers))
        self._peers.to_adopt -= set(batch)
        return bool(self._peers.to_adopt)

    def apply_outcomes(self) -> None:
        """Give this region's runs the outcomes that other regions published, and drop the runs that no region needs."""
        own = self._own.load()
        others = list(self._peers.ledgers.values())
        done = finished_by_others(own, others)
        if replaced := {run.key for run in done if run.is_replaced}:
            self._db.remove(replaced)
        if ended := [run for run in done if not run.is_replaced]:
            self._db.apply_outcomes(ended, "the run continued and ended in another region")
        gone = [replace(own.runs[run.key], status=RunStatus.GONE) for run in done]
        gone += [replace(run, status=RunStatus.GONE) for run in no_longer_needed(own, others)]
        if gone:
            self._own.append(own.epoch or 0, gone, first_id=own.first_id, newest_id=own.newest_id)
        # The last entries before a long time without changes would otherwise expire before they are in a checkpoint.
        self._own.save_checkpoint_in_time(own)


def note_of_adopted(peers: PeerLedgers) -> str:
    """Return the note of an adopted run."""
    return f"adopted: this run was executed in {_others(peers)}"


def _others(peers: PeerLedgers) -> str:
    # With more than one other region, no text says which of them executed a run.
    return " or ".join(sorted(peers.ledgers)) or "another region"
