"""FailoverOperator."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.ports import RECORDS, REPORTS, FailoverRecord, Registration
from airflow_provider_mwaa_dr.core.state import Mode, Phase, Plan
from tests.unit.core.dr_set import WANTED, World
from tests.unit.operators.conftest import with_hook

pytest.importorskip("airflow")

from airflow_provider_mwaa_dr._compat import AirflowException, AirflowFailException
from airflow_provider_mwaa_dr.operators.failover import FailoverOperator

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]

CONTEXT = {"run_id": "manual__1", "dag_run": None}


@pytest.fixture(autouse=True)
def _outside_mwaa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_ENV_NAME", raising=False)


def operator(dr_set: World, settings: dict[str, str] | None = None, **changes: Any) -> FailoverOperator:
    arguments = {"target_region": "us-east-1", "reason": "test", **changes}
    found: FailoverOperator = with_hook(FailoverOperator(task_id="failover", **arguments), dr_set, **(settings or {}))
    return found


def test_it_moves_the_role_and_returns_the_record(dr_set: World) -> None:
    """It returns the same document as the command line, in values that XCom accepts."""
    record = operator(dr_set).execute(CONTEXT)
    assert json.loads(json.dumps(record)) == record
    assert (record["from"], record["to"], record["outcome"], record["epoch"]) == (
        "us-east-2", "us-east-1", "completed", 1,
    )  # fmt: skip
    assert "manual__1" in record["by"]
    assert dr_set.environments["us-east-1"].unpaused == WANTED | {"dr_failover"}


def test_it_stores_the_data_of_the_report(dr_set: World) -> None:
    """``mwaa-dr report`` shows them after the entries of the ledger have expired."""
    record = operator(dr_set).execute(CONTEXT)
    assert dr_set.store.get(REPORTS, record["id"]) is not None


class _BrokenLog:
    """A log whose disk is full."""

    def __getattr__(self, name: str) -> Any:
        def write(*_: object, **__: object) -> None:
            if name != "warning":  # Airflow 2 itself writes a warning before the task starts
                raise OSError(28, "No space left on device")

        return write


def test_a_log_that_cannot_be_written_stops_nothing(dr_set: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log handler raises at the first or at the last message. The role still moves, and the task succeeds."""
    monkeypatch.setattr(FailoverOperator, "log", _BrokenLog())
    assert operator(dr_set).execute(CONTEXT)["outcome"] == "completed"
    assert operator(dr_set).execute(CONTEXT)["outcome"] == "completed"
    assert dr_set.store.state is not None
    assert dr_set.store.state.phase is Phase.STEADY
    assert dr_set.environments["us-east-1"].unpaused == WANTED | {"dr_failover"}


def test_already_active_is_a_success(dr_set: World) -> None:
    """A second run of the same DAG does not fail."""
    record = operator(dr_set, target_region="us-east-2").execute(CONTEXT)
    assert (record["outcome"], record["steps"], record["id"]) == ("completed", [], None)


def test_a_dry_run_changes_nothing(dr_set: World) -> None:
    """It returns counts and writes nothing."""
    before = dr_set.store.state
    preview = operator(dr_set, dry_run=True).execute(CONTEXT)
    assert (preview["action"], preview["dags_wanted"]) == ("claim", 8)
    assert dr_set.store.state is before


def test_tasks_of_users_run_between_the_stages(dr_set: World) -> None:
    """Three tasks, one plan. XCom gets the open record, with the mode for the data step."""
    first = operator(dr_set, until="drained").execute(CONTEXT)
    assert json.loads(json.dumps(first)) == first
    assert (first["outcome"], first["mode"], first["steps"][-1]["name"]) == ("open", "graceful", "halt")
    assert (dr_set.state.active_region, dr_set.state.phase) == ("us-east-2", Phase.DRAINING)
    retried = operator(dr_set, until="drained").execute(CONTEXT)
    assert (retried["id"], retried["mode"], retried["outcome"]) == (first["id"], "graceful", "open")
    second = operator(dr_set, until="promoted", hold=timedelta(minutes=5)).execute(CONTEXT)
    assert dr_set.state.plan is not None
    assert (second["id"], dr_set.state.phase, dr_set.state.plan.hold_s) == (first["id"], Phase.PROMOTING, 300.0)
    last = operator(dr_set, until="").execute(CONTEXT)
    assert (last["id"], last["outcome"]) == (first["id"], "completed")


def test_a_task_that_continues_a_cancelled_failover_is_not_retried(dr_set: World) -> None:
    """It starts no new failover."""
    first = operator(dr_set, until="drained").execute(CONTEXT)
    operator(dr_set, target_region="us-east-2").execute(CONTEXT)
    with pytest.raises(AirflowFailException, match="is no longer open"):
        operator(dr_set, plan_id=first["id"]).execute(CONTEXT)
    assert (dr_set.state.active_region, dr_set.state.phase) == ("us-east-2", Phase.STEADY)
    assert operator(dr_set, plan_id="").execute(CONTEXT)["outcome"] == "completed"


@pytest.mark.parametrize(
    "changes",
    [
        {"until": "resumed"},
        {"until": "drained", "hold": timedelta(0)},
        {"until": "drained", "hold": timedelta(days=2)},
        {"mode": "brutal"},
        {"reason": " "},
        {"reason": None},
        {"reason": 7},
        {"reason": "x" * 1001},
        {"target_region": ""},
        {"target_region": "mars"},
        {"stop_running": "perhaps"},
    ],
)
def test_wrong_arguments_are_not_retried(dr_set: World, changes: dict[str, Any]) -> None:
    """execute() checks the arguments after templates are rendered, and before any change."""
    before = dr_set.store.state
    with pytest.raises(AirflowFailException):
        operator(dr_set, **changes).execute(CONTEXT)
    assert dr_set.store.state is before


def test_templates_may_render_to_true_and_false(dr_set: World) -> None:
    """The value of a check box in a form is a text."""
    dr_set.environments["us-east-2"].add_run("dag_00", "manual__long")
    assert operator(dr_set, stop_running="True", even_if_not_ready="False").execute(CONTEXT)["outcome"] == "completed"


def test_a_refusal_is_not_retried(dr_set: World) -> None:
    """A run takes longer than the drain. A user has to decide what to do."""
    dr_set.environments["us-east-2"].add_run("dag_00", "manual__long")
    with pytest.raises(AirflowFailException, match="dag_00 manual__long"):
        operator(dr_set).execute(CONTEXT)


def test_a_failover_without_an_answer_is_retried_and_continues(dr_set: World) -> None:
    """The second try joins the plan that the first try left open."""
    dr_set.agents["us-east-1"].listening = False
    with pytest.raises(AirflowException) as raised:
        operator(dr_set).execute(CONTEXT)
    assert not isinstance(raised.value, AirflowFailException)
    assert dr_set.state.phase is Phase.PROMOTING
    dr_set.agents["us-east-1"].listening = True
    assert operator(dr_set).execute(CONTEXT)["outcome"] == "completed"


@pytest.mark.parametrize(
    ("settings", "name", "is_refused"),
    [
        ({"region": "us-east-2", "enabled": "True"}, None, True),
        ({"region": "us-east-2"}, "ohio", True),
        ({"region": "us-east-2", "enabled": "True"}, "control", False),
        ({"region": "us-east-2"}, None, False),
        ({"region": "us-east-1", "enabled": "True"}, "virginia", False),
        ({}, None, False),
    ],
)
def test_it_refuses_to_run_in_the_region_being_left(
    dr_set: World,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    name: str | None,
    is_refused: bool,
) -> None:
    """The source may fail at any moment. A separate control environment in the same region is allowed."""
    if name is not None:
        monkeypatch.setenv("AIRFLOW_ENV_NAME", name)
    before = dr_set.store.state
    if is_refused:
        with pytest.raises(AirflowFailException, match="region being left"):
            operator(dr_set, settings).execute(CONTEXT)
        assert dr_set.store.state is before
    else:
        assert operator(dr_set, settings).execute(CONTEXT)["outcome"] == "completed"


def test_a_killed_task_stops_the_engine_and_leaves_the_plan_open(dr_set: World) -> None:
    """on_kill ends the current wait. The next run continues the plan."""
    dr_set.environments["us-east-2"].add_run("dag_00", "manual__1", seconds=20)
    task = operator(dr_set)
    dr_set.clock.after(8, task.on_kill)
    with pytest.raises(AirflowException, match="The task was killed"):
        task.execute(CONTEXT)
    assert dr_set.state.phase is Phase.DRAINING
    assert operator(dr_set).execute(CONTEXT)["outcome"] == "completed"


def test_it_is_keyword_only_and_templated() -> None:
    """Template fields are assigned unchanged, and positional arguments are refused."""
    with pytest.raises(Exception, match=r"argument"):
        FailoverOperator("us-east-1", "why")  # type: ignore[misc]
    task = FailoverOperator(task_id="t", target_region="{{ params.r }}", reason="{{ params.why }}", mode="{{ x }}")
    assert (task.target_region, task.reason, task.mode) == ("{{ params.r }}", "{{ params.why }}", "{{ x }}")
    assert {"target_region", "reason", "mode"} <= set(task.template_fields)


def test_an_automatic_failover_has_limits(dr_set: World) -> None:
    """A second one too soon is refused, with the reason. An open plan is continued."""
    operator(dr_set, cooldown=timedelta(hours=6)).execute(CONTEXT)
    back = {"target_region": "us-east-2", "cooldown": timedelta(hours=6)}
    with pytest.raises(
        AirflowFailException, match="No failover to us-east-2 was started: the last failover was 0 min ago"
    ):
        operator(dr_set, **back).execute(CONTEXT)
    with pytest.raises(AirflowFailException, match="1 failovers within 24 hours"):
        operator(dr_set, target_region="us-east-2", max_per_day=1).execute(CONTEXT)
    assert dr_set.state.active_region == "us-east-1"
    # A failover to the region that is already active succeeds.
    assert operator(dr_set, target_region="us-east-1", max_per_day=1).execute(CONTEXT)["outcome"] == "completed"
    plan = Plan(
        id="p", source="us-east-1", target="us-east-2", mode=Mode.AUTO, reason="r", by="b", owner="o",
        started_at=dr_set.clock.now(),
    )  # fmt: skip
    claimed = transitions.claim(dr_set.state, plan, at=dr_set.clock.now())
    dr_set.store.write(claimed, expected_version=dr_set.state.version)
    assert operator(dr_set, **back).execute(CONTEXT)["id"] == "p"
    assert dr_set.state.active_region == "us-east-2"


def test_an_automatic_failover_supersedes_no_plan(dr_set: World) -> None:
    """A user is moving the role to another region at this moment."""
    plan = Plan(
        id="p", source="us-east-2", target="us-east-1", mode=Mode.AUTO, reason="r", by="b", owner="o",
        started_at=dr_set.clock.now(),
    )  # fmt: skip
    dr_set.store.put(RECORDS, FailoverRecord.of(plan, epoch=1))
    dr_set.store.write(
        transitions.claim(dr_set.state, plan, at=dr_set.clock.now()), expected_version=dr_set.state.version
    )
    # The registry keeps the environments that a set had.
    for region, name in (("us-east-2", "ohio"), ("us-east-1", "virginia"), ("us-west-2", "oregon")):
        dr_set.store.register(Registration(region=region, environment=name))
    with pytest.raises(AirflowFailException, match="No failover to us-west-2 was started"):
        operator(dr_set, {"environments": ""}, target_region="us-west-2", cooldown=timedelta(hours=6)).execute(CONTEXT)
    assert dr_set.state.plan == plan
