"""
The guard of a triggerer: a region without the role runs no watchers of assets (Airflow 3).

Both regions' watchers may read one queue. Each message reaches only one of them, and the message that a standby takes
is lost, because a standby executes nothing.

In each of its loops, the triggerer asks its database which triggers it has to run, starts the new ones and cancels the
others. The guard changes only this answer. It writes nothing to the metadata database: Airflow would undo that.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.gate import View
from airflow_provider_mwaa_dr.core.identity import Identity, identity_problem
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import TRIGGERERS, Clock, StateStore, TriggererStatus
from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.core.watching import Permission, permission

log = get_logger(__name__)

_HURRY_S = 0.5
"""Time between two reads while a failover is in progress: it waits for the watchers to stop."""
_PUBLISH_EVERY_S = 3600.0
_END_WAIT_S = 5.0


class TriggererGuard:
    """
    Decides which triggers of one triggerer run, and publishes when its watchers have stopped.

    Its thread reads the state; the triggerer's own thread uses the last read, and makes no call to the state table. The
    thread starts with the triggerer's first question. Airflow forks the process that runs the triggers before that.

    :param job: the triggerer's job, which Airflow passes to ``on_starting``.
    :param open_store: imports boto3 and makes a client; called in the thread.
    """

    def __init__(self, *, config: DRConfig, job: Any, clock: Clock, open_store: Callable[[], StateStore]) -> None:
        # These import Airflow's models, which only the triggerer's own process may import.
        from airflow_provider_mwaa_dr.plugins.metadata import watchers  # noqa: PLC0415
        from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption  # noqa: PLC0415

        self._watchers_db = watchers
        self._exempt = Exemption(config.exempt_dags)
        self._config = config
        self._job = job
        self._clock = clock
        self._open_store = open_store
        self._store: StateStore | None = None
        self._pid = os.getpid()
        self._view: View | None = None
        self._logged: LogOnChange[tuple[bool, bool] | None] = LogOnChange(None)
        self._error: LogOnChange[str | None] = LogOnChange(None)
        self._read_error: LogOnChange[str | None] = LogOnChange(None)
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._is_stopping = False
        self._ordinary: frozenset[int] = frozenset()
        """The triggers of the last answer that are no watchers."""
        self._left_out: tuple[int, frozenset[int]] | None = None
        """The version of the state for which the last answer had no watchers, and the ids that it left out."""
        self._watchers = 0
        self._stopped = 0
        """See :attr:`.ports.TriggererStatus.version`."""
        self._published: tuple[int, int] | None = None
        self._publish_at = 0.0

    def install(self) -> None:
        """Put the guard between the triggerer and its database, for the rest of the process."""
        from airflow.jobs.triggerer_job_runner import TriggerRunnerSupervisor  # noqa: PLC0415
        from airflow.models.trigger import Trigger  # noqa: PLC0415

        ask, update = Trigger.ids_for_triggerer, TriggerRunnerSupervisor.update_triggers

        def ids_for_triggerer(*args: Any, **kwargs: Any) -> Any:
            return self.permitted(ask(*args, **kwargs))

        def update_triggers(supervisor: Any, requested_trigger_ids: set[int]) -> None:
            update(supervisor, requested_trigger_ids)
            self.note(supervisor)

        Trigger.ids_for_triggerer = staticmethod(ids_for_triggerer)
        TriggerRunnerSupervisor.update_triggers = update_triggers

    # In the triggerer's thread.

    def permitted(self, ids: Iterable[int]) -> list[int]:
        """Return those of *ids* that the triggerer may run now; never raises."""
        found = list(ids)
        if os.getpid() != self._pid:
            return found
        try:
            self._ensure_thread()
            return self._permitted(found)
        except Exception as error:
            self._left_out = None
            if self._error.changes_to(f"{type(error).__name__}: {error}"):
                log.exception("The triggers of %s could not be examined; no watcher runs.", self._config.region)
            return self._without_watchers(found)

    def _permitted(self, ids: Sequence[int]) -> list[int]:
        view = self._view
        may = permission(view, region=self._config.region, now=self._clock.monotonic(), lease_s=self._config.lease_s)
        by_use = self._watchers_db.triggers_by_use(self._exempt, with_deferred=not may.deferred)
        self._watchers = len(by_use.watchers)
        left_out = by_use.deferred | (frozenset() if may.watchers else by_use.watchers)
        self._ordinary = frozenset(ids) - by_use.watchers
        # With no trigger, the thread reads no state. A view that has expired for that reason needs no message.
        is_needed = bool(ids) or bool(by_use.watchers)
        self._log(may, is_needed=is_needed)
        if is_needed:
            self._wake.set()
        state = view.state if view is not None else None
        self._left_out = None if may.watchers or state is None else (state.version, by_use.watchers)
        self._error.changes_to(None)
        return [each for each in ids if each not in left_out]

    def _without_watchers(self, ids: Collection[int]) -> list[int]:
        """
        Return the triggers that are certainly no watchers.

        If even this cannot be read, no trigger starts, and those that run continue.
        """
        try:
            from airflow.models.trigger import Trigger  # noqa: PLC0415
            from sqlalchemy import select  # noqa: PLC0415

            from airflow_provider_mwaa_dr.plugins.metadata.transactions import transaction  # noqa: PLC0415

            with transaction() as session:
                watching = set(session.execute(select(Trigger.id).where(Trigger.assets.any())).scalars())
            return [each for each in ids if each not in watching]
        except Exception as error:
            log.debug("The watchers could not be read: %s", error)
            return [each for each in ids if each in self._ordinary]

    def note(self, supervisor: Any) -> None:
        """
        Note whether the watchers that were left out have stopped, and their events are stored; never raises.

        Called after the triggerer has applied an answer. It stores the events of the last loop before it asks again.
        """
        try:
            if self._left_out is None or os.getpid() != self._pid:
                self._stopped = 0
                return
            version, watchers = self._left_out
            at_work = {
                *supervisor.running_triggers,
                *supervisor.cancelling_triggers,
                *(each.id for each in supervisor.creating_triggers),
                *(event[0] for event in supervisor.events),
            }
            if not watchers & at_work:
                self._stopped = version
        except Exception as error:
            self._stopped = 0
            log.debug("It is unknown whether the watchers have stopped: %s", error)

    def stop(self) -> None:
        """Withdraw what this triggerer has published; some seconds at most. Its watchers end with it."""
        if os.getpid() != self._pid or self._thread is None:
            return
        self._is_stopping = True
        self._wake.set()
        self._thread.join(_END_WAIT_S)

    def _ensure_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="mwaa-dr-triggerer", daemon=True)
            self._thread.start()

    def _log(self, may: Permission, *, is_needed: bool) -> None:
        if not is_needed or not self._logged.changes_to((may.watchers, may.deferred)):
            return
        if may.watchers:
            log.info("Watchers of assets run: %s", may.reason)
        else:
            log.warning(
                "Watchers of assets do not run%s: %s",
                "" if may.deferred else ", and triggers of deferred tasks do not, either",
                may.reason,
            )

    # In the guard's thread.

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.wait()
            self._wake.clear()
            if self._is_stopping:
                break
            rest_s = self.turn()
            until = self._clock.monotonic() + rest_s
            while not self._is_stopping and (left_s := until - self._clock.monotonic()) > 0:
                self._clock.sleep(min(left_s, _HURRY_S))
        self._withdraw()

    def turn(self) -> float:
        """
        Read the state, and publish whether the watchers have stopped; never raises.

        :return: seconds until the next turn.
        """
        began = self._clock.monotonic()
        try:
            self._read()
            self._read_error.changes_to(None)
        except Exception as error:
            if self._read_error.changes_to(f"{type(error).__name__}: {error}"):
                log.warning("The triggerer of %s could not read the state: %s", self._config.region, error)
        try:
            self._publish()
        except Exception as error:  # a failover then waits for the lease
            log.debug("The triggerer of %s could not publish: %s", self._config.region, error)
        state = self._view.state if self._view is not None else None
        is_hurried = state is None or state.phase is not Phase.STEADY
        every_s = min(self._config.state_read_s, self._config.refresh_s, _HURRY_S if is_hurried else math.inf)
        return max(0.1, began + every_s - self._clock.monotonic())

    def _read(self) -> None:
        if self._store is None:
            self._store = self._open_store()
        read_at = self._clock.monotonic()
        observation = self._store.observe(self._config.region)
        view = View.of(observation, read_at, problem=identity_problem(Identity.of(self._config), observation))
        known = self._view
        if (
            known is not None
            and known.state is not None
            and read_at - known.read_at <= known.state.lease_s
            and (view.state is None or known.state.is_newer_than(view.state))
        ):
            log.warning("The state table answered with an older state than before, or none; it is not used.")
            return
        self._view = view

    def _publish(self) -> None:
        """Publish the newest version under which the watchers have stopped, unless there never was a watcher."""
        job_id = self._job.id
        found = (self._stopped, self._watchers)
        if self._store is None or job_id is None or (self._published is None and not self._watchers):
            return
        if self._view is None or self._view.problem is not None:
            return  # this triggerer must not write items of the region
        now = self._clock.monotonic()
        if found == self._published and now < self._publish_at:
            return
        self._store.put(TRIGGERERS, self._status(str(job_id), *found))
        self._published, self._publish_at = found, now + _PUBLISH_EVERY_S

    def _withdraw(self) -> None:
        if self._published is None or self._store is None:
            return
        try:
            self._store.delete(TRIGGERERS, self._status(str(self._job.id), 0, 0))
        except Exception as error:  # the agent deletes it later
            log.debug("The item of the triggerer of %s could not be deleted: %s", self._config.region, error)

    def _status(self, job: str, version: int, watchers: int) -> TriggererStatus:
        return TriggererStatus(
            region=self._config.region,
            job=job,
            at=self._clock.now(),
            version=version,
            watchers=watchers,
            provider_version=__version__,
        )
