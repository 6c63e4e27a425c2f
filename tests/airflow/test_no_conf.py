"""The tag dr:no-conf, from the metadata database of the installed Airflow to the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mwaa_dr.core.ledger import RunStatus
from tests.airflow.conftest import HERE
from tests.airflow.region import Region, interval

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


def test_the_ledger_has_no_conf_of_a_dag_with_the_tag(database: Database) -> None:
    """The agent of an active region publishes the run, and that its conf is missing. Of other DAGs it has the conf."""
    database.add_dag("secret", tags=("dr:no-conf",))
    region = Region(database)
    region.promote()
    region.turns(3)
    region.complete()
    confs = {"secret": '{"password": "planted"}', "orders": '{"day": "1"}'}
    for dag_id, conf in confs.items():
        run = interval(1, RunStatus.OPEN, dag_id, run_type="manual", run_id="r", conf=conf)
        assert region.db.resume([run], "resumed") == {}
    region.turns(3)
    stored = [*region.runs.log(HERE, after=0), region.runs.checkpoint(HERE)]
    found = {run.dag_id: run for entry in stored[:-1] for run in entry.runs}
    assert (found["secret"].conf, found["secret"].conf_lost) == (None, "its DAG is tagged dr:no-conf")
    assert (found["orders"].conf, found["orders"].conf_lost) == (confs["orders"], None)
    assert "planted" not in repr(stored)
