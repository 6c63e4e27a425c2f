"""Sessions of real, harmless processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.sandbox.runtime import process
from airflow_provider_mwaa_dr.sandbox.runtime.process import ProcessSession
from tests import waiting

# A leader with three children; one of them, like a task of LocalExecutor, has a process group and a child of its own.
TREE = (
    "import os, sys, time\n"
    "for number in range(3):\n"
    "    if os.fork() == 0:\n"
    "        if number == 0:\n"
    "            os.setpgid(0, 0)\n"
    "            os.fork()\n"
    "        time.sleep(600)\n"
    "print('started', flush=True)\n"
    "time.sleep(600)\n"
)


wait_until = partial(waiting.wait_until, deadline_s=20)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[ProcessSession]:
    """A session of five processes."""
    session = process.start([sys.executable, "-S", "-c", TREE], environment={}, log=tmp_path / "log")
    wait_until(lambda: len(process.members(session)) == 5, "five processes")
    yield session
    process.end([session], grace_s=0)


def test_a_session_is_ended_to_the_last_process(tree: ProcessSession) -> None:
    """Children with process groups of their own are ended as well."""
    process.end([tree], grace_s=0)

    assert process.members(tree) == ()
    assert not process.is_alive(tree)


def test_followers_end_and_their_leader_goes_on(tree: ProcessSession) -> None:
    """Children and grandchildren end. Re-running it is a no-op."""
    process.end_followers(tree, grace_s=5)
    process.end_followers(tree, grace_s=5)

    assert process.members(tree) == (tree.pid,)
    assert process.is_alive(tree)


def test_a_follower_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """When its time is over."""
    deaf = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); time.sleep(600)"
    session = process.start([sys.executable, "-S", "-c", deaf], environment={}, log=tmp_path / "log")
    wait_until(lambda: len(process.members(session)) == 2, "two processes")
    try:
        process.end_followers(session, grace_s=0)
        assert process.members(session) == (session.pid,)
    finally:
        process.end([session], grace_s=0)


def test_orphans_of_a_killed_leader_are_ended(tree: ProcessSession) -> None:
    """A SIGKILL of the leader alone leaves four orphans, which are still found."""
    os.kill(tree.pid, signal.SIGKILL)
    wait_until(lambda: not process.is_alive(tree), "the first one is gone")
    assert len(process.members(tree)) == 4

    process.end([tree], grace_s=0)

    assert process.members(tree) == ()


def test_ending_twice_is_nothing_to_do(tree: ProcessSession) -> None:
    """A session that is gone can be ended again."""
    process.end([tree], grace_s=0.1)
    process.end([tree], grace_s=0.1)

    assert not process.is_alive(tree)


@pytest.mark.parametrize("started", ["", "another-boot 12345"])
def test_a_process_that_started_at_another_time_is_somebody_elses(tree: ProcessSession, started: str) -> None:
    """A pid that has come back is left alone."""
    stranger = replace(tree, started=started)

    process.end([stranger], grace_s=0)

    assert not process.is_alive(stranger)
    assert process.members(stranger) == ()
    assert len(process.members(tree)) == 5


def test_output_is_appended_and_the_exit_code_known(tmp_path: Path) -> None:
    """Both outputs of a process are appended to its log."""
    log = tmp_path / "folder" / "log"
    for _ in range(2):
        session = process.start(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], environment={}, log=log)
        assert process.wait(session) == 3

    assert log.read_text() == "out\nerr\nout\nerr\n"


def test_a_process_inherits_nothing_but_the_environment_given(tmp_path: Path) -> None:
    """It does not get the environment of the process that starts it."""
    session = process.start(["/usr/bin/env"], environment={"ONLY": "this"}, log=tmp_path / "log")
    process.wait(session)

    assert (tmp_path / "log").read_text().splitlines() == ["ONLY=this"]
