"""An agent in the database of the installed Airflow, and another region that exists only in the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.agent.loop import AgentLoop
from airflow_provider_mwaa_dr.agent.ports import GateCounts
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, LogEntry, RunStatus, unfinished_runs
from airflow_provider_mwaa_dr.core.ports import Registration
from airflow_provider_mwaa_dr.core.state import Mode, Phase, Plan, initial
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, InMemoryStateStore, ManualClock
from tests.airflow.conftest import HERE, THERE
from tests.airflow.plugins.metadata import other_region
from tests.airflow.plugins.metadata.other_region import AT, DAY

if TYPE_CHECKING:
    from tests.airflow.conftest import Database


def interval(day: int, status: RunStatus = RunStatus.SUCCESS, dag_id: str = "orders", **values: Any) -> LedgerRun:
    """A daily run of the other region, from its first term, and with no time at which it was taken."""
    return other_region.interval(day, status, dag_id, **{"epoch": 0, "taken_at": None, **values})


class Region:
    """The region ``HERE``: its agent, and the tables that it shares with ``THERE``."""

    def __init__(self, database: Database) -> None:
        from airflow.jobs.job import Job

        from airflow_provider_mwaa_dr.plugins.metadata.database import MetadataDb

        jobs, now = Job.__table__, datetime.now(tz=timezone.utc)
        with database.settings.engine.begin() as connection:
            connection.execute(jobs.delete())
            row = {"job_type": "SchedulerJob", "state": "running", "latest_heartbeat": now + DAY}
            job_id = connection.execute(jobs.insert().values(row)).inserted_primary_key[0]
        self.clock, self.runs, self.number = ManualClock(), InMemoryRunsStore(), 0
        self.store = InMemoryStateStore(initial(THERE, lease_s=60, by="t", at=AT), regions=(HERE, THERE))
        for region in (HERE, THERE):
            self.store.register(Registration(region=region, environment=region, account=""))
        job = SimpleNamespace(id=job_id, job_type="SchedulerJob", latest_heartbeat=now)
        self.db = MetadataDb(job, exempt_dags=["by_id"])
        self.start_agent()

    def start_agent(self, *, airflow_version: str = "0", **config: Any) -> None:
        """
        Start a new agent, in an environment for which MWAA sets the values of *config*.

        :param airflow_version: "0": the other region has the same version as this one.
        """
        self.loop = AgentLoop(
            config=DRConfig(enabled=True, region=HERE, state_table="t", runs_table="r", environments={}, **config),
            store=self.store,
            runs=self.runs,
            db=self.db,
            clock=self.clock,
            counts=GateCounts(),
            airflow_version=airflow_version,
        )

    def publish(self, *runs: LedgerRun, dag_ids: tuple[str, ...] = ()) -> None:
        """Let the other region publish runs."""
        self.number += 1
        entry = LogEntry(number=self.number, at=AT, epoch=0, first_id=0, newest_id=0, runs=runs, dag_ids=dag_ids)
        self.runs.append(THERE, replace(entry, complete_before=0))

    def turns(self, times: int = 2) -> None:
        """Let the agent take some turns, with the default time between them."""
        for _ in range(times):
            self.clock.sleep(5)
            self.loop.turn()

    def promote(self) -> None:
        """Let a failover make this region active and wait for it."""
        state = self.store.state
        assert state is not None
        plan = Plan(
            id="plan-1", source=THERE, target=HERE, mode=Mode.FORCED, reason="r", by="b", owner="o",
            started_at=self.clock.now(),
        )  # fmt: skip
        self.store._table.state = replace(
            state, active_region=HERE, epoch=1, version=state.version + 1, phase=Phase.PROMOTING, plan=plan
        )

    def complete(self) -> None:
        """Let the failover complete, but only after the region has adopted."""
        state = self.store.state
        assert state is not None
        if self.store._table.reconciled.get(HERE) == state.epoch:
            self.store._table.state = replace(state, version=state.version + 1, phase=Phase.STEADY, plan=None)

    def open_in_ledger(self) -> set[str]:
        """Return the ids of the unfinished runs in the ledger, as a reader of the table gets them."""
        ledgers = []
        for region in (HERE, THERE):
            ledger = self.runs.checkpoint(region)
            while entries := self.runs.log(region, after=ledger.number):
                before = ledger.number
                ledger.apply(entries)
                assert ledger.number > before, f"entry {entries[0].number} of {region} does not follow {before}"
            ledgers.append(ledger)
        return {run_id for _, run_id in unfinished_runs(ledgers)}
