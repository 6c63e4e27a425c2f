"""The rows of runs in a real metadata database of the installed Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.core.ledger import RunStatus
from tests.airflow.plugins.metadata.other_region import interval, open_interval

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


def test_read_states_returns_open_and_new_runs(database: Database, db: Any) -> None:
    """Open runs whatever their id, ended runs above an id, and exempt runs never."""
    database.add_dag("by_id")
    for run_id, state in (("old-open", "running"), ("old-ended", "success"), ("new-ended", "failed")):
        database.add_run("orders", run_id, state=state)
    database.add_run("by_id", "exempt")
    newest, states = db.read_states(above=db.newest_run() - 2)
    assert newest == db.newest_run()
    assert states == {("orders", "old-open"): "running", ("orders", "new-ended"): "failed"}


def test_the_newest_ended_interval_of_each_dag(database: Database, db: Any) -> None:
    """
    Open runs do not count. Newer manual runs count if their date may be the date of an interval. If the interval
    failed, the last success counts, too.
    """
    database.add_dag("billing")
    db.adopt([interval(1), interval(1, dag_id="billing", run_id="b1")], "adopted")
    db.adopt([interval(2, RunStatus.FAILED)], "adopted")
    db.resume([open_interval(3)], "resumed")
    database.add_run("orders", "manual", state="success")
    found = {(row.run_id, row.state, row.holds_date) for row in db.last_finished(["orders", "billing", "none"])}
    assert found == {
        ("scheduled__2", "failed", False),
        ("scheduled__1", "success", False),
        ("b1", "success", False),
        ("manual", "success", True),
    }


def test_the_conf_of_a_dag_with_the_tag_for_it_is_not_read(database: Database, db: Any) -> None:
    """The row says that the run has a conf, and not which one. A run without a conf is like any other."""
    database.add_dag("secret", tags=("dr:no-conf", "other"))
    for dag_id in ("secret", "orders"):
        for day, conf in ((1, '{"password": "planted"}'), (2, "{}")):
            db.resume([open_interval(day, dag_id=dag_id, run_type="manual", run_id=f"r{day}", conf=conf)], "resumed")
    rows = {row.key: row for row in db.runs([(dag_id, f"r{day}") for dag_id in ("secret", "orders") for day in (1, 2)])}
    assert (rows["secret", "r1"].conf, rows["secret", "r1"].conf_lost) == (None, "its DAG is tagged dr:no-conf")
    assert (rows["orders", "r1"].conf, rows["orders", "r1"].conf_lost) == ({"password": "planted"}, None)
    for dag_id in ("secret", "orders"):
        assert not rows[dag_id, "r2"].conf
        assert rows[dag_id, "r2"].conf_lost is None
    assert "planted" not in str(rows["secret", "r1"])
