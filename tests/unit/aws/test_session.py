"""Retries have a deadline, and importing the adapters costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_mwaa_dr.aws.session import is_aws_endpoint, retry
from airflow_provider_mwaa_dr.exceptions import MwaaAccessError, MwaaUnreachableError
from airflow_provider_mwaa_dr.testing import ManualClock


def test_retry_ends_with_the_first_answer() -> None:
    """A call that fails for a while is made again until it succeeds, with growing waits."""
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
    """The last error comes out unchanged, and no wait goes beyond the deadline."""
    clock = ManualClock()

    def call() -> str:
        raise MwaaUnreachableError(f"at {clock.monotonic():.0f}")

    with pytest.raises(MwaaUnreachableError):
        retry(call, on=MwaaUnreachableError, clock=clock, deadline_s=5)
    assert clock.monotonic() < 5


def test_other_errors_are_not_retried() -> None:
    """What another attempt cannot cure is raised at once."""
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
    """Only AWS's own hosts get the prefixes that botocore puts before them."""
    assert is_aws_endpoint(url) is is_aws


def test_making_the_adapters_imports_no_boto3() -> None:
    """A scheduler that loads the plugin pays for boto3 and requests only when something is asked."""
    code = (
        "import sys\n"
        "from airflow_provider_mwaa_dr.aws.environment import MwaaEnvironment\n"
        "from airflow_provider_mwaa_dr.aws.state_store import DynamoDBStateStore\n"
        "MwaaEnvironment('us-east-2', 'etl')\n"
        "DynamoDBStateStore('t', ['us-east-2'])\n"
        "sys.exit(','.join({'boto3', 'botocore', 'requests', 'airflow'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
