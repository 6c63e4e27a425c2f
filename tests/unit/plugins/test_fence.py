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
from datetime import datetime, timezone
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.config import DRConfig, OnUnreachable
from airflow_provider_mwaa_dr.core.gate import Action, Decision, Role
from airflow_provider_mwaa_dr.core.hold import LATER_RETRY_S, SILENT_ROUNDS, WORKER_ROUNDS, Hold
from airflow_provider_mwaa_dr.core.ports import FENCE_LOADS, AgentStatus, HeldTasks
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


def test_tasks_of_one_machine_share_a_read_for_a_second(worker: Worker) -> None:
    """The file saves the read and the import of boto3. It is never used for longer than fence_file_s."""
    worker.task()
    opened = worker.opened
    worker.clock.advance(1)
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
    assert is_marker or worker.store.get(FENCE_LOADS, HERE) is not None
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
    assert worker.store.calls.count("put fence load") == 1


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
    assert worker.store.calls.count("put fence load") == 1
    marker = worker.home / f".mwaa_dr_fence_noted_{HERE}"
    an_hour_ago = time.time() - 3601
    os.utime(marker, (an_hour_ago, an_hour_ago))
    worker.task()
    assert worker.store.calls.count("put fence load") == 2


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
    assert worker.store.get(FENCE_LOADS, HERE) is not None


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


class HeldRun(Worker):
    """A task of one run that the fence holds: :meth:`round` is one round of it in a new process."""

    def __init__(self, home: Path, active: str = THERE, *, reconciled: int | None = None) -> None:
        super().__init__(home, active, reconciled=reconciled)
        self.hold = Hold(since=self.clock.now())
        self.began_at: datetime | None = self.clock.now()
        self.last = Decision(Action.HOLD, "", Role.UNKNOWN)
        self.ends = False

    def round(self) -> Hold:
        """Decide once, and wait for the end of the deferral. Real time passes as little as in any test."""
        settings = DRConfig(enabled=True, region=HERE, state_table="t", environments={}, fence_wait_s=30.0)
        fence = Fence(config=settings, clock=self.clock, home=self.home, open_store=self.open)
        self.last = fence.decide(exempt=False, hold=self.hold)
        if self.last.action is Action.HOLD:
            held = fence.hold(self.hold, self.last, run_began_at=self.began_at)
            self.hold, self.ends = held.hold, held.ends
            self.clock.advance(self.hold.retry_s)
        return self.hold

    def rounds(self, count: int) -> None:
        for _ in range(count):
            self.round()

    def heartbeat(self, beat: int) -> None:
        self.store.put_agent(
            AgentStatus(
                region=HERE,
                job="7",
                host="h",
                at=self.clock.now(),
                beat=beat,
                version=1,
                epoch=0,
                provider_version="1",
                airflow_version="3",
            )
        )

    def report(self) -> HeldTasks | None:
        load = self.store.get(FENCE_LOADS, HERE)
        return load.held if load is not None else None

    def may_report_again(self) -> None:
        """A minute of the machine's clock passes, so that it reports again."""
        marker = self.home / f".mwaa_dr_fence_held_{HERE}"
        if marker.exists():
            a_minute_ago = time.time() - 61
            os.utime(marker, (a_minute_ago, a_minute_ago))


@pytest.fixture
def held(tmp_path: Path) -> HeldRun:
    return HeldRun(tmp_path)


def test_a_task_that_is_held_for_long_occupies_no_worker(held: HeldRun) -> None:
    """For ten rounds it waits 30 s in its worker. Then it does not wait, and is deferred for two minutes."""
    held.rounds(WORKER_ROUNDS)
    assert held.report() is not None
    before = held.clock.monotonic()
    held.round()
    assert held.clock.monotonic() - before == LATER_RETRY_S


def test_short_holds_are_not_reported(held: HeldRun, caplog: pytest.LogCaptureFixture) -> None:
    """An ordinary failover holds tasks for seconds."""
    held.rounds(WORKER_ROUNDS - 1)
    assert held.report() is None
    assert "held since" not in caplog.text


def test_the_log_and_the_table_say_that_the_scheduler_sends_no_heartbeats(
    held: HeldRun, caplog: pytest.LogCaptureFixture
) -> None:
    """They say since when, why, and what to do."""
    held.heartbeat(1)
    held.rounds(WORKER_ROUNDS + 1)
    report = held.report()
    assert report is not None
    assert report.since == datetime(2026, 1, 1, tzinfo=timezone.utc)
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "held since 2026-01-01T00:00:00+00:00, in 11 rounds" in said[-1]
    assert f"The scheduler of {HERE} sends no heartbeats (the last one at 2026-01-01T00:00:00" in said[-1]
    assert "requirements_install log" in said[-1]
    held.may_report_again()
    held.round()
    report = held.report()
    assert report is not None
    assert "sends no heartbeats" in report.why


def test_a_region_that_never_sent_a_heartbeat_is_named(held: HeldRun) -> None:
    """There is nothing to compare with."""
    held.rounds(WORKER_ROUNDS)
    report = held.report()
    assert report is not None
    assert f"The scheduler of {HERE} has sent no heartbeat" in report.why


def test_nothing_is_claimed_about_a_scheduler_that_sends_heartbeats(
    held: HeldRun, caplog: pytest.LogCaptureFixture
) -> None:
    """Its agent may be waiting for the ledger. The task never ends."""
    for beat in range(WORKER_ROUNDS + SILENT_ROUNDS + 5):
        held.heartbeat(beat)
        held.round()
        assert not held.ends
    assert "plugin is not loaded" not in caplog.text
    assert "has not yet reconciled" in caplog.text


def test_a_table_that_cannot_be_read_is_another_message(held: HeldRun, caplog: pytest.LogCaptureFixture) -> None:
    """The heartbeats are unknown then, and the task never ends."""
    held.store.unreachable = True
    held.rounds(WORKER_ROUNDS + SILENT_ROUNDS + 5)
    assert "cannot read the state table t" in caplog.text
    assert "heartbeat" not in caplog.text
    assert not held.ends


def test_a_task_of_a_standby_without_an_agent_ends_after_an_hour(held: HeldRun) -> None:
    """Nothing can execute there."""
    began = held.clock.monotonic()
    held.rounds(WORKER_ROUNDS + SILENT_ROUNDS - 1)
    assert not held.ends
    held.round()
    assert held.ends
    assert held.clock.monotonic() - began > 3600


def test_a_heartbeat_or_a_lost_table_begins_the_hour_again(held: HeldRun) -> None:
    """No live agent was there for the whole time only if each round read that."""
    held.rounds(WORKER_ROUNDS + SILENT_ROUNDS - 1)
    held.store.unreachable = True
    held.round()
    held.store.unreachable = False
    held.rounds(SILENT_ROUNDS)
    assert not held.ends
    held.heartbeat(1)
    held.rounds(SILENT_ROUNDS)
    assert not held.ends
    held.round()
    assert held.ends


def test_a_task_of_an_active_region_is_held_without_end(tmp_path: Path) -> None:
    """Its run must not be lost. It starts at the first round after the agent is back."""
    held = HeldRun(tmp_path, HERE)
    held.rounds(WORKER_ROUNDS + 3 * SILENT_ROUNDS)
    assert (held.last.action, held.ends) == (Action.HOLD, False)
    assert held.report() is not None
    held.store._table.reconciled[HERE] = 0
    held.round()
    assert held.last.action is Action.RUN
    assert held.report() is None


def test_a_run_that_began_while_the_region_was_active_is_held_without_end(tmp_path: Path) -> None:
    """Another region may have to resume it, which the region's agent must publish first."""
    held = HeldRun(tmp_path, HERE, reconciled=0)
    before = held.store.read()
    held.store.write(
        set_active_region(before, THERE, reason="r", by="b", at=held.clock.now()), expected_version=before.version
    )
    held.rounds(WORKER_ROUNDS + 2 * SILENT_ROUNDS)
    assert (held.last.action, held.ends) == (Action.HOLD, False)


def test_the_report_is_kept_until_a_task_passes(held: HeldRun) -> None:
    """An exempt task, and another task that is held, prove nothing. A task of a new machine removes it, too."""
    held.rounds(WORKER_ROUNDS)
    marker = held.home / f".mwaa_dr_fence_noted_{HERE}"
    for task in ({"exempt": True}, {"fence_wait_s": 0.0}):
        marker.unlink()
        held.task(**task)  # type: ignore[arg-type]
        assert held.report() is not None
        assert marker.exists()
    held.store._table.reconciled[HERE] = 0
    assert held.task() is Action.SKIP
    assert held.report() is None


def test_a_machine_reports_at_most_once_a_minute(held: HeldRun) -> None:
    """Hundreds of held tasks must not make hundreds of writes."""
    held.rounds(WORKER_ROUNDS + 3)
    writes = held.store.calls.count("put fence load")
    held.rounds(3)
    assert held.store.calls.count("put fence load") == writes
    held.may_report_again()
    held.round()
    assert held.store.calls.count("put fence load") == writes + 1


def test_the_report_names_the_task_that_was_held_first(tmp_path: Path) -> None:
    """Two tasks report in turn."""
    held = HeldRun(tmp_path)
    held.rounds(WORKER_ROUNDS)
    first = held.report()
    held.hold = replace(held.hold, since=held.clock.now())
    held.may_report_again()
    held.round()
    second = held.report()
    assert first is not None
    assert second is not None
    assert second.since == first.since
    assert second.at > first.at
