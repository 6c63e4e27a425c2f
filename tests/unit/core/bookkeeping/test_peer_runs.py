"""Two regions whose versions of Airflow give one id to different runs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_mwaa_dr.core.ledger import RunStatus
from airflow_provider_mwaa_dr.core.translation import Era
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore
from tests.unit.core.bookkeeping.ledger_regions import AT, HERE, THERE, Region, at_epoch, hand_over

DAY = timedelta(days=1)
ID = f"scheduled__{AT.isoformat()}"


@pytest.fixture
def regions() -> tuple[Region, Region]:
    """Airflow 3.2 or later, which is active first, and Airflow 2."""
    store = InMemoryRunsStore()
    return Region(HERE, store, Era.AIRFLOW_3_2), Region(THERE, store, Era.AIRFLOW_2)


def interrupt_and_resume(here: Region, there: Region, *, checkpoint: bool) -> None:
    """The run that is due at AT is interrupted in *here* and resumed in *there*, which also has a run with its id."""
    here.bookkeeper.begin(0)
    here.db.put(ID, "running")
    here.publish()
    hand_over(here, there)
    here.db.put(ID, "failed")  # the agent closes it
    if checkpoint:
        for region in (here, there):
            region.restart()
    there.bookkeeper.follow()
    there.bookkeeper.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == [f"{ID}__airflow-3"]
    there.db.put(f"{ID}__airflow-3", "running", run_after=None, queued_at=there.clock.now())
    there.db.put(ID, "running", data_interval_end=AT + DAY, run_after=None, queued_at=there.clock.now())
    there.publish(epoch=1)


@pytest.mark.parametrize("checkpoint", [False, True], ids=["from the log", "by new agents"])
def test_the_end_of_another_run_with_the_id_does_not_finish_a_run(
    regions: tuple[Region, Region], checkpoint: bool
) -> None:
    """Otherwise, the interrupted run would be lost."""
    here, there = regions
    interrupt_and_resume(here, there, checkpoint=checkpoint)
    there.db.put(ID, "success", data_interval_end=AT + DAY, run_after=None)
    there.publish(epoch=1)
    here.bookkeeper.follow()
    here.bookkeeper.apply_outcomes()
    assert here.db.applied == []
    there.db.put(f"{ID}__airflow-3", "success", run_after=None, queued_at=there.clock.now())
    there.publish(epoch=1)
    here.bookkeeper.follow()
    here.bookkeeper.apply_outcomes()
    assert [(run.run_id, run.status) for run in here.db.applied] == [(ID, RunStatus.SUCCESS)]


def test_both_runs_are_resumed_when_the_role_comes_back(regions: tuple[Region, Region]) -> None:
    """The region queues its own run again, and the other region's run under an id that its scheduler never creates."""
    here, there = regions
    interrupt_and_resume(here, there, checkpoint=False)
    there.interrupt(at_epoch(2), epoch=1)
    here.bookkeeper.follow()
    here.bookkeeper.begin(2)
    here.bookkeeper.resume(epoch=2)
    assert sorted(run.run_id for run in here.db.resumed) == [ID, f"{ID}__airflow-2"]


def test_a_run_is_adopted_under_an_id_that_shows_its_origin(regions: tuple[Region, Region]) -> None:
    """The database then gives it the id of the installed Airflow. A reader of the checkpoint adopts the same."""
    here, there = regions
    here.bookkeeper.begin(0)
    here.db.put(ID, "success")
    here.publish()
    for _ in range(2):
        there.bookkeeper.follow()
        there.bookkeeper.adopt()
        there.restart()
    assert [run.run_id for run in there.db.adopted] == [f"{ID}__airflow-3"] * 2
