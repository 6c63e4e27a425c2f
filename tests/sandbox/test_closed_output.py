"""Failovers whose output is closed, between two real Airflows under load: each ends by itself, with its exit code."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_settings
from tests.sandbox.failovers import CHAIN, ChainRun, start
from tests.sandbox.harness import Airflow, Pair, Shape, on
from tests.sandbox.intervals import (
    assert_none_executed_again,
    times_executed,
    under_load,
    wait_until_nothing_is_missing,
)
from tests.waiting import wait_until

pytestmark = [pytest.mark.sandbox, pytest.mark.soak]

LEDGERS = [Shape(version=version, name=f"ledger-{version}", ledger=True) for version in ("3.3.1", "2.10.3")]
STEPS = (
    "check", "claim", "record", "drain", "pause", "ledger", "lease", "promote", "adopt", "unpause", "verify",
)  # fmt: skip
PROGRAM = Path(sys.executable).parent / "mwaa-dr"
Output = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]


@pytest.fixture
def regions(pair: Pair) -> tuple[Airflow, Airflow]:
    """
    The active region, which must execute every interval, and the standby. Each test finds the roles as the last one
    left them.
    """
    return under_load(pair)


def words(target: Airflow) -> tuple[str, ...]:
    """Return the command that makes *target* active after a confirmation."""
    return (str(PROGRAM), "failover", target.name, "--reason", "test", "--mode", "graceful")


@contextmanager
def started(
    pair: Pair, *program: str, stdout: int, stdin: int = subprocess.DEVNULL, drain_s: float = 120
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a started program, and end it after the test. It leads a session, and both its outputs are *stdout*."""
    variables = {**pair.variables, "DR_DRAIN_S": str(drain_s)}
    process = subprocess.Popen(
        program,
        env=airflow_settings.process_variables(variables, bin_folder=PROGRAM.parent),
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def read_up_to(pair: Pair, step: str, target: Airflow, *, drain_s: float = 120) -> Iterator[subprocess.Popen[bytes]]:
    """Yield ``mwaa-dr failover ... |& grep -m1 STEP``: the reader of both outputs ends when the step is done."""
    with (
        started(pair, *words(target), "--yes", stdout=subprocess.PIPE, drain_s=drain_s) as process,
        subprocess.Popen(
            ["grep", "-E", "-m1", f" ok +{step} "], stdin=process.stdout, stdout=subprocess.PIPE, text=True
        ) as reader,
    ):
        assert process.stdout is not None
        process.stdout.close()
        try:
            yield process
        finally:
            process.kill()  # it has ended unless the test fails, and the reader waits for it
            found, _ = reader.communicate()
        assert step in found, f"{step} was never done"


@contextmanager
def closed_terminal(
    pair: Pair, step: str, target: Airflow, *, drain_s: float = 120
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield the command. It was started and confirmed on a terminal that was closed when the step was done."""
    ours, theirs = pty.openpty()
    # A session leader that opens a terminal gets the signals of the terminal, including SIGHUP when it is closed.
    shell = ("sh", "-c", 'exec "$@" <"$0"', os.ttyname(theirs), *words(target))
    try:
        with started(pair, *shell, stdin=theirs, stdout=theirs, drain_s=drain_s) as process:
            os.close(theirs)
            os.write(ours, b"y\n")
            shown = b""
            while f"ok  {step} ".encode() not in shown:
                shown += os.read(ours, 1000)
            assert controlling_terminal(process) != 0
            os.close(ours)
            ours = -1
            yield process
    finally:
        if ours >= 0:
            os.close(ours)


def controlling_terminal(process: subprocess.Popen[bytes]) -> int:
    """Return the device number of the terminal whose signals a process gets, 0 without one; see proc(5)."""
    return int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[4])


def accepted_until_the_end(pair: Pair, process: subprocess.Popen[bytes]) -> list[ChainRun]:
    """Trigger a run every second in the active region until the command has ended, and return the runs."""
    accepted: list[ChainRun] = []
    triggered_at = 0.0

    def has_ended() -> bool:
        nonlocal triggered_at
        if time.monotonic() - triggered_at > 1:
            accepted.append(start(pair.active))
            triggered_at = time.monotonic()
        return process.poll() is not None

    wait_until(has_ended, "the failover ends")
    return accepted


def assert_complete(pair: Pair, active: Airflow, epoch: int, accepted: list[ChainRun]) -> None:
    """Assert that *active* is active, that no plan is open, that no run waits, and that each run executed once."""
    state: DRState = pair.state()
    assert (state.active_region, state.phase, state.plan, state.epoch) == (active.name, Phase.STEADY, None, epoch)
    other = pair[pair.other(active.name)]
    assert [record["id"] for record in pair.history() if record["outcome"] == "open"] == []
    assert "fo_chain" not in {dag_id for dag_id, is_paused in other.dags().items() if not is_paused}
    for run in (*accepted, start(active)):
        wait_until(
            lambda run=run: sorted(run.bodies(active) + run.bodies(other)) == sorted(CHAIN),  # type: ignore[misc]
            f"{run.run_id} executes, once",
        )
    wait_until_nothing_is_missing(pair, active)


@on(*LEDGERS)
@pytest.mark.parametrize("step", STEPS)
def test_a_failover_whose_reader_ends_after_a_step_completes(
    pair: Pair, regions: tuple[Airflow, Airflow], step: str
) -> None:
    """After each step, in both directions: exit code 0, the role has moved, and each run executes once."""
    _, target = regions
    before, epoch = times_executed(pair), pair.state().epoch
    with read_up_to(pair, step, target) as process:
        accepted = accepted_until_the_end(pair, process)
        assert process.returncode == 0
    assert_complete(pair, target, epoch + 1, accepted)
    newest = pair.history()[0]
    assert (newest["to"], newest["mode"], newest["outcome"]) == (target.name, "graceful", "completed")
    assert newest["not_unpaused"] == []
    assert_none_executed_again(pair, before)


@on(*LEDGERS)
@pytest.mark.parametrize("step", ["claim", "drain", "promote", "unpause"])
def test_a_failover_whose_terminal_is_closed_after_a_step_completes(
    pair: Pair, regions: tuple[Airflow, Airflow], step: str
) -> None:
    """From the claim on, the command ignores SIGHUP, and cannot write. Exit code 0, and the role has moved."""
    _, target = regions
    before, epoch = times_executed(pair), pair.state().epoch
    with closed_terminal(pair, step, target) as process:
        accepted = accepted_until_the_end(pair, process)
        assert process.returncode == 0
    assert_complete(pair, target, epoch + 1, accepted)
    assert pair.history()[0]["outcome"] == "completed"
    assert_none_executed_again(pair, before)


@on(*LEDGERS)
def test_a_terminal_closed_at_the_claim_moves_the_role_or_leaves_it(
    pair: Pair, regions: tuple[Airflow, Airflow]
) -> None:
    """SIGHUP comes between the checks and the claim. It ends the command before a change, or the command ignores it."""
    source, target = regions
    before, epoch = times_executed(pair), pair.state().epoch
    with closed_terminal(pair, "check", target) as process:
        accepted = accepted_until_the_end(pair, process)
        code = process.returncode
    assert code in {0, -signal.SIGHUP}
    active, epoch = (target, epoch + 1) if code == 0 else (source, epoch)
    assert_complete(pair, active, epoch, accepted)
    assert_none_executed_again(pair, before)


@on(*LEDGERS)
def test_a_failover_whose_output_is_full_completes(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """Both outputs are /dev/full, so no text can be written. Exit code 0, and the role has moved."""
    _, target = regions
    before, epoch = times_executed(pair), pair.state().epoch
    with Path("/dev/full").open("wb") as full, started(pair, *words(target), "--yes", stdout=full.fileno()) as process:
        accepted = accepted_until_the_end(pair, process)
        assert process.returncode == 0
    assert_complete(pair, target, epoch + 1, accepted)
    assert pair.history()[0]["outcome"] == "completed"
    assert_none_executed_again(pair, before)


@on(*LEDGERS)
@pytest.mark.parametrize("output", [read_up_to, closed_terminal], ids=["reader", "terminal"])
def test_a_failover_that_gives_up_without_output_gives_the_role_back(
    pair: Pair, regions: tuple[Airflow, Airflow], output: Output
) -> None:
    """A run takes longer than the drain: exit code 3, and the source continues with that run and with held runs."""
    source, target = regions
    before, epoch = times_executed(pair), pair.state().epoch
    in_flight = start(source, waits=True)
    with output(pair, "claim", target, drain_s=3) as process:
        accepted = accepted_until_the_end(pair, process)
        assert process.returncode == 3
    in_flight.let_go()
    assert_complete(pair, source, epoch, [in_flight, *accepted])
    assert [run.bodies(target) for run in (in_flight, *accepted)] == [[]] * (1 + len(accepted))
    assert_none_executed_again(pair, before)
