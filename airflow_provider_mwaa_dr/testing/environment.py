"""An MWAA environment in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_mwaa_dr.core.ports import (
    DagInfo,
    EnvironmentDescription,
    EnvironmentStatus,
    RunInfo,
)
from airflow_provider_mwaa_dr.exceptions import (
    IncompleteError,
    MwaaAccessError,
    MwaaRequestError,
    MwaaUnreachableError,
)
from airflow_provider_mwaa_dr.testing.clock import ManualClock


@dataclass(slots=True, kw_only=True)
class _Run:
    """
    A DAG run. As in Airflow, it progresses only while its DAG is not paused.

    :param left_s: remaining seconds of work at *since*; None: it never ends by itself.
    :param busy_until: when the task of a stopped run ends; None while the run is not stopped.
    """

    dag_id: str
    run_id: str
    state: str
    left_s: float | None
    since: float
    note: str | None = None
    busy_until: float | None = None


class FakeEnvironment:
    """
    An :class:`~airflow_provider_mwaa_dr.core.ports.Environment` in memory. Not thread-safe.

    It behaves like Airflow where a failover depends on it. A running run of a paused DAG makes no progress. A stopped
    run's task executes for another ``stop_lag_s``. A run that is triggered under a paused DAG stays queued.

    :param dags: ids of unpaused DAGs, or DagInfo objects.
    :param clock: the clock on which runs progress.
    :ivar unreachable: while True, every call raises MwaaUnreachableError and changes nothing.
    :ivar reported_status: what ``status`` returns.
    :ivar description: what ``describe`` returns, with ``reported_status`` as its status.
    :ivar read_only: while True, ``try_change`` and ``set_paused`` raise MwaaAccessError and change nothing.
    :ivar scheduler_healthy: what ``scheduler_is_healthy`` returns. While it is False, no run progresses.
    :ivar stubborn: ids of DAGs whose paused flag cannot be changed; ``set_paused`` raises IncompleteError for them.
    :ivar stop_lag_s: how long a stopped run's task still executes.
    :ivar trigger_s: how long a triggered run executes before it succeeds.
    :ivar calls: a tuple of method name and arguments for each call, in order.
    """

    def __init__(
        self,
        region: str,
        name: str | None = None,
        *,
        dags: Iterable[str | DagInfo] = (),
        clock: ManualClock | None = None,
    ) -> None:
        self._region = region
        self._name = name or f"mwaa-{region}"
        self._clock = clock or ManualClock()
        self._dags: dict[str, DagInfo] = {}
        self._runs: dict[tuple[str, str], _Run] = {}
        self.unreachable = False
        self.reported_status = EnvironmentStatus.AVAILABLE
        self.description = EnvironmentDescription(
            status=EnvironmentStatus.AVAILABLE,
            airflow_version="3.3.1",
            environment_class="mw1.small",
            min_workers=1,
            max_workers=2,
            schedulers=2,
            options={"dr.enabled": "true"},
            logs={"SchedulerLogs": "INFO", "TaskLogs": "INFO"},
        )
        self.read_only = False
        self.scheduler_healthy = True
        self.stubborn: set[str] = set()
        self.stop_lag_s = 6.0
        self.trigger_s = 1.0
        self.calls: list[tuple[Any, ...]] = []
        for dag in dags:
            self.add_dag(dag)

    @property
    def region(self) -> str:
        """Region of the environment."""
        return self._region

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self._name

    # For tests to set up and to check. These calls are not recorded, and never unreachable.

    def add_dag(self, dag: str | DagInfo, *, is_paused: bool = False, tags: Iterable[str] = ()) -> None:
        """Add or replace a DAG."""
        if isinstance(dag, str):
            dag = DagInfo(dag_id=dag, is_paused=is_paused, tags=frozenset(tags))
        self._dags[dag.dag_id] = dag

    def remove_dag(self, dag_id: str) -> None:
        """Remove a DAG, as after its file is deleted."""
        self._dags.pop(dag_id, None)

    def flip(self, dag_id: str, *, is_paused: bool) -> None:
        """Pause or unpause a DAG, as a user does it in the user interface."""
        self._advance_runs()
        self._dags[dag_id] = replace(self._dags[dag_id], is_paused=is_paused)

    def add_run(self, dag_id: str, run_id: str, *, state: str = "running", seconds: float | None = None) -> None:
        """Add a run with *seconds* of remaining work; None: it never ends by itself."""
        self._runs[dag_id, run_id] = _Run(
            dag_id=dag_id, run_id=run_id, state=state, left_s=seconds, since=self._clock.monotonic()
        )

    def end_run(self, dag_id: str, run_id: str, state: str = "success") -> None:
        """End a run now."""
        self._advance_runs()
        self._runs[dag_id, run_id].state = state

    @property
    def paused(self) -> frozenset[str]:
        """Ids of the paused DAGs."""
        return frozenset(dag.dag_id for dag in self._dags.values() if dag.is_paused)

    @property
    def unpaused(self) -> frozenset[str]:
        """Ids of the DAGs that are not paused."""
        return frozenset(self._dags) - self.paused

    @property
    def notes(self) -> Mapping[tuple[str, str], str]:
        """Notes of triggered runs by DAG id and run id."""
        return {key: run.note for key, run in self._runs.items() if run.note is not None}

    def _advance_runs(self) -> None:
        """Update every run to the clock's time."""
        now = self._clock.monotonic()
        for run in self._runs.values():
            dag = self._dags.get(run.dag_id)
            if self.scheduler_healthy and dag is not None and not dag.is_paused and run.state in {"queued", "running"}:
                run.state = "running"
                if run.left_s is not None:
                    run.left_s -= now - run.since
                    run.state = "success" if run.left_s <= 0 else "running"
            run.since = now

    def _reach(self, *call: Any) -> None:
        self.calls.append(call)
        # Until now, the runs progressed under the current flags.
        self._advance_runs()
        if self.unreachable:
            raise MwaaUnreachableError(f"{self._name} ({self._region}) did not answer: unreachable is set.")

    # The port.

    def status(self) -> EnvironmentStatus:
        """Return ``reported_status``."""
        self._reach("status")
        return self.reported_status

    def describe(self) -> EnvironmentDescription:
        """Return ``description`` with ``reported_status``."""
        self._reach("describe")
        return replace(self.description, status=self.reported_status)

    def try_change(self) -> None:
        """Change nothing. :raises MwaaAccessError: ``read_only`` is set."""
        self._reach("try_change")
        self._require_rights()

    def _require_rights(self) -> None:
        if self.read_only:
            raise MwaaAccessError(f"Access denied for a change of {self._name} ({self._region}): read_only is set.")

    def scheduler_is_healthy(self) -> bool:
        """Return ``scheduler_healthy``."""
        self._reach("scheduler_is_healthy")
        return self.scheduler_healthy

    def dags(
        self,
        *,
        paused: bool | None = None,
        tag: str | None = None,
        on_progress: Callable[[int, int], None] | None = None,  # noqa: ARG002  (there is one page)
    ) -> Sequence[DagInfo]:
        """Return all DAGs, or only the paused or unpaused ones, or those with a tag, sorted by id."""
        self._reach("dags", *(() if tag is None else (tag,)))
        dags = [dag for _, dag in sorted(self._dags.items()) if tag is None or tag in dag.tags]
        return dags if paused is None else [dag for dag in dags if dag.is_paused is paused]

    def set_paused(
        self,
        dag_ids: Collection[str],
        *,
        paused: bool,
        listing: Sequence[DagInfo] | None = None,  # noqa: ARG002  (not needed for planning here)
        expected: Sequence[DagInfo] | None = None,  # noqa: ARG002  (as above)
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Sequence[str]:
        """Pause, or unpause, exactly *dag_ids*. :raises IncompleteError: some of them are in ``stubborn``."""
        self._reach("set_paused", tuple(sorted(dag_ids)), paused)
        self._require_rights()
        wanted = [dag_id for dag_id in sorted(set(dag_ids)) if dag_id in self._dags]
        changing = [dag_id for dag_id in wanted if self._dags[dag_id].is_paused is not paused]
        left = [dag_id for dag_id in changing if dag_id in self.stubborn]
        for dag_id in changing:
            if dag_id not in self.stubborn:
                self._dags[dag_id] = replace(self._dags[dag_id], is_paused=paused)
        if on_progress is not None:
            on_progress(len(wanted) - len(left), len(wanted))
        if left:
            raise IncompleteError(
                f"{len(left)} DAGs of {self._name} could not be changed: they are stubborn.", left=left
            )
        return changing

    def running_runs(self) -> Sequence[RunInfo]:
        """Return the runs in state running, sorted."""
        self._reach("running_runs")
        return sorted(self._info(run) for run in self._runs.values() if run.state == "running")

    def running_tasks(self) -> Sequence[RunInfo]:
        """
        Return the runs with a task that executes, sorted: runs of unpaused DAGs, and runs stopped within
        ``stop_lag_s``.
        """
        self._reach("running_tasks")
        now = self._clock.monotonic()
        return sorted(
            self._info(run)
            for run in self._runs.values()
            if (run.busy_until is not None and now < run.busy_until)
            or (run.state == "running" and run.dag_id in self.unpaused)
        )

    def stop_run(self, run: RunInfo) -> bool:
        """Mark a run as failed; its task still executes for ``stop_lag_s``. Return True if the run was still open."""
        self._reach("stop_run", run.dag_id, run.run_id)
        found = self._runs.get((run.dag_id, run.run_id))
        if found is None:
            raise MwaaRequestError(f"{self._name} has no run {run}.", status=404)
        if found.state == "running":
            found.busy_until = self._clock.monotonic() + self.stop_lag_s
        if found.state not in {"queued", "running"}:
            return False
        found.state = "failed"
        return True

    def trigger(self, dag_id: str, *, run_id: str, note: str) -> None:
        """Start a run that succeeds after ``trigger_s``. While its DAG is paused, the run stays queued."""
        self._reach("trigger", dag_id, run_id)
        if dag_id not in self._dags:
            raise MwaaRequestError(f"{self._name} has no DAG {dag_id}.", status=404)
        if (dag_id, run_id) not in self._runs:
            self.add_run(dag_id, run_id, state="queued", seconds=self.trigger_s)
            self._runs[dag_id, run_id].note = note

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """Return the state of a run; None if it does not exist."""
        self._reach("run_state", dag_id, run_id)
        run = self._runs.get((dag_id, run_id))
        return None if run is None else run.state

    @staticmethod
    def _info(run: _Run) -> RunInfo:
        return RunInfo(dag_id=run.dag_id, run_id=run.run_id, state=run.state)
