"""After three seconds without output, a command says what it waits for."""

from __future__ import annotations

import threading
from dataclasses import replace

from airflow_provider_mwaa_dr.cli import main
from airflow_provider_mwaa_dr.cli.patience import Patience, announced
from tests.unit.cli.conftest import Shell, Terminal
from tests.waiting import wait_until


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Said:
    """The lines of a :class:`Patience`, and its clock."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.clock = Clock()
        self.patience = Patience(self.lines.append, silence_s=3, monotonic=self.clock)

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.patience.look()


def test_a_wait_is_said_after_three_seconds_and_every_ten() -> None:
    """With the time so far, and how long it can take."""
    said = Said()
    with said.patience.waiting("the table", 20):
        said.after(2.9)
        assert said.lines == []
        said.after(0.1)
        assert said.lines == ["... waiting for the table (3 s so far, at most 20 s)"]
        for _ in range(10):
            said.after(1)
        assert said.lines[1:] == ["... waiting for the table (13 s so far, at most 20 s)"]
    said.after(60)
    assert len(said.lines) == 2


def test_output_begins_the_silence_again() -> None:
    """A command that prints its progress needs no further lines."""
    said = Said()
    with said.patience.waiting("AWS"):
        for _ in range(10):
            said.after(2)
            said.patience.note_output()
        assert said.lines == []


def test_the_innermost_wait_counts_unless_it_has_just_begun() -> None:
    """Many short calls make a long silence, and no single call is the reason."""
    said = Said()
    with said.patience.waiting("AWS"):
        said.clock.now += 2
        with said.patience.waiting("the table"):
            said.after(1.5)
            assert said.lines == ["... waiting for the table (2 s so far)"]
    said = Said()
    with said.patience.waiting("AWS"):
        said.clock.now += 3.4
        with said.patience.waiting("the table"):
            said.after(0.1)
            assert said.lines == ["... waiting for AWS (4 s so far)"]


def test_the_outermost_wait_may_change() -> None:
    """The steps of a failover follow each other."""
    said = Said()
    with said.patience.waiting("AWS"):
        said.clock.now += 2
        said.patience.set_outermost("the step verify", 90)
        said.after(3)
        assert said.lines == ["... waiting for the step verify (3 s so far, at most 90 s)"]


def test_a_question_is_no_silence() -> None:
    """The user knows what the command waits for."""
    said = Said()
    with said.patience.waiting("AWS"), said.patience.asking():
        said.after(60)
        assert said.lines == []


def test_an_announced_object_works_as_before() -> None:
    """Values, results and errors of its methods are unchanged."""
    said = Said()

    class Store:
        name = "table"

        def read(self, first: int, *, more: int) -> int:
            said.after(4)
            return first + more

    store = announced(Store(), said.patience, "the table", None)
    assert store.name == "table"
    assert store.read(1, more=2) == 3
    assert said.lines == ["... waiting for the table (4 s so far)"]


def test_a_command_says_what_it_waits_for() -> None:
    """A table that does not answer is named on stderr, also with --json."""
    shell = Shell()
    out, err = Terminal(), Terminal()
    release = threading.Event()
    runtime = shell.runtime(out, err, Terminal())

    class Slow:
        def find_all(self, *_: object) -> list[object]:
            release.wait(60)
            return []

    ended: list[int] = []
    caller = threading.Thread(
        target=lambda: ended.append(
            main(
                ["history", "--json"],
                runtime=replace(runtime, silence_s=0.01, make_store=lambda _: Slow()),  # type: ignore[arg-type,return-value]
            )
        )
    )
    caller.start()
    try:
        wait_until(lambda: "waiting for the state table mwaa-dr-state in us-east-2" in err.getvalue(), "it is said")
    finally:
        release.set()
        caller.join()
    assert ended == [0]
    assert out.getvalue() == "[]\n"
