"""What the agent publishes through Airflow's metrics, and that nothing hangs on it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace

import pytest

from airflow_provider_mwaa_dr.aws.template import alarms_template
from airflow_provider_mwaa_dr.core.gate import Role
from airflow_provider_mwaa_dr.plugins.agent import AgentLoop, GateCounts
from airflow_provider_mwaa_dr.plugins.metrics import Figures, Metrics
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.documents import page
from tests.unit.plugins.test_taking_up import HERE, THERE, Pair, Region

FIGURES = Figures(
    role=Role.ACTIVE, epoch=3, state_age_s=1.26, ledger_lag_s=2.0, heartbeats=1, held=0, skipped=0, closed=0
)


@dataclass
class FakeStats:
    """Airflow's metrics: what came since the last look, the sum of each counter."""

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
    """The active region's agent, with metrics."""
    return start(pair.there, metrics)


def start(region: Region, metrics: Metrics, counts: GateCounts | None = None) -> Region:
    """Have a new agent that publishes."""
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


# What is published.


def test_an_active_region_tells_role_epoch_age_and_lag(active: Region, stats: FakeStats) -> None:
    """All of it from the turn that has just been done."""
    active.turn(4)
    assert stats.gauges == {
        "mwaa_dr.role": 1,
        "mwaa_dr.epoch": 0,
        "mwaa_dr.state_age": 0.0,
        "mwaa_dr.ledger_lag": 0.0,
    }
    assert stats.counters == {"mwaa_dr.agent_heartbeat": active.status.beat}


def test_a_standby_has_no_lag(pair: Pair, metrics: Metrics, stats: FakeStats) -> None:
    """It has nothing to tell; how long ago it told something, when it was active, is no lag."""
    here = start(pair.here, metrics)
    here.turn(4)
    assert stats.gauges == {"mwaa_dr.role": 0, "mwaa_dr.epoch": 0, "mwaa_dr.state_age": 0.0}
    there = start(pair.there, metrics)
    there.turn(4)
    assert stats.gauges.pop("mwaa_dr.ledger_lag") == 0.0
    pair.flip(HERE)
    there.turn(4)
    assert stats.gauges == {"mwaa_dr.role": 0, "mwaa_dr.epoch": 1, "mwaa_dr.state_age": 0.0}


def test_only_the_agent_that_tells_the_ledger_has_a_lag(active: Region, stats: FakeStats) -> None:
    """Of two schedulers the second has told nothing since the first one does."""
    active.turn(4)
    stats.gauges.clear()
    active.db.alive_schedulers = lambda: ("0", "1")  # type: ignore[attr-defined]
    active.turn(4)
    assert set(stats.gauges) == {"mwaa_dr.role", "mwaa_dr.epoch", "mwaa_dr.state_age"}


def test_the_age_grows_and_heartbeats_stop_while_the_table_is_out_of_reach(active: Region, stats: FakeStats) -> None:
    """That is what the two alarms look at: a failed turn is published, too."""
    active.turn(4)
    beats = stats.counters["mwaa_dr.agent_heartbeat"]
    active.pair.store.unreachable = True
    active.turn(4)
    assert stats.gauges["mwaa_dr.state_age"] == active.pair.clock.monotonic() - active.loop.view.read_at - 5  # type: ignore[union-attr]
    assert stats.gauges["mwaa_dr.state_age"] >= 15
    assert stats.gauges["mwaa_dr.role"] == 1
    assert stats.counters["mwaa_dr.agent_heartbeat"] == beats


def test_what_was_told_under_another_epoch_is_no_lag(active: Region, stats: FakeStats) -> None:
    """A region that comes back to its role has a ledger again once it has settled its runs."""
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


def test_an_agent_that_never_read_the_state_tells_how_long_it_has_tried(active: Region, stats: FakeStats) -> None:
    """No role and no epoch, and an age that becomes an alarm."""
    active.pair.store.unreachable = True
    active.turn(4)
    assert stats.gauges == {"mwaa_dr.state_age": 15.0}
    assert stats.counters == {}


def test_a_ledger_that_takes_nothing_falls_behind(active: Region, stats: FakeStats) -> None:
    """Also one that has never taken anything, and without which the region has continued."""
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
    """What stands still sends nothing; a new agent in the same scheduler begins no count anew."""
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
    """Every metric is in the documents' table, with its kind, and an alarm asks for none that does not exist."""
    metrics.publish(replace(FIGURES, held=1, skipped=1, closed=1))
    rows = re.findall(r"^\| `(mwaa_dr\.[a-z_]+)` \| (gauge|counter)", page("reference/metrics"), re.MULTILINE)
    assert rows == [*((name, "gauge") for name in stats.gauges), *((name, "counter") for name in stats.counters)]
    asked = re.findall(r'"\$\{MetricPrefix\}([a-z_]+)"', alarms_template())
    assert len(asked) == 4
    assert {f"mwaa_dr.{name}" for name in asked} <= {name for name, _ in rows}


# What goes wrong.


def test_nothing_hangs_on_metrics_that_raise(
    active: Region, stats: FakeStats, caplog: pytest.LogCaptureFixture
) -> None:
    """The turn is done, the error is logged once, the next attempt comes minutes later, and no count is lost."""
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


def test_metrics_that_cannot_be_found_are_metrics_that_raise(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever an Airflow of the future has moved."""

    def find() -> FakeStats:
        raise ImportError("moved")

    region = start(pair.there, Metrics(find, pair.clock))
    region.turn(4)
    assert region.status.beat >= 3
    assert "ImportError: moved" in caplog.text


def test_slow_metrics_cost_one_call_in_minutes(active: Region, stats: FakeStats) -> None:
    """The agent's own work has a lease; what one call took is not repeated for the others."""
    stats.takes_s = 2.0
    active.turn(30)
    assert stats.calls == 1
    assert active.status.beat >= 29


def test_a_slow_counter_is_not_counted_twice(metrics: Metrics, stats: FakeStats) -> None:
    """It arrived, late, and was the one that took too long."""
    stats.takes_s = 0.22
    metrics.publish(replace(FIGURES, held=7))
    assert stats.calls == 5
    assert stats.counters == {"mwaa_dr.agent_heartbeat": 1}
    stats.takes_s = 0.0
    stats.clock.advance(600)
    metrics.publish(FIGURES)
    assert stats.counters == {"mwaa_dr.agent_heartbeat": 1}


def test_without_metrics_nothing_is_published(pair: Pair, stats: FakeStats) -> None:
    """An agent that is given none has its turns all the same."""
    pair.there.turn(4)
    assert pair.there.status.beat >= 3
    assert stats.calls == 0
