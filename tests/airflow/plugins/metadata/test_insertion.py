"""
Runs of every type are inserted completely: the installed Airflow schedules them, and its REST API and pages show them.
"""

from __future__ import annotations

import json
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from airflow_provider_mwaa_dr.core.bookkeeping import CONF_BYTES
from airflow_provider_mwaa_dr.core.ledger import RunStatus
from tests.airflow.plugins.metadata.chains import ONE, TWO, chain, executed, ledger_of
from tests.airflow.plugins.metadata.other_region import AT, DAY, interval, open_interval

if TYPE_CHECKING:
    from tests.airflow.conftest import Database

ODD = "manual__2026-10-01T00:00:00+00:00 ä/\\'\"%_;--#?&\U0001f600 "
LONG = ODD + "x" * (250 - len(ODD))


def test_a_run_is_transferred_completely(database: Database, db: Any) -> None:
    """This region reads what another region inserts: type, dates, interval and conf."""
    run = open_interval(3, run_type="manual", run_id="m 1", conf='{"a": [1, {"b": null}], "c": "\\u00e4"}')
    db.resume([run], "resumed")
    (row,) = db.runs([run.key, ("orders", "no such run")])
    assert (row.run_type, row.state, row.logical_date) == ("manual", "queued", run.logical_date)
    assert (row.data_interval_start, row.data_interval_end) == (run.data_interval_start, run.data_interval_end)
    assert row.run_after in {None, run.run_after}
    assert row.conf == {"a": [1, {"b": None}], "c": "ä"}
    assert row.queued_at >= run.taken_at
    assert database.note("m 1") == "[mwaa-dr] resumed"


@pytest.fixture(scope="module")
def pages(_migrated: None) -> Iterator[Callable[[str], Any]]:
    """Return a function that gets a path of the installed Airflow's REST API or pages, as an administrator."""
    patch = pytest.MonkeyPatch()
    patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "s" * 32)
    patch.setenv("AIRFLOW__API_AUTH__JWT_ISSUER", "tests")
    logging.disable(logging.WARNING)
    with patch.context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from airflow.api_fastapi.app import create_app
        except ImportError:
            yield _flask_pages(patch)
        else:
            from fastapi.testclient import TestClient

            with TestClient(create_app(apps="core")) as client:
                token = client.get("/auth/token").json()["access_token"]
                yield lambda path: _checked(client.get(path, headers={"Authorization": f"Bearer {token}"}))
    logging.disable(logging.NOTSET)
    patch.undo()


def _flask_pages(patch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    import os

    # Not webserver_config.py: other tests must not find this file.
    settings = Path(os.environ["AIRFLOW_HOME"]) / "webserver_without_login.py"
    patch.setenv("AIRFLOW__WEBSERVER__CONFIG_FILE", str(settings))
    settings.write_text('AUTH_ROLE_PUBLIC = "Admin"\nWTF_CSRF_ENABLED = False\n')
    from airflow.www.app import create_app

    client = create_app(testing=True).test_client()
    return lambda path: _checked(client.get(path))


def _checked(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return json.loads(response.text)


def seen(pages: Callable[[str], Any], run_id: str, *, airflow_3: bool) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Return a run and the states of its tasks from the REST API, after opening every page that shows them."""
    name = quote(run_id, safe="")
    root = f"/api/{'v2' if airflow_3 else 'v1'}/dags/orders/dagRuns"
    if airflow_3:
        pages("/ui/grid/runs/orders")
        pages("/ui/grid/structure/orders")
    else:
        pages("/object/grid_data?dag_id=orders")
    listed = {run["dag_run_id"]: run for run in pages(root)["dag_runs"]}
    assert run_id in listed
    if "/" in run_id:  # Airflow's own paths accept no slash
        return listed[run_id], {}
    assert pages(f"{root}/{name}")["dag_run_id"] == run_id
    tasks = pages(f"{root}/{name}/taskInstances")["task_instances"]
    for task in tasks:
        pages(f"{root}/{name}/taskInstances/{task['task_id']}")
    return listed[run_id], {task["task_id"]: task["state"] for task in tasks}


def test_rest_and_pages_show_adopted_and_resumed_runs(
    database: Database, db: Any, pages: Callable[[str], Any], airflow_3: bool
) -> None:
    """Adopted runs with and without task instances. The scheduler gives a resumed run all that a worker needs."""
    database.serialize(chain(depends_on_past=True))
    executed(database, db, open_interval(2), "success", "success")
    run = ledger_of(db, "scheduled__2")
    database.forget_history()
    db.adopt([interval(1, RunStatus.FAILED)], "adopted")
    db.adopt([run], "adopted")
    db.resume([open_interval(3, conf='{"a": 1}')], "resumed")
    database.schedule("scheduled__3")
    assert seen(pages, "scheduled__1", airflow_3=airflow_3)[1] == {}
    shown, tasks = seen(pages, "scheduled__2", airflow_3=airflow_3)
    assert (shown["state"], tasks) == ("success", {"one": "success", "two": "success"})
    assert (shown["note"], shown["run_type"], shown["conf"]) == ("[mwaa-dr] adopted", "scheduled", {})
    shown, tasks = seen(pages, "scheduled__3", airflow_3=airflow_3)
    assert (shown["state"], shown["conf"], tasks) == ("running", {"a": 1}, {"one": "scheduled", "two": None})
    with database.settings.engine.connect() as connection:
        rows = connection.execute(database.tables.tasks.select()).mappings().all()
    assert len(rows) == 4
    assert all(row.get("dag_version_id", "Airflow 2") is not None for row in rows)


def test_an_adopted_run_can_be_cleared(database: Database, db: Any) -> None:
    """A user clears it in the usual way, and its tasks run again."""
    from airflow.models.taskinstance import clear_task_instances
    from sqlalchemy import select

    database.serialize(chain(depends_on_past=True))
    executed(database, db, open_interval(2), "success", "failed")
    run = ledger_of(db, "scheduled__2")
    database.forget_history()
    db.adopt([run], "adopted")
    session = database.settings.Session()
    try:
        clear_task_instances(list(session.scalars(select(database.TaskInstance))), session)
        session.commit()
    finally:
        database.settings.Session.remove()
    assert database.schedule("scheduled__2") == {ONE: "scheduled", TWO: None}


def test_a_backfill_is_resumed_where_a_scheduler_executes_it(
    database: Database, db: Any, pages: Callable[[str], Any], airflow_3: bool
) -> None:
    """
    On Airflow 3, it becomes a run of type backfill without a backfill. On Airflow 2, it is listed for the user who
    started it.
    """
    database.serialize(chain())
    backfill = open_interval(2, run_type="backfill", run_id="backfill__2")
    refused = db.cannot_resume([backfill])
    db.resume([backfill], "resumed")
    if airflow_3:
        assert refused == {}
        assert database.schedule("backfill__2") == {ONE: "scheduled", TWO: None}
        assert seen(pages, "backfill__2", airflow_3=airflow_3)[0]["run_type"] == "backfill"
    else:
        why = "before Airflow 3, only the command that started a backfill can continue it"
        assert refused == {backfill.key: why}
        with pytest.raises(AssertionError, match="was not started"):
            database.schedule("backfill__2")


def test_a_run_that_assets_triggered_is_resumed(
    database: Database, db: Any, pages: Callable[[str], Any], airflow_3: bool
) -> None:
    """On Airflow 3 it has no logical date. On Airflow 2 it has the date of the event."""
    database.serialize(chain(schedule=None))
    run_type = "asset_triggered" if airflow_3 else "dataset_triggered"
    run = open_interval(2, run_type=run_type, run_id="by asset", run_after=AT)
    if airflow_3:
        run = replace(run, logical_date=None, data_interval_start=None, data_interval_end=None)
    assert db.cannot_resume([run]) == {}
    db.resume([run], "resumed")
    assert database.schedule("by asset") == {ONE: "scheduled", TWO: None}
    assert seen(pages, "by asset", airflow_3=airflow_3)[0]["run_type"] == run_type
    again = ledger_of(db, "by asset", status=RunStatus.OPEN)
    assert (again.run_type, again.logical_date) == (run_type, run.logical_date)


def test_a_resumed_run_keeps_its_partition(
    database: Database, db: Any, pages: Callable[[str], Any], airflow_3: bool
) -> None:
    """Partition key and date, in the versions that have them."""
    database.serialize(chain())
    run = open_interval(2, run_type="manual", run_id="m", partition_key="eu/2026 ä", partition_date=AT - DAY)
    db.resume([run], "resumed")
    again = ledger_of(db, "m", status=RunStatus.OPEN)
    columns = database.tables.runs.c
    assert again.partition_key == (run.partition_key if "partition_key" in columns else None)
    assert again.partition_date == (run.partition_date if "partition_date" in columns else None)
    shown, _ = seen(pages, "m", airflow_3=airflow_3)
    assert shown.get("partition_key") == again.partition_key


@pytest.mark.parametrize("run_id", [ODD, LONG, "a/b", "x" * 250])
def test_every_run_id_that_airflow_accepts_is_adopted_and_resumed(
    database: Database, db: Any, pages: Callable[[str], Any], airflow_3: bool, run_id: str
) -> None:
    """Long run ids, and run ids with special characters."""
    database.serialize(chain(depends_on_past=True))
    executed(database, db, open_interval(2, run_id=run_id), "success", "success")
    run = ledger_of(db, run_id)
    database.forget_history()
    assert db.adopt([run], "adopted") == 1
    assert seen(pages, run_id, airflow_3=airflow_3)[0]["state"] == "success"
    database.forget_history()
    db.resume([replace(run, status=RunStatus.OPEN, tasks=())], "resumed")
    assert database.schedule(run_id) == {ONE: "scheduled", TWO: None}
    assert ledger_of(db, run_id, status=RunStatus.OPEN).key == run.key


def test_a_conf_is_resumed_exactly_or_listed(database: Database, db: Any, airflow_3: bool) -> None:
    """Up to the limit it is equal byte for byte. A longer or unreadable conf has a reason, and affects no other run."""
    database.serialize(chain())
    text = json.dumps({"long": 'ä\U0001f600\n\\"' * 6000, "n": [1.5, None, True, {"k": -1}]})
    fits = {"x": "y" * (CONF_BYTES - len('{"x": ""}'))}
    too_long = {"x": "y" * (CONF_BYTES - len('{"x": ""}') + 1)}
    for run_id, conf in (("odd", json.loads(text)), ("fits", fits), ("too long", too_long), ("none", {})):
        day = {"odd": 1, "fits": 2, "too long": 3, "none": 4}[run_id]
        db.resume([open_interval(day, run_type="manual", run_id=run_id, conf=json.dumps(conf))], "resumed")
    runs = {run_id: ledger_of(db, run_id, status=RunStatus.OPEN) for run_id in ("odd", "fits", "too long", "none")}
    assert json.loads(runs["odd"].conf or "") == json.loads(text)
    assert json.loads(runs["fits"].conf or "") == fits
    assert (runs["none"].conf, runs["none"].conf_lost) == (None, None)
    assert runs["too long"].conf is None
    assert runs["too long"].conf_lost == f"it has {CONF_BYTES + 1} characters as JSON, and the limit is {CONF_BYTES}"
    if airflow_3:
        return  # the column is JSON on Airflow 3
    gone = pickle.dumps({"a": SimpleNamespace()}).replace(b"SimpleNamespace", b"SimpleNamesgone")
    for run_id, conf, why in (
        ("odd", pickle.dumps({"at": AT}), "it is not JSON (Object of type datetime is not JSON serializable)"),
        ("fits", gone, "it cannot be read (AttributeError"),
        ("none", b"nothing of the kind", "it cannot be read (UnpicklingError"),
        ("none", pickle.dumps({"n": float("nan")}), "it is not JSON (Out of range"),
    ):
        with database.settings.engine.begin() as connection:
            from sqlalchemy import text as sql

            connection.execute(sql("update dag_run set conf = :c where run_id = :r"), {"c": conf, "r": run_id})
        run = ledger_of(db, run_id, status=RunStatus.OPEN)
        assert run.conf is None
        assert (run.conf_lost or "").startswith(why)
    assert len(db.runs([run.key for run in runs.values()])) == 4


def test_a_note_of_a_user_on_a_run_stays(database: Database, db: Any) -> None:
    """It stays when the provider adopts the run, gives it an outcome, or queues it again."""
    users = "see ticket 42\nand 43"
    database.serialize(chain(depends_on_past=True))
    executed(database, db, open_interval(2), "success", "success")
    run = ledger_of(db, "scheduled__2")
    with database.settings.engine.begin() as connection:
        connection.execute(database.tables.notes.update().values(content=users))
    db.adopt([replace(run, status=RunStatus.FAILED)], "adopted")
    assert database.note("scheduled__2") == f"{users}\n[mwaa-dr] adopted"
    db.apply_outcomes([run], "it ended elsewhere")
    assert database.note("scheduled__2") == f"{users}\n[mwaa-dr] it ended elsewhere"
    db.resume([open_interval(2, taken_at=datetime.now(tz=timezone.utc))], "resumed")
    assert database.note("scheduled__2") == f"{users}\n[mwaa-dr] resumed"
    assert database.runs() == {"scheduled__2": "queued"}
