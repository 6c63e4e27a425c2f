"""What the ledger makes of runs that a failover stops, whatever becomes of its plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_provider_mwaa_dr.core.ledger import RunStatus
from airflow_provider_mwaa_dr.core.state import DRState, Phase, Stop, initial
from airflow_provider_mwaa_dr.exceptions import StateUnreachableError
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore
from tests.unit.core.ledger_regions import AT, HERE, THERE, Region

R1 = ("orders", "r1")


class Source:
    """A region that executes run r1, and what failovers announce in the state table."""

    def __init__(self) -> None:
        self.region = Region(HERE, InMemoryRunsStore())
        self.sets: dict[str, tuple[str, ...]] = {}
        self.state: DRState = initial(HERE, lease_s=60, by="t", at=AT)
        self.region.books.begin(0)
        self.region.db.put("r1", "running", run_type="manual")
        self.turn()

    def announce(self, *run_ids: str, had_ended: bool = False, epoch: int = 0) -> None:
        """Write an announcement, as a failover that drains the region does."""
        set_id = f"set-{len(self.sets)}"
        self.sets[set_id] = tuple(f"orders {run_id}" for run_id in run_ids)
        stop = Stop(set_id=set_id, epoch=epoch, had_ended=had_ended)
        self.state = replace(self.state, phase=Phase.DRAINING, stops=(*self.state.stops, stop))

    def end_plan(self) -> None:
        """The plan is cancelled, and has ended."""
        self.state = replace(self.state, phase=Phase.STEADY)

    def put(self, state: str, *, queued_after_s: float | None = None) -> None:
        queued_at = None
        if queued_after_s is not None:
            queued_at = self.region.books._clock.now() + timedelta(seconds=queued_after_s)
        row = self.region.db.rows[R1]
        self.region.db.rows[R1] = replace(row, state=state, queued_at=queued_at)

    def turn(self) -> None:
        """Keep the books, as the region's leading agent does."""
        books = self.region.books
        books.publish(self.state, read_state=lambda: self.state, read_stopped=self.sets.__getitem__)
        if self.state.phase is Phase.STEADY:
            books.resume(epoch=self.state.epoch)

    @property
    def told(self) -> list[str]:
        entries = self.region.books._runs.log(HERE, after=0)
        return [run.status.value for entry in entries for run in entry.runs]

    @property
    def resumed(self) -> list[str]:
        return [run.run_id for run in self.region.db.resumed]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_run_is_interrupted_although_the_plan_that_stopped_it_has_ended_by_then(
    source: Source, restarts: bool
) -> None:
    """Cancelled and completed between two turns of the agent: the run was published as failed, and was lost."""
    source.announce("r1")
    source.put("failed")
    source.end_plan()
    if restarts:
        source.region.restart()
    source.turn()
    assert source.told == ["open", "interrupted", "open"]
    assert source.resumed == ["r1"]


def test_a_run_that_was_resumed_after_a_stop_ends_by_itself(source: Source) -> None:
    """The announcement is still there, and counts once; also for the next leader."""
    source.announce("r1")
    source.put("failed")
    source.end_plan()
    source.turn()
    source.put("running", queued_after_s=1)
    source.turn()
    source.region.restart()
    source.turn()
    source.put("failed", queued_after_s=1)
    source.turn()
    source.turn()
    assert source.told == ["open", "interrupted", "open", "failed"]
    assert source.resumed == ["r1"]


def test_a_run_that_succeeds_while_it_is_being_stopped_has_succeeded(source: Source) -> None:
    """Announced, seen as such, and ended before the call came to it."""
    source.announce("r1")
    source.turn()
    source.put("success")
    source.turn()
    source.end_plan()
    source.turn()
    assert source.told == ["open", "interrupted", "success"]
    assert source.resumed == []


@pytest.mark.parametrize("turns_between", [False, True])
@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_run_that_had_ended_before_the_failover_came_to_it_counts_as_it_ended(
    source: Source, state: str, turns_between: bool
) -> None:
    """It failed in the seconds of the stop, was published as interrupted, and was executed again."""
    source.announce("r1")
    source.put(state)
    if turns_between:
        source.turn()
    source.announce("r1", had_ended=True)
    source.turn()
    source.end_plan()
    source.turn()
    assert source.told[-1] == state
    assert source.resumed == []


@pytest.mark.parametrize("restarts", [False, True])
def test_a_call_that_stops_a_run_after_its_plan_was_cancelled_loses_nothing(source: Source, restarts: bool) -> None:
    """The run stays interrupted while its row is open; only then it is resumed."""
    source.announce("r1")
    source.turn()
    source.end_plan()
    source.turn()
    source.turn()
    assert source.resumed == []
    if restarts:
        source.region.restart()
        source.turn()
    source.put("failed")
    source.turn()
    assert source.told == ["open", "interrupted", "open"]
    assert source.resumed == ["r1"]


def test_a_stopped_run_that_a_user_clears_is_open_again(source: Source) -> None:
    """In the drain: it waits for the end of the drain as every other queued run, and its next result counts."""
    source.announce("r1")
    source.put("failed")
    source.turn()
    source.put("queued", queued_after_s=1)
    source.turn()
    source.end_plan()
    source.turn()
    source.put("failed", queued_after_s=1)
    source.turn()
    assert source.told == ["open", "interrupted", "open", "failed"]
    assert source.resumed == []


def test_a_run_that_ended_and_was_told_before_the_announcement_is_not_interrupted(source: Source) -> None:
    """The failover listed it, it ended, and the announcement came last."""
    source.put("success")
    source.turn()
    source.announce("r1")
    source.turn()
    source.end_plan()
    source.turn()
    assert source.told == ["open", "success"]


def test_an_announcement_of_an_earlier_epoch_does_not_count(source: Source) -> None:
    """A script that moved the role may have left it in the state item."""
    source.announce("r1", epoch=-1)
    source.put("failed")
    source.turn()
    assert source.told == ["open", "failed"]


def test_nothing_is_told_before_the_announced_set_can_be_read(source: Source) -> None:
    """With eventual consistency it may arrive later than the state that names it."""

    def missing(_: str) -> tuple[str, ...]:
        raise StateUnreachableError("The set is not there.")

    source.announce("r1")
    source.put("failed")
    with pytest.raises(StateUnreachableError):
        source.region.books.publish(source.state, read_state=lambda: source.state, read_stopped=missing)
    assert source.told == ["open"]
    source.turn()
    assert source.told == ["open", "interrupted"]
    assert source.region.books._load().runs[R1].status is RunStatus.INTERRUPTED


@pytest.mark.parametrize(("had_ended", "published"), [(False, ["interrupted"]), (True, [])])
def test_a_stopped_run_that_the_ledger_never_knew_is_published_once_the_role_has_moved(
    source: Source, had_ended: bool, published: list[str]
) -> None:
    """Its ledger refused from the moment the run was accepted up to the promotion, and the run's row says failed."""
    source.region.db.put("r2", "failed", run_type="manual")
    source.announce("r2")
    if had_ended:
        source.announce("r2", had_ended=True)
    source.put("success")  # r1, which is open in the ledger, ended in the same outage
    before = len(source.told)
    source.state = replace(source.state, active_region=THERE, epoch=1)
    for _ in range(2):
        source.region.books.interrupt(source.state, epoch=0, read_stopped=source.sets.__getitem__)
    entries = source.region.books._runs.log(HERE, after=0)
    of_r2 = [run.status.value for entry in entries for run in entry.runs if run.run_id == "r2"]
    assert of_r2 == published
    assert len(source.told) - before == 1 + len(published)
