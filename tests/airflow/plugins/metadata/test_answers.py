"""Answers to tasks that wait for a person, in a region that has lost the role, through the installed Airflow's API."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from tests.airflow.plugins.metadata.chains import chain

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

Answer = Callable[..., Any]
WHY = "closed: us-east-1 is standby, us-east-2 is active (epoch 1)"


def questions() -> Any:
    from airflow_provider_mwaa_dr.plugins.metadata import schema

    return schema.QUESTIONS


@pytest.fixture(autouse=True)
def _has_questions(database: Database) -> None:
    if questions() is None:
        pytest.skip("this version of Airflow has no questions to people")


@pytest.fixture(scope="module")
def answer(_migrated: None) -> Iterator[Answer]:
    """Answer a question of a run in the REST API as an administrator; return the status and the text."""
    if questions() is None:
        pytest.skip("this version of Airflow has no questions to people")
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    patch = pytest.MonkeyPatch()
    patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "s" * 64)
    patch.setenv("AIRFLOW__API_AUTH__JWT_ISSUER", "tests")
    logging.disable(logging.INFO)
    with patch.context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with TestClient(create_app(apps="core")) as client:
            headers = {"Authorization": f"Bearer {client.get('/auth/token').json()['access_token']}"}

            def send(run_id: str, option: str = "yes", *, dag_id: str = "orders") -> tuple[int, str]:
                path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/t0/-1/hitlDetails"
                found = client.patch(path, headers=headers, json={"chosen_options": [option], "params_input": {}})
                return found.status_code, found.text

            yield send
    logging.disable(logging.NOTSET)
    patch.undo()


def ask(database: Database, run_id: str, *, state: str, dag_id: str = "orders", run_state: str = "running") -> None:
    """Add a run with a task that has asked a question."""
    database.add_run(dag_id, run_id, state=run_state, tasks=1)
    tasks = database.tables.tasks
    with database.settings.engine.begin() as connection:
        of_run = tasks.c.run_id == run_id
        connection.execute(tasks.update().where(of_run).values(state=state, try_number=1))
        task_id = connection.execute(select(tasks.c.id).where(of_run)).scalar_one()
        values = {"ti_id": task_id, "options": ["yes", "no"], "subject": "?", "multiple": False, "params": {}}
        now = datetime.now(tz=timezone.utc)
        connection.execute(questions().insert().values({**values, "created_at": now, "params_input": {}}))


def answered(database: Database, run_id: str) -> tuple[Any, Any]:
    """Return who answered, and the choice."""
    tasks = database.tables.tasks
    with database.settings.engine.connect() as connection:
        query = select(questions().c.responded_by, questions().c.chosen_options)
        row = connection.execute(
            query.join(tasks, tasks.c.id == questions().c.ti_id).where(tasks.c.run_id == run_id)
        ).one()
        return (row.responded_by or {}).get("name"), row.chosen_options


def test_airflow_refuses_an_answer_after_the_region_has_lost_the_role(
    database: Database, agent_db: Any, answer: Answer
) -> None:
    """Also to a task of a run that the failover has stopped. The reason stands where the person who answered stands."""
    database.add_dag("orders")
    database.serialize(chain())
    ask(database, "r1", state="deferred")
    ask(database, "r2", state="failed", run_state="failed")
    agent_db.close_runs(WHY)
    for run_id in ("r1", "r2"):
        status, text = answer(run_id)
        assert (status, "has already been updated" in text) == (409, True)
        assert answered(database, run_id) == (f"[mwaa-dr] {WHY}", [])
    assert database.note("r1") == f"[mwaa-dr] {WHY}"
    agent_db.close_runs("closed: again")
    assert answered(database, "r1") == (f"[mwaa-dr] {WHY}", [])


def test_an_answer_that_no_task_has_used_is_listed(
    database: Database, agent_db: Any, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """It arrived after a forced failover, before the agent of the lost region could close the run."""
    database.add_dag("orders")
    database.serialize(chain())
    ask(database, "r1", state="running")
    assert answer("r1")[0] == 200
    agent_db.close_runs(WHY)
    assert database.note("r1") == (
        f"[mwaa-dr] {WHY}; an answer was not used (task t0): answer again in the active region"
    )
    assert "orders r1: the answer of" in caplog.text
    assert answered(database, "r1")[1] == ["yes"]


def test_questions_of_exempt_dags_and_of_open_runs_stay_open(database: Database, agent_db: Any, answer: Answer) -> None:
    """A run whose row is locked is closed later. If the region gets the role back first, the task continues."""
    from airflow_provider_mwaa_dr.plugins.metadata import answers
    from airflow_provider_mwaa_dr.plugins.metadata.exemption import Exemption

    for dag_id in ("orders", "by_id"):
        database.add_dag(dag_id)
    database.serialize(chain())
    ask(database, "r1", state="deferred")
    ask(database, "exempt", state="failed", dag_id="by_id", run_state="failed")
    assert answers.refuse_answers(Exemption(["by_id"]), WHY) == 0
    assert answered(database, "r1") == answered(database, "exempt") == (None, None)
    assert answer("r1")[0] == 200


def test_a_task_that_starts_again_asks_again(database: Database, agent_db: Any, answer: Answer) -> None:
    """After a failback, Airflow takes the refused question back when the task asks."""
    from airflow.api_fastapi.execution_api.datamodels.hitl import HITLDetailRequest
    from airflow.api_fastapi.execution_api.routes.hitl import upsert_hitl_detail

    database.add_dag("orders")
    database.serialize(chain())
    ask(database, "r1", state="deferred")
    agent_db.close_runs(WHY)
    (row,) = agent_db.runs([("orders", "r1")])
    tasks = database.tables.tasks
    session = database.settings.Session()
    try:
        task_id = session.execute(select(tasks.c.id).where(tasks.c.run_id == "r1")).scalar_one()
        session.execute(tasks.update().where(tasks.c.run_id == "r1").values(state="running"))
        request = {"ti_id": task_id, "options": ["yes", "no"], "subject": "?", "multiple": False, "params": {}}
        upsert_hitl_detail(task_id, HITLDetailRequest(**request), session)
        session.commit()
    finally:
        database.settings.Session.remove()
    assert row.state == "failed"
    assert answered(database, "r1") == (None, None)
    assert answer("r1")[0] == 200
