"""What the ledger publishes about runs that a failover stops, whether its plan completes or is cancelled."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_provider_mwaa_dr.core.ledger import RunStatus
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan, Stop, initial
from airflow_provider_mwaa_dr.exceptions import StateUnreachableError
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore
from tests.unit.core.bookkeeping.ledger_regions import AT, HERE, THERE, Region

R1 = ("orders", "r1")


def a_plan() -> Plan:
    return Plan(id="p", source=HERE, target=THERE, mode=Mode.GRACEFUL, reason="r", by="b", owner="o", started_at=AT)


class Source:
    """A region that executes run r1, and the stops that failovers announce in the state table."""

    def __init__(self) -> None:
        self.region = Region(HERE, InMemoryRunsStore())
        self.sets: dict[str, tuple[str, ...]] = {}
        self.state: DRState = initial(HERE, lease_s=60, by="t", at=AT)
        self.region.bookkeeper.begin(0)
        self.region.db.put("r1", "running", run_type="manual")
        self.turn()

    def announce(self, *run_ids: str, had_ended: bool = False, epoch: int = 0) -> None:
        """Write an announcement, as a failover does when it drains the region."""
        set_id = f"set-{len(self.sets)}"
        self.sets[set_id] = tuple(f"orders {run_id}" for run_id in run_ids)
        stop = Stop(set_id=set_id, epoch=epoch, had_ended=had_ended)
        self.state = replace(self.state, phase=Phase.DRAINING, stops=(*self.state.stops, stop))

    def end_plan(self) -> None:
        """The plan is cancelled and has ended."""
        self.state = replace(self.state, phase=Phase.STEADY)

    def put(self, state: str, *, queued_after_s: float | None = None) -> None:
        queued_at = None
        if queued_after_s is not None:
            queued_at = self.region.clock.now() + timedelta(seconds=queued_after_s)
        row = self.region.db.rows[R1]
        self.region.db.rows[R1] = replace(row, state=state, queued_at=queued_at)

    def turn(self) -> None:
        """Take one turn of the region's leading agent: publish, and resume if the phase is STEADY."""
        bookkeeper = self.region.bookkeeper
        bookkeeper.publish(self.state, read_state=lambda: self.state, read_stopped=self.sets.__getitem__)
        if self.state.phase is Phase.STEADY:
            bookkeeper.resume(epoch=self.state.epoch)

    @property
    def published(self) -> list[str]:
        entries = self.region.store.log(HERE, after=0)
        return [run.status.value for entry in entries for run in entry.runs]

    @property
    def resumed(self) -> list[str]:
        return [run.run_id for run in self.region.db.resumed]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.mark.parametrize("restarts", [False, True])
def test_a_stopped_run_is_interrupted_although_its_plan_has_already_ended(source: Source, restarts: bool) -> None:
    """
    The plan is cancelled and completed between two turns of the agent.

    Before the fix, the run was published as failed, and was lost.
    """
    source.announce("r1")
    source.put("failed")
    source.end_plan()
    if restarts:
        source.region.restart()
    source.turn()
    assert source.published == ["open", "interrupted", "open"]
    assert source.resumed == ["r1"]


def test_a_run_that_was_resumed_after_a_stop_ends_by_itself(source: Source) -> None:
    """The announcement is still in the state item, but counts only once, also for the next leader."""
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
    assert source.published == ["open", "interrupted", "open", "failed"]
    assert source.resumed == ["r1"]


def test_a_run_that_succeeds_while_it_is_being_stopped_has_succeeded(source: Source) -> None:
    """The agent publishes the announced run as interrupted. The run then succeeds before the engine's call stops it."""
    source.announce("r1")
    source.turn()
    source.put("success")
    source.turn()
    source.end_plan()
    source.turn()
    assert source.published == ["open", "interrupted", "success"]
    assert source.resumed == []


@pytest.mark.parametrize("reads_the_announcement_first", [False, True])
@pytest.mark.parametrize(
    "states",
    [
        ("success",),
        ("running", "success"),
        ("failed", "success"),
        ("failed", "running", "success"),
        ("running", "failed"),
    ],
)
def test_a_stopped_run_whose_row_airflow_2_overwrites_is_interrupted(
    source: Source, states: tuple[str, ...], reads_the_announcement_first: bool
) -> None:
    """
    The task that the stop ended writes the run's row back as running, and the scheduler marks the run as a success.

    Before the fix, the run was published as a success, and its skipped tasks never executed.
    """
    source.announce("r1")
    if reads_the_announcement_first:
        source.turn()
    source.region.db.task_instances[R1] = [("call", -1, "failed"), ("after", -1, "skipped")]
    for state in states:
        source.put(state)
        source.turn()
    source.region.restart()
    source.turn()
    assert source.published == ["open", "interrupted"]
    source.end_plan()
    source.turn()
    assert source.resumed == ["r1"]


@pytest.mark.parametrize("turns_between", [False, True])
def test_a_run_with_a_failed_task_that_succeeded_before_the_stop_keeps_its_outcome(
    source: Source, turns_between: bool
) -> None:
    """The failover announces that the run had ended."""
    source.announce("r1")
    source.region.db.task_instances[R1] = [("may_fail", -1, "failed"), ("always", -1, "success")]
    source.put("success")
    if turns_between:
        source.turn()
    source.announce("r1", had_ended=True)
    source.turn()
    source.end_plan()
    source.turn()
    assert source.published[-1] == "success"
    assert source.resumed == []


def test_a_stopped_run_that_a_user_clears_in_part_is_open(source: Source) -> None:
    """One of its tasks has still failed, and another one executes again."""
    source.announce("r1")
    source.put("failed")
    source.turn()
    source.region.db.task_instances[R1] = [("call", -1, "failed"), ("after", -1, None)]
    source.put("running", queued_after_s=1)
    source.turn()
    assert source.published == ["open", "interrupted", "open"]


@pytest.mark.parametrize("turns_between", [False, True])
@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_run_that_ended_before_the_failover_could_stop_it_keeps_its_outcome(
    source: Source, state: str, turns_between: bool
) -> None:
    """The run ended by itself. Before the fix, it was published as interrupted, and was executed again."""
    source.announce("r1")
    source.put(state)
    if turns_between:
        source.turn()
    source.announce("r1", had_ended=True)
    source.turn()
    source.end_plan()
    source.turn()
    assert source.published[-1] == state
    assert source.resumed == []


@pytest.mark.parametrize("restarts", [False, True])
def test_a_stop_that_arrives_after_its_plan_was_cancelled_loses_no_run(source: Source, restarts: bool) -> None:
    """The run stays interrupted while its row is open. It is resumed only after the row is closed."""
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
    assert source.published == ["open", "interrupted", "open"]
    assert source.resumed == ["r1"]


def test_a_stopped_run_that_a_user_clears_is_open_again(source: Source) -> None:
    """The cleared run waits for the end of the drain, as every queued run does. Then its next outcome counts."""
    source.announce("r1")
    source.put("failed")
    source.turn()
    source.put("queued", queued_after_s=1)
    source.turn()
    source.end_plan()
    source.turn()
    source.put("failed", queued_after_s=1)
    source.turn()
    assert source.published == ["open", "interrupted", "open", "failed"]
    assert source.resumed == []


def test_a_run_that_was_published_as_ended_before_the_announcement_is_not_interrupted(source: Source) -> None:
    """The failover lists the run, the run ends and is published, and only then the failover announces it."""
    source.put("success")
    source.turn()
    source.announce("r1")
    source.turn()
    source.end_plan()
    source.turn()
    assert source.published == ["open", "success"]


def test_an_announcement_of_an_earlier_epoch_does_not_count(source: Source) -> None:
    """A script that moved the role may have left an old announcement in the state item."""
    source.announce("r1", epoch=-1)
    source.put("failed")
    source.turn()
    assert source.published == ["open", "failed"]


def test_nothing_is_published_before_the_announced_set_can_be_read(source: Source) -> None:
    """With eventual consistency, the set may arrive later than the state item that names it."""

    def missing(_: str) -> tuple[str, ...]:
        raise StateUnreachableError("The set is not there.")

    source.announce("r1")
    source.put("failed")
    with pytest.raises(StateUnreachableError):
        source.region.bookkeeper.publish(source.state, read_state=lambda: source.state, read_stopped=missing)
    assert source.published == ["open"]
    source.turn()
    assert source.published == ["open", "interrupted"]
    assert source.region.bookkeeper._own.load().runs[R1].status is RunStatus.INTERRUPTED


@pytest.mark.parametrize(("had_ended", "expected"), [(False, ["interrupted"]), (True, [])])
def test_a_stopped_run_that_the_ledger_never_knew_is_published_once_the_role_has_moved(
    source: Source, had_ended: bool, expected: list[str]
) -> None:
    """
    The ledger refused writes from before the run was accepted until the promotion. The row of the run says failed.
    """
    source.region.db.put("r2", "failed", run_type="manual")
    source.announce("r2")
    if had_ended:
        source.announce("r2", had_ended=True)
    source.put("success")  # r1, which is open in the ledger, ended during the same outage
    before = len(source.published)
    source.state = replace(source.state, active_region=THERE, epoch=1)
    for _ in range(2):
        source.region.bookkeeper.interrupt(source.state, epoch=0, read_stopped=source.sets.__getitem__)
    entries = source.region.store.log(HERE, after=0)
    of_r2 = [run.status.value for entry in entries for run in entry.runs if run.run_id == "r2"]
    assert of_r2 == expected
    assert len(source.published) - before == 1 + len(expected)


@pytest.mark.parametrize(("ends", "published"), [(True, "failed"), (False, "interrupted")])
def test_a_run_that_was_cleared_and_then_reached_by_a_late_stop_is_interrupted_while_the_plan_drains(
    source: Source, ends: bool, published: str
) -> None:
    """
    The engine announces that it stops the run, and is suspended. The run succeeds, and a user clears it.

    Then the engine stops it. The run's first outcome was published after the announcement (seed 1810214320). After the
    plan has ended, the engine's call can no longer be the reason.
    """
    source.state = replace(source.state, plan=replace(a_plan(), id="set"))
    source.announce("r1")
    source.put("success")
    source.turn()
    source.put("queued", queued_after_s=1)
    source.turn()
    assert source.published[-2:] == ["success", "open"]
    source.put("failed", queued_after_s=1)
    if ends:
        source.end_plan()
    source.turn()
    assert source.published[-1] == published


def test_a_cleared_run_that_a_failover_stopped_during_an_outage_of_the_ledger_is_published_after_it(
    source: Source,
) -> None:
    """The ledger knew the first outcome only: neither that a user cleared the run nor that the engine stopped it."""
    source.put("success")
    source.turn()
    source.region.clock.advance(10)
    source.put("failed", queued_after_s=0)  # cleared, started again, and stopped
    source.announce("r1")
    source.state = replace(source.state, active_region=THERE, epoch=1)
    source.region.bookkeeper.interrupt(source.state, epoch=0, read_stopped=source.sets.__getitem__)
    assert source.published[-2:] == ["success", "interrupted"]


def test_a_stop_that_another_engine_announces_again_is_published_once(source: Source) -> None:
    """The first engine died after its announcement. The run is still open, and interrupted already."""
    source.announce("r1")
    source.turn()
    source.announce("r1")
    source.turn()
    assert source.published == ["open", "interrupted"]
    own = source.region.bookkeeper._own.load()
    assert own.stops == "set-1", "the second announcement counts, too"


def test_an_announced_run_of_an_earlier_epoch_that_had_ended_is_not_published() -> None:
    """A user cleared it while the ledger refused writes, and it ended before the stop. No region waits for it."""
    source = Source()
    source.region.db.put("r0", "success", run_type="manual", id=1)
    source.region.db.rows[R1] = replace(source.region.db.rows[R1], id=2)
    source.state = replace(source.state, epoch=1)
    source.region.bookkeeper.begin(1)
    before = source.published
    source.announce("r0", epoch=1)
    source.announce("r0", had_ended=True, epoch=1)
    source.turn()
    assert source.published == before
    assert source.region.bookkeeper._own.load().stops == "set-1"
