"""The list of registered regions in the region's own item."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.gate import View
from airflow_provider_mwaa_dr.core.ports import Clock, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, may_be_region
from airflow_provider_mwaa_dr.core.timer import Timer

log = get_logger(__name__)

_LIST_EVERY_S = 60.0


class RegionList:
    """Keeps the list from which gate and fence of one region read the registered regions."""

    def __init__(self, store: StateStore, clock: Clock, *, region: str) -> None:
        self._store = store
        self._region = region
        self._listing = Timer(clock, _LIST_EVERY_S)

    def turn(self, view: View, state: DRState, *, is_leading: bool) -> bool:
        """
        Write the list if it is incomplete.

        The leading agent writes the complete list about once a minute. Any agent writes it if there is none yet, and
        adds the active region if the list does not contain it.

        :return: whether the list has changed.
        """
        listed = view.registered
        if listed is None or (is_leading and self._listing.is_due):
            self._listing.restart()
            found = self._store.regions() | {self._region}
        elif state.active_region not in listed and may_be_region(state.active_region):
            found = listed | self._store.regions([state.active_region])
        else:
            return False
        if found == listed:
            return False
        self._store.put_regions(self._region, found)
        log.info("Registered regions in the item of %s: %s", self._region, ", ".join(sorted(found)))
        return True
