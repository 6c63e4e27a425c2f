"""Retries have a deadline, and the adapters import no boto3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest

from airflow_provider_mwaa_dr.aws import session
from airflow_provider_mwaa_dr.aws.session import is_aws_endpoint, retry, unknown_region_advice
from airflow_provider_mwaa_dr.exceptions import MwaaAccessError, MwaaUnreachableError
from airflow_provider_mwaa_dr.testing import ManualClock


def test_the_nearest_region_is_named_for_an_unknown_one() -> None:
    """Regions of all partitions are known."""
    assert unknown_region_advice(["us-east-2", "cn-north-1"]) == ""
    assert "us-east-2" in unknown_region_advice(["us-esat-2"])
    assert "Known are af-south-1" in unknown_region_advice(["moon"])


def test_retry_ends_with_the_first_answer() -> None:
    """A call is repeated until it succeeds, with growing waits."""
    clock = ManualClock()
    made: list[float] = []

    def call() -> str:
        made.append(clock.monotonic())
        if clock.monotonic() < 2:
            raise MwaaUnreachableError("not yet")
        return "done"

    assert retry(call, on=MwaaUnreachableError, clock=clock, deadline_s=10) == "done"
    assert len(made) < 10


def test_retry_gives_up_at_its_deadline() -> None:
    """The last error is raised unchanged, and no wait exceeds the deadline."""
    clock = ManualClock()

    def call() -> str:
        raise MwaaUnreachableError(f"at {clock.monotonic():.0f}")

    with pytest.raises(MwaaUnreachableError):
        retry(call, on=MwaaUnreachableError, clock=clock, deadline_s=5)
    assert clock.monotonic() < 5


def test_other_errors_are_not_retried() -> None:
    """An error that a retry cannot fix is raised immediately."""
    clock = ManualClock()

    def call() -> str:
        raise MwaaAccessError("no")

    with pytest.raises(MwaaAccessError):
        retry(call, on=MwaaUnreachableError, clock=clock, deadline_s=5)
    assert clock.monotonic() == 0


@pytest.mark.parametrize(
    ("url", "is_aws"),
    [
        ("https://airflow.us-east-2.amazonaws.com", True),
        ("https://airflow.cn-north-1.amazonaws.com.cn", True),
        ("https://airflow.us-east-2.api.aws", True),
        ("http://127.0.0.1:4566", False),
        ("http://amazonaws.com.example.org/", False),
    ],
)
def test_endpoint_of_an_emulated_aws_is_recognised(url: str, is_aws: bool) -> None:
    """Only AWS's own hosts have the prefixes that botocore adds."""
    assert is_aws_endpoint(url) is is_aws


def test_making_the_adapters_imports_no_boto3() -> None:
    """A scheduler that loads the plugin imports boto3 and requests only at the first request."""
    code = (
        "import sys\n"
        "from airflow_provider_mwaa_dr.aws.mwaa.environment import MwaaEnvironment\n"
        "from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore\n"
        "MwaaEnvironment('us-east-2', 'etl')\n"
        "DynamoDBStateStore('t', ['us-east-2'])\n"
        "sys.exit(','.join({'boto3', 'botocore', 'requests', 'airflow'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[boto3.session.Session]:
    """The list of all boto3 sessions that a test creates. No session exists at first."""
    made: list[boto3.session.Session] = []

    class Counted(boto3.session.Session):
        def __init__(self) -> None:
            super().__init__(aws_access_key_id="test", aws_secret_access_key="test")
            made.append(self)

    monkeypatch.setattr(boto3.session, "Session", Counted)
    monkeypatch.setattr(session._shared, "session", None)
    return made


def test_clients_of_a_process_share_a_session(sessions: list[boto3.session.Session]) -> None:
    """Several threads create clients at the same time, and later one more. Each client has its own region."""
    with ThreadPoolExecutor(4) as pool:
        clients = list(pool.map(lambda at: session.dynamodb_client(f"us-east-{1 + at % 2}", timeout_s=1), range(8)))
    assert [client.meta.region_name for client in clients] == ["us-east-1", "us-east-2"] * 4
    session.mwaa_client("us-east-1")
    assert len(sessions) == 1


def test_a_forked_child_waits_for_no_thread_of_its_parent(sessions: list[boto3.session.Session]) -> None:
    """A scheduler forks while its agent may be creating a client. The child creates a client with a new session."""
    session.mwaa_client("us-east-1")
    with session._shared.lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)  # ends a child that hangs
            session.mwaa_client("us-east-1")
            os._exit(0 if len(sessions) == 2 else 1)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
