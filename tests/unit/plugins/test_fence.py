"""The fence: its view of the state and its wait, with a fake store and a manual clock."""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.config import DRConfig, OnUnreachable
from airflow_provider_mwaa_dr.core.gate import Action
from airflow_provider_mwaa_dr.core.state import DRState, FieldProblem, Phase, initial, set_active_region
from airflow_provider_mwaa_dr.plugins import shared_file
from airflow_provider_mwaa_dr.plugins.fence import Fence
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock

HERE, THERE = "us-east-1", "us-east-2"


class Worker:
    """One machine: a home folder, a clock, and a store that counts how often it is opened."""

    def __init__(self, home: Path, active: str = HERE, *, reconciled: int | None = 0) -> None:
        self.home = home
        self.clock = ManualClock()
        self.store = InMemoryStateStore(state(active), regions=(HERE, THERE))
        if reconciled is not None:
            self.store._table.reconciled[HERE] = reconciled
        self.opened = 0

    def open(self) -> InMemoryStateStore:
        self.opened += 1
        return self.store

    def task(self, *, exempt: bool = False, **config: object) -> Action:
        """Return what the fence decides in a new task process."""
        settings = DRConfig(
            **{"enabled": True, "region": HERE, "state_table": "t", "environments": {}, **config}  # type: ignore[arg-type]
        )
        fence = Fence(config=settings, clock=self.clock, home=self.home, open_store=self.open)
        return fence.decide(exempt=exempt).action

    @property
    def reads(self) -> int:
        return self.store.calls.count("observe")

    @property
    def file(self) -> Path:
        return self.home / f".mwaa_dr_fence_{HERE}.json"


@contextmanager
def lock_of(worker: Worker) -> Iterator[int]:
    """Hold the lock that a task holds while it reads the state."""
    lock = os.open(worker.home / f".mwaa_dr_fence_{HERE}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield lock
    os.close(lock)


def state(active: str) -> DRState:
    return initial(active, lease_s=60, by="t", at=ManualClock().now())


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def test_the_active_region_runs_and_a_standby_skips(tmp_path: Path) -> None:
    """The two ordinary rows of the decision table."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert Worker(tmp_path / "a", HERE).task() is Action.RUN
    assert Worker(tmp_path / "b", THERE).task() is Action.SKIP


def test_tasks_of_one_machine_share_a_read_for_a_few_seconds(worker: Worker) -> None:
    """The file saves the read and the import of boto3. It is never used for longer than fence_file_s."""
    worker.task()
    opened = worker.opened
    worker.clock.advance(3)
    worker.task()
    assert (worker.reads, worker.opened) == (1, opened)
    worker.clock.advance(0.5)
    worker.task()
    assert worker.reads == 2


def test_of_tasks_that_start_together_one_reads(worker: Worker) -> None:
    """The second task waits for the result of the first one, but for one second only, because the first may hang."""
    with lock_of(worker) as lock:
        worker.clock.after(0.3, lambda: (fcntl.flock(lock, fcntl.LOCK_UN), worker.task()))
        assert worker.task() is Action.RUN
    assert worker.reads == 1
    worker.clock.advance(10)
    began = worker.clock.monotonic()
    with lock_of(worker):
        assert worker.task() is Action.RUN
    assert worker.reads == 2
    assert 1 <= worker.clock.monotonic() - began <= 1.1


def test_tasks_that_share_no_file_do_not_wait(worker: Worker) -> None:
    """With fence_file_s 0, each task reads for itself immediately."""
    with lock_of(worker):
        assert worker.task(fence_file_s=0.0) is Action.RUN
    assert (worker.reads, worker.clock.monotonic()) == (1, 0)


def test_a_read_by_another_task_since_the_start_counts_as_an_own_read(tmp_path: Path) -> None:
    """A task in a standby skips on such a read, but never on one from before the task started."""
    worker = Worker(tmp_path, active=THERE)
    worker.task()
    worker.clock.advance(10)
    with lock_of(worker) as lock:
        worker.clock.after(0.3, lambda: (worker.task(), fcntl.flock(lock, fcntl.LOCK_UN)))
        assert worker.task() is Action.SKIP
    assert worker.reads == 2


def test_the_fence_sees_a_failover_within_fence_file_s(worker: Worker) -> None:
    """It does not take a whole lease."""
    worker.task()
    assert worker.store.state is not None
    flipped = set_active_region(worker.store.state, THERE, reason="r", by="b", at=worker.clock.now())
    worker.store.write(flipped, expected_version=1)
    worker.store._table.reconciled[HERE] = 1
    worker.clock.advance(4)
    assert worker.task() is Action.SKIP


def test_no_task_is_skipped_on_a_read_from_before_it_started(tmp_path: Path) -> None:
    """The region became active during the seconds in which tasks share a read. A skipped task would never execute."""
    worker = Worker(tmp_path, active=THERE)
    assert worker.task() is Action.SKIP
    before = worker.store.read()
    came = set_active_region(before, HERE, reason="r", by="b", at=worker.clock.now())
    worker.store.write(came, expected_version=before.version)
    worker.store._table.reconciled[HERE] = came.epoch
    assert worker.task(fence_file_s=3) is Action.RUN
    assert worker.reads == 2


def test_tasks_hold_until_the_region_has_reconciled_the_epoch(tmp_path: Path) -> None:
    """The region's agent has not yet closed the runs of the epoch before."""
    assert Worker(tmp_path, reconciled=None).task() is Action.HOLD


def test_a_held_task_waits_and_then_executes(worker: Worker) -> None:
    """The table is unreachable for a moment. The task waits in its worker, and then executes."""
    worker.store.unreachable = True
    worker.clock.after(10, lambda: setattr(worker.store, "unreachable", False))
    assert worker.task() is Action.RUN
    assert 10 <= worker.clock.monotonic() <= 12


def test_the_wait_is_bounded(worker: Worker) -> None:
    """After fence_wait_s the task returns its slot."""
    worker.store.unreachable = True
    assert worker.task(fence_wait_s=30.0) is Action.HOLD
    assert 30 <= worker.clock.monotonic() <= 32


def test_an_exempt_task_never_waits(worker: Worker) -> None:
    """The failover DAG itself runs in this region, also while the table is unreachable."""
    worker.store.unreachable = True
    assert worker.task(exempt=True) is Action.RUN
    assert worker.clock.monotonic() == 0


def test_an_unknown_region_holds_without_a_read(worker: Worker) -> None:
    """Without a region name there is no decision, so a read would be useless."""
    assert worker.task(region="", fence_wait_s=0.0) is Action.HOLD
    assert worker.opened == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stored: {**stored, "boot_id": "another boot"},
        lambda stored: {**stored, "table": "another table"},
        lambda stored: {**stored, "wall": stored["wall"] - 3600},
        lambda stored: {"some": "thing else"},
        lambda stored: {**stored, "read_at": stored["read_at"] + 1},
        lambda stored: {**stored, "wall": stored["wall"] + 3600},
        lambda stored: {**stored, "read_at": 1e30, "wall": 1e30},
        lambda stored: {**stored, "read_at": math.nan},
        lambda stored: {**stored, "wall": -math.inf},
        lambda stored: {**stored, "read_at": None},
        lambda stored: {**stored, "read_at": True},
        lambda stored: {**stored, "read_at": "0"},
        lambda stored: {**stored, "read_at": -(10**400)},
        lambda stored: {**stored, "reconciled_epoch": "0"},
        lambda stored: {**stored, "reconciled_epoch": [0]},
        lambda stored: {**stored, "problem": 1},
        lambda stored: {**stored, "problems": [1]},
        lambda stored: {**stored, "problems": "text"},
        lambda stored: {**stored, "registered": [1]},
        lambda stored: {**stored, "registered": "us-east-1"},
        lambda stored: {**stored, "state": []},
        lambda stored: {**stored, "state": {"state_id": {"S": "ACTIVE_REGION"}}},
        lambda stored: {**stored, "state": {**stored["state"], "phase": 1}},
        lambda stored: {**stored, "state": {**stored["state"], "phase": "UNKNOWN"}},
        lambda stored: {**stored, "state": {**stored["state"], "problems": 1}},
        lambda stored: {**stored, "state": {**stored["state"], "problems": [{"field": "lease_s"}]}},
        lambda stored: {**stored, "state": {**stored["state"], "lease_s": math.nan}},
        lambda stored: {**stored, "state": {**stored["state"], "last_updated": "yesterday"}},
        lambda stored: {**stored, "state": {**stored["state"], "new_field": 1}},
        lambda stored: {**stored, "padding": "x" * 1_000_000},
        lambda stored: [stored],
        lambda stored: None,
    ],
)
@pytest.mark.parametrize("on_unreachable", [OnUnreachable.HOLD, OnUnreachable.RUN])
def test_a_file_that_cannot_be_trusted_is_not_used(
    worker: Worker, spoil: Callable[[dict[str, float]], object], on_unreachable: OnUnreachable
) -> None:
    """Another boot, table or version, a time in the future, a wrong type, or too large: the task reads the table."""
    worker.task()
    worker.file.write_text(json.dumps(spoil(json.loads(worker.file.read_text()))))
    assert worker.task(on_unreachable=on_unreachable) is Action.RUN
    assert worker.reads == 2
    assert worker.task() is Action.RUN
    assert worker.reads == 2  # the file was replaced


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00", "NaN"])
def test_a_file_that_is_no_document_is_not_used(worker: Worker, text: str) -> None:
    """A half-written file, or a text on which a parser fails."""
    worker.file.write_text(text)
    assert worker.task() is Action.RUN


@pytest.mark.parametrize("on_unreachable", [OnUnreachable.HOLD, OnUnreachable.RUN])
def test_a_time_in_the_future_lets_no_standby_run(tmp_path: Path, on_unreachable: OnUnreachable) -> None:
    """The role of an unusable view does not count, whatever ``[dr] on_unreachable`` is."""
    worker = Worker(tmp_path, active=HERE)
    worker.task()
    stored = json.loads(worker.file.read_text())
    worker.file.write_text(json.dumps({**stored, "read_at": 1e30, "wall": 1e30}))
    worker.store.unreachable = True
    assert worker.task(on_unreachable=on_unreachable, fence_wait_s=2) is Action.HOLD
    worker.store.unreachable = False
    worker.store._table.state = state(THERE)
    assert worker.task(on_unreachable=on_unreachable) is Action.SKIP


def make_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_text("untouched")
    path.symlink_to(target)


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "something").touch()


def make_old_file_of_another_user(path: Path) -> None:
    path.write_text("not mine")
    os.chown(path, 12345, 12345)


PLANTED = [
    pytest.param(make_link, id="link"),
    pytest.param(lambda path: path.symlink_to("/dev/zero"), id="link-to-a-device"),
    pytest.param(lambda path: path.symlink_to(path.name), id="link-to-itself"),
    pytest.param(os.mkfifo, id="fifo"),
    pytest.param(make_folder, id="folder"),
    pytest.param(lambda path: path.write_bytes(b"\xff" * 10_000_000), id="huge"),
    pytest.param(
        make_old_file_of_another_user,
        id="of-another-user",
        marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away"),
    ),
]


@pytest.mark.parametrize("plant", PLANTED)
@pytest.mark.parametrize("name", [f"_{HERE}.json", f"_{HERE}.lock", f"_noted_{HERE}", f"_{HERE}.json.PID"])
def test_whatever_is_at_the_path_of_a_file_only_costs_reads(
    worker: Worker, plant: Callable[[Path], object], name: str
) -> None:
    """No task hangs, follows a link or is held because of it."""
    place = worker.home / f".mwaa_dr_fence{name.replace('PID', str(os.getpid()))}"
    plant(place)
    is_marker = "noted" in name and shared_file.age_s(place, now=time.time()) is not None
    assert [worker.task(), worker.task()] == [Action.RUN, Action.RUN]
    assert worker.clock.monotonic() <= 1.1
    assert 1 <= worker.reads <= 2
    assert is_marker or worker.store.fence(HERE) is not None
    elsewhere = worker.home / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_text() == "untouched"


def test_a_marker_from_the_future_does_not_stop_the_record_of_the_fence(worker: Worker) -> None:
    """The machine's clock was wrong for a moment. Without the record, the fence would look missing for years."""
    marker = worker.home / f".mwaa_dr_fence_noted_{HERE}"
    marker.touch()
    ahead = time.time() + 1e8
    os.utime(marker, (ahead, ahead))
    worker.task()
    worker.task()
    assert worker.store.calls.count("put_fence") == 1


def test_a_home_that_cannot_be_written_only_costs_reads(worker: Worker, tmp_path: Path) -> None:
    """Every task reads for itself."""
    worker.home = tmp_path / "missing"
    assert worker.task() is Action.RUN
    assert worker.task() is Action.RUN
    assert worker.reads == 2


def test_a_view_does_not_go_back_within_the_lease(worker: Worker) -> None:
    """A replica that is older than what this machine has read counts as not read."""
    assert worker.store.state is not None
    newer = replace(worker.store.state, version=5, phase=Phase.STEADY)
    worker.store.write(newer, expected_version=1)
    worker.task()
    worker.clock.advance(10)
    worker.store._table.state = state(HERE)
    assert worker.task(fence_wait_s=5.0) is Action.HOLD


def test_the_fence_is_recorded_once_an_hour_and_machine(worker: Worker) -> None:
    """The record is the evidence that a worker loaded the fence. It does not take a write for each task."""
    worker.task()
    worker.task()
    assert worker.store.calls.count("put_fence") == 1
    marker = worker.home / f".mwaa_dr_fence_noted_{HERE}"
    an_hour_ago = time.time() - 3601
    os.utime(marker, (an_hour_ago, an_hour_ago))
    worker.task()
    assert worker.store.calls.count("put_fence") == 2


@pytest.mark.parametrize(
    ("choice", "active", "action"),
    [
        (OnUnreachable.HOLD, HERE, Action.HOLD),
        (OnUnreachable.RUN, HERE, Action.RUN),
        (OnUnreachable.RUN, THERE, Action.HOLD),
    ],
)
def test_on_unreachable_applies_to_the_fence(
    tmp_path: Path, choice: OnUnreachable, active: str, action: Action
) -> None:
    """A gate that runs and a fence that holds would contradict each other. Within the lease, the fence still holds."""
    worker = Worker(tmp_path, active)
    worker.task()
    worker.store.unreachable = True
    worker.clock.advance(10)
    assert worker.task(on_unreachable=choice, fence_wait_s=2) is Action.HOLD
    worker.clock.advance(60)
    assert worker.task(on_unreachable=choice, fence_wait_s=2) is action


def test_a_fence_that_could_not_be_recorded_is_recorded_by_the_next_task(worker: Worker) -> None:
    """A table that is unreachable for a moment must not look like an hour without a fence."""
    worker.store.unreachable = True
    worker.task(fence_wait_s=0)
    worker.store.unreachable = False
    worker.task()
    assert worker.store.fence(HERE) is not None


@pytest.mark.parametrize(
    "broken", [{"active_region": "us-est-1"}, {"problems": (FieldProblem("lease_s", "nan", "x"),)}]
)
def test_the_other_tasks_of_the_machine_learn_of_a_state_that_cannot_be_acted_on(
    worker: Worker, broken: dict[str, object]
) -> None:
    """The file has the problems of the state. Without them, the replacement of an unusable value would look right."""
    worker.store._table.state = replace(state(HERE), **broken)  # type: ignore[arg-type]
    assert [worker.task(fence_wait_s=0) for _ in range(3)] == [Action.HOLD] * 3
    assert worker.reads == 1


def without_version(stored: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in stored.items() if name != "version"}


@pytest.mark.parametrize(
    "change",
    [
        without_version,
        lambda stored: {**stored, "version": 0},
        lambda stored: {**stored, "version": 2},
        lambda stored: {**without_version(stored), "state": {"state_id": {"S": "ACTIVE_REGION"}}, "state_problems": []},
    ],
    ids=["none", "lower", "higher", "DynamoDB's format"],
)
def test_a_file_of_another_version_is_not_used(
    worker: Worker, change: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    """The task reads the table instead."""
    assert worker.task() is Action.RUN
    worker.file.write_text(json.dumps(change(json.loads(worker.file.read_text()))))
    assert worker.task() is Action.RUN
    assert worker.reads == 2
