"""Which triggers a triggerer may run: watchers only in the active region in STEADY."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core.gate import View
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.core.watching import Permission, permission
from tests.unit.core.test_gate import DRAINED, DRAINING, FORCED, PROMOTING, RESUMING, STEADY, A, B, seen

ALL, DEFERRED_ONLY, NONE = (True, True), (False, True), (False, False)


def may(view: View | None, region: str = A, *, now: float = 100.0) -> Permission:
    return permission(view, region=region, now=now, lease_s=60.0)


@pytest.mark.parametrize(
    ("state", "region", "expected"),
    [
        pytest.param(STEADY, A, ALL, id="steady-active"),
        pytest.param(STEADY, B, NONE, id="steady-standby"),
        pytest.param(DRAINING, A, DEFERRED_ONLY, id="draining-active"),
        pytest.param(DRAINED, A, DEFERRED_ONLY, id="drained-active"),
        pytest.param(DRAINING, B, NONE, id="draining-standby"),
        pytest.param(FORCED, A, NONE, id="forced-active"),
        pytest.param(PROMOTING, A, NONE, id="promoting-source"),
        pytest.param(PROMOTING, B, DEFERRED_ONLY, id="promoting-target"),
        pytest.param(RESUMING, A, NONE, id="resuming-source"),
        pytest.param(RESUMING, B, DEFERRED_ONLY, id="resuming-target"),
    ],
)
def test_a_known_role_decides(state: DRState, region: str, expected: tuple[bool, bool]) -> None:
    """
    Watchers start after the failover has unpaused the consumers: Airflow drops events of paused ones. Deferred tasks of
    a drained region are work in progress.
    """
    found = may(seen(state, reconciled=state.epoch), region)
    assert (found.watchers, found.deferred) == expected
    assert region in found.reason


@pytest.mark.parametrize(
    ("view", "now", "reason"),
    [
        pytest.param(None, 100.0, "has not been read yet", id="never-read"),
        pytest.param(seen(STEADY, reconciled=0), 99.0 + 61, "last read 61 s ago", id="older-than-the-lease"),
        pytest.param(seen(None, reconciled=None), 99.0 + 61, "last read 61 s ago", id="old-without-a-state"),
        pytest.param(seen(STEADY, reconciled=0), 98.0, "last read -1 s ago", id="in-the-future"),
        pytest.param(seen(None, reconciled=None), 100.0, "the state table has no us-east-2 role yet", id="no-state"),
        pytest.param(seen(STEADY, reconciled=0, problem="it is another environment"), 100.0, "another", id="identity"),
        pytest.param(seen(STEADY, reconciled=0, problems=("a value is wrong",)), 100.0, "wrong", id="unusable-value"),
    ],
)
def test_an_unknown_role_stops_watchers_only(view: View | None, now: float, reason: str) -> None:
    """Deferred tasks may be work in progress, and what they wait for may not be there a second time."""
    found = may(view, now=now)
    assert (found.watchers, found.deferred) == DEFERRED_ONLY
    assert reason in found.reason


def test_a_standby_with_an_old_view_stops_watchers_only() -> None:
    """It may have become active since."""
    view = replace(seen(STEADY, reconciled=0), read_at=0.0)
    found = may(view, B)
    assert (found.watchers, found.deferred) == DEFERRED_ONLY
