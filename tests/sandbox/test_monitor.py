"""
Automatic failover by the example DAG dr_monitor: only a killed region causes a failover.

The control environment runs the deployed file, in most tests with a poll every second, so that sixty polls stand for
the half hour of an environment's update. The tests do not wait for seconds, but for a number of polls. Regions are
killed with the times of the file, and the test prints how long the decision takes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.deploy.example_dags import example_dags
from airflow_provider_mwaa_dr.core.ports import RECORDS
from airflow_provider_mwaa_dr.core.readiness.model import TEST_DAG
from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.sandbox.cloud import faults
from airflow_provider_mwaa_dr.sandbox.cloud.faults import FaultKind
from tests.sandbox.failovers import Command, airflow, fail_over, make_steady, start, wait_for_snapshot
from tests.sandbox.harness import Airflow, Pair, on
from tests.waiting import wait_until

pytestmark = [pytest.mark.sandbox, pytest.mark.soak]

KILLS = int(os.environ.get("MWAA_DR_TEST_KILLS", "20"))
POLLS = 60
"""The number of polls for which a test waits until a problem has lasted for long."""
UNLIMITED = {"MAX_PER_DAY = 2": "MAX_PER_DAY = 1000"}
SHORTER = {"POLL_EVERY_S = 5.0": "POLL_EVERY_S = 1.0", **UNLIMITED}
WITHOUT_COOLDOWN = {"COOLDOWN = timedelta(hours=6)": "COOLDOWN = timedelta(0)"}
TOPIC_REGION = "us-west-2"
"""The region of the topic, which is not a region that a test may lose."""
SUSPECTED, FAILED = "MWAA DR: the active region may be failing", "MWAA DR: the active region has failed"
NOT_DONE = "MWAA DR: failover not done"


@dataclass(frozen=True, slots=True)
class Topic:
    """An SNS topic with a queue that receives its messages."""

    arn: str
    queue: str
    sqs: Any

    def subjects(self) -> list[str]:
        """Return the subjects of the messages since the last call, in any order."""
        found = []
        while messages := self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                found.append(json.loads(message["Body"])["Subject"])
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return sorted(found)


@pytest.fixture
def topic(pair: Pair) -> Topic:
    """A topic that works."""
    sns, sqs = client(pair, "sns", TOPIC_REGION), client(pair, "sqs", TOPIC_REGION)
    queue = sqs.create_queue(QueueName="messages")["QueueUrl"]
    arn = sns.create_topic(Name="messages")["TopicArn"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue_arn)
    found = Topic(arn, queue, sqs)
    found.subjects()
    return found


def client(pair: Pair, service: str, region: str) -> Any:
    """Return a boto3 client of the control environment."""
    return boto3.client(
        service,  # type: ignore[call-overload]
        region_name=region,
        endpoint_url=pair.variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=pair.variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=pair.variables["AWS_SECRET_ACCESS_KEY"],
    )


class Monitor:
    """dr_monitor, which polls a region."""

    def __init__(self, pair: Pair, region: Airflow, command: Command) -> None:
        self._pair, self._region, self.command = pair, region, command

    def wait_until_it_polled(self, times: int) -> None:
        """Wait for this number of further polls of the region's environment."""
        began = datetime.now(tz=timezone.utc)

        def enough() -> bool:
            assert self.command.process.poll() is None, f"it ended: {self.command.stdout} {self.command.stderr}"
            return len(self._polls(began)) >= times

        wait_until(enough, f"it polls {times} times", deadline_s=60 + 30 * times)

    def wait_until_it_read(self, times: int) -> None:
        """Wait for this number of further attempts to read the state, with or without a response."""
        began = datetime.now(tz=timezone.utc)
        wait_until(
            lambda: (
                sum(
                    row["caller"] == "control"
                    for name in self._pair.airflows
                    for row in self._pair.sandbox.requests(name, "dynamodb", since=began)
                )
                >= times
            ),
            f"it asks for the state {times} times",
            deadline_s=60 + 30 * times,
        )

    def _polls(self, since: datetime) -> Sequence[Any]:
        rows = self._pair.sandbox.requests(self._region.name, "mwaa", since=since)
        return [row for row in rows if row["caller"] == "control" and row["operation"].startswith("GET /environments/")]


def changed(changes: Mapping[str, str]) -> str:
    """Return the file of the DAG with *changes*."""
    text = (example_dags() / "dr_monitor.py").read_text()
    for long, short in changes.items():
        assert text.count(long) == 1
        text = text.replace(long, short)
    return text


@contextmanager
def monitor(
    pair: Pair,
    topic: str,
    *,
    mode: str = "automatic",
    changes: Mapping[str, str] = WITHOUT_COOLDOWN,
    times: Mapping[str, str] = SHORTER,
) -> Iterator[Monitor]:
    """Yield the DAG, which runs in the control environment with a steady pair."""
    text = changed({**times, **changes})
    (Path(pair.control["env"]["AIRFLOW_HOME"]) / "dags" / "dr_monitor.py").write_text(text)
    variables = {"AIRFLOW_VAR_DR_MONITOR_MODE": mode, "AIRFLOW__DR__NOTIFICATION_TOPIC": topic}
    region = pair.active
    with airflow(pair.control, "dags", "test", "dr_monitor", **variables) as command:
        watching = Monitor(pair, region, command)
        watching.wait_until_it_polled(2)
        yield watching


def failovers(pair: Pair) -> list[str]:
    """Return the ids of all failovers until now."""
    return [record.id for record in pair.table.find_all(RECORDS)]


@on("3.3.1")
def test_a_killed_region_is_left_automatically(pair: Pair, topic: Topic) -> None:
    """The DAG detects it, notifies, fails over, and notifies again; several times, in both directions."""
    for number in range(KILLS):
        make_steady(pair)
        source, target = pair.active, pair.standby
        before = failovers(pair)
        with monitor(pair, topic.arn, times=UNLIMITED) as watching:
            pair.sandbox.kill(source.name)
            killed_at = datetime.now(tz=timezone.utc)
            assert watching.command.wait(timeout_s=600) == 0, watching.command.stdout + watching.command.stderr
        record = pair.table.find_all(RECORDS)[0]
        assert record.id not in before
        assert len(failovers(pair)) == len(before) + 1
        assert (record.target, record.mode.value, record.outcome) == (target.name, "forced", "completed")
        assert record.by.startswith("dr_monitor/")
        assert record.not_unpaused == ()
        # The last two are from the failover itself.
        move = f"MWAA DR: failover {source.name} -> {target.name}"
        assert topic.subjects() == sorted([SUSPECTED, FAILED, f"{move} started", f"{move} completed"])
        run = start(target)
        run.wait_until_it_executed()
        executed_s = (datetime.now(tz=timezone.utc) - killed_at).total_seconds()
        begun_s = (record.started_at - killed_at).total_seconds()
        print(
            f"kill {number + 1} of {KILLS}: {source.name} left, begun {begun_s:.0f} s after it, "
            f"a run requested after the failover has executed {executed_s:.0f} s after it; {record.reason}"
        )
        pair.sandbox.revive(source.name)
        pair.wait_until_reconciled()


@on("3.3.1")
def test_other_problems_do_not_count_as_a_failed_region(pair: Pair, topic: Topic) -> None:
    """
    An update, an API that answers 500 or not at all, an unreachable state table, and a topic that does not work.

    The same monitor meets all of them in sequence. At the end it detects a killed region, which is its purpose.
    """
    make_steady(pair)
    source, target = pair.active, pair.standby
    before = failovers(pair)
    sandbox = pair.sandbox
    with monitor(pair, topic.arn) as watching:
        # An update: no scheduler is alive during it.
        with updating(pair, source):
            source.stop("scheduler")
            watching.wait_until_it_polled(POLLS)
            source.start_scheduler()
            pair.wait_until_reconciled()
        watching.wait_until_it_polled(5)

        sandbox.fault(source.name, "mwaa", "error", from_caller="control")
        watching.wait_until_it_polled(5)
        sandbox.fault(source.name, "mwaa", "none", from_caller="control")
        with source.frozen("api-server"):
            watching.wait_until_it_polled(5)

        for name in pair.airflows:
            sandbox.fault(name, "dynamodb", "refuse", from_caller="control")
        watching.wait_until_it_read(POLLS)
        for name in pair.airflows:
            sandbox.fault(name, "dynamodb", "none", from_caller="control")
        watching.wait_until_it_polled(5)
        assert failovers(pair) == before
        assert pair.state().phase is Phase.STEADY
        assert topic.subjects() == []

        with dead_topic(pair):
            watching.wait_until_it_polled(5)
            assert failovers(pair) == before
            sandbox.kill(source.name)
            assert watching.command.wait(timeout_s=600) == 0, watching.command.stdout + watching.command.stderr
    assert len(failovers(pair)) == len(before) + 1
    assert pair.state().active_region == target.name
    assert topic.subjects() == []
    start(target).wait_until_it_executed()
    sandbox.revive(source.name)
    pair.wait_until_reconciled()


@on("3.3.1")
def test_the_mode_and_the_limits_keep_it_from_acting(pair: Pair, topic: Topic) -> None:
    """In mode notify, it only sends messages. Too soon after another failover, it is refused, and sends the reason."""
    make_steady(pair)
    source = pair[fail_over(pair, pair.standby.name)["to"]]
    source.deploy(f"{TEST_DAG}.py", (example_dags() / f"{TEST_DAG}.py").read_text())
    source.wait_for_dag(TEST_DAG)
    source.unpause(TEST_DAG)
    before = failovers(pair)
    with monitor(pair, topic.arn, mode="notify") as watching:

        def probed() -> bool:
            probes = [run for run in source.runs(TEST_DAG) if run["dag_run_id"].startswith("dr_probe__")]
            return [run["state"] for run in probes] == ["success"]

        wait_until(probed, "a probe run succeeds")
        source.pause(TEST_DAG)
        wait_for_snapshot(pair, source, "fo_chain")
        pair.sandbox.kill(source.name)
        subjects: list[str] = []
        wait_until(
            lambda: subjects.extend(topic.subjects()) or FAILED in subjects, "it sends that the region has failed"
        )
        watching.wait_until_it_polled(5)
    assert subjects == [SUSPECTED, FAILED]
    with monitor(pair, topic.arn, changes={}) as watching:
        wait_until(lambda: subjects.extend(topic.subjects()) or NOT_DONE in subjects, "it sends that it was refused")
        assert "the last failover was" in watching.command.stdout + watching.command.stderr
        watching.wait_until_it_polled(5)
    assert failovers(pair) == before
    assert (pair.state().phase, pair.state().active_region) == (Phase.STEADY, source.name)
    pair.sandbox.revive(source.name)
    pair.wait_until_reconciled()


@on("3.3.1")
def test_a_user_in_the_standby_approves(pair: Pair, topic: Topic) -> None:
    """The DAG runs with a real scheduler and triggerer in the surviving region. Nothing moves before the approval."""
    make_steady(pair)
    source, target = pair.active, pair.standby
    before = failovers(pair)
    changes = {
        "poke_interval=60": "poke_interval=1",
        "conf.load().notification_topic": repr(topic.arn),
    }
    target.deploy("dr_monitor.py", changed({**SHORTER, **WITHOUT_COOLDOWN, **changes}))
    target.wait_for_dag("dr_monitor")
    target.rest("POST", "/variables", json={"key": "dr_monitor_mode", "value": "approve"})
    target.unpause("dr_monitor")

    def task(task_id: str) -> str:
        run = target.runs("dr_monitor")[0]
        return f"/dags/dr_monitor/dagRuns/{run['dag_run_id']}/taskInstances/{task_id}"

    def state(task_id: str) -> str | None:
        found = target.rest("GET", task(task_id))["state"] if target.runs("dr_monitor") else None
        return None if found is None else str(found)

    wait_until(lambda: state("suspicion") == "deferred", "it looks, in the triggerer")
    pair.sandbox.kill(source.name)
    wait_until(lambda: state("approval") == "up_for_reschedule", "it asks", deadline_s=600)
    assert topic.subjects() == sorted([SUSPECTED, FAILED])
    assert (failovers(pair), pair.state().active_region) == (before, source.name)
    target.rest("PATCH", task("approval"), json={"new_state": "success"})
    wait_until(lambda: state("fail_over") == "success", "it fails over", deadline_s=600)
    record = pair.table.find_all(RECORDS)[0]
    assert (record.target, record.outcome, len(failovers(pair))) == (target.name, "completed", len(before) + 1)
    start(target).wait_until_it_executed()

    target.pause("dr_monitor")
    target.rest(
        "PATCH", f"/dags/dr_monitor/dagRuns/{target.runs('dr_monitor')[0]['dag_run_id']}", json={"state": "failed"}
    )
    target.remove("dr_monitor.py")
    pair.sandbox.revive(source.name)
    pair.wait_until_reconciled()


@contextmanager
def dead_topic(pair: Pair) -> Iterator[None]:
    """Let the topic refuse every message."""
    one_way = {"region": TOPIC_REGION, "service": "sns", "from_caller": "control"}
    change = partial(faults.change, pair.sandbox.faults_file)
    change(lambda table: faults.add(table, fault=FaultKind.REFUSE, **one_way))
    try:
        yield
    finally:
        change(lambda table: faults.remove(table, **one_way))


@contextmanager
def updating(pair: Pair, region: Airflow) -> Iterator[None]:
    """Keep the status of the environment at UPDATING until the test ends it."""
    path = pair.home / "aws" / "config.json"
    config = json.loads(path.read_text())
    changed = {**config, "environments": {**config["environments"]}}
    changed["environments"][region.name] = {**config["environments"][region.name], "status": "UPDATING"}
    path.write_text(json.dumps(changed))
    try:
        yield
    finally:
        path.write_text(json.dumps(config))
