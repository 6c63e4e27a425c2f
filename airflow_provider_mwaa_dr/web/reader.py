"""Reads the state table in the background of a web server, so that no page waits for AWS."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import RECORDS, Clock, FailoverRecord, Observation, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, why_unknown
from airflow_provider_mwaa_dr.core.status import read_regions, status_document
from airflow_provider_mwaa_dr.exceptions import DRError

log = get_logger(__name__)

READ_S = 5.0
"""Time between two reads."""
WANTED_S = 60.0
"""How long the reader reads the heartbeats of all sites after a request for the page."""
HISTORY_S = 60.0
"""Time between two reads of the history while the state does not change: it reads the whole table."""
SHOWN_RECORDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """
    What only the page shows.

    :param document: the document of ``mwaa-dr status``.
    :param names: environment name by site.
    :param records: the last failovers, newest first.
    :param read_at: seconds on the local clock, before the read.
    """

    document: Mapping[str, Any]
    names: Mapping[str, str]
    records: Sequence[FailoverRecord]
    read_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """
    What the web server knows. It is replaced in one assignment and never changed.

    :param observation: the last read of the state; None before the first.
    :param read_at: seconds on the local clock, before that read.
    :param read_time: the same, as a time.
    :param error: why the last read failed; None if it succeeded, or if there was none.
    :param failing_since: the time of the first failure in a row.
    """

    observation: Observation | None = None
    read_at: float | None = None
    read_time: datetime | None = None
    details: Details | None = None
    error: str | None = None
    failing_since: datetime | None = None


class BackgroundReader:
    """
    Reads the state every :data:`READ_S` seconds, and the rest while a user looks at the page.

    :param open_store: opens the state table; called in the thread, because it imports boto3.
    """

    def __init__(self, config: DRConfig, clock: Clock, open_store: Callable[[], StateStore]) -> None:
        self._config = config
        self._clock = clock
        self._open_store = open_store
        self._store: StateStore | None = None
        self._knowledge = Knowledge()
        self._wanted_at: float | None = None
        self._history: tuple[int, float, Sequence[FailoverRecord]] | None = None
        self._logged: LogOnChange[str | None] = LogOnChange(None)
        self._pid = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()

    def know(self, *, details: bool = False) -> Knowledge:
        """
        Return the last read, and start the thread if this process has none. Sends no request, and never raises.

        Web servers fork their workers before the first request, so the thread starts in the process that needs it.
        """
        if details:
            was_wanted, self._wanted_at = self._is_wanted(), self._clock.monotonic()
            if not was_wanted:
                self._wake.set()
        if self._pid != os.getpid():
            self._start()
        return self._knowledge

    def turn(self) -> None:
        """Read once. An error becomes a part of what the web server knows."""
        try:
            if self._store is None:
                self._store = self._open_store()
            read_at = self._clock.monotonic()
            observation = self._store.observe(self._config.region)
            self._knowledge = replace(
                self._knowledge, observation=observation, read_at=read_at, read_time=self._clock.now()
            )
            if observation.state is not None and self._is_wanted():
                details = self._read_details(self._store, observation, observation.state, read_at)
                self._knowledge = replace(self._knowledge, details=details)
            self._knowledge = replace(self._knowledge, error=None, failing_since=None)
            if self._logged.changes_to(None):
                log.info("The web server of %s reads the state again.", self._config.region)
        except Exception as error:
            why = error.message if isinstance(error, DRError) else f"{type(error).__name__}: {error}"
            since = self._knowledge.failing_since or self._clock.now()
            self._knowledge = replace(self._knowledge, error=why, failing_since=since)
            if self._logged.changes_to(why):
                log.warning("The web server of %s could not read the state: %s", self._config.region, why)

    def _start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():
                return
            self._wake = threading.Event()
            try:
                threading.Thread(target=self._run, name="mwaa-dr-web", daemon=True).start()
                self._pid = os.getpid()
            except RuntimeError as error:  # the next request tries again
                self._knowledge = replace(self._knowledge, error=f"the reader could not be started: {error}")

    def _run(self) -> None:
        while True:
            self.turn()
            self._wake.wait(READ_S)
            self._wake.clear()

    def _is_wanted(self) -> bool:
        return self._wanted_at is not None and self._clock.monotonic() - self._wanted_at <= WANTED_S

    def _read_details(self, store: StateStore, observation: Observation, state: DRState, read_at: float) -> Details:
        registered = observation.registered or frozenset()
        names = dict.fromkeys(registered, "") | dict(self._config.environments)
        if not self._config.environments and registered:
            found = store.registrations(registered)
            names |= {site: registration.environment for site, registration in found.items()}
        names = dict(sorted(names.items()))
        why = "; ".join(observation.problems) or why_unknown(state, observation.registered, region=self._config.region)
        read = read_regions(store, self._clock, self._config, state=state, why=why or None, regions=names)
        document = status_document(state, self._clock, why=why or None, regions=read.documents, unreadable=None)
        return Details(document=document, names=names, records=self._records(store, state), read_at=read_at)

    def _records(self, store: StateStore, state: DRState) -> Sequence[FailoverRecord]:
        now = self._clock.monotonic()
        known = self._history
        if known is None or known[0] != state.version or now - known[1] > HISTORY_S:
            known = self._history = state.version, now, tuple(store.find_all(RECORDS)[:SHOWN_RECORDS])
        return known[2]
