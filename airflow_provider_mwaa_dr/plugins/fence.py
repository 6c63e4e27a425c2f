"""
The fence: decides in a worker's task process, right before a task executes.

Its view of the state is at most ``fence_file_s`` old. The tasks of one machine share each read through a small file
under AIRFLOW_HOME; of tasks that start together, only one reads. This saves reads of the table and, above all, imports
of boto3. A view that is older than the lease counts as unknown.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.core.config import DRConfig, is_exempt
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.gate import Action, Decision, DecisionPoint, Role, View, decide, role_of
from airflow_provider_mwaa_dr.core.hold import LATER_RETRY_S, Hold, may_end, silence_of
from airflow_provider_mwaa_dr.core.identity import Identity, identity_problem
from airflow_provider_mwaa_dr.core.ports import FENCE_LOADS, Clock, FenceLoad, HeldTasks, StateStore
from airflow_provider_mwaa_dr.core.timing import Timing
from airflow_provider_mwaa_dr.exceptions import UnreadableItemError
from airflow_provider_mwaa_dr.plugins import execution, shared_file
from airflow_provider_mwaa_dr.plugins.dataclass_json import from_json, to_json

log = get_logger(__name__)

_POLL_S = 1.0
_LOCK_WAIT_S, _LOCK_POLL_S = 1.0, 0.02
"""How long a task waits until another task has read the state, before it reads the state itself."""
_PUBLISH_EVERY_S = 3600.0
_REPORT_EVERY_S = 60.0
"""How often a machine publishes at most that it holds tasks."""
_LATER = (
    f"The fence checks it every {LATER_RETRY_S / 60:g} minutes, without occupying a worker in between. It starts, or "
    "is skipped, as soon as the region has a role."
)
_NO_FENCE = Decision(Action.RUN, "[dr] fence is off", Role.UNKNOWN)
_FILE_VERSION = 1
"""Version of the shared file. A file of another version, or without one, is not used."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def guard(task_instance: Any) -> None:
    """
    Let the task execute, skip it (standby), or send it back to the scheduler (unknown).

    While the decision is HOLD, this waits for at most ``[dr] fence_wait_s``, but not for a task that has been held for
    long (core/hold.py).
    """
    held = HeldTask(Hold(since=datetime.now(tz=timezone.utc)))
    try:
        config = conf.load()
        held = HeldTask(execution.hold_of(task_instance) or held.hold)
        decision = _NO_FENCE
        if config.fence:
            fence = _fence(config)
            decision = fence.decide(exempt=_is_exempt(task_instance, config), hold=held.hold)
            if decision.action is Action.HOLD:
                held = fence.hold(held.hold, decision, run_began_at=_run_began_at(task_instance))
        if decision.action is Action.RUN:
            execution.restore(task_instance)
    except Exception as error:
        log.exception("The fence failed; the task goes back to the scheduler.")
        decision = Decision(Action.HOLD, f"held: the fence failed ({type(error).__name__})", Role.UNKNOWN)
        held = HeldTask(held.hold.next_round())
    if decision.action is not Action.RUN:
        execution.stop(task_instance.task, decision, held.hold, ends=held.ends)


def _fence(config: DRConfig) -> Fence:
    clock = SystemClock()
    return Fence(config=config, clock=clock, home=conf.airflow_home(), open_store=_store_opener(config, clock))


def _run_began_at(task_instance: Any) -> datetime | None:
    from airflow_provider_mwaa_dr._compat import run_began_at  # noqa: PLC0415

    try:
        return run_began_at(task_instance)
    except Exception as error:  # Airflow 2 may read it from the database
        log.debug("The start of the task's run could not be read: %s", error)
        return None


def _is_exempt(task_instance: Any, config: DRConfig) -> bool:
    return is_exempt(task_instance.dag_id, getattr(task_instance.task.dag, "tags", None) or (), config.exempt_dags)


def _store_opener(config: DRConfig, clock: Clock) -> Callable[[], StateStore]:
    opened: list[StateStore] = []

    def open_store() -> StateStore:
        if not opened:
            opened.append(conf.state_store(config, clock))
        return opened[0]

    return open_store


@dataclass(frozen=True, slots=True)
class HeldTask:
    """
    A round of a held task.

    :param ends: the task fails, because it can never execute.
    """

    hold: Hold
    ends: bool = False


class Fence:
    """
    Decides what a task may do, with a view that is at most ``fence_file_s`` old.

    :param home: the folder of the file that the tasks of this machine share.
    :param open_store: imports boto3 and makes a client; called only if the file is too old.
    """

    def __init__(self, *, config: DRConfig, clock: Clock, home: Path, open_store: Callable[[], StateStore]) -> None:
        self._config = config
        self._clock = clock
        self._file = home / f".mwaa_dr_fence_{config.region}.json"
        self._lock = home / f".mwaa_dr_fence_{config.region}.lock"
        self._marker = home / f".mwaa_dr_fence_noted_{config.region}"
        self._held_marker = home / f".mwaa_dr_fence_held_{config.region}"
        self._open_store = open_store
        self._is_foreign = False
        """Whether this Airflow is not the region's environment, and so must not publish that the region has a fence."""
        self._began = 0.0
        self._last: View | None = None
        self._read_error = ""

    def decide(self, *, exempt: bool, hold: Hold | None = None) -> Decision:
        """
        Return RUN or SKIP; HOLD if the decision is still HOLD after ``fence_wait_s``.

        :param hold: how long the task has been held. If that is long, this does not wait.
        """
        config = self._config
        began = self._began = self._clock.monotonic()
        is_long = hold is not None and hold.is_long
        deadline = began + (0.0 if is_long else config.fence_wait_s)
        logged = None
        while True:
            decision = self._decide(began, exempt=exempt)
            if decision.action is not Action.HOLD or self._clock.monotonic() >= deadline:
                break
            if logged is None:
                logged = decision.reason
                log.info("The task waits: %s", logged)
            self._clock.sleep(_POLL_S)
        if not self._is_foreign:
            self._publish(passes=not exempt and decision.action is not Action.HOLD, was_long=is_long)
        return decision

    def hold(self, hold: Hold, decision: Decision, *, run_began_at: datetime | None) -> HeldTask:
        """
        Return the next round of a held task. If it is held for long, log why and what to do, and publish it.

        :param hold: the last round.
        :param run_began_at: when the task's run began; None: unknown.
        """
        hold = hold.next_round()
        if not hold.is_long:
            return HeldTask(hold)
        hold, why = self._why_long(hold, decision)
        view = self._last
        ends = (
            view is not None
            and view.read_at >= self._began
            and may_end(hold, view, region=self._config.region, run_began_at=run_began_at)
        )
        log.error(
            "This task is held since %s, in %d rounds: %s %s", hold.since.isoformat(timespec="seconds"), hold.rounds,
            why, "It fails now: nothing can execute it in this region." if ends else _LATER,
        )  # fmt: skip
        self._report(HeldTasks(since=hold.since, at=self._clock.now(), why=why))
        return HeldTask(hold, ends)

    def _why_long(self, hold: Hold, decision: Decision) -> tuple[Hold, str]:
        """Return the hold with what this round has read, and why the task is held and what to do."""
        region, reason = self._config.region, f"{decision.reason.removeprefix('held: ')}."
        if not (region and self._config.state_table):
            return hold.having_read(""), f"{reason} Set [dr] state_table."
        view = self._last = self._view(since=self._began)
        if view is None or view.read_at < self._began:
            return hold.having_read(""), (
                f"{reason} The workers of {region} cannot read the state table {self._config.state_table} "
                f"({self._read_error or 'no answer'}): check the network of the workers, and the execution role's "
                "rights."
            )
        if view.problem is not None or role_of(view, region) is Role.UNKNOWN:
            return hold.having_read(""), reason  # it contains what to do
        try:
            agents = self._open_store().agents(region)
        except Exception as error:  # any error means: the heartbeats are unknown
            return hold.having_read(""), f"{reason} The heartbeats of {region} could not be read: {error}"
        hold = hold.having_read(silence_of(view, agents, region=region))
        if not agents:
            silence = "has sent no heartbeat"
        elif hold.silent_s > Timing.from_config(self._config).agent_silence_s:
            last = max(agent.at for agent in agents)
            silence = f"sends no heartbeats (the last one at {last.isoformat(timespec='seconds')})"
        else:
            return hold, f"{reason} See mwaa-dr status, and the log of the scheduler of {region}."
        return hold, (
            f"{reason} The scheduler of {region} {silence}: its plugin is not loaded, or the scheduler does not run. "
            "Check the scheduler's requirements_install log, and dr.enabled."
        )

    def _report(self, held: HeldTasks) -> None:
        """Publish that tasks are held, at most once a minute for each machine."""
        try:
            reported_s = shared_file.age_s(self._held_marker, now=time.time())
            if self._is_foreign or (reported_s is not None and reported_s < _REPORT_EVERY_S):
                return
            before = self._held_before()
            if before is not None and before.is_current(held.at):
                held = replace(held, since=min(held.since, before.since))
            load = FenceLoad(region=self._config.region, at=held.at, held=held)
            self._open_store().put(FENCE_LOADS, load)
            shared_file.write(self._held_marker, "")
        except Exception as error:  # status and checks then do not show it
            log.debug("The held tasks could not be recorded in the state table: %s", error)

    def _held_before(self) -> HeldTasks | None:
        try:
            load = self._open_store().get(FENCE_LOADS, self._config.region)
            return load.held if load is not None else None
        except UnreadableItemError:
            return None  # the next write replaces it

    def _decide(self, began: float, *, exempt: bool) -> Decision:
        config = self._config

        def on(view: View | None) -> Decision:
            return decide(
                view,
                region=config.region,
                exempt=exempt,
                now=self._clock.monotonic(),
                lease_s=config.lease_s,
                point=DecisionPoint.FENCE,
                on_unreachable=config.on_unreachable,
            )

        if exempt or not (config.region and config.state_table):
            return on(None)
        view = self._last = self._view()
        self._is_foreign = view is not None and view.problem is not None
        decision = on(view)
        if decision.action is Action.SKIP and view is not None and view.read_at < began:
            # The region may have become active since this view. Then no region would execute the skipped task.
            self._last = self._view(since=began)
            decision = on(self._last)
        return decision

    def _view(self, *, since: float | None = None) -> View | None:
        """
        Return the machine's view if it is fresh, else a new read; None if the table cannot be read.

        :param since: only a view that was read since then is fresh; None: ``fence_file_s`` decides.
        """
        shared = self._shared()
        if self._is_fresh(shared, since):
            return shared
        if self._config.fence_file_s == 0:
            return self._read(shared)
        with self._one_reader():
            shared = self._shared()
            return shared if self._is_fresh(shared, since) else self._read(shared)

    def _is_fresh(self, shared: View | None, since: float | None) -> bool:
        oldest = since if since is not None else self._clock.monotonic() - self._config.fence_file_s
        return shared is not None and shared.read_at >= oldest

    @contextmanager
    def _one_reader(self) -> Iterator[None]:
        """
        Wait until no other task of this machine reads the state, for a second at most.

        Afterwards the file has the other task's read. The lock ends with the process that holds it. Without a lock,
        each task reads the state itself.
        """
        try:
            lock = shared_file.open_lock(self._lock)
        except OSError as error:
            log.debug("%s cannot be used, so each task reads the state itself: %s", self._lock, error)
            yield
            return
        try:
            deadline = self._clock.monotonic() + _LOCK_WAIT_S
            while not _try_lock(lock) and self._clock.monotonic() < deadline:
                self._clock.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(lock)

    def _read(self, shared: View | None) -> View | None:
        """Read the table and share the view; None if it cannot be read. *shared* is the earlier view of the machine."""
        read_at, wall = self._clock.monotonic(), time.time()
        try:
            observation = self._open_store().observe(self._config.region)
        except Exception as error:  # any error means: the state is unknown
            log.warning("The state table could not be read: %s", error)
            self._read_error = str(error)
            # A view that is older than the lease only shows [dr] on_unreachable the last known role. A younger view
            # would count as fresh, so it is not returned.
            is_over = shared is not None and read_at - shared.read_at > self._lease_s(shared)
            return shared if is_over else None
        view = View.of(observation, read_at, problem=identity_problem(Identity.of(self._config), observation))
        known = shared.state if shared is not None and read_at - shared.read_at <= self._config.lease_s else None
        if known is not None and (view.state is None or known.is_newer_than(view.state)):
            log.warning("The state table answered with an older state than before, or none; the fence does not use it.")
            return None
        self._share(view, wall)
        return view

    def _lease_s(self, view: View) -> float:
        return view.state.lease_s if view.state is not None else self._config.lease_s

    def _shared(self) -> View | None:
        """Return the view that a task of this machine last read; None if there is no usable one."""
        try:
            stored = json.loads(shared_file.read(self._file))
            if stored["version"] != _FILE_VERSION:
                return None
            if stored["boot_id"] != _boot_id() or stored["table"] != self._config.state_table:
                return None
            view = from_json(View, {field.name: stored[field.name] for field in fields(View)})
            now = self._clock.monotonic()
            # The clock since boot also counts time in suspend. The wall clock shows a restored snapshot of the machine.
            ages_s = now - view.read_at, time.time() - from_json(float, stored["wall"])
            if min(ages_s) < 0:
                raise ValueError(f"a time is {-min(ages_s):g} s in the future")
            return replace(view, read_at=now - max(ages_s))
        except FileNotFoundError:
            return None
        except Exception as error:  # a file of another version, a damaged disk, or something else in its place
            log.debug("%s cannot be used, so the fence reads the table: %s", self._file, error)
            return None

    def _share(self, view: View, wall: float) -> None:
        origin = {
            "version": _FILE_VERSION,
            "boot_id": _boot_id(),
            "table": self._config.state_table,
            "wall": wall,
        }
        text = json.dumps({**origin, **to_json(view)})
        try:
            shared_file.write(self._file, text)
        except OSError as error:
            log.debug("%s cannot be written, so each task reads the state itself: %s", self._file, error)

    def _publish(self, *, passes: bool, was_long: bool) -> None:
        """
        Write to the state table that this machine loads the fence, at most once an hour for each machine.

        :param passes: a task that is not exempt is not held. This removes the report of held tasks, immediately if this
            machine or this task has reported it.
        :param was_long: the task was held for long.
        """
        try:
            published_s = shared_file.age_s(self._marker, now=time.time())
            is_noted = published_s is not None and published_s < _PUBLISH_EVERY_S
            ends_hold = passes and (was_long or shared_file.age_s(self._held_marker, now=time.time()) is not None)
            if is_noted and not ends_hold:
                return
            if not (self._config.region and self._config.state_table):
                return
            held = None if passes else self._held_before()
            load = FenceLoad(region=self._config.region, at=self._clock.now(), held=held)
            self._open_store().put(FENCE_LOADS, load)
            shared_file.write(self._marker, "")
            if ends_hold:
                self._held_marker.unlink(missing_ok=True)
        except Exception as error:  # only the readiness checks need it
            log.debug("The fence could not be recorded in the state table: %s", error)


def _try_lock(lock: int) -> bool:
    """Take the lock if it is free; return whether this process has it. True also if the file system has no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.debug("The file system has no locks, so each task reads the state itself: %s", error)
    return True


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
