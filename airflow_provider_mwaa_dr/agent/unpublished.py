"""The stored list of the runs that a region closed while its ledger refused."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ports import UNPUBLISHED_EVENTS, StateStore, Unpublished
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.exceptions import UnreadableItemError

log = get_logger(__name__)


class UnpublishedRuns:
    """
    The list of one region: its agents publish these runs as soon as the ledger accepts them.

    """

    def __init__(self, store: StateStore, *, region: str) -> None:
        self._store = store
        self._region = region
        self._completed: Unpublished | None = None
        """The list of a role that this agent began without the ledger; None if it began none."""

    def of(self, state: DRState) -> Unpublished | None:
        """Return the list of the present epoch, as this agent wrote it, or as it is stored; None if there is none."""
        if self._completed is not None and self._completed.epoch == state.epoch:
            return self._completed
        return self.stored(state)

    def stored(self, state: DRState) -> Unpublished | None:
        """Return the stored list of the present epoch; None if there is none, or unreadable."""
        try:
            found = self._store.get(UNPUBLISHED_EVENTS, self._region)
        except UnreadableItemError as error:
            log.warning("%s", error.message)
            return None
        return found if found is not None and found.epoch == state.epoch else None

    def put(self, runs: Unpublished) -> None:
        """
        Store the list before the first of its runs is closed. Idempotent.

        :raises StateError: it could not be stored.
        """
        self._store.put(UNPUBLISHED_EVENTS, runs)

    def complete(self, runs: Unpublished) -> None:
        """
        Store the list after its runs were closed, without those that stayed open. Idempotent.

        :raises StateError: it could not be stored.
        """
        self._store.put(UNPUBLISHED_EVENTS, runs)
        self._completed = runs
