"""A fork of the scheduler waits for the agent's turn."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.plugins import fork_guard

if TYPE_CHECKING:
    import pytest


def test_forks_wait_for_a_turn_but_only_once_for_a_turn_that_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A scheduler that forks 32 workers must not wait 32 times. tests/sandbox tests real forks."""
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    monkeypatch.setattr(fork_guard, "_FORK_WAIT_S", 0.05)
    guard = fork_guard.ForkGuard(SystemClock())
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        with guard:
            begun.set()
            may_end.wait(60)
        ended.set()

    def fork() -> bool:
        guard._before()
        is_held = bool(guard._is_held_by_fork)
        guard._in_parent()
        return is_held

    assert fork()
    threading.Thread(target=work, daemon=True).start()
    assert begun.wait(60)
    assert [fork(), guard._left_s, fork(), guard._left_s] == [False, 0, False, 0]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    may_end.set()
    assert ended.wait(60)
    assert fork()
    with guard:
        assert guard._left_s == 0.05
