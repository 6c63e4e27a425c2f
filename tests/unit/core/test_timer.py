"""Steps that a loop repeats less often than its turns."""

from __future__ import annotations

import pytest

from airflow_provider_mwaa_dr.core.timer import Timer
from airflow_provider_mwaa_dr.testing import ManualClock


@pytest.mark.parametrize("is_due", [True, False])
def test_a_step_is_due_once_in_each_interval(is_due: bool) -> None:
    """It stays due until it was done, and the interval is counted from then."""
    clock = ManualClock()
    timer = Timer(clock, 60, is_due=is_due)
    assert timer.is_due == is_due
    clock.advance(60)
    assert timer.is_due
    clock.advance(30)
    assert timer.is_due
    timer.restart()
    clock.advance(59)
    assert not timer.is_due
    clock.advance(1)
    assert timer.is_due


def test_a_step_that_failed_can_be_due_at_once() -> None:
    """The next turn repeats it, and does not wait for the interval."""
    timer = Timer(ManualClock(), 60, is_due=False)
    timer.make_due()
    assert timer.is_due
    timer.restart()
    assert not timer.is_due
