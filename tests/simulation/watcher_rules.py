"""
What the simulation of watchers takes out to show that it is needed.

:data:`WATCHER_RULES` has a function for each rule, and what a history that goes wrong without it reports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core import watching
from airflow_provider_mwaa_dr.core.failover.watcher_wait import WatcherWait
from airflow_provider_mwaa_dr.core.gate import View
from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.core.watching import Permission
from tests.simulation.airflow import SimulatedAirflow

Patch = pytest.MonkeyPatch


def with_watchers_in_a_standby(patch: Patch) -> None:
    _also_if(patch, lambda view, region: view.state is not None and view.state.active_region != region)


def with_watchers_while_the_region_is_drained(patch: Patch) -> None:
    _also_if(patch, lambda view, _: view.state is not None and view.state.phase is Phase.DRAINING)


def without_the_wait_for_watchers(patch: Patch) -> None:
    patch.setattr(WatcherWait, "is_over", lambda *_: True)


def without_runs_for_the_last_events(patch: Patch) -> None:
    patch.setattr(SimulatedAirflow, "start_waiting_events", lambda *_: 0)


def _also_if(patch: Patch, condition: Callable[[View, str], bool]) -> None:
    """Let watchers run if *condition* is true of the view and the region, too."""
    permission = watching.permission

    def changed(view: View | None, *, region: str, **values: Any) -> Permission:
        found = permission(view, region=region, **values)
        return replace(found, watchers=True) if view is not None and condition(view, region) else found

    patch.setattr(watching, "permission", changed)


WATCHER_RULES: Mapping[Callable[[Patch], None], str] = {
    with_watchers_in_a_standby: "is lost",
    with_watchers_while_the_region_is_drained: "is lost",
    without_the_wait_for_watchers: "is lost",
    without_runs_for_the_last_events: "is lost",
}
