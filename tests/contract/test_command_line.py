"""The real ``mwaa-dr`` with a DynamoDB over a real socket: its messages and exit codes for failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core import state as transitions
from tests.contract.aws_server import HOME, AwsServer, no_such_environment

PROGRAM = Path(sys.executable).parent / "mwaa-dr"
REASON = 'flood: "the river\'s up" 🌊\nsecond line'


@dataclass(frozen=True, kw_only=True)
class FailureCase:
    """
    One kind of failure.

    :param refuse: AWS error code that answers every request.
    :param changes: environment variables; an empty text unsets one.
    :param says: texts that the message must contain.
    """

    name: str
    code: int
    error: str
    says: tuple[str, ...]
    advice: str
    refuse: str = ""
    changes: Mapping[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ("failover", "us-east-1", "--reason", "test", "--yes")

    def __str__(self) -> str:
        return self.name


FAILURES = (
    FailureCase(
        name="unknown region", code=2, error="ConfigError", says=("us-esat-1", "us-east-1", "us-east-2"),
        advice="Did you mean us-east-1?",
        words=("failover", "us-esat-1", "--reason", "test", "--yes"),
    ),
    FailureCase(
        name="table missing", code=1, error="TableNotFoundError", says=("no-such-table", HOME), advice="mwaa-dr deploy",
        changes={"DR_STATE_TABLE": "no-such-table"},
    ),
    FailureCase(
        name="mistyped region of the table", code=1, error="StateUnreachableError", says=("us-esat-2",),
        advice="us-east-2", words=("status",),
        changes={"DR_STATE_TABLE_REGION": "us-esat-2", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
    ),
    FailureCase(
        name="mistyped option", code=2, error="UsageError", says=("--reasn",), advice="Did you mean --reason?",
        words=("failover", "us-east-1", "--reasn", "test", "--yes"),
    ),
    FailureCase(
        name="not initialised", code=1, error="StateNotFoundError", says=("EMPTY",), advice="mwaa-dr init",
        changes={"DR_STATE_TABLE": "EMPTY"},
    ),
    FailureCase(
        name="no credentials", code=1, error="StateAccessError", says=("credentials",), advice="AWS_PROFILE",
        changes={"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
    ),
    FailureCase(
        name="not enough rights", code=1, error="StateAccessError", says=("AccessDeniedException",),
        advice="dynamodb:GetItem", refuse="AccessDeniedException",
    ),
    FailureCase(
        name="credentials expired", code=1, error="StateAccessError", says=("ExpiredTokenException",),
        advice="credentials", refuse="ExpiredTokenException",
    ),
    FailureCase(
        name="clock ten minutes off", code=1, error="StateAccessError", says=("InvalidSignatureException",),
        advice="clock", refuse="InvalidSignatureException",
    ),
    FailureCase(
        name="table unreachable", code=1, error="StateUnreachableError", says=("TABLE", HOME), advice="network",
        changes={"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, words=("status",),
    ),
    FailureCase(
        name="malformed environments", code=2, error="ConfigError", says=("us-east-2:one", "SITE=NAME[@REGION]"),
        advice="DR_", changes={"DR_ENVIRONMENTS": "us-east-2:one"}, words=("status",),
    ),
    FailureCase(
        name="no table named", code=2, error="ConfigError", says=("state table",), advice="DR_STATE_TABLE",
        changes={"DR_STATE_TABLE": ""}, words=("status",),
    ),
)  # fmt: skip


@pytest.fixture
def initialised(table: str, aws: AwsServer, session: boto3.session.Session) -> str:
    """A table with a state item."""
    store = DynamoDBStateStore(table, (HOME,), clock=SystemClock(), session=session, timeout_s=20)
    store.write(transitions.initial(HOME, lease_s=60, by="test", at=SystemClock().now()), expected_version=None)
    store.put_regions(HOME, {HOME})
    return table


@pytest.fixture
def empty(session: boto3.session.Session, table: str) -> str:
    """Another, empty table."""
    name = f"{table}-empty"
    client = session.client("dynamodb", region_name=HOME)
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "state_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "state_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return name


def rows(session: boto3.session.Session, table: str) -> Any:
    return session.client("dynamodb", region_name=HOME).scan(TableName=table, ConsistentRead=True)["Items"]


def run(table: str, aws: AwsServer, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, with its own environment variables."""
    return subprocess.run(
        [PROGRAM, *words], env=variables(table, aws, **changes), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip


def variables(table: str, aws: AwsServer, **changes: str) -> Mapping[str, str]:
    """Return the environment variables of the command."""
    found = {
        "PATH": os.environ["PATH"],
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "DR_STATE_TABLE": table,
        "DR_STATE_TABLE_REGION": HOME,
        "DR_ENVIRONMENTS": "us-east-2=one,us-east-1=two",
        **changes,
    }
    return {name: value for name, value in found.items() if value}


@pytest.mark.parametrize("failure", FAILURES, ids=str)
def test_a_failure_is_reported_with_message_advice_and_exit_code(
    failure: FailureCase, initialised: str, empty: str, aws: AwsServer, session: boto3.session.Session
) -> None:
    """Message, advice and exit code are in the document and in the text, and nothing is changed."""
    names = {"EMPTY": empty, "TABLE": initialised}
    changes = {name: names.get(value, value) for name, value in failure.changes.items()}
    before = rows(session, initialised), rows(session, empty)
    aws.refuse = lambda region, operation: failure.refuse
    as_document = run(initialised, aws, *failure.words, "--json", **changes)
    as_text = run(initialised, aws, *failure.words, **changes)
    aws.refuse = lambda region, operation: ""

    assert as_document.returncode == as_text.returncode == failure.code, as_document.stdout
    error = json.loads(as_document.stdout)["error"]
    assert error["type"] == failure.error
    for words in failure.says:
        assert names.get(words, words) in error["message"] + (error["advice"] or "")
    assert failure.advice in (error["advice"] or "")
    assert as_text.stdout == ""
    assert error["message"].splitlines()[0] in as_text.stderr
    assert "Traceback" not in as_text.stderr
    assert (rows(session, initialised), rows(session, empty)) == before
    print(f"\n{failure.name}: exit {failure.code}\n{as_text.stderr}", end="")


def test_without_a_failure_the_command_succeeds(initialised: str, aws: AwsServer) -> None:
    """Control: the same command without a failure. A reason may contain any character."""
    status = run(initialised, aws, "status", "--json")
    assert status.returncode == 0, status.stdout
    already = run(initialised, aws, "failover", HOME, "--reason", REASON, "--yes", "--json")
    assert already.returncode == 0, already.stdout
    assert json.loads(already.stdout)["outcome"] == "completed"
    assert json.loads(already.stdout)["reason"] == REASON


def test_a_check_without_mwaa_reports_every_check_and_changes_nothing(
    initialised: str, aws: AwsServer, session: boto3.session.Session
) -> None:
    """MWAA is unreachable: every check still has a result, and the write that tests the permissions leaves no trace."""
    before = rows(session, initialised)
    aws.conditions_failed = 0
    done = run(initialised, aws, "check", "--json", DR_HEARTBEAT_S="0.2")
    assert done.returncode == 3, done.stdout + done.stderr
    found = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert {name for name, entry in found.items() if entry["verdict"] == "fail"} == {"environment", "agents"}
    assert f"{initialised} is only in {HOME}, the active region" in found["table"]["why"]
    assert found["rights"]["why"].startswith("not checked: change DAGs in")
    assert aws.conditions_failed == 1
    assert rows(session, initialised) == before


def test_a_check_fails_for_a_caller_without_the_write_permission(initialised: str, aws: AwsServer) -> None:
    """A missing permission is a failed check of its own. The other checks still read."""
    aws.refuse = lambda region, operation: "AccessDeniedException" if operation == "UpdateItem" else ""
    aws.environments |= {"one": no_such_environment, "two": no_such_environment}
    done = run(initialised, aws, "check", "--json", DR_HEARTBEAT_S="0.2")
    (rights,) = [entry for entry in json.loads(done.stdout) if entry["name"] == "rights"]
    assert rights["verdict"] == "fail"
    assert "may not write the state" in rights["why"]
