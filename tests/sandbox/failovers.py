"""
Helpers for the tests of failovers: commands that a test can watch while they run, and runs that wait for the test.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow_provider_mwaa_dr.core.ports import SNAPSHOTS
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.exceptions import UnreadableItemError
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_settings
from tests.sandbox.harness import Airflow, Pair
from tests.waiting import wait_until

CHAIN = ["first", "second"]
"""The tasks of each DAG in fo_chain.py."""
REASON = ("--reason", "test", "--yes", "--json")


class Command:
    """A started process. Its output goes to files, so that a test can read it while the process runs."""

    def __init__(self, program: Path, words: tuple[str, ...], variables: Mapping[str, str], folder: Path) -> None:
        self.words = words
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        with self._stdout.open("w") as stdout, self._stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                [program, *words],
                env=airflow_settings.process_variables(variables, bin_folder=program.parent),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )

    @property
    def stdout(self) -> str:
        """Its stdout until now."""
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        """Its stderr until now."""
        return self._stderr.read_text()

    def wait(self, *, timeout_s: float = 240.0) -> int:
        """Wait until it ends, and return its exit code."""
        return self.process.wait(timeout_s)

    def document(self, *, code: int = 0) -> Any:
        """Return the one JSON document on its stdout. :raises AssertionError: it did not end with *code*."""
        assert self.wait() == code, f"{self.words} ended with {self.process.returncode}, not {code}: {self.stderr}"
        return json.loads(self.stdout)

    def wait_until_it_prints(self, text: str) -> None:
        """Wait until *text* is on its stderr. :raises AssertionError: it ended, or the deadline passed."""

        def is_said() -> bool:
            ended = self.process.poll() is not None
            assert text in self.stderr or not ended, f"{self.words} ended without {text!r}: {self.stderr}"
            return text in self.stderr

        wait_until(is_said, f"{self.words} says {text!r}")


@contextmanager
def command(program: Path, words: tuple[str, ...], variables: Mapping[str, str]) -> Iterator[Command]:
    """Yield a started program, and end it after the test."""
    with TemporaryDirectory() as folder:
        started = Command(program, words, variables, Path(folder))
        try:
            yield started
        finally:
            if started.process.poll() is None:
                started.process.kill()
                started.process.wait()


@contextmanager
def mwaa_dr(pair: Pair, *words: str, **dr: object) -> Iterator[Command]:
    """
    Yield a started ``mwaa-dr``, and end it after the test. *dr*: settings only for it, ``drain_s=5`` as ``DR_DRAIN_S``.
    """
    variables = {**pair.variables, **{f"DR_{name.upper()}": str(value) for name, value in dr.items()}}
    with command(Path(sys.executable).parent / "mwaa-dr", words, variables) as started:
        yield started


@contextmanager
def airflow(described: Mapping[str, Any], *words: str, **variables: str) -> Iterator[Command]:
    """Yield a started ``airflow`` of the control environment (``pair.control``), or of a region by its description."""
    with command(Path(described["bin"]) / "airflow", words, {**described["env"], **variables}) as started:
        yield started


def killed_after(pair: Pair, step: str, region: str, *words: str) -> None:
    """Run the real ``mwaa-dr failover`` until the end of *step*, and kill it there with SIGKILL."""
    program = (str(Path(__file__).with_name("killed_command.py")), step, "failover", region, *REASON, *words)
    with command(Path(sys.executable), program, pair.variables) as started:
        code = started.wait()
        assert code == -signal.SIGKILL, f"it ended with {code} and never came to {step}: {started.stderr}"


def operator_words(conf: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ``airflow`` arguments that run the example DAG of a failover."""
    return ("dags", "test", "dr_failover", "-c", json.dumps(dict(conf)))


def fail_over(pair: Pair, region: str, *words: str, drain_s: float = 120, **dr: object) -> dict[str, Any]:
    """Make *region* active with the real command and return the record. The drain lasts as long as tests may take."""
    with mwaa_dr(pair, "failover", region, *REASON, *words, drain_s=drain_s, **dr) as failover:
        record: dict[str, Any] = failover.document()
    assert (record["outcome"], record["not_unpaused"]) == ("completed", []), record
    return record


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRun:
    """A run of a DAG with two tasks."""

    airflow: Airflow
    dag_id: str
    run_id: str

    def bodies(self, airflow: Airflow | None = None) -> list[str]:
        """Return the tasks whose bodies executed in the run's region, or in *airflow*, in order."""
        return [line.task_id for line in (airflow or self.airflow).executed(self.dag_id, self.run_id)]

    @property
    def state(self) -> str:
        """Its state in Airflow."""
        return str(self.airflow.run(self.dag_id, self.run_id)["state"])

    @property
    def note(self) -> str:
        """Its note; empty if it has none."""
        return self.airflow.note(self.dag_id, self.run_id)

    def let_go(self) -> None:
        """Let its first task continue."""
        gates = self.airflow.home / "gates"
        gates.mkdir(exist_ok=True)
        (gates / self.run_id).touch()

    def wait_until_it_executed(self) -> None:
        """Wait until the bodies of its two tasks have executed, each once and in order."""
        wait_until(lambda: self.bodies() == CHAIN, f"{self.dag_id} {self.run_id} executes in {self.airflow.name}")

    def wait_until_it_is(self, state: str) -> None:
        """Wait until Airflow shows this state."""
        wait_until(lambda: self.state == state, f"{self.dag_id} {self.run_id} is {state} in {self.airflow.name}")


def start(airflow: Airflow, *, dag_id: str = "fo_chain", waits: bool = False) -> ChainRun:
    """Start a run. If it *waits*, return only after its first task executes."""
    run = ChainRun(airflow=airflow, dag_id=dag_id, run_id=airflow.trigger(dag_id, conf={"wait": waits}))
    if waits:
        wait_until(run.bodies, f"the first task of {run.run_id} executes in {airflow.name}")
    return run


def wait_for_snapshot(pair: Pair, region: Airflow, *dag_ids: str, without: str = "") -> None:
    """
    Wait until a forced failover from *region* would unpause these DAGs in the target, but not the DAG *without*.

    It takes half a minute after the region's scheduler was killed: Airflow counts it as alive, so no other agent leads.
    """

    def is_recorded() -> bool:
        try:
            snapshot = pair.table.get(SNAPSHOTS, region.name)
        except UnreadableItemError:
            return False  # an earlier test damaged it; the agent writes it again
        return snapshot is not None and {*dag_ids} <= {*snapshot.dag_ids} and without not in snapshot.dag_ids

    wait_until(is_recorded, f"the snapshot of {region.name} has {', '.join(dag_ids)}")


def make_steady(pair: Pair, *, idle: bool = True) -> DRState:
    """
    Make a failover possible again, whatever an earlier test left, and return the state.

    :param idle: whether to wait until nothing runs. With DAGs that run by themselves, something always does.
    """
    for region in pair.airflows:
        pair.sandbox.fault(region, "all", "none")
    pair.forget_killed_schedulers()
    state = pair.state()
    if state.phase is not Phase.STEADY:
        fail_over(pair, state.active_region)
    for region in pair.airflows.values():
        for word in ("running", "queued"):
            for run in region.runs(state=word):
                ChainRun(airflow=region, dag_id=run["dag_id"], run_id=run["dag_run_id"]).let_go()
    pair.active.unpause("fo_chain")
    pair.active.pause("fo_stray")
    # Failovers do not pause this exempt DAG.
    for region in pair.airflows.values():
        region.pause("outage_exempt")
    if idle:
        pair.wait_in_each(Airflow.is_idle, "nothing runs")
    pair.wait_until_reconciled()
    wait_for_snapshot(pair, pair.active, "fo_chain", without="fo_stray")

    def no_killed_scheduler() -> bool:
        pair.forget_killed_schedulers()
        return all(has_only_live_schedulers(pair, region) for region in pair.airflows)

    wait_until(no_killed_scheduler, "Airflow lists no killed scheduler")
    return pair.state()


def has_only_live_schedulers(pair: Pair, region: str) -> bool:
    """Whether Airflow no longer lists schedulers of *region* that an earlier test killed."""
    agents = pair.table.agents(region)
    newest = max(agents, key=lambda agent: agent.at)
    live = {agent.job for agent in agents if newest.at - agent.at < timedelta(seconds=10)}
    return set(newest.schedulers) <= live
