"""
What the simulation of ``dr_monitor`` takes out to show that it is needed.

:data:`MONITOR_RULES` has a function for each rule, and the noise in which the monitor then leaves a region that works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core import health, signs_of_life
from airflow_provider_mwaa_dr.core.health import Diagnosis, HealthWatch, Reading, Streak
from airflow_provider_mwaa_dr.core.ports import EnvironmentStatus
from airflow_provider_mwaa_dr.core.signs_of_life import SignOfLife, SignsOfLife
from airflow_provider_mwaa_dr.exceptions import MwaaError, MwaaUnreachableError
from tests.simulation import monitor
from tests.simulation.monitor import Script, SimulatedEnvironment

Patch = pytest.MonkeyPatch


def without_the_veto_of_heartbeats(patch: Patch) -> None:
    """A service that does not answer is enough, although heartbeats change."""
    patch.setitem(monitor.CONSTANTS, "QUORUM", 1)  # type: ignore[arg-type]
    patch.setattr(health, "_NO_ANSWER", set())


def without_the_difference_between_throttled_and_silent(patch: Patch) -> None:
    answer = SimulatedEnvironment._answer

    def as_silence(environment: SimulatedEnvironment, how: Any) -> None:
        try:
            answer(environment, how)
        except MwaaError as error:
            raise MwaaUnreachableError(error.message) from error

    patch.setattr(SimulatedEnvironment, "_answer", as_silence)


def with_updates_as_usual_states(patch: Patch) -> None:
    patch.setattr(EnvironmentStatus, "is_usable", True)


def without_remembering_updates(patch: Patch) -> None:
    ask = HealthWatch._ask_service

    def forgetful(watch: HealthWatch, *arguments: Any) -> tuple[Reading, float]:
        watch._busy_at.clear()
        return ask(watch, *arguments)

    patch.setattr(HealthWatch, "_ask_service", forgetful)


def without_asking_for_a_status_after_a_restart(patch: Patch) -> None:
    diagnose = health.diagnose
    patch.setattr(health, "diagnose", lambda *args, **values: diagnose(*args, **{**values, "lost_s": 0.0}))


def without_last_heartbeats(patch: Patch) -> None:
    _change_signs(patch, has_ended=False)


def with_the_last_heartbeat_of_the_last_scheduler_only(patch: Patch) -> None:
    patch.setattr(signs_of_life, "ENDING_S", 0.0)


def without_time_for_restarts(patch: Patch) -> None:
    diagnose = health.diagnose
    patch.setattr(health, "diagnose", lambda *args, **values: diagnose(*args, **{**values, "restart_s": 0.0}))


def without_witnesses(patch: Patch) -> None:
    _change_signs(patch, witnesses=("another region",))


def without_comparing_numbers(patch: Patch) -> None:
    """The report of an agent counts for every heartbeat of the scheduler."""

    def silent_s(signs: SignsOfLife, region: str, job: str, seen: Any, now: float) -> float:
        reported = [still_s for key, still_s in signs._reports.items() if key[:2] == (region, job)]
        return max(now - seen.since, *reported, 0.0)

    patch.setattr(SignsOfLife, "_silent_s", silent_s)


def without_forgetting_after_an_unknown_poll(patch: Patch) -> None:
    patch.setattr(SignsOfLife, "forget", lambda _: None)


def with_a_single_poll(patch: Patch) -> None:
    patch.setattr(Streak, "needed_s", lambda _, diagnosis: diagnosis.lasting_s)


def with_one_time_for_both_kinds_of_failure(patch: Patch) -> None:
    """The time for which schedulers have been restarting counts for a region that is lost."""
    add = Streak.add

    def added(streak: Streak, diagnosis: Diagnosis) -> bool:
        last = streak._last
        if last is not None and last[:2] == (diagnosis.region, diagnosis.health):
            streak._last = (*last[:2], diagnosis.lasting_s)
        return add(streak, diagnosis)

    patch.setattr(Streak, "add", added)


def _change_signs(patch: Patch, **values: Any) -> None:
    of = SignsOfLife.of

    def changed(signs: SignsOfLife, region: str) -> SignOfLife:
        return replace(of(signs, region), **values)

    patch.setattr(SignsOfLife, "of", changed)


MONITOR_RULES: Mapping[Callable[[Patch], None], Script] = {
    without_the_veto_of_heartbeats: monitor.cut_from_the_service,
    without_the_difference_between_throttled_and_silent: monitor.throttled_updates,
    with_updates_as_usual_states: monitor.updates,
    without_remembering_updates: monitor.updates_that_become_invisible,
    without_asking_for_a_status_after_a_restart: monitor.updates_that_become_invisible,
    without_last_heartbeats: monitor.invisible_updates,
    with_the_last_heartbeat_of_the_last_scheduler_only: monitor.invisible_updates,
    without_time_for_restarts: monitor.restarts,
    without_witnesses: monitor.table_without_heartbeats,
    without_comparing_numbers: monitor.standby_that_reads_nothing,
    without_forgetting_after_an_unknown_poll: monitor.throttled_updates,
    with_a_single_poll: monitor.restarts_with_lost_polls,
    with_one_time_for_both_kinds_of_failure: monitor.restarts_with_lost_polls,
}
