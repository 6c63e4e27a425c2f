"""The work of a command does not depend on its output."""

from __future__ import annotations

import io
import itertools
import math
import re
import signal
import threading
from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.cli import main
from airflow_provider_mwaa_dr.cli.console import Outlet
from airflow_provider_mwaa_dr.cli.runtime import Runtime
from airflow_provider_mwaa_dr.core.failover import StepEvent
from airflow_provider_mwaa_dr.core.ports import RECORDS
from airflow_provider_mwaa_dr.core.state import Phase
from tests.unit.cli.conftest import Shell, Terminal
from tests.waiting import wait_until

FAILOVER = ("failover", "us-east-1", "--reason", "x", "--yes")


class Broken(io.StringIO):
    """A stream that accepts *after* writes, and then fails."""

    def __init__(self, error: Exception, *, after: int = 0) -> None:
        super().__init__()
        self._error, self._left = error, after

    def write(self, text: str) -> int:
        if self._left == 0:
            raise self._error
        self._left -= 1
        return super().write(text)

    def make_room(self) -> None:
        self._left = -1

    def isatty(self) -> bool:
        raise self._error


def call(shell: Shell, *argv: str, stdout: io.StringIO, stderr: io.StringIO, answer: str | None = None) -> int:
    runtime = Runtime(
        environ=shell.environ,
        stdin=io.StringIO() if answer is None else Terminal(answer),
        stdout=stdout,
        stderr=stderr,
        clock=shell.set.clock,
        who="ana@laptop",
        make_store=lambda _: shell.store.peer(),
        make_environment=lambda site: shell.environment(site.id),
        make_tables=lambda _: shell.tables,
        silence_s=math.inf,
    )
    return main(argv, runtime=runtime)


def lost_source(shell: Shell) -> None:
    """Let a failover wait for the lease, with a countdown."""
    shell.environment("us-east-2").unreachable = True
    shell.set.agents["us-east-2"].alive = False


def test_a_countdown_updates_one_line_of_a_terminal() -> None:
    """The line is replaced each second, and at last by the line of the completed step."""
    shell, err = Shell(), Terminal()
    lost_source(shell)
    assert call(shell, *FAILOVER, stdout=io.StringIO(), stderr=err) == 0
    text = err.getvalue()
    assert text.count("may still execute for") > 30
    shown = [line.split("\r\033[K")[-1] for line in text.split("\n")]
    assert sum("may still execute for" in line for line in shown) <= 1
    assert [line for line in shown if " ok  lease " in line]
    assert not text.endswith("\r\033[K")


def test_elsewhere_a_countdown_prints_a_line_every_ten_seconds() -> None:
    """A log file is no terminal. Other progress is printed without a delay."""
    for err, environ in ((io.StringIO(), {}), (Terminal(), {"TERM": "dumb"})):
        shell = Shell()
        shell.environ = {**shell.environ, **environ}
        lost_source(shell)
        assert call(shell, *FAILOVER, stdout=io.StringIO(), stderr=err) == 0
        lines = [line for line in err.getvalue().splitlines() if "may still execute for" in line]
        left = [int(re.findall(r"for (\d+) s", line)[0]) for line in lines]
        assert 6 <= len(left) <= 8
        assert all(10 <= before - after <= 12 for before, after in itertools.pairwise(left))
        assert "\r" not in err.getvalue()


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(32, "Broken pipe"),
        OSError(28, "No space left on device"),
        OSError(5, "Input/output error"),
        ValueError("I/O operation on closed file"),
    ],
    ids=repr,
)
def test_a_failover_whose_output_breaks_completes(error: Exception, as_json: bool) -> None:
    """The output may break after any write: `| head -3`, `| grep -m1 claim`, a full disk, a closed terminal."""
    words = (*FAILOVER, *(("--json",) if as_json else ()))
    control = Shell()
    lines = control(*words).err.count("\n")
    for after in range(0, 2 * lines + 1, 3):
        shell = Shell()
        code = call(shell, *words, stdout=Broken(error), stderr=Broken(error, after=after))
        assert code == 0
        assert (shell.set.state.active_region, shell.set.state.phase) == ("us-east-1", Phase.STEADY)
        assert shell.store.find_all(RECORDS)[0].outcome == "completed"


def test_a_refused_failover_keeps_its_code_without_output() -> None:
    """Exit 3, the same as with output."""
    shell = Shell()
    shell.set.agents["us-east-1"].changes = {"fence_ok": False}
    shell.set.clock.advance(2)
    error = BrokenPipeError(32, "Broken pipe")
    assert call(shell, *FAILOVER, stdout=Broken(error), stderr=Broken(error)) == 3
    assert shell.set.state.phase is Phase.STEADY


def test_the_answer_to_a_question_that_was_not_printed_does_not_count() -> None:
    """If the question could not be printed, the answer yes changes nothing."""
    shell = Shell()
    out, err = io.StringIO(), Broken(OSError(28, "No space left on device"))
    assert call(shell, *FAILOVER[:-1], stdout=out, stderr=err, answer="y\n") == 3
    assert shell.set.state.phase is Phase.STEADY


def test_a_full_disk_under_the_result_is_reported_on_stderr() -> None:
    """The exit code is 0. A full disk is reported on stderr, but a broken pipe is not."""
    err = io.StringIO()
    assert call(Shell(), "status", stdout=Broken(OSError(28, "No space left on device")), stderr=err) == 0
    assert "could not be written to stdout: [Errno 28] No space left on device" in err.getvalue()
    err = io.StringIO()
    assert call(Shell(), "status", stdout=Broken(BrokenPipeError(32, "Broken pipe")), stderr=err) == 0
    assert err.getvalue() == ""


def test_a_write_after_a_full_disk_is_tried_again() -> None:
    """Each write is tried, even after earlier writes failed."""
    stream = Broken(OSError(28, "No space left on device"))
    outlet = Outlet(stream)
    outlet.write("lost\n")
    stream.make_room()
    outlet.write("later\n")
    outlet.close_safely()
    assert stream.getvalue() == "later\n"
    assert outlet.error is not None


def test_a_blocked_terminal_does_not_block_a_failover() -> None:
    """Ctrl-S or a pager blocks the writer. The failover completes, and its lines are written afterwards."""
    resumed = threading.Event()

    class Stopped(io.StringIO):
        def write(self, text: str) -> int:
            resumed.wait(60)
            return super().write(text)

    shell, err, codes = Shell(), Stopped(), []
    caller = threading.Thread(target=lambda: codes.append(call(shell, *FAILOVER, stdout=io.StringIO(), stderr=err)))
    caller.start()
    wait_until(lambda: shell.set.state.active_region == "us-east-1" and shell.set.state.phase is Phase.STEADY, "moved")
    assert err.getvalue() == ""
    resumed.set()
    caller.join(60)
    assert codes == [0]
    assert " ok  complete " in err.getvalue()


def test_a_process_without_threads_shows_its_steps_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failover still succeeds."""

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    result = Shell()(*FAILOVER)
    assert result.code == 0
    assert " ok  complete " in result.err


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal")
@pytest.mark.parametrize("active", ["us-east-2", "us-est-2"])
def test_a_hangup_is_ignored_from_the_claim_on_and_only_then(monkeypatch: pytest.MonkeyPatch, active: str) -> None:
    """
    Before the claim, a closed terminal ends the command. After the claim, an ended command would leave both regions
    blocked. The same holds for the plan that recovers a state with a misspelled region.
    """
    from airflow_provider_mwaa_dr.cli import failover

    seen: list[tuple[str, object]] = []
    original = failover._Steps.__call__

    def record(self: failover._Steps, event: StepEvent) -> None:
        original(self, event)
        seen.append((event.name, signal.getsignal(signal.SIGHUP)))

    monkeypatch.setattr(failover._Steps, "__call__", record)
    before = signal.getsignal(signal.SIGHUP)
    shell = Shell()
    shell.store.overwrite(replace(shell.set.state, active_region=active))
    assert shell(*FAILOVER).code == 0
    assert {handler for name, handler in seen if name == "check"} == {before}
    assert {handler for name, handler in seen if name != "check"} == {signal.SIG_IGN}
    assert signal.getsignal(signal.SIGHUP) == before
