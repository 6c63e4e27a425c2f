"""The trigger that polls a region's health. Airflow stores the class path of a trigger: do not rename it."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.documents import diagnosis_document
from airflow_provider_mwaa_dr.core.health import RESTART_S, Diagnosis, Health, HealthWatch, Streak
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.hooks.errors import is_worth_a_retry
from airflow_provider_mwaa_dr.triggers.polling import PollingTrigger

ATTEMPT_S = 4.0
"""The longest time of a call to a region, so that a poll of a dead one is short. MWAA usually answers within 1 s."""


class EnvironmentHealthTrigger(PollingTrigger):
    """
    Fires when the active region has been in the same health for long enough, and *until* contains that health.

    The event is ``{"status": "success", "diagnosis"}``, or ``{"status": "error", "message", "is_worth_a_retry"}`` when
    polling cannot succeed. The time is in memory: it starts at zero after a restart of the triggerer.

    With *problem_interval* it also fires when values or items of the state table cannot be used, and when a failover
    has been halted for too long. The diagnosis then has ``problems``, and its health can be any.

    :param until: the healths to wait for, ``failed``, ``healthy`` or both.
    :param strikes: the health must last for the usual time of so many polls; with 1, the first poll is enough.
    :param quorum: number of failed signals that make the region failed.
    :param restart_timeout: seconds for which a failure must last while the MWAA service answers. Earlier versions did
        not store it.
    :param suspect: also fire at the first poll of a failure that must last for *restart_timeout*.
    :param answered: the region whose MWAA service has just reported a usable status to an earlier trigger.
    :param probe_interval: seconds between two probe runs; None for none.
    :param problem_interval: seconds between two scans of the state table for items that cannot be read, and until the
        first scan; None: no scan, and no event for problems.
    """

    def __init__(
        self,
        *,
        until: list[str],
        strikes: int,
        quorum: int,
        restart_timeout: float = RESTART_S,
        suspect: bool = False,
        answered: str | None = None,
        probe_interval: float | None = None,
        problem_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.until = until
        self.strikes = strikes
        self.quorum = quorum
        self.restart_timeout = restart_timeout
        self.suspect = suspect
        self.answered = answered
        self.probe_interval = probe_interval
        self.problem_interval = problem_interval
        self._logged: LogOnChange[tuple[Any, ...] | None] = LogOnChange(None)

    def own_arguments(self) -> dict[str, Any]:
        """Return the healths to wait for, and the settings of a poll."""
        return {
            "until": self.until,
            "strikes": self.strikes,
            "quorum": self.quorum,
            "restart_timeout": self.restart_timeout,
            "suspect": self.suspect,
            "answered": self.answered,
            "probe_interval": self.probe_interval,
            "problem_interval": self.problem_interval,
        }

    @cached_property
    def watch(self) -> HealthWatch:
        """Reads the health. :raises DRError: the DR set is not configured, or the state table does not answer."""
        hook = self.hook
        return HealthWatch(
            hook.store,
            hook.environment_names(),
            partial(hook.environment, attempt_s=ATTEMPT_S),
            hook.clock,
            stands_in=hook.stands_in,
            quorum=self.quorum,
            restart_s=self.restart_timeout,
            answered=self.answered,
            silence_s=Timing.from_config(hook.settings).agent_silence_s,
            probe_every_s=self.probe_interval,
            items_every_s=self.problem_interval,
        )

    @cached_property
    def _streak(self) -> Streak:
        return Streak(self.strikes, self.hook.clock, every_s=self.poke_interval)

    def poll(self) -> dict[str, Any] | None:
        """Read the health once. Return the event, or None to continue."""
        try:
            diagnosis = self.watch.poll()
        except DRError as error:
            if not is_worth_a_retry(error):
                return self.failure_event(error)
            diagnosis = Diagnosis(region=None, health=Health.UNKNOWN, why=error.message)
        is_certain = self._streak.add(diagnosis)
        self._log_changes(diagnosis)
        is_awaited = is_certain and diagnosis.health.value in self.until
        is_suspected = self.suspect and diagnosis.health is Health.FAILED and diagnosis.lasting_s > 0
        is_reported = self.problem_interval is not None and bool(diagnosis.problems)
        if not (is_awaited or is_suspected or is_reported):
            return None
        # One poll is enough for a sensor that asks for no more, and makes nothing certain for another sensor.
        return {
            "status": "success",
            "diagnosis": {**diagnosis_document(diagnosis), "is_certain": is_certain and self.strikes > 1},
        }

    def _log_changes(self, diagnosis: Diagnosis) -> None:
        """Log *diagnosis* only if it differs from the last one, because a wait may last for months."""
        signals = [(reading.signal, reading.health) for reading in diagnosis.readings]
        compared = diagnosis.region, diagnosis.health, signals, diagnosis.problems
        if self._logged.changes_to(compared):
            needed_s = self._streak.needed_s(diagnosis)
            has_failed = diagnosis.health is Health.FAILED and needed_s > 0
            certain = f" This is certain when it has lasted for {needed_s:.0f} s." if has_failed else ""
            self.log.info("%s%s", visible(diagnosis), certain)
