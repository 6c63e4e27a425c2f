"""
Failover and failback of DAG files that another team wrote, with real schedulers: each mark of each schedule once.

``MWAA_DR_TEST_DAGS=DIR`` names their folder; without it, the tests are skipped. Their bodies append a line of JSON to
``AIRFLOW_HOME/bodies.jsonl``, and the bodies that wait look for ``AIRFLOW_HOME/gates/NAME``. A *mark* is the time at
which a run is due, or its partition. A *step* is the body of a run that a user, an event or a parent requested.

The story: backfills and a run with a requested date; then two failovers, to the other region and back, with messages
that arrive all the time. In the first one, the drain waits for runs that wait for other runs. The second one stops what
executes. The test writes the figures of each file to ``build/sandbox-tests/NAME-figures.txt``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeVar

import pytest

from airflow_provider_mwaa_dr.core.announced_runs import get_announced_runs
from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.sandbox.runtime import process
from tests.sandbox.failovers import REASON, fail_over, mwaa_dr
from tests.sandbox.harness import HOMES, Airflow, Pair, Shape, on
from tests.sandbox.waiting_runs import open_gate
from tests.waiting import wait_until

K = TypeVar("K")
FOLDER = os.environ.get("MWAA_DR_TEST_DAGS", "")
pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not FOLDER, reason="MWAA_DR_TEST_DAGS does not name a folder of DAG files"),
]

HOURS = 6
HALF_MINUTE, HOUR = timedelta(seconds=30), timedelta(hours=1)
DEADLINE_S = 600.0
"""A phase of the test waits for a later mark of each DAG, and for all earlier marks."""
FILES: Mapping[str, tuple[str, ...]] = {
    "c01_partition": ("k_part_live", "k_part_stray", "k_part_hist", "k_part_latest"),
    "c03_date_taken": ("k_backfilled", "k_manual_date"),
    "c05_in_flight": (
        *("k_parent", "k_child", "k_upstream", "k_downstream", "k_mapped", "k_defers", "k_sensor", "k_cluster"),
        *("k_cleared", "k_tägliche.Übersicht-v1.2", "k_later", "k_three_strikes"),
    ),
    "c07_assets": ("k_produce_a", "k_produce_b", "k_produce_c", "k_needs_both", "k_reads_events"),
    "c08_watcher": ("k_message",),
    "d01_airflow2": (
        *("k_events", "k_continuous", "k_once", "k_aot", "k_aot_producer", "k_dst"),
        *("k_manual_date", "k_backfilled", "k_incremental", "k_later"),
    ),
}
"""The DAGs of each file."""
FIRST_MARK_S = {"k_part_live": 0, "k_part_stray": 0, "k_events": 0, "k_aot": 10, "k_incremental": 5}
"""DAGs with a mark every half minute, and the seconds from the start to the first mark."""
MADE_OF = {
    "airflow.sdk.DAG": "airflow.DAG",
    "airflow.sdk.Asset": "airflow.datasets.Dataset",
    "airflow.sdk.BaseOperator": "airflow.models.baseoperator.BaseOperator",
    "airflow.sdk.BaseSensorOperator": "airflow.sensors.base.BaseSensorOperator",
    "airflow.sdk.CronTriggerTimetable": "airflow.timetables.trigger.CronTriggerTimetable",
    **{f"airflow.sdk.{name}": f"airflow.decorators.{name}" for name in ("task", "setup", "teardown")},
    **{
        f"airflow.providers.standard.{path}": f"airflow.{path}"
        for path in (
            "operators.trigger_dagrun.TriggerDagRunOperator",
            "sensors.external_task.ExternalTaskSensor",
            "triggers.temporal.TimeDeltaTrigger",
        )
    },
}
"""By the name in Airflow 3: the name in Airflow 2."""
RENAMED_IN_3 = {
    "airflow.datasets.Dataset": "airflow.sdk.Asset",
    "airflow.timetables.datasets.DatasetOrTimeSchedule": "airflow.timetables.assets.AssetOrTimeSchedule",
}


def ported(text: str, major: int) -> str:
    """Return a DAG file with the import statements of a major version of Airflow, as a user ports it."""
    names = MADE_OF if major < 3 else RENAMED_IN_3

    def imports(found: re.Match[str]) -> str:
        parts = []
        for name in found["names"].split(", "):
            old, _, local = name.partition(" as ")
            path = f"{found['module']}.{old}"
            module, _, new = names.get(path, path).rpartition(".")
            parts.append(f"from {module} import {new} as {local or old}")
        return found["indent"] + "; ".join(parts)

    text = re.sub(r"(?m)^(?P<indent> *)from (?P<module>airflow\S*) import (?P<names>.+)$", imports, text)
    return text.replace("datasets=[", "assets=[") if major >= 3 else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A line that a task body wrote. *end*: of its interval. *key*: its partition."""

    region: str
    at: datetime
    kind: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    type: str
    logical_date: datetime | None
    end: datetime | None
    key: str | None
    line: Mapping[str, Any]

    @property
    def mark(self) -> datetime:
        at = _aware(datetime.fromisoformat(self.key)) if self.key else self.end
        assert at is not None, self
        return at

    @property
    def step(self) -> str:
        return f"{self.dag_id} {self.task_id} {self.kind}"


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


@dataclass
class Figures:
    """
    What executed of one DAG file.

    :param marks: by DAG, how often a body executed for each mark; with 0 for a mark that did not execute.
    :param steps: by step, how often it must execute and how often it did.
    """

    marks: dict[str, Counter[object]] = field(default_factory=dict)
    steps: dict[str, tuple[int, int]] = field(default_factory=dict)

    def rows(self) -> Iterator[tuple[str, int, int, int, int]]:
        """Yield what it is, and how often it was expected, executed, repeated and lost."""
        for dag_id, times in self.marks.items():
            counts = times.values()
            yield (
                f"{dag_id}: marks",
                len(times),
                sum(counts),
                sum(max(0, n - 1) for n in counts),
                sum(n == 0 for n in counts),
            )
        for step, (expected, executed) in self.steps.items():
            yield step, expected, executed, max(0, executed - expected), max(0, expected - executed)


class Story:
    """The DAG files in both regions, and what their bodies wrote."""

    def __init__(self, pair: Pair, spool: Path) -> None:
        self.pair = pair
        self.spool = spool
        self.sent: list[str] = []
        self.stopped: set[tuple[str, str]] = set()
        """Region, and DAG and run, of the runs that a failover stopped. Their bodies execute again."""
        self.steps: Counter[str] = Counter()
        """How often each step must execute."""
        self.faults: list[str] = []
        self.refused: dict[str, int] = {}
        """By region: how many tasks of stopped runs were refused when they started."""
        now = datetime.now(tz=timezone.utc)
        minute = now.replace(second=0, microsecond=0)
        self.start = minute + (timedelta(minutes=2) if minute.minute < 58 else timedelta())
        self.hour = self.start.replace(minute=0)
        majors = {region.major for region in pair.airflows.values()}
        self.files = ["c05_in_flight", "c07_assets", "d01_airflow2"]
        if majors == {3}:
            self.files += ["c03_date_taken", "c08_watcher"]
        if all(version >= "3.2" for version in pair.shape.versions.values()):
            self.files.append("c01_partition")
        self.files.sort()
        self.names: dict[tuple[str, str], str] = {}
        """By file and DAG: the id of the DAG, which has a suffix if an earlier file has the same DAG."""
        for name, dag_id in [(file, dag_id) for file in self.files for dag_id in FILES[file]]:
            taken = dag_id in self.names.values()
            self.names[name, dag_id] = f"{dag_id}_2" if taken else dag_id

    @property
    def dag_ids(self) -> list[str]:
        return list(self.names.values())

    def has(self, dag_id: str) -> bool:
        return dag_id in self.dag_ids

    def deploy(self) -> None:
        folder = Path(FOLDER)
        for region in self.pair.airflows.values():
            plugins = region.dags_folder.resolve().parent / "plugins"
            (plugins / "spool_trigger.py").write_text((folder / "spool_trigger.py").read_text())
            region.deploy("start.txt", self.start.isoformat())
            region.deploy("bodylog.py", (folder / "bodylog.py").read_text())
            for name in self.files:
                text = ported((folder / f"{name}.py").read_text(), region.major).replace("@SPOOL@", str(self.spool))
                for dag_id in FILES[name]:
                    text = text.replace(f'"{dag_id}"', f'"{self.names[name, dag_id]}"')
                region.deploy(f"{name}.py", text)
        for region in self.pair.airflows.values():
            for dag_id in self.dag_ids:
                region.wait_for_dag(dag_id)

    # What bodies wrote.

    def bodies(self, dag_id: str, *regions: Airflow) -> list[Body]:
        """Return the lines of a DAG, in some regions or in both, oldest first."""
        found = []
        for region in regions or self.pair.airflows.values():
            path = region.home / "bodies.jsonl"
            for text in path.read_text().splitlines() if path.exists() else ():
                line = json.loads(text)
                if line["dag_id"] != dag_id:
                    continue
                dates = {
                    name: datetime.fromisoformat(line[name]) if line[name] else None for name in ("logical_date", "end")
                }
                known = {name: line[name] for name in ("kind", "run_id", "task_id", "map_index", "type", "key")}
                at = datetime.fromisoformat(line["at"])
                found.append(Body(region=region.name, at=at, dag_id=dag_id, line=line, **known, **dates))
        return sorted(found, key=lambda body: body.at)

    def marks(self, dag_id: str) -> Counter[object]:
        """
        Return how often a body executed for each mark of a DAG, up to its last one; 0 for a mark without a body.

        For a DAG that continues where its last run ended, a gap between two runs counts as a mark without a body.
        """
        kind, _, _ = dag_id.partition("_2")
        bodies = self.bodies(dag_id)
        if kind == "k_aot":
            bodies = [body for body in bodies if body.type == "scheduled"]
        found: Counter[object] = self.counted((body.mark, body) for body in bodies)
        last = max((body.mark for body in bodies), default=self.start)
        expected: list[datetime]
        if kind in FIRST_MARK_S:
            first = self.start + timedelta(seconds=FIRST_MARK_S[kind])
            expected = [first + n * HALF_MINUTE for n in range(round((last - first) / HALF_MINUTE) + 1)]
        elif kind in {"k_part_hist", "k_backfilled", "k_manual_date"}:
            first = self.hour - (HOURS - 1) * HOUR
            expected = [first + n * HOUR for n in range(max(HOURS, round((last - first) / HOUR) + 1))]
        elif kind == "k_dst":
            first = datetime(2026, 10, 24, 22, 20, tzinfo=timezone.utc)
            expected = [first + n * timedelta(minutes=20) for n in range(16)]
        elif kind == "k_continuous":
            chain = sorted(bodies, key=lambda body: body.mark)
            gaps = [one.mark for one, two in itertools.pairwise(chain) if two.logical_date != one.mark]
            return Counter({**found, **{f"after {at}": 0 for at in gaps}})
        else:
            expected = [last]
        return Counter({**dict.fromkeys(expected, 0), **found})

    def figures(self) -> dict[str, Figures]:
        """Return the figures of each file."""
        found = {name: Figures() for name in self.files}
        for (name, _), dag_id in self.names.items():
            if self.is_scheduled(dag_id):
                found[name].marks[dag_id] = self.marks(dag_id)
            for step, times in self.steps.items():
                if step.partition(" ")[0] == dag_id:
                    found[name].steps[step] = (times, self.times(step))
        if self.has("k_message"):
            handled = self.handled()
            found["c08_watcher"].marks["k_message"] = Counter({**dict.fromkeys(self.sent, 0), **handled})
        return found

    @staticmethod
    def is_scheduled(dag_id: str) -> bool:
        kind, _, _ = dag_id.partition("_2")
        others = ("k_part_hist", "k_part_latest", "k_backfilled", "k_manual_date", "k_dst", "k_continuous", "k_once")
        return kind in {*FIRST_MARK_S, *others}

    def times(self, step: str) -> int:
        """Return how often a step executed."""
        bodies = self.bodies(step.partition(" ")[0])
        if step.startswith("k_aot "):
            bodies = [body for body in bodies if body.type != "scheduled"]
        counted = self.counted(((body.run_id, body.map_index), body) for body in bodies if body.step == step)
        return sum(counted.values())

    def handled(self) -> Counter[str]:
        """Return how often each message was handled."""
        return self.counted((name, body) for body in self.bodies("k_message") for name in body.line["messages"])

    def counted(self, bodies: Iterable[tuple[K, Body]]) -> Counter[K]:
        """Return how often something executed. A body of a stopped run counts only if no other one executed."""
        found, again = Counter[K](), set()
        for key, body in bodies:
            if (body.region, f"{body.dag_id} {body.run_id}") in self.stopped:
                again.add(key)
            else:
                found[key] += 1
        return Counter({**dict.fromkeys(again, 1), **found})

    def remember_stopped(self, region: Airflow) -> None:
        """Remember the runs of a region that the last failover stopped, without those that ended by themselves."""
        for stop in self.pair.state().stops:
            runs = {(region.name, name) for name in get_announced_runs(self.pair.table, stop.set_id) or ()}
            self.stopped = self.stopped - runs if stop.had_ended else self.stopped | runs

    # What the test waits for.

    def wait_for_step(self, step: str, times: int = 1) -> None:
        wait_until(
            lambda: self.times(step) >= times,
            lambda: f"{step} {times} times, not {self.times(step)}",
            deadline_s=DEADLINE_S,
        )

    def continues(self, region: Airflow) -> None:
        """Wait until each schedule executes a mark in a region from now on, and no earlier mark is missing."""
        now = datetime.now(tz=timezone.utc)
        often = [dag_id for dag_id in self.dag_ids if dag_id in FIRST_MARK_S or dag_id == "k_continuous"]

        def idle() -> list[str]:
            return [dag_id for dag_id in often if not any(body.at > now for body in self.bodies(dag_id, region))]

        wait_until(lambda: not idle(), lambda: f"{idle()} execute in {region.name}", deadline_s=DEADLINE_S)

        def lost() -> dict[str, list[str]]:
            every = {dag_id: self.marks(dag_id) for dag_id in self.dag_ids if self.is_scheduled(dag_id)}
            return {
                dag_id: [str(mark) for mark, times in marks.items() if times == 0 and dag_id != "k_continuous"]
                for dag_id, marks in every.items()
                if 0 in marks.values() and dag_id != "k_continuous"
            }

        # Marks that stay lost are figures of the report.
        try:
            wait_until(lambda: not lost(), lambda: f"{lost()} execute", deadline_s=240)
        except AssertionError as error:
            print(error, file=sys.stderr)

    def check(self, claim: str, holds: bool) -> None:
        if not holds:
            self.faults.append(claim)

    def send(self) -> None:
        name = f"m{len(self.sent):04d}"
        part = self.spool / f"{name}.part"
        part.touch()
        part.rename(self.spool / f"{name}.msg")
        self.sent.append(name)

    def wait_for_messages(self) -> None:
        """
        Wait until each message is handled.

        Airflow gives an event to the next run of the consumer if it arrives while an earlier one is queued. So this
        sends a further message from time to time, and does not count it.
        """
        if not self.has("k_message"):
            return
        sent, next_at = list(self.sent), time.monotonic() + 10

        def missing() -> set[str]:
            nonlocal next_at
            if time.monotonic() >= next_at:
                next_at += 10
                self.send()
            return {*sent} - self.handled().keys()

        wait_until(lambda: not missing(), lambda: f"{sorted(missing())} are handled", deadline_s=240)
        self.sent = sent

    @contextmanager
    def messages(self) -> Iterator[None]:
        """Send a message a second until the block ends."""
        ended = threading.Event()

        def flow() -> None:
            while not ended.wait(1.0):
                self.send()

        thread = threading.Thread(target=flow)
        if self.has("k_message"):
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if thread.ident is not None:
                thread.join()


def request(region: Airflow, dag_id: str, at: datetime, *, run_id: str = "") -> str:
    """Request a run with a date, also one in the future, and return its id."""
    run_id = run_id or f"dated__{at.isoformat()}"
    body: dict[str, Any] = {"dag_run_id": run_id, "logical_date": at.isoformat(), "conf": {}}
    if region.major >= 3 and at > datetime.now(tz=timezone.utc):
        body |= {"logical_date": None, "run_after": at.isoformat()}
    region.rest("POST", f"/dags/{dag_id}/dagRuns", json=body)
    return run_id


def begin_history(story: Story, source: Airflow) -> None:
    """Backfill one DAG completely, and request the newest date of another one. Both are paused."""
    first = story.hour - (HOURS - 1) * HOUR
    for dag_id in story.dag_ids:
        if dag_id.startswith("k_backfilled") and source.major < 3:
            source.airflow("dags", "backfill", "-s", first.isoformat(), "-e", story.hour.isoformat(), dag_id)
        elif dag_id.startswith("k_backfilled"):
            dates = {"from_date": first.isoformat(), "to_date": story.hour.isoformat()}
            source.rest("POST", "/backfills", json={"dag_id": dag_id, "max_active_runs": 6, **dates})
        elif dag_id.startswith("k_manual_date"):
            request(source, dag_id, story.hour, run_id=f"by_hand__{story.hour.isoformat()}")


def since(story: Story, region: Airflow, position: int) -> datetime | None:
    """Return what the load at a position saw as the end of the last success."""
    text = story.bodies("k_incremental", region)[position].line["since"]
    return datetime.fromisoformat(text) if text and text != "None" else None


TRACEBACK = re.compile(
    r"(?m)^(?P<before>.*)\nTraceback \(most recent call last\):\n(?P<text>(?:(?!\d{4}-\d\d-|\[\d{4}-).*\n)*)"
)
"""A traceback in a log, with the line before it, and up to the next line with a time."""


def tracebacks(log: str) -> tuple[list[str], int]:
    """
    Return the tracebacks of a scheduler's log, and how many others are refusals of LocalExecutor's tasks.

    A failover that stops runs marks them as failed, as a user may do. If a task of such a run waits in the executor of
    Airflow 3, the API server refuses its start, and the executor's worker logs a traceback.
    """
    found = [(match["before"], match["text"]) for match in TRACEBACK.finditer(log)]
    others = [
        f"{before}\n{text}"
        for before, text in found
        if not ("local_executor.LocalExecutor]" in before and "task_instances.start(" in text)
    ]
    return others, len(found) - len(others)


def faults_of_schedulers(story: Story) -> list[str]:
    """Return the schedulers that ended, and the tracebacks in the schedulers' logs."""
    found = []
    for region in story.pair.airflows.values():
        if not process.is_alive(region.session("scheduler")):
            found.append(f"the scheduler of {region} ended")
        log = story.pair.sandbox.home.log(region.name, "scheduler").read_text()
        others, refused = tracebacks(log)
        if refused and region.name not in {name for name, _ in story.stopped}:
            found.append(f"{refused} starts were refused in {region}, in which no run was stopped")
        story.refused[region.name] = refused
        found += [f"the scheduler of {region} logged {len(others)} tracebacks: {others[0]}"] if others else []
    return found


def shape(first: str, second: str = "") -> Shape:
    return Shape(version=first, second=second, name=f"given-{first}{'-' if second else ''}{second}", ledger=True)


@on(soak=(shape("3.3.1"), shape("2.10.3"), shape("2.11.2", "3.3.1"), shape("3.3.1", "2.11.2")))
def test_given_dags_execute_each_mark_once(pair: Pair, tmp_path: Path) -> None:
    """Also each run that is requested, each condition of assets and each message, and no scheduler ends."""
    pair.wait_until_reconciled()
    source, target = pair.active, pair.standby
    story = Story(pair, tmp_path)
    story.deploy()
    try:
        play(story, source, target)
    except AssertionError as error:  # the report shows how far it came
        story.faults.append(str(error))
    story.faults += faults_of_schedulers(story)
    report = [f"{pair.shape}: {source.version} to {target.version} and back"]
    wrong = []
    for name, figures in story.figures().items():
        rows = list(figures.rows())
        sums = [sum(row[n] for row in rows) for n in range(1, 5)]  # type: ignore[misc]
        report.append(f"{name}: expected {sums[0]}, executed {sums[1]}, twice {sums[2]}, lost {sums[3]}")
        report += [f"    {row[0]}: {row[1]}, {row[2]}, {row[3]}, {row[4]}" for row in rows]
        wrong += [f"{name} {row}" for row in rows if row[3] or row[4]]
        for dag_id, marks in figures.marks.items():
            wrong += [f"{dag_id} {mark}: {times}" for mark, times in marks.items() if times != 1]
    report.append(f"runs that the second failover stopped: {len(story.stopped)}; refused starts: {story.refused}")
    faults = [*wrong, *story.faults]
    text = "\n".join([*report, *faults])
    (HOMES / f"{pair.shape}-figures.txt").write_text(text + "\n")
    print(text, file=sys.stderr)
    assert faults == [], "\n".join(faults)


def play(story: Story, source: Airflow, target: Airflow) -> None:
    """Play the whole story, and wait until each step has executed and no mark is missing."""
    begin_history(story, source)
    source.unpause(*(dag_id for dag_id in story.dag_ids if dag_id != "k_continuous"))
    target.unpause(*(dag_id for dag_id in ("k_part_stray", "k_message") if story.has(dag_id)))
    # In any Airflow, an @continuous DAG that is parsed before its start gets an interval without a length, and stops.
    wait_until(
        lambda: datetime.fromisoformat(source.rest("GET", "/dags/k_continuous")["last_parsed_time"]) > story.start,
        "k_continuous is parsed after its start",
    )
    source.unpause("k_continuous")
    with story.messages():
        first_failover(story, source, target)
        second_failover(story, source, target)
    story.wait_for_messages()
    for step, times in story.steps.items():
        story.wait_for_step(step, times)
    story.continues(source)


def first_failover(story: Story, source: Airflow, target: Airflow) -> None:
    """Fail over gracefully, while runs in progress wait for runs of other DAGs."""
    pair = story.pair
    story.continues(source)
    # Half of a condition, and an event for a DAG that also has a schedule.
    for dag_id in ("k_produce_a", "k_aot_producer"):
        source.trigger(dag_id)
    story.steps.update({"k_produce_a body body": 1, "k_aot_producer body body": 1, "k_aot body body": 1})
    story.wait_for_step("k_aot body body")
    # Runs in the standby: they are no failures, and no successes.
    strikes = [target.trigger("k_three_strikes") for _ in range(2)]
    strays = [target.trigger("k_incremental")]
    # The last loads of the source fail.
    open_gate(source, "fail")
    failing = len(story.bodies("k_incremental", source))
    story.wait_for_step("k_incremental load body", failing + 2)
    for dag_id, run_ids in (("k_three_strikes", strikes), ("k_incremental", strays)):
        for run_id in run_ids:
            wait_until(
                lambda: target.run(dag_id, run_id)["state"] == "failed",  # noqa: B023
                f"{dag_id} {run_id} ends in the standby",
            )
    date = datetime.now(tz=timezone.utc).replace(microsecond=0)
    source.trigger("k_parent")
    request(source, "k_downstream", date)
    idle = source.trigger("k_sensor")
    story.wait_for_step("k_parent prepare body")
    wait_until(lambda: source.task_states("k_sensor", idle).get("look") == "up_for_reschedule", "the sensor waits")
    source.pause("k_sensor")
    wait_until(
        lambda: source.run("k_downstream", f"dated__{date.isoformat()}")["state"] == "running", "k_downstream waits"
    )
    later = [dag_id for dag_id in ("k_later", "k_later_2") if story.has(dag_id)]
    for dag_id in later:
        request(source, dag_id, datetime.now(tz=timezone.utc) + timedelta(seconds=75))
        story.steps[f"{dag_id} body body"] += 1
    source.trigger("k_defers")
    story.wait_for_step("k_defers job submit")
    # The sandbox executes four tasks at the same time, so some of these may be held, and execute in the target.
    for gate in ("mapped", "cluster", "report", "weird"):
        open_gate(target, gate)
    for dag_id in ("k_mapped", "k_cluster", "k_cleared", "k_tägliche.Übersicht-v1.2"):
        source.trigger(dag_id)
    with mwaa_dr(pair, "failover", target.name, *REASON, "--mode", "graceful", drain_s=240) as failover:
        wait_until(lambda: pair.state().phase is Phase.DRAINING, "the drain begins")
        request(source, "k_upstream", date)
        for gate in ("parent", "child", "mapped", "cluster", "report", "weird"):
            open_gate(source, gate)
        record = failover.document()
    story.check(f"the first failover: {record}", (record["outcome"], record["mode"]) == ("completed", "graceful"))
    story.steps.update(
        {
            "k_parent after body": 1,
            "k_child work end": 1,
            "k_upstream up body": 1,
            "k_downstream down body": 1,
            "k_mapped item body": 4,
            "k_mapped sum body": 1,
            "k_defers job collect": 1,
            "k_defers after body": 1,
            "k_cluster create body": 1,
            "k_cluster use end": 1,
            "k_cluster delete body": 1,
            "k_cleared charge body": 1,
            "k_cleared report end": 1,
            "k_tägliche.Übersicht-v1.2 größe end": 1,
            "k_sensor after body": 1,
            "k_three_strikes fail body": 1,
        }
    )
    for step in ("k_parent after body", "k_child work end", "k_downstream down body"):
        story.check(f"{step} in the drain: {story.times(step)} times", story.times(step) == 1)
    open_gate(target, "sensor")
    target.unpause("k_sensor")
    wait_until(lambda: story.bodies("k_incremental", target), "the load continues", deadline_s=DEADLINE_S)
    loads = [body for body in story.bodies("k_incremental", source) if body.type == "scheduled"]
    succeeded = {run["dag_run_id"] for run in source.runs("k_incremental") if run["state"] == "success"}
    expected = [body.end for body in loads if body.run_id in succeeded][-1]
    found = since(story, target, 0)
    story.check(f"the load continues at {found}, and in one Airflow at {expected}", found == expected)
    (source.home / "gates" / "fail").unlink()
    strike = target.trigger("k_three_strikes")
    wait_until(lambda: target.run("k_three_strikes", strike)["state"] == "failed", "the third strike has failed")
    story.continues(target)
    story.check("k_three_strikes is paused after one failure", target.dags()["k_three_strikes"] is False)
    for dag_id in later:
        story.wait_for_step(f"{dag_id} body body", story.steps[f"{dag_id} body body"])


def second_failover(story: Story, source: Airflow, target: Airflow) -> None:
    """Fail back, and stop what executes: a parent that waits for its child, a task with events, and a deferred task."""
    for letter in "ab":
        target.trigger(f"k_produce_{letter}")
    story.steps.update({"k_produce_a body body": 1, "k_produce_b body body": 1, "k_needs_both body body": 1})
    story.wait_for_step("k_needs_both body body")
    target.trigger("k_aot_producer")
    story.steps.update({"k_aot_producer body body": 1, "k_aot body body": 1})
    story.wait_for_step("k_aot body body", 2)
    for dag_id in ("k_later", "k_later_2"):
        if story.has(dag_id):
            request(target, dag_id, datetime.now(tz=timezone.utc) + timedelta(seconds=60))
            story.steps[f"{dag_id} body body"] += 1
    open_gate(target, "parent")
    target.trigger("k_parent")
    target.trigger("k_produce_c")
    story.wait_for_step("k_child work body", 2)
    story.wait_for_step("k_reads_events consume body", 1)
    target.trigger("k_defers")
    story.wait_for_step("k_defers job submit", 2)
    open_gate(source, "consume")
    record = fail_over(story.pair, source.name, "--stop-running", drain_s=20)
    story.remember_stopped(target)
    story.check(f"the failback stopped nothing: {record}", story.times("k_child work end") == 1)
    story.steps.update(
        {
            "k_parent after body": 1,
            "k_child work end": 1,
            "k_produce_c body body": 1,
            "k_reads_events consume end": 1,
            "k_defers job collect": 1,
            "k_defers after body": 1,
        }
    )
    for step in ("k_parent after body", "k_child work end", "k_reads_events consume end", "k_defers after body"):
        story.wait_for_step(step, story.steps[step])
    events = [body.line["events"] for body in story.bodies("k_reads_events") if body.kind == "end"]
    story.check(f"the consumer has {events} events", events == [1])
    # The old half of the condition completes nothing; a new half does.
    source.trigger("k_produce_b")
    story.wait_for_step("k_produce_b body body", 2)
    story.continues(source)
    story.check("k_needs_both executed with an old event", story.times("k_needs_both body body") == 1)
    source.trigger("k_produce_a")
    story.steps.update({"k_produce_a body body": 1, "k_produce_b body body": 1, "k_needs_both body body": 1})
    story.wait_for_step("k_needs_both body body", 2)
