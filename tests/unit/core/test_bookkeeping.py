"""What the bookkeeper tells, adopts and lists; tests/simulation has it in all circumstances."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.bookkeeping import CONF_BYTES, TASKS_BYTES, Bookkeeper, RunRow, to_conf
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunKey, RunStatus, TaskState
from airflow_provider_mwaa_dr.core.state import DRState, initial
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, ManualClock

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
HERE, THERE = "us-east-2", "us-east-1"
TASKS = [("one", -1, "success"), ("two", 3, None)]


class Rows:
    """A metadata database that is a list of rows."""

    def __init__(self) -> None:
        self.rows: dict[RunKey, RunRow] = {}
        self.task_instances: dict[RunKey, list[TaskState]] = {}
        self.asked_for_tasks: list[list[RunKey]] = []
        self.adopted: list[LedgerRun] = []
        self.resumed: list[LedgerRun] = []
        self.settled: list[LedgerRun] = []
        self.waiting: list[str] = []
        self.failing: dict[str, str] = {}
        self.refusing: dict[str, str] = {}
        self.asked_for: list[str] = []

    def put(self, run_id: str, state: str, *, run_type: str = "scheduled", day: int = 0, **values: Any) -> None:
        at = AT + timedelta(days=day)
        row = RunRow(
            id=len(self.rows) + 1,
            dag_id="orders",
            run_id=run_id,
            run_type=run_type,
            state=state,
            logical_date=at,
            data_interval_start=at,
            data_interval_end=at,
            run_after=at,
            queued_at=None,
            conf={},
        )
        self.rows[row.key] = replace(row, **values)

    def newest_run(self) -> int:
        return len(self.rows)

    def look(self, *, above: int) -> tuple[int, Mapping[RunKey, str]]:
        return len(self.rows), {row.key: row.state for row in self.rows.values() if row.is_open or row.id > above}

    def runs(self, keys: Collection[RunKey]) -> Sequence[RunRow]:
        return [self.rows[key] for key in keys if key in self.rows]

    def tasks(self, keys: Collection[RunKey]) -> Mapping[RunKey, Sequence[TaskState]]:
        self.asked_for_tasks.append(sorted(keys))
        return {key: self.task_instances[key] for key in keys if key in self.task_instances}

    def last_finished(self, dag_ids: Collection[str]) -> Sequence[RunRow]:
        return []

    def dag_ids(self) -> Sequence[str]:
        return ["orders"]

    def adopt(self, runs: Sequence[LedgerRun], note: str) -> int:
        self.adopted += runs
        return len(runs)

    def cannot_resume(self, runs: Sequence[LedgerRun]) -> Mapping[RunKey, str]:
        self.asked_for += [run.run_id for run in runs]
        return {run.key: self.refusing[run.run_id] for run in runs if run.run_id in self.refusing}

    def resume(self, runs: Sequence[LedgerRun], note: str) -> Mapping[RunKey, str]:
        self.resumed += [run for run in runs if run.run_id not in self.failing]
        return {run.key: self.failing[run.run_id] for run in runs if run.run_id in self.failing}

    def make_room(self, runs: Sequence[LedgerRun]) -> int:
        self.waiting += [run.run_id for run in runs]
        return 0

    def settle(self, runs: Sequence[LedgerRun], note: str) -> None:
        self.settled += runs

    def forget_closed(self, created: Mapping[str, datetime | None]) -> int:
        return 0


class Region:
    """A region with rows and a bookkeeper over a table that it shares."""

    def __init__(self, region: str, store: InMemoryRunsStore) -> None:
        self.region, self.db = region, Rows()
        self.clock = ManualClock()
        self.books = Bookkeeper(store, self.db, self.clock, region=region, peers=lambda: [HERE, THERE])

    def tell(self, epoch: int = 0) -> None:
        state: DRState = replace(initial(self.region, lease_s=60, by="t", at=AT), epoch=epoch)
        self.books.tell(state, read_state=lambda: state, read_stopped=lambda set_id: ())


def at_epoch(epoch: int) -> DRState:
    return replace(initial(THERE, lease_s=60, by="t", at=AT), epoch=epoch)


def hand_over(here: Region, there: Region) -> None:
    """Interrupt what one region has under epoch 0, and let the other one be about to go on with it, under epoch 1."""
    here.books.interrupt(at_epoch(1), epoch=0)
    there.books.follow()
    there.books.begin(1)


def take_over(here: Region, there: Region) -> None:
    """Begin run r1 in one region, under epoch 0, and let the other one go on with it, under epoch 1."""
    here.books.begin(0)
    here.db.put("r1", "running")
    here.tell()
    hand_over(here, there)
    there.books.resume(epoch=1)


@pytest.fixture
def regions() -> tuple[Region, Region]:
    store = InMemoryRunsStore()
    return Region(HERE, store.peer()), Region(THERE, store.peer())


def test_what_has_ended_is_told_with_its_tasks_and_adopted_with_them(regions: tuple[Region, Region]) -> None:
    """Only once, and only of runs that have ended."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "running")
    here.tell()
    assert here.db.asked_for_tasks == []
    here.db.put("r1", "failed")
    here.db.put("m1", "success", run_type="manual", day=1)
    here.db.task_instances = {("orders", "r1"): TASKS, ("orders", "m1"): TASKS[:1]}
    for _ in range(3):
        here.tell()
    assert here.db.asked_for_tasks == [[("orders", "m1"), ("orders", "r1")]]
    there.books.follow()
    assert not there.books.adopt()
    assert [(run.run_id, run.status, run.tasks) for run in there.db.adopted] == [
        ("r1", RunStatus.FAILED, tuple(TASKS)),
        ("m1", RunStatus.SUCCESS, tuple(TASKS[:1])),
    ]


def test_a_region_does_not_adopt_over_what_it_has_told_under_a_newer_epoch(regions: tuple[Region, Region]) -> None:
    """Also when its leader is new, and reads all heads of the other region anew."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "running")
    here.tell()
    here.db.put("r1", "failed")
    here.tell()
    there.books.begin(1)
    there.db.put("r1", "running")
    there.tell(epoch=1)
    there.db.put("r1", "success")
    there.tell(epoch=1)
    there.books.follow()
    there.books.adopt()
    assert there.db.adopted == []
    here.books.follow()
    here.books.adopt()
    assert [run.status for run in here.db.adopted] == [RunStatus.SUCCESS]


def test_tasks_that_do_not_fit_are_left_out_and_said(
    regions: tuple[Region, Region], caplog: pytest.LogCaptureFixture
) -> None:
    """The run itself is told."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "success")
    size = len("orders") + 30
    many = [("orders", index, "success") for index in range(TASKS_BYTES // size + 1)]
    here.db.task_instances = {("orders", "r1"): many}
    with caplog.at_level(logging.WARNING):
        here.tell()
    assert f"orders r1: its {len(many)} task instances do not fit" in caplog.text
    there.books.follow()
    there.books.adopt()
    assert [(run.run_id, run.tasks) for run in there.db.adopted] == [("r1", ())]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"conf": {"x": "y" * CONF_BYTES}}, f"it has {CONF_BYTES + 9} characters as JSON, {CONF_BYTES} are kept"),
        ({"conf": {"x": {1, 2}}}, "it is no JSON (Object of type set is not JSON serializable)"),
        ({"conf": None, "conf_lost": "it cannot be read"}, "it cannot be read"),
    ],
)
def test_a_run_whose_conf_is_not_in_the_ledger_is_listed_and_not_started(
    regions: tuple[Region, Region], values: dict[str, Any], why: str
) -> None:
    """Interrupted with the others, which go on."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "running", run_type="manual", **values)
    here.db.put("r2", "queued", run_type="manual", day=1, partition_key="eu", partition_date=AT)
    here.tell()
    hand_over(here, there)
    assert not there.books.resume(epoch=1)
    assert [(run.run_id, run.partition_key, run.partition_date) for run in there.db.resumed] == [("r2", "eu", AT)]
    assert there.books.waiting == (f"orders r1: its conf is not in the ledger: {why}",)


def test_a_run_that_cannot_be_started_is_tried_again_and_listed_all_the_while(
    regions: tuple[Region, Region], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asks for the status in any turn sees it; the log has it once for each reason."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "running")
    here.tell()
    hand_over(here, there)
    there.db.refusing = {"r1": "its DAG is not here"}
    for _ in range(20):
        assert not there.books.resume(epoch=1)
        assert there.books.waiting == ("orders r1: its DAG is not here",)
        there.clock.advance(5)
    assert 3 <= len(there.db.asked_for) <= 4
    assert caplog.text.count("its DAG is not here") == 1

    there.db.refusing = {}
    there.clock.advance(30)
    assert not there.books.resume(epoch=1)
    assert [run.run_id for run in there.db.resumed] == ["r1"]
    assert there.books.waiting == ()


def test_a_conf_is_kept_as_json_or_not_at_all() -> None:
    """What another database might refuse is no JSON."""
    assert to_conf({"a": "ä"}) == ('{"a": "\\u00e4"}', None)
    assert to_conf({}) == to_conf(None) == (None, None)
    nested: list[Any] = []
    nested.append(nested)
    for conf in ({"n": float("nan")}, {("a",): 1}, nested):
        text, why = to_conf(conf)
        assert text is None
        assert (why or "").startswith("it is no JSON (")


def test_room_is_made_for_what_was_taken_over_as_long_as_it_is_queued(regions: tuple[Region, Region]) -> None:
    """Not for what the region has of its own."""
    here, there = regions
    take_over(here, there)
    for state, waiting in (("queued", ["r1"]), ("queued", ["r1"]), ("running", []), ("success", [])):
        there.db.waiting.clear()
        there.db.put("r1", state)
        there.db.put("r2", "queued", day=1)
        there.tell(1)
        there.books.make_room()
        assert there.db.waiting == waiting, state


@pytest.mark.parametrize("known", [False, True])
def test_a_skipped_interval_is_never_published_as_executed(regions: tuple[Region, Region], known: bool) -> None:
    """Published as a success, it was adopted by the next region, and no region executed it."""
    here, there = regions
    here.books.begin(0)
    here.db.put("r1", "success")
    here.tell()
    here.db.put("r2", "running" if known else "success", day=1, is_skipped=not known)
    here.tell()
    if known:
        here.db.rows["orders", "r2"] = replace(here.db.rows["orders", "r2"], state="success", is_skipped=True)
        here.tell()
    there.books.follow()
    there.books.adopt()
    assert [run.run_id for run in there.db.adopted] == ["r1"]
    # The region that has skipped it while it had the role begins it after all.
    here.books.resume(epoch=0)
    assert [run.run_id for run in here.db.resumed] == ["r2"]


def test_what_a_standby_skipped_before_it_had_the_role_is_nobodys(regions: tuple[Region, Region]) -> None:
    """The control: its intervals were another region's."""
    here, _ = regions
    here.db.put("r1", "success", is_skipped=True)
    here.books.begin(0)
    here.tell()
    here.books.resume(epoch=0)
    assert here.db.resumed == []
