"""``mwaa-dr pause`` and ``mwaa-dr unpause``."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.ports import SNAPSHOTS
from tests.unit.cli.conftest import ENVIRON, Shell
from tests.unit.core.dr_set import WANTED


def test_unpause_unpauses_exactly_what_pause_paused(mwaa_dr: Shell) -> None:
    """Neither command changes exempt DAGs or DAGs that users paused. A second call of each is a no-op."""
    ohio = mwaa_dr.environment("us-east-2")
    for changed in (True, False):
        result = mwaa_dr("pause", "us-east-2", "--yes", "--json")
        assert (result.code, result.document) == (0, {"changed": changed, "dags": sorted(WANTED)})
        assert ohio.unpaused == {"dr_failover"}
    result = mwaa_dr("unpause", "us-east-2", "--yes", "--json")
    assert (result.code, result.document) == (0, {"changed": True, "dags": sorted(WANTED)})
    assert ohio.unpaused == WANTED | {"dr_failover"}
    result = mwaa_dr("unpause", "us-east-2", "--yes", "--json")
    assert (result.code, result.document) == (0, {"changed": False, "dags": []})


def test_exempt_ids_are_left_alone(mwaa_dr: Shell) -> None:
    """DR_EXEMPT_DAGS has the effect of the tag."""
    mwaa_dr.environ = {**ENVIRON, "DR_EXEMPT_DAGS": "dag_00"}
    mwaa_dr("pause", "us-east-2", "--yes")
    assert mwaa_dr.environment("us-east-2").unpaused == {"dr_failover", "dag_00"}


def test_a_pause_that_stops_half_way_loses_nothing(mwaa_dr: Shell) -> None:
    """The set is recorded before the first DAG is paused, so a second pause keeps all its DAGs."""
    ohio = mwaa_dr.environment("us-east-2")
    ohio.stubborn = {"dag_01"}
    assert mwaa_dr("pause", "us-east-2", "--yes").code == 1
    ohio.stubborn = set()
    assert mwaa_dr("pause", "us-east-2", "--yes", "--json").document["dags"] == sorted(WANTED)
    mwaa_dr("unpause", "us-east-2", "--yes")
    assert ohio.unpaused == WANTED | {"dr_failover"}


def test_what_could_not_be_unpaused_stays_recorded(mwaa_dr: Shell) -> None:
    """The next unpause unpauses the rest."""
    ohio = mwaa_dr.environment("us-east-2")
    mwaa_dr("pause", "us-east-2", "--yes")
    ohio.stubborn = {"dag_01"}
    assert mwaa_dr("unpause", "us-east-2", "--yes").code == 1
    ohio.stubborn = set()
    assert mwaa_dr("unpause", "us-east-2", "--yes", "--json").document == {"changed": True, "dags": ["dag_01"]}


def test_a_missing_dag_stays_recorded(mwaa_dr: Shell) -> None:
    """Its file may be broken now and repaired later."""
    ohio = mwaa_dr.environment("us-east-2")
    mwaa_dr("pause", "us-east-2", "--yes")
    ohio.remove_dag("dag_01")
    assert "dag_01" in mwaa_dr("unpause", "us-east-2", "--yes").out
    ohio.add_dag("dag_01", is_paused=True)
    assert mwaa_dr("unpause", "us-east-2", "--yes", "--json").document == {"changed": True, "dags": ["dag_01"]}


def test_a_pause_touches_neither_snapshot_nor_set_of_a_failover(mwaa_dr: Shell) -> None:
    """A failover after pause and unpause still knows which DAGs users want unpaused."""
    before = mwaa_dr.store.get(SNAPSHOTS, "us-east-2")
    mwaa_dr("pause", "us-east-2", "--yes")
    mwaa_dr("unpause", "us-east-2", "--yes")
    assert before is not None
    assert mwaa_dr("failover", "us-east-1", "--reason", "x", "--yes").code == 0
    assert mwaa_dr.environment("us-east-1").unpaused == WANTED | {"dr_failover"}


def test_a_dry_run_lists_and_changes_nothing(mwaa_dr: Shell) -> None:
    """It lists the DAGs that would be paused, and needs no confirmation."""
    before = mwaa_dr.environment("us-east-2").unpaused
    document = mwaa_dr("pause", "us-east-2", "--dry-run", "--json").document
    assert document == {"changed": False, "dags": sorted(WANTED), "dry_run": True, "would_change": True}
    assert mwaa_dr.environment("us-east-2").unpaused == before


def test_unpausing_a_standby_prints_a_warning(mwaa_dr: Shell) -> None:
    """The command unpauses the DAGs, and warns that their runs are skipped."""
    mwaa_dr.environment("us-east-1").flip("dag_00", is_paused=False)
    assert mwaa_dr("pause", "us-east-1", "--yes", "--json").document["dags"] == ["dag_00"]
    result = mwaa_dr("unpause", "us-east-1", "--yes")
    assert (result.code, mwaa_dr.environment("us-east-1").unpaused) == (0, {"dag_00", "dr_failover"})
    assert "us-east-1 is standby" in result.err
