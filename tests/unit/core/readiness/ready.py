"""A DR set in memory in which every readiness check passes. Tests make one thing wrong in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.core.config import DRConfig, parse_config
from airflow_provider_mwaa_dr.core.inventory import DagFacts, DagSchedule, Fingerprints, Inventory, UpgradeFacts
from airflow_provider_mwaa_dr.core.ports import INVENTORIES, RECORDS, Environment, FailoverOutcome, FailoverRecord
from airflow_provider_mwaa_dr.core.readiness.examination import examine
from airflow_provider_mwaa_dr.core.readiness.model import TEST_DAG, CheckResult
from airflow_provider_mwaa_dr.core.state import Mode
from airflow_provider_mwaa_dr.testing import FakeTables
from tests.unit.core.dr_set import DAGS, A, B, World

SETTINGS = {
    "state_table": "state",
    "runs_table": "runs",
    "state_table_region": A,
    "state_table_replicas": f"{A},{B}",
    "heartbeat_s": "1",
}
MIDNIGHT = datetime(2026, 1, 2, tzinfo=timezone.utc)
DAILY = DagSchedule(
    timetable="CronTriggerTimetable",
    runs=tuple((f"2026-01-0{day}T00:00:00Z", f"2026-01-0{day}T00:00:00Z") for day in (3, 4, 5)),
)


@dataclass
class ReadySet:
    """Regions A (active) and B, with the inventories of their agents. *settings* are those of the caller."""

    world: World
    tables: FakeTables
    settings: dict[str, str] = field(default_factory=lambda: dict(SETTINGS))

    @classmethod
    def build(cls) -> ReadySet:
        world, tables = World.build(), FakeTables()
        for name in ("state", "runs"):
            tables.add(name, A, B)
        ready = cls(world, tables)
        for region, other in ((A, B), (B, A)):
            world.environments[region].add_dag(TEST_DAG, is_paused=region == B)
            world.agents[region].changes.update(fence_ok=True, ledger_lag_s=1.0, provider_version=__version__)
            world.store.put(INVENTORIES, inventory(region, other, world.clock.now()))
        world.store.put(RECORDS, drill(world.clock.now()))
        world.clock.advance(2)
        return ready

    @property
    def config(self) -> DRConfig:
        return parse_config(self.settings)

    def change(self, region: str, **changes: object) -> None:
        """Change the inventory of a region."""
        found = self.world.store.get(INVENTORIES, region)
        assert found is not None
        self.world.store.put(INVENTORIES, replace(found, **changes))  # type: ignore[arg-type]

    def heartbeat(self, region: str, **changes: object) -> None:
        """Change what a region's agent publishes, from its next heartbeat on."""
        self.world.agents[region].changes.update(changes)
        self.world.clock.advance(2)

    def describe(self, region: str, **changes: object) -> None:
        """Change what MWAA returns for a region's environment."""
        environment = self.world.environments[region]
        environment.description = replace(environment.description, **changes)  # type: ignore[arg-type]

    def results(self, *, target: str | None = None) -> Mapping[str, CheckResult]:
        environments: dict[str, Environment] = {region: self.world.environments[region] for region in (A, B)}
        found = examine(
            self.world.store, self.tables, environments, self.world.clock, self.config, target=target
        ).results
        return {result.name: result for result in found}


def inventory(region: str, other: str, at: datetime) -> Inventory:
    return Inventory(
        region=region,
        taken_at=at,
        public_key=f"public {region}",
        options={
            "lease_s": "60",
            "fence": "True",
            "runs_table": "runs",
            "state_table_region": region,
            "state_table_replicas": f"{A},{B}",
        },
        packages={"apache-airflow": "3.3.1", "airflow-provider-mwaa-dr": __version__, "pandas": "2.1.0"},
        dags={
            dag_id: DagFacts(source="s", shape="x", schedule=DAILY, file=f"{dag_id}.py")
            for dag_id in [*DAGS, TEST_DAG, "dr_failover"]
        },
        names={"pools": ("default_pool", "etl"), "variables": ("bucket",), "connections": ("warehouse",)},
        fingerprints={
            other: Fingerprints(
                key_id="k",
                values={
                    "pools": {"default_pool": "1", "etl": "2"},
                    "variables": {"bucket": "3"},
                    "connections": {"warehouse": "4"},
                },
            )
        },
        upgrade=UpgradeFacts(marks_from=MIDNIGHT, changed_options={"core.old": "core.new", "core.gone": ""}),
    )


def drill(at: datetime, *, target: str = B, days_ago: float = 7.0) -> FailoverRecord:
    started_at = at - timedelta(days=days_ago)
    return FailoverRecord(
        id=f"drill-{target}",
        source=A if target == B else B,
        target=target,
        mode=Mode.GRACEFUL,
        reason="drill",
        by="ana",
        started_at=started_at,
        finished_at=started_at + timedelta(seconds=40),
        outcome=FailoverOutcome.COMPLETED,
        epoch=1,
    )
