"""The links of FailoverOperator."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.core.dr_set import World
from tests.unit.operators.conftest import with_hook

pytest.importorskip("airflow")

from airflow_provider_mwaa_dr.get_provider_info import get_provider_info
from airflow_provider_mwaa_dr.operators import links
from airflow_provider_mwaa_dr.operators.failover import FailoverOperator

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


class TaskInstance:
    """Keeps what the task pushes."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def test_the_task_links_to_the_airflow_of_the_target(dr_set: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The web server has only the XCom: no state table, and no name of an environment."""
    ti = TaskInstance()
    operator = with_hook(FailoverOperator(task_id="failover", target_region="us-east-1", reason="test"), dr_set)
    operator.execute({"run_id": "r", "dag_run": None, "ti": ti})
    monkeypatch.setattr(links, "xcom_value", lambda key, ti_key: ti.pushed[key])
    page, target = operator.operator_extra_links
    assert target.get_link(operator, ti_key=None) == (
        "https://us-east-1.console.aws.amazon.com/mwaa/home?region=us-east-1#environments/virginia/sso"
    )
    assert page.get_link(operator, ti_key=None) == "/mwaa-dr/"


def test_a_task_that_has_not_begun_has_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow shows none for an empty text."""
    monkeypatch.setattr(links, "xcom_value", lambda key, ti_key: None)
    assert links.TargetAirflowLink().get_link(None, ti_key=None) == ""


def test_the_console_of_china_has_another_domain() -> None:
    """Its regions begin with cn."""
    assert links.console_link("cn-north-1", "etl").startswith("https://cn-north-1.console.amazonaws.cn/mwaa/")


def test_airflow_may_load_each_link() -> None:
    """Airflow loads a link from a stored DAG only if a provider lists its class."""
    listed = get_provider_info()["extra-links"]
    assert listed == [
        f"{type(link).__module__}.{type(link).__name__}" for link in FailoverOperator.operator_extra_links
    ]


def test_an_xcom_that_cannot_be_pushed_stops_no_failover(dr_set: World) -> None:
    """The database of the control environment has a problem."""

    class Broken:
        def xcom_push(self, **_: Any) -> None:
            raise OSError("no database")

    operator = with_hook(FailoverOperator(task_id="failover", target_region="us-east-1", reason="test"), dr_set)
    assert operator.execute({"run_id": "r", "dag_run": None, "ti": Broken()})["outcome"] == "completed"


def test_a_stored_dag_keeps_the_links() -> None:
    """The web server and the API server know the DAG only as Airflow stores it."""
    from airflow.serialization import serialized_objects

    try:
        from airflow.sdk import DAG
    except ImportError:
        from airflow import DAG  # type: ignore[no-redef, unused-ignore]

    with DAG("failover", schedule=None) as dag:
        FailoverOperator(task_id="failover", target_region="us-east-1", reason="test")
    # DagSerialization: from Airflow 3.2 on.
    serialization: Any = getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG
    stored = json.dumps(serialization.to_dict(dag))
    for link in FailoverOperator.operator_extra_links:
        # Airflow 2 stores the class, Airflow 3 the name.
        assert type(link).__name__ in stored or link.name in stored
