"""The trigger that polls a region's health. Airflow stores the class path of a trigger: do not rename it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.documents import diagnosis_document
from airflow_provider_mwaa_dr.core.health import Diagnosis, Health, HealthWatch, Strikes
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.hooks.errors import is_worth_a_retry
from airflow_provider_mwaa_dr.triggers.polling import PollingTrigger


class EnvironmentHealthTrigger(PollingTrigger):
    """
    Fires when *strikes* polls in a row find the active region in the same health, and *until* contains that health.

    The event is ``{"status": "success", "diagnosis"}``, or ``{"status": "error", "message", "is_worth_a_retry"}`` when
    polling cannot succeed. The count of strikes is in memory: it starts at zero after a restart of the triggerer.

    With *problem_interval* it also fires when values or items of the state table cannot be used. The diagnosis then has
    ``problems``, and its health can be any.

    :param until: the healths to wait for, ``failed``, ``healthy`` or both.
    :param strikes: polls in a row that make the health certain.
    :param quorum: number of failed signals that make the region failed.
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
        probe_interval: float | None = None,
        problem_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.until = until
        self.strikes = strikes
        self.quorum = quorum
        self.probe_interval = probe_interval
        self.problem_interval = problem_interval
        self._strikes = Strikes(strikes)
        self._logged: LogOnChange[tuple[Any, ...] | None] = LogOnChange(None)

    def own_arguments(self) -> dict[str, Any]:
        """Return the healths to wait for, and the settings of a poll."""
        return {
            "until": self.until,
            "strikes": self.strikes,
            "quorum": self.quorum,
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
            hook.environment,
            hook.clock,
            stands_in=hook.stands_in,
            quorum=self.quorum,
            silence_s=Timing.from_config(hook.settings).agent_silence_s,
            probe_every_s=self.probe_interval,
            items_every_s=self.problem_interval,
        )

    def poll(self) -> dict[str, Any] | None:
        """Read the health once. Return the event, or None to continue."""
        try:
            diagnosis = self.watch.poll()
        except DRError as error:
            if not is_worth_a_retry(error):
                return self.failure_event(error)
            diagnosis = Diagnosis(region=None, health=Health.UNKNOWN, why=error.message)
        is_certain = self._strikes.add(diagnosis)
        self._log_changes(diagnosis)
        is_reported = self.problem_interval is not None and bool(diagnosis.problems)
        if not is_reported and (not is_certain or diagnosis.health.value not in self.until):
            return None
        return {"status": "success", "diagnosis": diagnosis_document(diagnosis)}

    def _log_changes(self, diagnosis: Diagnosis) -> None:
        """Log *diagnosis* only after a change or a strike, because a wait may last for months."""
        signals = [(reading.signal, reading.health) for reading in diagnosis.readings]
        strike = min(self._strikes.count, self.strikes) if diagnosis.health is Health.FAILED else 0
        compared = diagnosis.region, diagnosis.health, signals, diagnosis.problems, strike
        if self._logged.changes_to(compared):
            count = f" ({strike} of {self.strikes} polls in a row)" if strike else ""
            self.log.info("%s%s", visible(diagnosis), count)
