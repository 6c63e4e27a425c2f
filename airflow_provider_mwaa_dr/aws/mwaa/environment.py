"""An MWAA environment: the reads and changes that a failover makes in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.mwaa.airflow_api import MwaaAirflowApi
from airflow_provider_mwaa_dr.aws.mwaa.pause_plan import PAGE, Bulk, PauseCall, plan_calls
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ports import (
    Clock,
    DagInfo,
    EnvironmentDescription,
    EnvironmentStatus,
    RunInfo,
)
from airflow_provider_mwaa_dr.exceptions import IncompleteError, MwaaRequestError, MwaaUnreachableError

if TYPE_CHECKING:
    import boto3

log = get_logger(__name__)

LISTED = 500
"""DAGs in one page of a listing. Most servers return 100 (``[api] maximum_page_limit``), and for each page Airflow
reads all DAGs. If a server allows more, 500 of the longest entries stay below the 6 MB limit of InvokeRestApi."""
PASSES = 5
"""How often a listing is read again because it changes during the read."""
CHANGES_EVERY_MATCH = (3, 3)
"""From this version on, one bulk call changes every DAG that it matches. Its answer has only a page of them."""
STOP_S = 10.0
"""
How long a task of a stopped run may continue: until its next heartbeat (5 to 6 s, measured), and some time to end.
"""

NO_SUCH_DAG = "mwaa_dr.no.such.dag"
"""An id that no DAG has, for a test of permissions."""

_ENDED = {"success", "failed"}


class MwaaEnvironment:
    """
    The :class:`~airflow_provider_mwaa_dr.core.ports.Environment` of one MWAA environment, Airflow 2.10 to 3.3.

    boto3 is imported, and the client is created, at the first call. Not thread-safe.

    :param region: id of the site.
    :param aws_region: the environment's AWS region; None: *region*.
    :param session: a boto3 session with credentials; None: boto3 searches for credentials itself.
    :param deadline_s: how long a call is repeated while the environment does not answer.
    :param attempt_s: make only one attempt for each call, of at most about this time; None: as *deadline_s* says.
    :param pause_deadline_s: how long ``set_paused`` continues while DAGs are not yet changed.
    """

    def __init__(
        self,
        region: str,
        name: str,
        *,
        aws_region: str | None = None,
        clock: Clock | None = None,
        session: boto3.session.Session | None = None,
        deadline_s: float = 10.0,
        attempt_s: float | None = None,
        pause_deadline_s: float = 120.0,
    ) -> None:
        self._region = region
        self._name = name
        self._clock = clock or SystemClock()
        self._api = MwaaAirflowApi(
            aws_region or region, name, clock=self._clock, session=session, deadline_s=deadline_s, attempt_s=attempt_s
        )
        self._pause_deadline_s = pause_deadline_s
        self._stopped: dict[RunInfo, float] = {}

    @property
    def region(self) -> str:
        """Id of the environment's site."""
        return self._region

    @property
    def name(self) -> str:
        """Name of the environment."""
        return self._name

    def status(self) -> EnvironmentStatus:
        """Return the status from the MWAA service."""
        return self._status_in(self._api.describe())

    def _status_in(self, found: Mapping[str, Any]) -> EnvironmentStatus:
        text = found.get("Status")
        try:
            return EnvironmentStatus(text)
        except ValueError:
            log.warning("%s (%s) has an unknown status: %s.", self._name, self._region, text)
            return EnvironmentStatus.UNKNOWN

    def describe(self) -> EnvironmentDescription:
        """Return the description from the MWAA service, with one GetEnvironment."""
        found = self._api.describe()
        return EnvironmentDescription(
            status=self._status_in(found),
            airflow_version=found.get("AirflowVersion"),
            environment_class=found.get("EnvironmentClass"),
            min_workers=found.get("MinWorkers"),
            max_workers=found.get("MaxWorkers"),
            schedulers=found.get("Schedulers"),
            options=dict(found.get("AirflowConfigurationOptions") or {}),
            teams=frozenset(found.get("Teams") or ()),
            has_identity_center=bool(found.get("IdentityCenterConfiguration")),
            last_update=(found.get("LastUpdate") or {}).get("Status"),
            logs=levels_of_logs(found) if "LoggingConfiguration" in found else None,
        )

    def try_change(self) -> None:
        """
        Check the permission to change DAGs: unpause a DAG that does not exist. Changes nothing.

        Airflow answers 403 if the caller has no permission, else 404: all versions check permissions before they read
        the DAG.
        """
        try:
            self._api.patch(f"/dags/{NO_SUCH_DAG}", {"is_paused": False})
        except MwaaRequestError as error:
            if error.status != 404:
                raise

    def scheduler_is_healthy(self) -> bool:
        """Return whether Airflow's health endpoint reports its schedulers as healthy."""
        health = self._api.get("/health" if self._is_2 else "/monitor/health", holds=["scheduler"])
        return bool(health["scheduler"]["status"] == "healthy")

    def dags(
        self,
        *,
        paused: bool | None = None,
        tag: str | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Sequence[DagInfo]:
        """
        Return every DAG that is not stale, each once, in the order of the server; bulk windows count in this order.
        """
        # Without a pattern, GET lists all DAGs. In 2.x its pattern "~" matches only a tilde, unlike that of PATCH.
        query: dict[str, Any] = {} if paused is None else {"paused": paused}
        if tag is not None:
            query["tags"] = tag
        if self._is_2:
            query["fields"] = "dag_id,is_paused,tags"
        found = self._listed(
            "/dags", "dags", ("dag_id",), page_size=LISTED, on_progress=on_progress, order_by="dag_id", **query
        )
        # Not every server needs to know the filter for tags, and a DAG without the tag must not be returned.
        return [dag for dag in map(_dag_info, found) if tag is None or tag in dag.tags]

    def set_paused(
        self,
        dag_ids: Collection[str],
        *,
        paused: bool,
        listing: Sequence[DagInfo] | None = None,
        expected: Sequence[DagInfo] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Sequence[str]:
        """
        Pause, or unpause, exactly *dag_ids* and no other DAG. Repeats bulk calls and listings until all are changed.

        The calls are planned so that they change no other DAG of the listing
        (:mod:`~airflow_provider_mwaa_dr.aws.mwaa.pause_plan`). If DAGs appear or change after the listing, a call may
        change another DAG. Its answer shows that: the DAG is changed back immediately, with a log line, and the
        remaining DAGs are changed one by one.

        :raises IncompleteError: some DAGs were not changed within ``pause_deadline_s``.
        """
        wanted = frozenset(dag_ids)
        until = self._clock.monotonic() + self._pause_deadline_s
        touched: set[str] = set()
        progress = _Progress(on_progress, self._clock, total=len(wanted))
        if listing is None and expected is not None and self._has_expected(expected, paused=paused):
            listing = expected
        while True:
            listing = listing if listing is not None else self.dags(on_progress=progress.alive)
            present = {dag.dag_id for dag in listing} & wanted
            left = {dag.dag_id for dag in listing if dag.dag_id in wanted and dag.is_paused is not paused}
            touched |= left
            progress.done, progress.total = len(present) - len(left), len(present)
            if left and self._clock.monotonic() >= until:
                raise IncompleteError(
                    f"{len(left)} of {len(present)} DAGs of {self._name} ({self._region}) could not be "
                    f"{'paused' if paused else 'unpaused'} within {self._pause_deadline_s:g} s.",
                    left=sorted(left),
                    advice="Try again: DAGs that were changed already are not changed twice.",
                )
            if left:
                progress.report()
                self._change(listing, left, paused=paused, on_progress=progress.left)
                # List only the DAGs in the other state: there are few of them now.
                left = {dag.dag_id for dag in self.dags(paused=not paused, on_progress=progress.alive)} & wanted
                listing = None
            if not left:
                progress.done = progress.total
                progress.report()
                return sorted(touched & present)

    def _has_expected(self, expected: Sequence[DagInfo], *, paused: bool) -> bool:
        """
        Whether the environment has as many DAGs in the state that is not *paused* as *expected* has.

        Only for servers whose bulk calls select by pattern: 2.x selects by the position in the list of all DAGs.
        """
        if self._is_2:
            return False
        answer = self._api.get("/dags", holds=["total_entries"], limit=1, paused=not paused)
        return int(answer["total_entries"]) == len({dag.dag_id for dag in expected if dag.is_paused is not paused})

    def running_runs(self) -> Sequence[RunInfo]:
        """Return the dag runs in state running, sorted."""
        found = self._listed("/dags/~/dagRuns", "dag_runs", ("dag_id", "dag_run_id"), state="running", order_by="id")
        return sorted(_run_info(run) for run in found)

    def running_tasks(self) -> Sequence[RunInfo]:
        """
        Return the runs that have a task instance executing, sorted, each once.

        Airflow immediately marks the tasks of a stopped run as failed, but ends them at their next heartbeat, so the
        listing does not show them. Therefore the result includes runs that this object stopped less than ``STOP_S``
        ago.
        """
        order: dict[str, Any] = {} if self._is_2 else {"order_by": "id"}
        found = self._listed(
            "/dags/~/dagRuns/~/taskInstances",
            "task_instances",
            ("dag_id", "dag_run_id", "task_id", "map_index"),
            state="running",
            **order,
        )
        now = self._clock.monotonic()
        self._stopped = {run: at for run, at in self._stopped.items() if now < at + STOP_S}
        runs = {RunInfo(dag_id=task["dag_id"], run_id=task["dag_run_id"], state="running") for task in found}
        still = {run for run in self._stopped if (run.dag_id, run.run_id) not in {(r.dag_id, r.run_id) for r in runs}}
        return sorted(runs | still)

    def stop_run(self, run: RunInfo) -> bool:
        """
        Mark a run as failed. A run that has ended keeps its state.

        :return: True if the run was still open.
        :raises MwaaRequestError: the run does not exist (status 404).
        """
        state = self.run_state(run.dag_id, run.run_id)
        if state in _ENDED:
            return False
        self._api.patch(f"/dags/{run.dag_id}/dagRuns/{run.run_id}", {"state": "failed"})
        self._stopped[RunInfo(dag_id=run.dag_id, run_id=run.run_id, state="failed")] = self._clock.monotonic()
        return True

    def trigger(self, dag_id: str, *, run_id: str, note: str) -> None:
        """Start a manual run with the given id, and with the current time as its logical date. Idempotent."""
        body = {"dag_run_id": run_id, "logical_date": self._clock.now().isoformat(), "note": note}
        try:
            self._api.post(f"/dags/{dag_id}/dagRuns", body)
        except MwaaRequestError as error:
            # 409: an earlier attempt succeeded and its answer was lost, or another run has this logical date.
            if error.status != 409 or self.run_state(dag_id, run_id) is None:
                raise

    def run_state(self, dag_id: str, run_id: str) -> str | None:
        """Return the Airflow state of a run; None if the run does not exist."""
        try:
            state = self._api.get(f"/dags/{dag_id}/dagRuns/{run_id}", holds=["state"])["state"]
        except MwaaRequestError as error:
            if error.status == 404:
                return None
            raise
        return None if state is None else str(state)

    @property
    def _is_2(self) -> bool:
        return self._api.version < (3,)

    def _listed(
        self,
        path: str,
        key: str,
        identity: tuple[str, ...],
        *,
        page_size: int = PAGE,
        on_progress: Callable[[int, int], None] | None = None,
        **query: Any,
    ) -> list[Mapping[str, Any]]:
        """
        Return every element of a listing, each once. Reads page by page; a page may have fewer elements than
        *page_size*.

        If elements appear or disappear during the read, others move between the pages, and one may be missed. Therefore
        the listing is read again until its length was constant during a pass and the pass saw that many different
        elements. After ``PASSES`` passes, the result is every element of any pass. For a list of running runs, that
        errs on the safe side.

        :raises MwaaUnreachableError: the pages end before the number of elements that the server reports.
        """
        seen: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        progress = _Progress(on_progress, self._clock)
        for _ in range(PASSES):
            found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
            totals = set()
            offset = 0
            while True:
                answer = self._api.get(path, holds=[key, "total_entries"], limit=page_size, offset=offset, **query)
                page, total = answer[key], int(answer["total_entries"])
                found.update((tuple(element.get(name) for name in identity), element) for element in page)
                totals.add(total)
                offset += len(page)
                if not page or offset >= total:
                    break
                progress.done, progress.total = offset, total
                progress.alive()
            if len(totals) == 1 and len(found) >= total:
                return list(found.values())
            seen |= found
        if offset < total:
            raise MwaaUnreachableError(
                f"{path} of {self._name} ({self._region}) ends after {offset} of {total} {key}.",
                advice="Check the web server's log. An incomplete listing is not used.",
            )
        return list(seen.values())

    def _change(
        self, listing: Sequence[DagInfo], left: Collection[str], *, paused: bool, on_progress: Callable[[int], None]
    ) -> None:
        """
        Make the planned calls. After the first call that changed another DAG, change the remaining DAGs one by one.

        :param on_progress: called after each call with the number of remaining DAGs.
        """
        before = {dag.dag_id: dag.is_paused for dag in listing}
        todo = set(left)

        def strike(changed: Collection[str]) -> None:
            todo.difference_update(changed)
            on_progress(len(todo))

        for call in plan_calls(listing, left, paused=paused, bulk=Bulk.of(self._api.version)):
            if call.pattern is None:
                self._change_one(*call.dag_ids, paused=paused)
            elif not self._change_many(call, before, paused=paused, on_changed=strike):
                for dag_id in sorted(todo):
                    self._change_one(dag_id, paused=paused)
                    strike([dag_id])
                return
            strike(call.dag_ids)

    def _change_one(self, dag_id: str, *, paused: bool) -> None:
        try:
            self._api.patch(f"/dags/{dag_id}", {"is_paused": paused})
        except MwaaRequestError as error:
            # The DAG was deleted after the listing; the next listing shows that.
            if error.status != 404:
                raise

    def _change_many(
        self,
        call: PauseCall,
        before: Mapping[str, bool],
        *,
        paused: bool,
        on_changed: Callable[[Collection[str]], None],
    ) -> bool:
        """Repeat a bulk call until all its DAGs are changed; return False if it changed another DAG."""
        query: dict[str, Any] = {"dag_id_pattern": call.pattern, "limit": call.limit}
        if self._is_2:
            query["offset"] = call.offset
        else:
            query["paused"] = not paused
        # Each call changes the first page, and changed DAGs no longer match. So every call is for the first page.
        for _ in range(1 if self._is_2 else len(call.dag_ids) // PAGE + 2):
            answer = self._api.patch("/dags", {"is_paused": paused}, holds=["dags", "total_entries"], **query)
            changed = [str(dag["dag_id"]) for dag in answer["dags"]]
            # 2.x returns every match; 3.x returns only the DAGs that the call changed.
            strangers = [
                dag_id
                for dag_id in changed
                if dag_id not in call.dag_ids and not (self._is_2 and before.get(dag_id) is paused)
            ]
            for dag_id in strangers:
                self._put_back(dag_id, paused=paused, was_known=dag_id in before)
            if strangers:
                return False
            on_changed(changed)
            if int(answer["total_entries"]) <= len(changed) or self._api.version >= CHANGES_EVERY_MATCH:
                break
        return True

    def _put_back(self, dag_id: str, *, paused: bool, was_known: bool) -> None:
        done = "paused" if paused else "unpaused"
        if self._is_2 and paused and not was_known:
            # 2.x does not return the previous flag. A new DAG was most likely paused, so it stays paused.
            log.warning("DAG %s of %s appeared while DAGs were being %s. It stays paused.", dag_id, self._name, done)
            return
        log.warning("DAG %s of %s was %s by a bulk call for other DAGs. It is changed back.", dag_id, self._name, done)
        self._change_one(dag_id, paused=not paused)


class _Progress:
    """
    Progress of a long operation, reported once a second: often enough to show that its owner is alive.

    :param on_progress: called with (done, total); None: no reports.
    """

    def __init__(self, on_progress: Callable[[int, int], None] | None, clock: Clock, *, total: int = 0) -> None:
        self._on_progress = on_progress
        self._clock = clock
        self._due_at = clock.monotonic() + 1.0
        self.done, self.total = 0, total

    def left(self, count: int) -> None:
        """Note that *count* elements remain."""
        self.done = self.total - count
        self.alive()

    def alive(self, *_: int) -> None:
        """Report the progress if the last report is a second old. Ignores the progress of a part of the operation."""
        if self._clock.monotonic() >= self._due_at:
            self.report()

    def report(self) -> None:
        """Report the progress now."""
        self._due_at = self._clock.monotonic() + 1.0
        if self._on_progress is not None:
            self._on_progress(self.done, self.total)


def _dag_info(dag: Mapping[str, Any]) -> DagInfo:
    return DagInfo(
        dag_id=str(dag["dag_id"]),
        is_paused=bool(dag["is_paused"]),
        tags=frozenset(str(tag["name"]) for tag in dag.get("tags") or ()),
    )


def _run_info(run: Mapping[str, Any]) -> RunInfo:
    return RunInfo(dag_id=str(run["dag_id"]), run_id=str(run["dag_run_id"]), state=str(run["state"]))


def levels_of_logs(found: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the level of each log that is on, by name such as ``SchedulerLogs``, from GetEnvironment's description."""
    return {
        name: log.get("LogLevel", "INFO")
        for name, log in (found.get("LoggingConfiguration") or {}).items()
        if log.get("Enabled")
    }
