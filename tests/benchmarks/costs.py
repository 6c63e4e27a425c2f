"""
DynamoDB requests of a DR set: ``python -m tests.benchmarks.costs``.

Two regions with two schedulers each and their real agents use an emulated DynamoDB over a real socket, on a simulated
clock. After a first quarter of an hour, in which everything is new, the benchmark measures a second one. It counts each
request, and the units that DynamoDB would bill for it from the sizes of its items. There is no failover and no task;
docs/explanation/costs.md adds the reads of workers. The figures are in build/bench/costs.json.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3

from airflow_provider_mwaa_dr.agent.inventory import InventoryKeeper, option_texts
from airflow_provider_mwaa_dr.agent.loop import AgentLoop
from airflow_provider_mwaa_dr.agent.ports import GateCounts
from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.inventory import DagFacts, DagSchedule, UpgradeFacts, time_text
from airflow_provider_mwaa_dr.core.ports import Registration
from airflow_provider_mwaa_dr.core.state import initial
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.benchmarks.emulated_aws import emulated_tables
from tests.benchmarks.report import Report
from tests.simulation.airflow import SimulatedAirflow, SimulatedDag

ACTIVE, STANDBY = "us-east-2", "us-east-1"
DAGS = 500
"""Number of hourly DAGs."""
RUN_S = 300.0
QUARTER_S = 900.0
"""Within this time, an agent does all its periodic work at least once."""
TICK_S = 0.5
"""How often the simulated gate asks its agent whether a turn is due."""


def item_bytes(item: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the bytes that DynamoDB counts for an item: names and values."""
    return sum(len(name.encode()) + value_bytes(value) for name, value in item.items())


def value_bytes(value: Mapping[str, Any]) -> int:
    """Return the bytes of one attribute's value."""
    ((kind, plain),) = value.items()
    if kind == "S":
        return len(plain.encode())
    if kind == "N":
        return (len(plain) + 1) // 2 + 1
    if kind == "B":
        return len(plain)
    if kind == "M":
        return 3 + item_bytes(plain) + len(plain)
    if kind == "L":
        return 3 + sum(1 + value_bytes(each) for each in plain)
    if kind == "SS":
        return sum(len(each.encode()) for each in plain)
    return 1


@dataclass
class Meter:
    """
    Counts every request of a session.

    :ivar units: by table and kind: 1 for each started 4 KB of a consistent read, 1 for each started 1 KB of a write.
    :ivar requests: by table and operation.
    :ivar sizes: sizes of the existing items, by table and key.
    """

    session: boto3.session.Session
    units: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, dict[str, int]] = field(default_factory=lambda: {"state": {}, "runs": {}})

    def __post_init__(self) -> None:
        self.session.events.register("before-parameter-build.dynamodb", self._asked)
        self.session.events.register("after-call.dynamodb", self._answered)

    def reset(self) -> None:
        """Start to count from zero."""
        self.units.clear()
        self.requests.clear()

    def _asked(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["asked"] = params

    def _answered(self, model: Any, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        asked, operation = context["asked"], model.name
        name = asked.get("TableName") or next(iter(asked["RequestItems"]))
        table = "state" if "state" in name else "runs"
        self.requests[f"{table} {operation}"] += 1
        if operation in {"PutItem", "UpdateItem", "DeleteItem"}:
            self.units[f"{table} written"] += units(self._change(table, operation, asked), 1024)
        elif operation == "BatchGetItem":
            found = parsed["Responses"][name]
            missing = len(asked["RequestItems"][name]["Keys"]) - len(found)
            self.units[f"{table} read"] += missing + sum(units(item_bytes(item), 4096) for item in found)
        elif operation == "Scan":  # DynamoDB also bills the items that its filter drops
            self.units[f"{table} read"] += units(sum(self.sizes[table].values()), 4096)
        else:
            found = parsed["Items"] if operation == "Query" else [parsed.get("Item", {})]
            self.units[f"{table} read"] += units(sum(map(item_bytes, found)), 4096)

    def _change(self, table: str, operation: str, asked: Mapping[str, Any]) -> int:
        """Return the larger of an item's sizes before and after."""
        # The size of a new item from an update counts as that of its key; all updated items are far below 1 KB.
        item = asked.get("Item") or asked["Key"]
        key = item["state_id"]["S"] if "state_id" in item else f"{item['pk']['S']} {item['sk']['S']}"
        before = self.sizes[table].pop(key, 0)
        if operation != "DeleteItem":
            self.sizes[table][key] = max(item_bytes(item), before if operation == "UpdateItem" else 0)
        return max(before, self.sizes[table].get(key, 0))


def units(size: int, of: int) -> int:
    """Return the number of units of *of* bytes for a request of *size* bytes; at least one."""
    return max(1, -(-size // of))


class Scheduler:
    """One of a region's schedulers, with the database that they share."""

    def __init__(self, db: SimulatedAirflow, job_id: str) -> None:
        self._db, self.job_id = db, job_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def alive_schedulers(self) -> tuple[str, ...]:
        return "1", "2"

    def pulse(self) -> object:
        return self._db.clock.monotonic()


class Folder:
    """The contents of an inventory of :data:`DAGS` DAGs. It has digests, because they cannot be compressed."""

    def __init__(self) -> None:
        self._secrets: dict[str, str] = {}

    def secret(self, name: str) -> str | None:
        return self._secrets.get(name)

    def add_secret(self, name: str, value: str) -> str:
        return self._secrets.setdefault(name, value)

    def variable(self, name: str) -> str:
        return name

    def dag_versions(self) -> Mapping[str, str]:
        return {f"dag_{number:03}": "1" for number in range(DAGS)}

    def dag_facts(self, dag_ids: Collection[str], *, marks_from: datetime) -> Mapping[str, DagFacts]:
        def digest(text: str) -> str:
            return hashlib.sha256(text.encode()).hexdigest()

        runs = tuple((time_text(marks_from + timedelta(hours=number)),) * 2 for number in range(1, 4))
        return {
            dag_id: DagFacts(
                source=digest(dag_id),
                shape=digest(dag_id + "/"),
                schedule=DagSchedule(timetable="CronTriggerTimetable", runs=runs),
                file=f"folder/{dag_id}.py",
            )
            for dag_id in dag_ids
        }

    def import_errors(self) -> tuple[str, ...]:
        return ()

    def upgrade_facts(self, *, marks_from: datetime) -> UpgradeFacts:
        options = {f"section.old_option_{number}": f"section.new_option_{number}" for number in range(150)}
        return UpgradeFacts(marks_from=marks_from, changed_options=options)

    def values(self) -> Mapping[str, Mapping[str, str | None]]:
        return {
            kind: {f"{kind}_{number}": str(number) for number in range(50)} for kind in ("variables", "connections")
        }


class DRSet:
    """
    Two regions with two schedulers each, and hourly runs whose starts are evenly distributed over the hour.

    This is the most expensive case: each turn has runs to publish. If all runs started at the full hour, a few entries
    would publish all of them.
    """

    def __init__(self, state_table: str, runs_table: str, *, run_s: float = RUN_S) -> None:
        self.run_s = run_s
        self.clock = ManualClock()
        self.meter = Meter(boto3.session.Session(aws_access_key_id="testing", aws_secret_access_key="testing"))
        self.state_table, self.runs_table = state_table, runs_table
        store = self.store()
        store.write(initial(ACTIVE, lease_s=60, by="test", at=self.clock.now()), expected_version=None)
        world: Any = SimpleNamespace(clock=self.clock, rng=random.Random(0), is_traced=False)
        dags = [SimulatedDag(f"dag_{number:03}", every_s=3600) for number in range(DAGS)]
        self.loops: list[AgentLoop] = []
        self.db = {}
        for region in (ACTIVE, STANDBY):
            store.register(Registration(region=region, environment=f"etl-{region}"))
            db = self.db[region] = SimulatedAirflow(region, dags, world, self.clock)
            if region == ACTIVE:
                db.paused.clear()
            self.loops += [self.loop(region, Scheduler(db, job)) for job in ("1", "2")]
        self.turn_at = dict.fromkeys(self.loops, 0.0)
        self.begun = 0

    def store(self) -> DynamoDBStateStore:
        return DynamoDBStateStore(
            self.state_table, (ACTIVE, STANDBY), clock=self.clock, session=self.meter.session, timeout_s=20
        )

    def loop(self, region: str, db: Scheduler) -> AgentLoop:
        config = DRConfig(enabled=True, region=region, state_table="s", runs_table="r", environments={})
        store = self.store()
        return AgentLoop(
            config=config,
            store=store,
            runs=DynamoDBRunsStore(
                self.runs_table, (region,), clock=self.clock, session=self.meter.session, timeout_s=20
            ),
            db=db,  # type: ignore[arg-type]
            clock=self.clock,
            counts=GateCounts(),
            airflow_version="3.3.1",
            inventory=InventoryKeeper(
                store,
                Folder(),
                self.clock,
                region=region,
                options=option_texts(config),
                peers=(ACTIVE, STANDBY),
                every_s=60.0,
            ),
        )

    def live(self, seconds: float) -> None:
        """Advance the clock, with turns of the agents."""
        end = self.clock.monotonic() + seconds
        db = self.db[ACTIVE]
        while self.clock.monotonic() < end:
            now = self.clock.monotonic()
            while self.begun * 3600 / DAGS <= now:
                at = float(self.begun // DAGS * 3600)
                key = (f"dag_{self.begun % DAGS:03}", f"scheduled__2026-01-01T{at:05.0f}+00:00")
                db.add(key, run_type="scheduled", at=at, end=at + 3600, state="running")
                self.begun += 1
            ended = int((now - self.run_s) * DAGS / 3600)
            for run in db.by_id[max(0, ended - 20) : max(0, ended)]:
                if run.is_open:
                    db.set_state(run, "success")
                    # The runs of a region end in its two schedulers in turn.
                    self.loops[ended % 2].note_end_of_run()
            for loop in self.loops:
                if now >= self.turn_at[loop] or loop.is_turn_due():
                    self.turn_at[loop] = now + loop.turn()
            self.clock.advance(TICK_S)


def figures(state_table: str, runs_table: str) -> dict[str, Any]:
    """Return the requests and units of a quarter of an hour, and the sizes of the stored items."""
    dr_set = DRSet(state_table, runs_table)
    dr_set.live(QUARTER_S)
    dr_set.meter.reset()
    dr_set.live(QUARTER_S)
    sizes = dr_set.meter.sizes

    def longest(table: str, prefix: str) -> int:
        return max(size for key, size in sizes[table].items() if key.startswith(prefix))

    entries = [size for key, size in sizes["runs"].items() if key.startswith("LOG#")]
    return {
        "an hour": {name: 4 * count for name, count in sorted(dr_set.meter.units.items())},
        "requests an hour": {name: 4 * count for name, count in sorted(dr_set.meter.requests.items())},
        "bytes": {
            "state item": longest("state", "ACTIVE_REGION"),
            "heartbeat": longest("state", "AGENT#"),
            "inventory": sum(size for key, size in sizes["state"].items() if key.startswith(f"INVENTORY#{ACTIVE}")),
            "state table": sum(sizes["state"].values()),
            "entry of the ledger, on average": sum(entries) // len(entries),
        },
    }


def main() -> None:
    """Measure, and write and print a row for each figure."""
    with emulated_tables() as (state_table, runs_table):
        found = figures(state_table, runs_table)
    report = Report("costs", {"airflow": "3.3.1"})
    for kind, counts in found.items():
        for name, count in counts.items():
            report.keep(what=f"{DAGS} hourly DAGs, {kind}: {name}", unit="", values=[count])


if __name__ == "__main__":
    main()
