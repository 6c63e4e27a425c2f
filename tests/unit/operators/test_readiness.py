"""ReadinessOperator."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.testing import FakeTables
from tests.unit.core.dr_set import World
from tests.unit.operators.conftest import SETTINGS

pytest.importorskip("airflow")

from airflow_provider_mwaa_dr._compat import AirflowException, AirflowFailException
from airflow_provider_mwaa_dr.core.config import parse_config
from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
from airflow_provider_mwaa_dr.operators.readiness import ReadinessOperator

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


class Task:
    """An operator with a DR set of fakes, and the values that it pushed to XCom."""

    def __init__(self, dr_set: World, settings: dict[str, str] | None = None, **arguments: Any) -> None:
        self.pushed: dict[str, Any] = {}
        tables = FakeTables()
        tables.add("mwaa-dr-state", "us-east-2", "us-east-1")
        self.operator = ReadinessOperator(task_id="check", **arguments)
        self.operator.hook = DRStateHook(
            dr_config=parse_config({**SETTINGS, "state_table": "mwaa-dr-state", **(settings or {})}),
            store=dr_set.store,
            make_environment=lambda site: dr_set.environments[site.id],
            tables=tables,
            clock=dr_set.clock,
        )

    def execute(self) -> Any:
        def push(key: str, value: Any) -> None:
            self.pushed[key] = value

        return self.operator.execute({"ti": SimpleNamespace(xcom_push=push)})


def test_it_returns_what_the_command_line_prints(dr_set: World) -> None:
    """A list of plain values that XCom accepts. Warnings alone do not fail the task."""
    found = Task(dr_set).execute()
    assert {"name", "verdict", "why", "advice"} == set(found[0])
    assert {entry["verdict"] for entry in found} == {"ok", "warn"}


def test_a_failed_check_fails_the_task_and_leaves_the_list(dr_set: World) -> None:
    """A retry would find the same. The error names the failed check and its advice, and XCom has all results."""
    dr_set.agents["us-east-1"].alive = False
    task = Task(dr_set)
    with pytest.raises(AirflowFailException, match=r"agents: no agent is alive in us-east-1.*requirements_install"):
        task.execute()
    verdicts = {entry["name"]: entry["verdict"] for entry in task.pushed["return_value"]}
    assert verdicts["agents"] == "fail"


def test_warnings_fail_the_task_with_fail_on_warn(dr_set: World) -> None:
    """An accepted warning does not count."""
    with pytest.raises(AirflowFailException, match="drill: no failover to us-east-1"):
        Task(dr_set, fail_on_warn=True).execute()
    task = Task(dr_set, fail_on_warn=True, accept=["drill"])
    with pytest.raises(AirflowFailException) as raised:
        task.execute()
    assert "drill:" not in str(raised.value)


def test_a_table_that_does_not_answer_is_retried(dr_set: World) -> None:
    """The result is unknown now, and the next try may get it."""
    dr_set.store.unreachable = True
    with pytest.raises(AirflowException) as raised:
        Task(dr_set).execute()
    assert not isinstance(raised.value, AirflowFailException)


@pytest.mark.parametrize("arguments", [{"region": "mars"}, {"region": "us-east-2"}, {"accept": "drill"}])
def test_wrong_arguments_are_not_retried(dr_set: World, arguments: dict[str, Any]) -> None:
    """An unknown region, the active region, and a text instead of a list."""
    with pytest.raises(AirflowFailException):
        Task(dr_set, **arguments).execute()


def test_region_and_accept_are_template_fields() -> None:
    """The values may come from params."""
    assert {"region", "accept"} <= set(ReadinessOperator.template_fields)
