"""
The real ``mwaa-dr`` with stdout and stderr closed, full, or without a reader: it works, with its normal exit code.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.cli.application import build_parser
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.ports import AgentStatus
from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.testing import FakeEnvironment
from tests.contract.airflow_server import AirflowServer
from tests.contract.aws_server import HOME, AwsServer, no_such_environment
from tests.contract.test_command_line import PROGRAM, variables

AWAY = "us-east-1"
REGIONS = (HOME, AWAY)
DAGS = ("billing", "orders")
STEPS = (
    "check", "claim", "record", "drain", "pause", "ledger", "lease", "promote", "adopt", "unpause", "verify",
)  # fmt: skip
WORDS: Mapping[str, Sequence[str]] = {
    "check": ("--json",),
    "deploy": ("--active", HOME, "--dry-run"),
    "failover": (HOME, "--reason", "test", "--yes"),
    "history": ("--json",),
    "report": ("--json",),
    "init": ("--active", HOME, "--yes"),
    "pause": (HOME, "--yes"),
    "sandbox down": ("--home", "HOME"),
    "sandbox drill": ("--home", "HOME", "--scenario", "none"),
    "sandbox env": ("--home", "HOME"),
    "sandbox fault": (HOME, "all", "none", "--home", "HOME"),
    "sandbox kill": (HOME, "--home", "HOME"),
    "sandbox logs": ("--home", "HOME"),
    "sandbox revive": (HOME, "--home", "HOME"),
    "sandbox up": ("--home", "HOME", "--dags", "/nonexistent"),
    "status": ("--json",),
    "undeploy": ("--dry-run",),
    "unpause": (HOME, "--yes"),
}
"""A fast call of each command. Its exit code with normal output is the control."""
CLOSED, FULL = "closed", "full"
LOST = "lost"
"""A pipe without a reader."""


def commands(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[str]:
    """Yield the words of each command of the parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield prefix
    for name, below in (pair for group in groups for pair in group.choices.items()):
        yield from commands(below, f"{prefix} {name}".strip())


COMMANDS = sorted(commands(build_parser(with_sandbox=True)))


def start(
    words: Sequence[str], environment: Mapping[str, str], *, stdout: str = "", stderr: str = ""
) -> subprocess.Popen[str]:
    """Start the command with broken streams; the other streams are captured."""
    redirections = "".join(
        {CLOSED: f" {number}>&-", FULL: f" {number}>/dev/full"}.get(wrong, "")
        for number, wrong in ((1, stdout), (2, stderr))
    )
    lost_read, lost_write = os.pipe()
    os.close(lost_read)
    try:
        return subprocess.Popen(
            ["sh", "-c", f"exec {shlex.join([str(PROGRAM), *words])}{redirections}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=lost_write if stdout == LOST else subprocess.PIPE,
            stderr=lost_write if stderr == LOST else subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(lost_write)


@dataclass(frozen=True)
class Ended:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


def run(words: Sequence[str], environment: Mapping[str, str], **wrong: str) -> Ended:
    """Run the command to its end."""
    process = start(words, environment, **wrong)
    out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out or "", err or "")


def initialise(table: str, session: boto3.session.Session) -> DynamoDBStateStore:
    store = DynamoDBStateStore(table, (HOME,), clock=SystemClock(), session=session, timeout_s=20)
    store.write(transitions.initial(HOME, lease_s=60, by="test", at=SystemClock().now()), expected_version=None)
    return store


def test_each_command_is_tried() -> None:
    """A new command must be added here."""
    assert sorted(WORDS) == COMMANDS


BROKEN: Sequence[Mapping[str, str]] = (
    {"stdout": LOST},
    {"stderr": CLOSED},
    {"stdout": FULL, "stderr": FULL},
    {"stdout": CLOSED, "stderr": CLOSED},
)


@pytest.mark.parametrize(
    ("command", "tries"),
    # All commands write with the same console, so half of the streams are enough for each. Neighbours, which are often
    # alike, get the other half.
    [(command, BROKEN[number % 2 :: 2]) for number, command in enumerate(COMMANDS)]
    + [(words, BROKEN) for words in ("--help", "--version", "nonsense")],
    ids=[*COMMANDS, "--help", "--version", "nonsense"],
)
def test_a_command_ends_with_its_exit_code_for_any_broken_output(
    command: str,
    tries: Sequence[Mapping[str, str]],
    table: str,
    aws: AwsServer,
    session: boto3.session.Session,
    tmp_path: Path,
) -> None:
    """
    With a closed or full stream, or without a reader: the exit code is that of the control, and no traceback is shown.
    """
    initialise(table, session)
    aws.environments |= {"one": no_such_environment, "two": no_such_environment}
    words = [*command.split(), *WORDS.get(command, ())]
    words = [str(tmp_path / "home") if word == "HOME" else word for word in words]
    environment = variables(table, aws, DR_HEARTBEAT_S="0.2")
    control = run(words, environment)
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda wrong: run(words, environment, **wrong), tries))
    for wrong, found in zip(tries, ended, strict=True):
        assert found.code == control.code, (wrong, found)
        assert "Traceback" not in found.err, wrong
        assert "Exception ignored" not in found.err, wrong
        if "stdout" not in wrong:
            assert bool(found.out) == bool(control.out), wrong


def test_status_into_head_shows_no_traceback(table: str, aws: AwsServer, session: boto3.session.Session) -> None:
    """The reader stops after some characters. The exit code does not change."""
    initialise(table, session)
    aws.environments |= {"one": no_such_environment, "two": no_such_environment}
    process = start(["status", "--json"], variables(table, aws))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0
    assert "Traceback" not in err
    assert "Exception ignored" not in err


class Site:
    """A DR set of two regions in the emulated AWS, with agents that acknowledge and adopt."""

    def __init__(self, number: int, aws: AwsServer, session: boto3.session.Session) -> None:
        self.table = f"mwaa-dr-output-{uuid.uuid4().hex[:8]}"
        session.client("dynamodb", region_name=HOME).create_table(
            TableName=self.table,
            KeySchema=[{"AttributeName": "state_id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "state_id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self.store = initialise(self.table, session)
        self.airflows = {}
        for region in REGIONS:
            world = FakeEnvironment(region, name=f"output-{region}-{number}", clock=SystemClock())
            for dag_id in DAGS:
                world.add_dag(dag_id, is_paused=region != HOME)
            server = AirflowServer(world, "3.3.1", clock=SystemClock().monotonic)
            server.start()
            aws.environments[world.name] = server._serve_aws
            self.airflows[region] = server
        names = ",".join(f"{region}={server.world.name}" for region, server in self.airflows.items())
        self.environment = variables(
            self.table, aws, DR_ENVIRONMENTS=names, DR_HEARTBEAT_S="3", DR_REFRESH_S="1", DR_FENCE_FILE_S="0.5"
        )
        self._beat = 0

    def beat(self) -> None:
        """Let the agents of both regions read the state."""
        state = self.store.read()
        self._beat += 1
        for region in REGIONS:
            self.store.put_agent(
                AgentStatus(
                    region=region, job="1", host="host", at=SystemClock().now(), beat=self._beat,
                    version=state.version, epoch=state.epoch, provider_version="0.1.0", airflow_version="3.3.1",
                    adopted_epoch=state.epoch, reconciled_epoch=state.epoch, schedulers=("1",),
                    fence_file_s=0.5,  # without it, the failover would wait for the longest value, half a minute
                )
            )  # fmt: skip

    def assert_moved(self) -> None:
        """Assert that the failover is complete."""
        state = self.store.read()
        assert (state.active_region, state.phase, state.epoch) == (AWAY, Phase.STEADY, 1)
        assert self.airflows[AWAY].world.unpaused == set(DAGS)
        assert self.airflows[HOME].world.unpaused == set()

    def stop(self) -> None:
        """Stop its threads."""
        for server in self.airflows.values():
            server.stop()


@pytest.fixture
def make_site(aws: AwsServer, session: boto3.session.Session) -> Iterator[Callable[[], Site]]:
    """Return a function that makes DR sets with live agents."""
    sites: list[Site] = []
    lock, over = threading.Lock(), threading.Event()

    def make() -> Site:
        site = Site(len(sites), aws, session)
        site.beat()
        with lock:
            sites.append(site)
        return site

    def work() -> None:
        while not over.wait(0.3):
            with lock:
                for site in sites:
                    site.beat()

    thread = threading.Thread(target=work)
    thread.start()
    yield make
    over.set()
    thread.join()
    for site in sites:
        site.stop()


FAILOVER = ("failover", AWAY, "--reason", "test", "--mode", "graceful", "--yes")


def read_until(process: subprocess.Popen[str], step: str) -> None:
    """Read stderr like ``grep -m1 STEP``, then stop."""
    assert process.stderr is not None
    for line in process.stderr:
        if f" {step} " in line and " ok " in line:
            break
    else:
        raise AssertionError(f"{step} was never done")
    process.stderr.close()


def ended_after(site: Site, step: str) -> Ended:
    """Fail over with a reader that stops reading stderr and stdout after a step."""
    process = start(FAILOVER, site.environment, stdout=LOST)
    read_until(process, step)
    return Ended(process.wait(120), "", "")


def test_a_failover_continues_when_its_reader_stops_after_any_step(make_site: Callable[[], Site]) -> None:
    """`mwaa-dr failover ... |& grep -m1 STEP` completes with exit code 0, for each step."""
    sites = {step: make_site() for step in STEPS}
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda step: ended_after(sites[step], step), STEPS))
    assert {step: found.code for step, found in zip(STEPS, ended, strict=True)} == dict.fromkeys(STEPS, 0)
    for site in sites.values():
        site.assert_moved()


@pytest.mark.parametrize("wrong", [CLOSED, FULL, LOST])
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_failover_without_any_output_completes(
    make_site: Callable[[], Site], wrong: str, form: tuple[str, ...]
) -> None:
    """Without any output, the exit code is 0."""
    site = make_site()
    assert run((*FAILOVER, *form), site.environment, stdout=wrong, stderr=wrong).code == 0
    site.assert_moved()


def test_a_closed_terminal_does_not_end_a_failover_that_has_claimed(make_site: Callable[[], Site]) -> None:
    """SIGHUP after the claim is ignored; SIGHUP before the claim ends the command."""
    site = make_site()
    process = start(FAILOVER, site.environment)
    assert process.stderr is not None
    for line in process.stderr:
        if " claim " in line:
            break
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=120)[0].startswith(f"{AWAY} is active")
    assert process.returncode == 0
    site.assert_moved()


def test_a_hangup_before_the_claim_ends_the_command(make_site: Callable[[], Site], aws: AwsServer) -> None:
    """Nothing was changed."""
    site = make_site()
    asked, answer = threading.Event(), threading.Event()
    served = aws.environments[site.airflows[AWAY].world.name]

    def slow(environ: dict[str, Any], start_response: Any) -> Any:
        asked.set()
        answer.wait(60)
        return served(environ, start_response)

    aws.environments[site.airflows[AWAY].world.name] = slow
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, the command would inherit that it is ignored
    try:
        process = start(FAILOVER, site.environment)
    finally:
        signal.signal(signal.SIGHUP, ignored)
    assert asked.wait(60)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    answer.set()
    assert process.returncode == -signal.SIGHUP
    assert site.store.read().phase is Phase.STEADY
