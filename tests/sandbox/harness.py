"""
Two real Airflows for a test, and the lines that task bodies write in them.

::

    @on("3.3.1")                                  # or several: @on("2.10.3", "3.0.6"), or on(Shape(...))
    def test_...(pair: Pair) -> None:
        pair.reset()                              # all DAGs paused, no open run, us-east-2 active and reconciled
        here, there = pair.active, pair.standby   # an Airflow each; pair[region] by name
        here.unpause("dag"); run_id = here.trigger("dag")
        wait_until(lambda: here.executed("dag", run_id), "the run executes")

Counting
    ``Airflow.executed(dag_id, run_id, task_id)`` and ``called(...)`` (callbacks) read the lines that
    ``dags/witness.py`` appends to ``AIRFLOW_HOME/witness.jsonl``, never a state of Airflow. To assert that nothing
    executed, first wait for something that did.
An Airflow (one region)
    REST: ``rest``, ``trigger``, ``run``, ``runs``, ``note``, ``unpause``, ``pause``, ``task_states``, ``dag_ids``.
    CLI: ``airflow`` (waits), ``start_airflow`` (does not). Files: ``deploy``, ``remove``, ``wait_for_dag``.
    Processes: ``stop(component)``, ``frozen(component)``, ``start_worker()``, ``start_triggerer()``,
    ``start_scheduler(**dr)`` (with other settings in ``[dr]``, or as before).
The pair
    ``mwaa_dr(*words)`` (the real command), ``status()``, ``history()``, ``state()``, ``flip(region)`` (no failover),
    ``sandbox`` (kill, revive, fault), ``table`` (the state store), ``delete_items``, ``reset()``, ``wait_in_each``,
    ``airflow_in_each``.
Where
    ``build/sandbox-tests/NAME``, NAME being the Airflow version or the shape's own; all files of ``dags/`` are
    deployed in both regions. ``MWAA_DR_TEST_SANDBOXES=DIR`` moves that folder. One session runs at a time: four
    Airflows on two cores are too slow, so a second session on this machine waits.
    ``MWAA_DR_TEST_KEEP=1`` leaves a sandbox running at the end, and uses a sandbox that runs at the start: seconds
    instead of half a minute, but with the provider, the DAG files and the history of that time.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
import requests

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.ports import StateStore
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.sandbox.cloud.tables import SandboxTables
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_settings, process
from airflow_provider_mwaa_dr.sandbox.runtime.home import REGIONS
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox
from tests.waiting import wait_until

T = TypeVar("T")

DAGS = Path(__file__).parent / "dags"
HOMES = Path(os.environ.get("MWAA_DR_TEST_SANDBOXES") or Path(__file__).parents[2] / "build" / "sandbox-tests")
KEEP = bool(os.environ.get("MWAA_DR_TEST_KEEP"))
FIRST, SECOND = REGIONS
"""The region that is active in a new sandbox, and the other region."""
REST_TIMEOUT_S = 60.0
_numbers = count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """
    The parts of a sandbox.

    :param second: the version of the second region, if it has another one.
    :param name: name of its folder; another name is another sandbox. It is short, because the path of a socket must fit
        below it.
    :param dr: settings in ``[dr]`` that differ from the sandbox's own and from :data:`SHORTER`, as pairs.
    :param ledger: whether it has a runs table. Without one, no event of a region shows in another region. A task body
        that executes in the other region then was let through, and not resumed.
    """

    version: str
    second: str = ""
    name: str = ""
    executor: str = "LocalExecutor"
    schedulers: int = 1
    dr: tuple[tuple[str, str], ...] = ()
    ledger: bool = False

    def __str__(self) -> str:
        return self.name or self.version

    @property
    def versions(self) -> Mapping[str, str]:
        """The version of Airflow by region."""
        return {FIRST: self.version, SECOND: self.second or self.version}


SHORTER = {"lease_s": "6", "fence_wait_s": "2"}
"""
Settings in ``[dr]`` that are shorter than the sandbox's own. A forced failover waits for the lease of a killed region,
and a task without a readable state waits in the fence.
"""
CELERY = Shape(version="3.3.1", name="celery-3.3.1", executor="CeleryExecutor")
CELERY_OF_AIRFLOW_2 = Shape(version="2.10.3", name="celery-2.10.3", executor="CeleryExecutor")


def on(*shapes: Shape | str, soak: tuple[Shape | str, ...] = ()) -> pytest.MarkDecorator:
    """
    Return the marker that runs a test with each of *shapes*, and with *soak* in ``make soak``. A text is a version.
    """

    def known(shape: Shape | str) -> Shape:
        return Shape(version=shape) if isinstance(shape, str) else shape

    every = [*map(known, shapes), *(pytest.param(known(shape), marks=pytest.mark.soak) for shape in soak)]
    return pytest.mark.parametrize("pair", every, ids=str, indirect=True, scope="session")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a task body (kind ``executed``) or of a callback (kind: its event)."""

    kind: str
    region: str
    at: datetime
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int


class Airflow:
    """
    The Airflow of one region.

    :param described: the region's part of sandbox.json.
    """

    def __init__(self, name: str, version: str, described: Mapping[str, Any], sandbox: Sandbox) -> None:
        self.name = name
        self.version = version
        self.major = int(version.partition(".")[0])
        self.home = Path(described["airflow_home"])
        self.dags_folder = Path(described["dags_folder"])
        self.log_folder = Path(described["log_folder"])
        self.bin = Path(described["bin"])
        self.environment: str = described["environment"]
        self.variables: Mapping[str, str] = described["env"]
        self.url: str = described["airflow_url"]
        self._api = f"{self.url}/api/v{1 if self.major < 3 else 2}"
        self._sandbox = sandbox
        self._http = requests.Session()
        self._http.trust_env = False
        auth = described["auth"]
        if "header" in auth:
            self._http.headers["Authorization"] = auth["header"]
        else:
            self._http.auth = (auth["username"], auth["password"])

    def __repr__(self) -> str:
        return f"<Airflow {self.version} in {self.name}>"

    # Lines of task bodies and callbacks.

    def lines(self, dag_id: str | None = None, run_id: str | None = None, task_id: str | None = None) -> list[Line]:
        """Return the lines of this region, oldest first."""
        try:
            text = (self.home / "witness.jsonl").read_text()
        except FileNotFoundError:
            return []
        raw = (json.loads(line) for line in text.splitlines())
        found = (Line(**{**line, "at": datetime.fromisoformat(line["at"])}) for line in raw)
        return [
            line
            for line in found
            if dag_id in {None, line.dag_id} and run_id in {None, line.run_id} and task_id in {None, line.task_id}
        ]

    def executed(self, dag_id: str | None = None, run_id: str | None = None, task_id: str | None = None) -> list[Line]:
        """Return a line for each task body that executed."""
        return [line for line in self.lines(dag_id, run_id, task_id) if line.kind == "executed"]

    def called(self, dag_id: str | None = None, run_id: str | None = None) -> list[Line]:
        """Return a line for each callback that was called."""
        return [line for line in self.lines(dag_id, run_id) if line.kind != "executed"]

    # REST.

    def rest(self, method: str, path: str, *, json: Any = None, **params: Any) -> Any:
        """
        Return the JSON of the response. *path* is like ``/dags/ID``, without ``/api/vN``.

        :raises requests.HTTPError: its message has Airflow's error text.
        """
        url = f"{self._api}{path}"
        answer = self._http.request(method, url, json=json, params=params, timeout=REST_TIMEOUT_S)
        if not answer.ok:
            raise requests.HTTPError(f"{method} {url}: {answer.status_code} {answer.text[:1000]}", response=answer)
        return answer.json() if answer.content else None

    def pause(self, *dag_ids: str, paused: bool = True) -> None:
        """Pause DAGs."""
        for dag_id in dag_ids:
            self.rest("PATCH", f"/dags/{dag_id}", json={"is_paused": paused})

    def unpause(self, *dag_ids: str) -> None:
        """Unpause DAGs."""
        self.pause(*dag_ids, paused=False)

    def trigger(self, dag_id: str, run_id: str | None = None, *, conf: Mapping[str, Any] | None = None) -> str:
        """Start a manual run and return its id."""
        run_id = run_id or f"test_{next(_numbers)}_{datetime.now(tz=timezone.utc):%H%M%S%f}"
        body: dict[str, Any] = {"dag_run_id": run_id, "conf": dict(conf or {})}
        self.rest("POST", f"/dags/{dag_id}/dagRuns", json=body if self.major < 3 else {**body, "logical_date": None})
        return run_id

    def runs(self, dag_id: str = "~", **params: Any) -> list[dict[str, Any]]:
        """
        Return the newest 100 runs of a DAG, or of all DAGs; keys as in REST (``dag_run_id``, ``state``, ``note`` ...).
        """
        found = self.rest("GET", f"/dags/{dag_id}/dagRuns", **{"limit": 100, "order_by": "-id", **params})
        return list(found["dag_runs"])

    def fail_runs(self, runs: Iterable[Mapping[str, Any]]) -> None:
        """Mark runs, as :meth:`runs` returns them, as failed."""
        for run in runs:
            self.rest("PATCH", f"/dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}", json={"state": "failed"})

    def is_idle(self) -> bool:
        """
        Whether no run is running. Runs of paused or removed DAGs would never end, so they are marked as failed first.
        """
        running = self.runs(state="running")
        if running:
            dags = self.dags()
            self.fail_runs(run for run in running if dags.get(run["dag_id"], True))
        return not running

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return one run."""
        found: dict[str, Any] = self.rest("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
        return found

    def note(self, dag_id: str, run_id: str) -> str:
        """Return the note of a run; empty if it has none."""
        return self.run(dag_id, run_id)["note"] or ""

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Return state by task id (``id[index]`` for mapped ones)."""
        found = self.rest("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {ti["task_id"] + (f"[{ti['map_index']}]" if ti["map_index"] >= 0 else ""): ti["state"] for ti in found}

    def dags(self) -> dict[str, bool]:
        """Return by DAG id whether it is paused, for all DAGs of the region."""
        found: dict[str, bool] = {}
        while True:
            page = self.rest("GET", "/dags", limit=100, offset=len(found), order_by="dag_id")["dags"]
            found.update((dag["dag_id"], dag["is_paused"]) for dag in page)
            if len(page) < 100:
                return found

    # Files.

    def deploy(self, name: str, source: str) -> Path:
        """Write a DAG file to this region's folder, atomically."""
        path = self.dags_folder / name
        part = path.with_suffix(".part")
        part.write_text(source)
        part.replace(path)
        return path

    def remove(self, name: str) -> None:
        """Delete a DAG file from this region's folder."""
        (self.dags_folder / name).unlink()

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until the region has a DAG."""

        def is_known() -> bool:
            return self._http.get(f"{self._api}/dags/{dag_id}", timeout=REST_TIMEOUT_S).ok

        wait_until(is_known, f"{self.name} knows {dag_id}")

    # The command line and the processes.

    def start_airflow(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start ``airflow ARGUMENTS`` in this region. The caller waits for it (:func:`finished`)."""
        # In `dags test`, 3.0.6 does not search the DAGs folder for modules that a DAG file imports.
        variables = {**self.variables, "PYTHONPATH": str(self.dags_folder), **variables}
        return subprocess.Popen(
            [self.bin / "airflow", *arguments],
            env=airflow_settings.process_variables(variables, bin_folder=self.bin),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def airflow(self, *arguments: str, check: bool = True) -> str:
        """
        Run ``airflow ARGUMENTS`` in this region until it ends, and return its output.

        :raises AssertionError: it failed (unless *check* is false), or did not end.
        """
        return finished(self.start_airflow(*arguments), check=check)

    def stop(self, component: str, *, grace_s: float = 0) -> None:
        """Kill a component (``scheduler``, ``worker``) and all its processes; with *grace_s*, after SIGTERM."""
        process.end([self.session(component)], grace_s=grace_s)

    def session(self, component: str) -> process.ProcessSession:
        """Return the process of a component, also after it ended."""
        return self._sandbox.home.sessions()[self.name][component]

    @contextmanager
    def frozen(self, component: str) -> Iterator[None]:
        """Freeze a component completely (SIGSTOP), and let it continue afterwards."""
        pids = process.members(self.session(component))
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def start_scheduler(self, **dr: str) -> None:
        """Start the scheduler and wait for its heartbeat. *dr*: other settings in ``[dr]`` for it and its tasks."""
        began = self._start("scheduler", **{f"AIRFLOW__DR__{name.upper()}": value for name, value in dr.items()})
        self._wait_for_heartbeat("scheduler", began)

    def start_triggerer(self) -> None:
        """Start the triggerer and wait for its heartbeat."""
        self._wait_for_heartbeat("triggerer", self._start("triggerer"))

    def _wait_for_heartbeat(self, component: str, began: datetime) -> None:
        path = f"{self.url}/health" if self.major < 3 else f"{self.url}/api/v2/monitor/health"

        def beats() -> bool:
            found = self._http.get(path, timeout=REST_TIMEOUT_S).json()
            at = found[component][f"latest_{component}_heartbeat"]
            return at is not None and datetime.fromisoformat(at) > began

        wait_until(beats, f"the {component} of {self.name} beats again")

    def start_worker(self) -> None:
        """Start the Celery worker, and wait until it requests its first message."""
        began = self._start("worker")
        wait_until(lambda: self.messages("ReceiveMessage", since=began), f"the worker of {self.name} works")

    def messages(self, operation: str, *, since: datetime) -> int:
        """Return how often Celery has sent, received or deleted messages of this region's queue since then."""
        rows = self._sandbox.requests(self.name, "sqs", since=since)
        return sum(row["operation"] == operation for row in rows)

    def _start(self, component: str, **variables: str) -> datetime:
        """Start a component with *variables* in addition to those of its region, and return the time of the start."""
        home = self._sandbox.home
        arguments = airflow_settings.components(home.blueprint().regions[self.name])[component]
        began = datetime.now(tz=timezone.utc)
        session = process.start(
            [self.bin / "airflow", *arguments],
            environment=airflow_settings.process_variables({**self.variables, **variables}, bin_folder=self.bin),
            log=home.log(self.name, component),
        )
        home.remember(self.name, component, session)
        return began


class Pair:
    """Both regions of a running sandbox."""

    def __init__(self, shape: Shape, sandbox: Sandbox) -> None:
        described = sandbox.description()
        self.shape = shape
        self.version = shape.version
        self.sandbox = sandbox
        self.home = sandbox.home.path
        self.variables: Mapping[str, str] = described["env"]
        self.control: Mapping[str, Any] = described["control"]
        self.airflows = {
            name: Airflow(name, shape.versions[name], region, sandbox) for name, region in described["regions"].items()
        }

    def __getitem__(self, region: str) -> Airflow:
        return self.airflows[region]

    @property
    def active(self) -> Airflow:
        """The region that is active now."""
        return self[self.state().active_region]

    @property
    def standby(self) -> Airflow:
        """The region that is a standby now."""
        return self[self.other(self.state().active_region)]

    @staticmethod
    def other(region: str) -> str:
        """Return the region that is not *region*."""
        return SECOND if region == FIRST else FIRST

    @cached_property
    def table(self) -> StateStore:
        """The state table as the control environment uses it."""
        return SandboxTables(self.variables).store

    def state(self) -> DRState:
        """Read the state and return it."""
        return self.table.read()

    def describe(self) -> str:
        """Return the current contents of the table and the databases, for a developer. It names what cannot be read."""
        queries = {
            "unpaused": "select dag_id from dag where not is_paused",
            "open runs": "select r.dag_id, r.run_id, r.state, r.queued_at, n.content from dag_run r "
            "left join dag_run_note n on n.dag_run_id = r.id where r.state in ('queued', 'running')",
            "tasks under way": "select dag_id, run_id, task_id, state, try_number, hostname, queued_dttm, start_date "
            "from task_instance where state in ('scheduled', 'queued', 'running', 'deferred', 'up_for_reschedule')",
        }
        lines: list[str] = []

        def say(what: str, ask: Callable[[], object]) -> None:
            try:
                found = ask()
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
            lines.append(f"{what}: {found}")

        say("state", self.state)
        for region in self.airflows:
            say(f"{region} agents", lambda region=region: self.table.agents(region))  # type: ignore[misc]
            for what, query in queries.items():
                say(
                    f"{region} {what}",
                    lambda query=query, region=region: self.sandbox.postgres.query(query, database=region),  # type: ignore[misc]
                )
        return "\n".join(lines)

    @cached_property
    def dynamodb(self) -> Any:
        """A client with which a test changes items without the provider."""
        return boto3.client(
            "dynamodb",
            region_name=self.variables["AWS_DEFAULT_REGION"],
            endpoint_url=self.variables["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.variables["AWS_SECRET_ACCESS_KEY"],
        )

    def delete_items(self, *prefixes: str) -> None:
        """Delete the items of the state table whose key starts with this text."""
        table = self.variables["DR_STATE_TABLE"]
        for item in self.dynamodb.scan(TableName=table)["Items"]:
            if item["state_id"]["S"].startswith(prefixes):
                self.dynamodb.delete_item(TableName=table, Key={"state_id": item["state_id"]})

    def start_mwaa_dr(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        """Start the real ``mwaa-dr``, with separate pipes for stdout and stderr. The caller waits for it."""
        program = Path(sys.executable).parent / "mwaa-dr"
        return subprocess.Popen(
            [program, *words],
            env=airflow_settings.process_variables({**self.variables, **variables}, bin_folder=program.parent),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def mwaa_dr(self, *words: str, timeout_s: float = 240.0, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the real ``mwaa-dr`` until it ends. The caller checks the exit code. *variables*: only for it."""
        with self.start_mwaa_dr(*words, **variables) as running:
            try:
                stdout, stderr = running.communicate(timeout=timeout_s)
            except BaseException:
                running.kill()
                raise
        return subprocess.CompletedProcess(words, running.returncode, stdout, stderr)

    def status(self) -> dict[str, Any]:
        """Return what ``mwaa-dr status --json`` prints."""
        found: dict[str, Any] = self._document("status")
        return found

    def history(self) -> list[dict[str, Any]]:
        """Return what ``mwaa-dr history --json`` prints, newest first."""
        found: list[dict[str, Any]] = self._document("history")
        return found

    def _document(self, command: str) -> Any:
        answer = self.mwaa_dr(command, "--json")
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return json.loads(answer.stdout)

    def flip(self, region: str) -> DRState:
        """
        Make *region* active without a failover, as ``DRStateHook.set_active_region`` does, and wait until both have
        reconciled.
        """
        state = self.state()
        now = datetime.now(tz=timezone.utc)
        after = transitions.set_active_region(state, region, reason="test", by="test", at=now)
        self.table.write(after, expected_version=state.version)
        self.wait_until_reconciled()
        return after

    def wait_until_reconciled(self) -> None:
        """Wait until every scheduler has acknowledged the state, and each region has reconciled its epoch."""

        table = SandboxTables(self.variables)
        wait_until(
            lambda: all(map(table.has_reconciled, self.airflows)), "both regions have reconciled their open runs"
        )

    def airflow_in_each(self, *arguments: str, check: bool = True) -> dict[str, str]:
        """Run ``airflow ARGUMENTS`` in both regions at the same time, and return the outputs by region."""
        with ThreadPoolExecutor() as pool:
            outputs = pool.map(lambda airflow: airflow.airflow(*arguments, check=check), self.airflows.values())
            return dict(zip(self.airflows, outputs, strict=True))

    def forget_killed_schedulers(self) -> None:
        """
        Let Airflow list a killed scheduler as dead immediately, and not only after half a minute.

        This ages heartbeats that are older than three of the intervals between them. The next heartbeat of a scheduler
        that is only slow brings it back.
        """
        for region in self.airflows:
            self.sandbox.postgres.query(
                "update job set latest_heartbeat = latest_heartbeat - interval '1 minute' "
                "where job_type = 'SchedulerJob' and state = 'running' "
                "and latest_heartbeat < now() - interval '6 seconds' returning 1",
                database=region,
            )

    def wait_in_each(self, condition: Callable[[Airflow], T], what: str) -> dict[str, T]:
        """Wait in each region until *condition* is true, and return its values by region."""
        return {
            name: wait_until(lambda airflow=airflow: condition(airflow), f"{what} in {name}")  # type: ignore[misc]
            for name, airflow in self.airflows.items()
        }

    def reset(self) -> None:
        """Return the pair to its start: no fault, the first region active, every DAG paused, no open run."""
        for region in self.airflows:
            self.sandbox.fault(region, "all", "none")
        for airflow in self.airflows.values():
            airflow.pause(*(dag_id for dag_id, is_paused in airflow.dags().items() if not is_paused))
        if self.state().active_region != FIRST:
            self.flip(FIRST)
        self.wait_until_reconciled()
        for airflow in self.airflows.values():
            for state in ("running", "queued"):
                airflow.fail_runs(airflow.runs(state=state))


def finished(running: subprocess.Popen[str], *, check: bool = True, timeout_s: float = 180.0) -> str:
    """Wait until a started command ends, and return its output. :raises AssertionError: it failed."""
    with running:
        try:
            output, _ = running.communicate(timeout=timeout_s)
        except BaseException:
            running.kill()
            raise
    assert running.returncode == 0 or not check, f"{running.args!r} ended with {running.returncode}: {output}"
    return output


@contextmanager
def opened(shape: Shape) -> Iterator[Pair]:
    """Yield a running sandbox of *shape*: a new one, unless one was kept."""
    HOMES.mkdir(parents=True, exist_ok=True)
    with (Path(tempfile.gettempdir()) / f"mwaa-dr-sandbox-tests-{os.getuid()}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"[{shape}] another test session runs its Airflows; waiting for its end", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        sandbox = Sandbox(HOMES / str(shape), say=lambda line: _say(shape, began, line))
        if not KEEP:
            sandbox.down(purge=True)
        try:
            sandbox.up(
                airflow=shape.versions,
                dags=DAGS,
                executor=shape.executor,
                schedulers=shape.schedulers,
                dr={**({} if shape.ledger else {"runs_table": ""}), **SHORTER, **dict(shape.dr)},
            )
            yield Pair(shape, sandbox)
        finally:
            if not KEEP:
                sandbox.down()


def _say(shape: Shape, began: float, line: str) -> None:
    print(f"[{shape} {time.monotonic() - began:5.1f} s] {line}", file=sys.stderr)


def has_memory(pid: int) -> bool:
    """Whether a process is alive. A zombie has no memory."""
    try:
        return os.getsid(pid) > 0 and "VmSize" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
