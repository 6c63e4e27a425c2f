"""The metrics that the agent publishes through Airflow. A failure of metrics must not affect the agent."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace

import pytest

from airflow_provider_mwaa_dr.agent.loop import AgentLoop
from airflow_provider_mwaa_dr.agent.metrics import Figures, Metrics
from airflow_provider_mwaa_dr.agent.ports import GateCounts
from airflow_provider_mwaa_dr.aws.deploy.template import alarms_template
from airflow_provider_mwaa_dr.core.gate import Role
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.documents import page
from tests.unit.agent.test_becoming_active import HERE, THERE, Pair, Region

FIGURES = Figures(
    role=Role.ACTIVE, epoch=3, state_age_s=1.26, ledger_lag_s=2.0, heartbeats=1, held=0, skipped=0, closed=0
)


@dataclass
class FakeStats:
    """Airflow's metrics: the newest value of each gauge, and the sum of each counter."""

    clock: ManualClock
    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    error: Exception | None = None
    takes_s: float = 0.0

    def gauge(self, stat: str, value: float) -> None:
        self._answer()
        self.gauges[stat] = value

    def incr(self, stat: str, count: int) -> None:
        self._answer()
        self.counters[stat] = self.counters.get(stat, 0) + count

    def _answer(self) -> None:
        self.calls += 1
        self.clock.advance(self.takes_s)
        if self.error is not None:
            raise self.error


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
def stats(pair: Pair) -> FakeStats:
    return FakeStats(pair.clock)


@pytest.fixture
def metrics(stats: FakeStats, pair: Pair) -> Metrics:
    return Metrics(lambda: stats, pair.clock)


@pytest.fixture
def active(pair: Pair, metrics: Metrics) -> Region:
    """The agent of the active region, with metrics."""
    return start(pair.there, metrics)


def start(region: Region, metrics: Metrics, counts: GateCounts | None = None) -> Region:
    """Start a new agent that publishes metrics."""
    region.loop = AgentLoop(
        config=region.loop._config,
        store=region.pair.store,
        runs=region.runs,
        db=region.db,  # type: ignore[arg-type]
        clock=region.pair.clock,
        counts=counts or GateCounts(),
        airflow_version="3",
        metrics=metrics,
    )
    return region


# Published values.


def test_an_active_region_publishes_role_epoch_age_and_lag(active: Region, stats: FakeStats) -> None:
    """All values are from the turn that has just ended."""
    active.turn(4)
    assert stats.gauges == {
        "mwaa_dr.role": 1,
        "mwaa_dr.epoch": 0,
        "mwaa_dr.state_age": 0.0,
        "mwaa_dr.ledger_lag": 0.0,
    }
    assert stats.counters == {"mwaa_dr.agent_heartbeat": active.status.beat}


def test_a_standby_has_no_lag(pair: Pair, metrics: Metrics, stats: FakeStats) -> None:
    """It has no run to publish. The time since its last entry, when it was active, is no lag."""
    here = start(pair.here, metrics)
    here.turn(4)
    assert stats.gauges == {"mwaa_dr.role": 0, "mwaa_dr.epoch": 0, "mwaa_dr.state_age": 0.0}
    there = start(pair.there, metrics)
    there.turn(4)
    assert stats.gauges.pop("mwaa_dr.ledger_lag") == 0.0
    pair.flip(HERE)
    there.turn(4)
    assert stats.gauges == {"mwaa_dr.role": 0, "mwaa_dr.epoch": 1, "mwaa_dr.state_age": 0.0}


def test_only_the_agent_that_writes_the_ledger_has_a_lag(active: Region, stats: FakeStats) -> None:
    """The second of two schedulers writes no entry once the first one leads."""
    active.turn(4)
    stats.gauges.clear()
    active.db.alive_schedulers = lambda: ("0", "1")  # type: ignore[attr-defined]
    active.turn(4)
    assert set(stats.gauges) == {"mwaa_dr.role", "mwaa_dr.epoch", "mwaa_dr.state_age"}


def test_the_age_grows_and_heartbeats_stop_while_the_table_is_unreachable(active: Region, stats: FakeStats) -> None:
    """The two alarms depend on this: the agent publishes metrics after a failed turn, too."""
    active.turn(4)
    beats = stats.counters["mwaa_dr.agent_heartbeat"]
    active.pair.store.unreachable = True
    active.turn(4)
    assert stats.gauges["mwaa_dr.state_age"] == active.pair.clock.monotonic() - active.loop.view.read_at - 5  # type: ignore[union-attr]
    assert stats.gauges["mwaa_dr.state_age"] >= 15
    assert stats.gauges["mwaa_dr.role"] == 1
    assert stats.counters["mwaa_dr.agent_heartbeat"] == beats


def test_an_entry_of_another_epoch_is_no_lag(active: Region, stats: FakeStats) -> None:
    """A region that becomes active again has a lag again after it has reconciled the new epoch."""
    active.turn(4)
    active.pair.flip(HERE)
    active.turn(10)
    active.pair.flip(THERE)
    active.runs.unreachable = True
    stats.gauges.clear()
    active.turn(4)
    assert set(stats.gauges) == {"mwaa_dr.role", "mwaa_dr.epoch", "mwaa_dr.state_age"}
    active.runs.unreachable = False
    active.turn(3)
    assert stats.gauges["mwaa_dr.ledger_lag"] == 0.0


def test_an_agent_that_never_read_the_state_publishes_how_long_it_has_tried(active: Region, stats: FakeStats) -> None:
    """It publishes no role and no epoch, but an age that sets off the alarm."""
    active.pair.store.unreachable = True
    active.turn(4)
    assert stats.gauges == {"mwaa_dr.state_age": 15.0}
    assert stats.counters == {}


def test_a_ledger_that_refuses_entries_has_a_growing_lag(active: Region, stats: FakeStats) -> None:
    """Also a ledger that never accepted an entry, and without which the region has continued."""
    active.pair.runs.unreachable = active.runs.unreachable = True
    active.turn()
    active.pair.clock.advance(400)
    active.turn(4)
    assert stats.gauges["mwaa_dr.ledger_lag"] >= 10
    active.pair.runs.unreachable = active.runs.unreachable = False
    active.turn(2)
    assert stats.gauges["mwaa_dr.ledger_lag"] == 0.0
    active.runs.unreachable = True
    active.turn(3)
    assert stats.gauges["mwaa_dr.ledger_lag"] >= 10


def test_runs_are_counted_as_they_happen(pair: Pair, metrics: Metrics, stats: FakeStats) -> None:
    """A count that does not change is not sent. A new agent in the same scheduler continues the counts."""
    counts = GateCounts()
    here = start(pair.here, metrics, counts)
    here.add(1)
    here.turn(4)
    counts.held, counts.skipped = 5, 2
    here.turn(2)
    expected = {"mwaa_dr.held_runs": 5, "mwaa_dr.skipped_runs": 2, "mwaa_dr.closed_runs": 1}
    assert {name: count for name, count in stats.counters.items() if name != "mwaa_dr.agent_heartbeat"} == expected
    beats = here.status.beat
    start(pair.here, metrics, counts).turn(3)
    assert stats.counters["mwaa_dr.agent_heartbeat"] == beats + here.status.beat
    counts.held = 6
    here.turn()
    assert stats.counters["mwaa_dr.held_runs"] == 6
    assert stats.counters["mwaa_dr.skipped_runs"] == 2


def test_documents_and_alarms_name_what_is_published(metrics: Metrics, stats: FakeStats) -> None:
    """Every metric is in the table of the documents, with its kind. The alarms use only metrics that exist."""
    metrics.publish(replace(FIGURES, held=1, skipped=1, closed=1, hold_alarms=1))
    rows = re.findall(r"^\| `(mwaa_dr\.[a-z_]+)` \| (gauge|counter)", page("reference/metrics"), re.MULTILINE)
    assert rows == [*((name, "gauge") for name in stats.gauges), *((name, "counter") for name in stats.counters)]
    used = re.findall(r"MetricName: ([a-z_]+)", alarms_template())
    assert len(used) == 5
    assert {f"mwaa_dr.{name}" for name in used} <= {name for name, _ in rows}


# Failures.


def test_the_agent_does_not_depend_on_metrics_that_raise(
    active: Region, stats: FakeStats, caplog: pytest.LogCaptureFixture
) -> None:
    """The turn completes, the error is logged once, the next attempt comes minutes later, and no count is lost."""
    stats.error = OSError("no such host")
    with caplog.at_level(logging.INFO):
        active.turn(30)
    assert active.status.beat >= 29
    assert stats.calls == 1
    assert [record.levelname for record in caplog.records if "OSError: no such host" in record.message] == ["WARNING"]
    stats.error = None
    with caplog.at_level(logging.INFO):
        active.turn(40)
    assert "Metrics are published again" in caplog.text
    assert stats.counters == {"mwaa_dr.agent_heartbeat": active.status.beat}


def test_metrics_that_cannot_be_imported_count_as_metrics_that_raise(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """A future Airflow may move the module."""

    def find() -> FakeStats:
        raise ImportError("moved")

    region = start(pair.there, Metrics(find, pair.clock))
    region.turn(4)
    assert region.status.beat >= 3
    assert "ImportError: moved" in caplog.text


def test_slow_metrics_cost_one_call_in_minutes(active: Region, stats: FakeStats) -> None:
    """The agent's own work has a deadline, the lease. After one slow call, it skips the others for minutes."""
    stats.takes_s = 2.0
    active.turn(30)
    assert stats.calls == 1
    assert active.status.beat >= 29


def test_a_slow_counter_is_not_counted_twice(metrics: Metrics, stats: FakeStats) -> None:
    """The count arrived, although the call took too long."""
    stats.takes_s = 0.22
    metrics.publish(replace(FIGURES, held=7))
    assert stats.calls == 5
    assert stats.counters == {"mwaa_dr.agent_heartbeat": 1}
    stats.takes_s = 0.0
    stats.clock.advance(600)
    metrics.publish(FIGURES)
    assert stats.counters == {"mwaa_dr.agent_heartbeat": 1}


def test_without_metrics_nothing_is_published(pair: Pair, stats: FakeStats) -> None:
    """An agent without metrics takes its turns in the same way."""
    pair.there.turn(4)
    assert pair.there.status.beat >= 3
    assert stats.calls == 0
