"""Users read the example DAGs: they parse without a warning, and dr_failover runs without a scheduler."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import boto3
import jinja2
import pytest

pytest.importorskip("airflow")

pytestmark = pytest.mark.airflow

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "example_dags"
# An item as the script of the AWS sample writes it.
STATE = {
    "state_id": {"S": "ACTIVE_REGION"},
    "active_region": {"S": "us-east-2"},
    "last_updated": {"S": "2026-01-01T00:00:00Z"},
    "failover_count": {"N": "0"},
    "version": {"N": "1"},
}


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """
    Import the modules that the examples use before warnings count: warnings of Airflow's own modules do not matter.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(EXAMPLES.glob("*.py")):
            run_path(str(path))


def dag_in(file: str) -> Any:
    """Return the DAG of a file. Every warning that the file itself causes is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run_path(str(EXAMPLES / file))
    return found["dag"]


def rendered(template: str, **diagnosis: Any) -> str:
    """Return a message as Jinja renders it from the return value of a task."""
    returned = {"region": "us-east-2", "health": "failed", "why": "w", "text": "t", "standbys": ["us-east-1"],
                "problems": [], "to": "us-east-1", "epoch": 1, "mode": "forced", "id": "p", "not_unpaused": [],
                **diagnosis}  # fmt: skip
    ti = SimpleNamespace(xcom_pull=lambda task_ids: returned)
    var = SimpleNamespace(value={})
    return jinja2.Template(template, undefined=jinja2.StrictUndefined).render(ti=ti, var=var, run_id="r", exception="e")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_file_defines_the_dag_of_its_name(path: Path) -> None:
    """One file, one DAG, no deprecated import, and a description for the user interface."""
    dag = dag_in(path.name)
    assert dag.dag_id == path.stem
    assert dag.description
    assert dag.doc_md
    assert not dag.catchup


def test_the_failover_dag_is_exempt_and_has_a_form() -> None:
    """Its tag exempts it from the provider, and a user can start it without unpausing it first."""
    dag = dag_in("dr_failover.py")
    assert "dr:control" in dag.tags
    assert dag.is_paused_upon_creation is False
    assert list(dag.params) == ["target_region", "reason", "mode", "stop_running", "even_if_not_ready"]
    assert dag.params.get_param("mode").schema["enum"] == ["auto", "graceful", "forced"]
    assert "enum" not in dag.params.get_param("target_region").schema


@pytest.fixture
def named_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sites in one region; this Airflow is *blue*."""
    monkeypatch.setenv("AIRFLOW__DR__ENVIRONMENTS", "blue=one@us-east-2,green=two@us-east-2")
    monkeypatch.setenv("AIRFLOW__DR__SITE", "blue")


@pytest.mark.usefixtures("named_sites")
def test_the_data_of_a_site_with_a_name_are_in_its_aws_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """The DAGs name data by site. Before the fix, they called AWS in a region *blue*."""
    found = run_path(str(EXAMPLES / "dr_failover_with_data.py"))
    assert found["client"]("s3", "green").meta.region_name == "us-east-2"

    aws = FakeAws()
    monkeypatch.setattr(boto3, "client", aws.client)
    monkeypatch.setenv("AIRFLOW_VAR_DR_DATA", json.dumps({"buckets": {"blue": "etl-blue"}}))
    write_marker = run_path(str(EXAMPLES / "dr_data_marker.py"))["dag"].get_task("write_marker").python_callable
    monkeypatch.setitem(write_marker.__globals__, "DRStateHook", lambda: SimpleNamespace(is_active=lambda: True))
    written = write_marker()
    assert (aws.region, aws.objects) == ("us-east-2", {("etl-blue", "dr-marker/blue"): written.encode()})


class FakeAws:
    """S3, RDS and Secrets Manager of two regions, as far as the data steps call them."""

    class exceptions:
        class NoSuchKey(Exception):
            pass

    def __init__(self) -> None:
        self.region = ""
        self.objects: dict[tuple[str, str], bytes] = {}
        self.writer = "us-east-2"
        self.primary, self.status = "us-east-2", "InSync"
        self.calls: list[str] = []
        self.under_way = ""

    def client(self, _: str, *, region_name: str) -> FakeAws:
        self.region = region_name
        return self

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:
        self.objects[Bucket, Key] = Body

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        if (Bucket, Key) not in self.objects:
            raise self.exceptions.NoSuchKey
        return {"Body": io.BytesIO(self.objects[Bucket, Key])}

    def describe_global_clusters(self, **_: str) -> dict[str, Any]:
        members = [
            {"DBClusterArn": f"arn-{region}", "IsWriter": region == self.writer}
            for region in ("us-east-1", "us-east-2")
        ]
        found = {"Status": "available", "GlobalClusterMembers": members}
        if self.under_way:
            found |= {"Status": "switching-over", "FailoverState": {"ToDbClusterArn": self.under_way}}
        return {"GlobalClusters": [found]}

    def switchover_global_cluster(self, *, TargetDbClusterIdentifier: str, **_: str) -> None:
        assert self.region == self.writer, "AWS says: call it in the region of the primary cluster"
        self.calls.append("switchover")
        self.under_way = TargetDbClusterIdentifier

    def end_switch(self) -> None:
        self.writer, self.under_way = self.under_way.removeprefix("arn-"), ""

    def failover_global_cluster(self, *, TargetDbClusterIdentifier: str, AllowDataLoss: bool, **_: str) -> None:
        assert AllowDataLoss
        self.calls.append("failover")
        self.writer = TargetDbClusterIdentifier.removeprefix("arn-")

    def describe_secret(self, **_: str) -> dict[str, Any]:
        replicas = [{"Region": "us-east-1", "Status": self.status}]
        return {
            "PrimaryRegion": self.primary,
            **({"ReplicationStatus": replicas} if self.region == self.primary else {}),
        }

    def stop_replication_to_replica(self, **_: str) -> None:
        self.calls.append("stop replication")
        self.primary = self.region


DATA = {
    "buckets": {"us-east-2": "ohio", "us-east-1": "virginia"},
    "global_cluster": "etl",
    "clusters": {"us-east-2": "arn-us-east-2", "us-east-1": "arn-us-east-1"},
    "secret": "s",
}
RECORD = {"id": "p1", "from": "us-east-2", "to": "us-east-1", "mode": "graceful", "outcome": "open"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    found = FakeAws()
    monkeypatch.setattr(boto3, "client", found.client)
    return found


def data_steps(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, Any] = DATA) -> Mapping[str, Any]:
    """Return the functions of the tasks of dr_failover_with_data."""
    monkeypatch.setenv("AIRFLOW_VAR_DR_DATA", json.dumps(values))
    dag = dag_in("dr_failover_with_data.py")
    return {task.task_id: task.python_callable for task in dag.tasks if hasattr(task, "python_callable")}


def test_the_data_steps_come_after_the_drain_and_before_the_rest() -> None:
    """Both failovers have the same target, reason and mode, and only the first one halts."""
    dag = dag_in("dr_failover_with_data.py")
    assert "dr:control" in dag.tags
    upstream = {task.task_id: set(task.upstream_task_ids) for task in dag.tasks}
    assert upstream["drain"] == set()
    assert upstream["switch_database"] == {"drain", "marker_arrived"}
    assert upstream["resume"] == {"database_switched", "secret"}
    drain, resume = dag.get_task("drain"), dag.get_task("resume")
    assert (drain.until, resume.until, drain.plan_id) == ("drained", None, None)
    assert "['id']" in resume.plan_id
    for name in ("target_region", "reason", "mode"):
        assert getattr(drain, name) == getattr(resume, name)


def test_a_graceful_failover_waits_for_the_marker_and_switches_without_loss(
    aws: FakeAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = data_steps(monkeypatch)
    written = steps["marker"](RECORD, "auto")
    assert written == {"key": "dr-marker/p1", "rpo_s": None}
    assert ("ohio", "dr-marker/p1") in aws.objects
    assert not steps["marker_arrived"](RECORD, written)
    aws.objects["virginia", "dr-marker/p1"] = b""
    assert steps["marker_arrived"](RECORD, written)
    assert not steps["database_switched"](RECORD)
    assert steps["switch_database"](RECORD, "auto") == "switchover"
    assert steps["switch_database"](RECORD, "auto") == "", "a retry finds the switch that is in progress"
    assert not steps["database_switched"](RECORD)
    aws.end_switch()
    assert steps["database_switched"](RECORD)
    assert steps["switch_database"](RECORD, "auto") == "", "a retry finds the target as the writer"
    assert steps["secret"](RECORD, "auto") == "in sync"
    assert aws.calls == ["switchover"]
    aws.status = "InProgress"
    with pytest.raises(ValueError, match="InProgress, not InSync"):
        steps["secret"](RECORD, "auto")


def test_a_forced_failover_measures_the_loss_and_does_not_call_the_source(
    aws: FakeAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, record = data_steps(monkeypatch), {**RECORD, "mode": "forced"}
    assert steps["marker"](record, "auto") == {"key": "", "rpo_s": None}, "no marker has ever arrived"
    at = datetime.now(timezone.utc) - timedelta(seconds=90)
    aws.objects["virginia", "dr-marker/us-east-2"] = at.isoformat().encode()
    written = steps["marker"](record, "auto")
    assert written["key"] == ""
    assert written["rpo_s"] >= 90
    assert steps["marker_arrived"](record, written)
    assert steps["switch_database"](record, "auto") == "failover"
    assert [steps["secret"](record, "auto") for _ in range(2)] == ["promoted", "promoted"]
    assert aws.calls == ["failover", "stop replication"]
    assert aws.region == "us-east-1"


@pytest.mark.parametrize("values", [{}, DATA])
def test_data_steps_without_data_or_without_a_move_do_nothing(
    aws: FakeAws, monkeypatch: pytest.MonkeyPatch, values: Mapping[str, Any]
) -> None:
    """With an empty Variable, and if the target was active already."""
    steps = data_steps(monkeypatch, values)
    record = RECORD if not values else {**RECORD, "id": None, "from": "us-east-1", "mode": None}
    written = steps["marker"](record, "auto")
    assert steps["marker_arrived"](record, written)
    assert (steps["switch_database"](record, "auto"), steps["secret"](record, "auto")) == ("", "")
    assert steps["database_switched"](record)
    assert (aws.calls, aws.objects) == ([], {})


@pytest.mark.parametrize(("enabled", "accepted"), [("True", ["rights"]), ("False", [])])
def test_the_readiness_dag_is_exempt_and_accepts_missing_failover_rights_in_a_region(
    monkeypatch: pytest.MonkeyPatch, enabled: str, accepted: list[str]
) -> None:
    """It must run in a standby, whose IAM role may not fail over. The role of a control environment may."""
    monkeypatch.setenv("AIRFLOW__DR__ENABLED", enabled)
    dag = dag_in("dr_readiness.py")
    assert "dr:control" in dag.tags
    assert "0 6 * * *" in str(getattr(dag.timetable, "summary", dag.timetable))
    (task,) = dag.tasks
    assert list(task.accept) == accepted


def test_the_monitor_does_nothing_until_it_is_unpaused_and_configured() -> None:
    """
    Each mode has its own branch, and only two diagnoses in sequence lead to it. Without a topic, it sends no message.
    """
    dag = dag_in("dr_monitor.py")
    assert "dr:control" in dag.tags
    assert dag.is_paused_upon_creation is True
    assert [task.task_id for task in dag.tasks if not task.upstream_task_ids] == ["suspicion"]
    assert {task.task_id: set(task.downstream_task_ids) for task in dag.tasks} == {
        "suspicion": {"loss"},
        "loss": {"decision"},
        "decision": {"approval", "fail_over", "recovery"},
        "approval": {"fail_over"},
        "fail_over": {"recovery"},
        "recovery": set(),
    }
    decide = dag.get_task("decision").python_callable
    assert [decide(mode) for mode in ("notify", "approve", "automatic")] == ["recovery", "approval", "fail_over"]
    with pytest.raises(ValueError, match="notify, approve, automatic"):
        decide("perhaps")
    assert not any(task.on_success_callback or task.on_failure_callback for task in dag.tasks)


def test_the_monitor_sends_to_the_configured_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends in the topic's own region: the suspicion, the loss, and a refusal. The failover sends the rest."""
    topic = "arn:aws:sns:us-west-2:123456789012:mwaa-dr"
    monkeypatch.setenv("AIRFLOW__DR__NOTIFICATION_TOPIC", topic)
    dag = dag_in("dr_monitor.py")
    notifiers = {
        (task.task_id, word): callback
        for task in dag.tasks
        for word in ("success", "failure")
        for callback in getattr(task, f"on_{word}_callback") or ()
    }
    assert {*notifiers} == {
        ("suspicion", "success"), ("loss", "success"), ("decision", "failure"), ("fail_over", "failure"),
    }  # fmt: skip
    assert {(notifier.target_arn, notifier.region_name) for notifier in notifiers.values()} == {(topic, "us-west-2")}
    assert all(len(rendered(notifier.subject)) <= 100 for notifier in notifiers.values())
    suspected = notifiers["suspicion", "success"]
    assert rendered(suspected.subject) == "MWAA DR: the active region may be failing"
    assert "only if this lasts for 600 s" in rendered(suspected.message)
    assert "only if" not in rendered(suspected.message, is_certain=True)


def test_the_monitor_reports_unusable_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state item without a usable role, and unreadable items: the message has what was found and what to do."""
    monkeypatch.setenv("AIRFLOW__DR__NOTIFICATION_TOPIC", "arn:aws:sns:us-west-2:123456789012:mwaa-dr")
    suspicion = dag_in("dr_monitor.py").get_task("suspicion")
    assert suspicion.problem_interval == 3600
    (notifier,) = suspicion.on_success_callback
    found = {"health": "healthy", "problems": ["Item A: found 1.", "Item B: found 2."]}
    assert rendered(notifier.subject, **found) == "MWAA DR: stored values cannot be used"
    assert rendered(notifier.message, **found) == "Item A: found 1. Item B: found 2."
    both = {"health": "failed", "problems": ["Item A: found 1."]}
    assert rendered(notifier.subject, **both) == "MWAA DR: the active region may be failing"
    assert "Item A: found 1." in rendered(notifier.message, **both)


def test_the_monitor_reports_a_halt_that_no_caller_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to do, and the health does not lead to a failover."""
    monkeypatch.setenv("AIRFLOW__DR__NOTIFICATION_TOPIC", "arn:aws:sns:us-west-2:123456789012:mwaa-dr")
    (notifier,) = dag_in("dr_monitor.py").get_task("suspicion").on_success_callback
    found = {"health": "unknown", "problems": ["Failover p has not continued."], "is_halted": True}
    assert rendered(notifier.subject, **found) == "MWAA DR: a failover does not continue"
    assert rendered(notifier.message, **found) == "Failover p has not continued."


def test_the_form_offers_the_regions_that_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``[dr] environments`` set, a user does not have to type a region."""
    monkeypatch.setenv("AIRFLOW__DR__ENVIRONMENTS", "us-east-2=ohio,us-east-1=virginia")
    schema = dag_in("dr_failover.py").params.get_param("target_region").schema
    assert schema["enum"] == ["us-east-1", "us-east-2"]


def test_the_test_dag_runs_every_ten_minutes() -> None:
    """As in the AWS sample's document."""
    dag = dag_in("dr_test_dag.py")
    assert "*/10 * * * *" in str(getattr(dag.timetable, "summary", dag.timetable))


class _Table(BaseHTTPRequestHandler):
    """A DynamoDB that has a state item and accepts no writes."""

    def do_POST(self) -> None:
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_state = operation == "GetItem" and request["Key"]["state_id"]["S"] == "ACTIVE_REGION"
        body = json.dumps({"Item": STATE} if is_state else {}).encode()
        self.send_response(200 if operation == "GetItem" else 400)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The environment of a plain Airflow home with the example DAGs, without API server and scheduler."""
    home = tmp_path_factory.mktemp("control")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Table)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "AWS_", "DR_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
    yield {
        **kept,
        "PYTHONPATH": str(ROOT),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW_ENV_NAME": "control",
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DR__STATE_TABLE": "mwaa-dr-state",
        "AIRFLOW__DR__STATE_TABLE_REGION": "us-east-2",
        "AIRFLOW__DR__ENVIRONMENTS": "us-east-2=ohio,us-east-1=virginia",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-2",
    }
    server.shutdown()
    server.server_close()


def airflow(control: Mapping[str, str], *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airflow", *argv], env=dict(control), capture_output=True, text=True, check=False
    )


def test_the_failover_dag_runs_without_a_scheduler(control: Mapping[str, str]) -> None:
    """``airflow dags test`` reaches the operator, which finds the region active. An unknown region fails the task."""
    assert airflow(control, "db", "migrate").returncode == 0
    reason = 'it\'s a "drill" 🔥'
    done = airflow(
        control, "dags", "test", "dr_failover", "-c", json.dumps({"target_region": "us-east-2", "reason": reason})
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    assert "us-east-2 is active already (epoch 0)" in said
    failed = airflow(
        control, "dags", "test", "dr_failover", "-c", json.dumps({"target_region": "us-west-2", "reason": reason})
    )
    assert failed.returncode != 0, (failed.stdout + failed.stderr)[-3000:]
