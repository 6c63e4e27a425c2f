"""A DR set in memory, and the background reader of one site's web server."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.failover.records import aborted
from airflow_provider_mwaa_dr.core.ports import RECORDS, FailoverRecord, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Plan
from airflow_provider_mwaa_dr.web.reader import BackgroundReader, Knowledge
from tests.unit.core.dr_set import A, B, World

ACTIVE, STANDBY = A, B


class Site:
    """A web server of *site*. Its thread is replaced by calls of :meth:`read`."""

    def __init__(self, site: str, *, open_store: Callable[[], StateStore] | None = None) -> None:
        self.set = World.build()
        self.set.store.put_regions(site, (A, B))
        self.clock = self.set.clock
        self.config = DRConfig(
            enabled=True, region=site, state_table="t", environments={A: "ohio", B: "virginia"}, heartbeat_s=1
        )
        self.reader = BackgroundReader(self.config, self.clock, open_store or (lambda: self.set.store))
        self.reader._start = lambda: None  # type: ignore[method-assign]

    def read(self, *, details: bool = False) -> Knowledge:
        self.reader.know(details=details)
        self.reader.turn()
        return self.reader.know()

    def plan(self, **changes: object) -> Plan:
        values = {"id": "p1", "source": A, "target": B, "mode": Mode.GRACEFUL, "reason": "flood", "by": "ana"}
        return Plan(**{**values, "owner": "o", "started_at": self.clock.now(), **changes})  # type: ignore[arg-type]

    def write(self, new: DRState) -> DRState:
        self.set.store.write(new, expected_version=self.set.state.version)
        return new

    def claim(self, **changes: object) -> DRState:
        """Open a plan with its record."""
        plan = self.plan(**changes)
        self.set.store.put(RECORDS, FailoverRecord.of(plan, epoch=self.set.state.epoch))
        return self.write(transitions.claim(self.set.state, plan, at=self.clock.now()))

    def fail_over(self) -> None:
        """Make the other site active, and let the agents follow."""
        state = self.claim()
        now = self.clock.now()
        for change in (transitions.promote, transitions.resume):
            state = self.write(change(state, at=now))
        self.write(transitions.complete(state, not_unpaused_set_id=None, at=now))
        self.clock.advance(2)

    def cancelled(self) -> None:
        """Record a failover that was given up."""
        self.set.store.put(
            RECORDS, aborted(FailoverRecord.of(self.plan(id="p0", by="eve"), epoch=0), at=self.clock.now())
        )
