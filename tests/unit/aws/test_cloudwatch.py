"""Metrics that an agent sends to CloudWatch itself."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_mwaa_dr.agent.metrics import Figures, Metrics, Publishers
from airflow_provider_mwaa_dr.aws.cloudwatch import CloudWatchStats
from airflow_provider_mwaa_dr.core.gate import Role
from airflow_provider_mwaa_dr.testing import ManualClock


class Client:
    """Keeps the requests, and fails while *error* is set."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def put_metric_data(self, **request: Any) -> None:
        self.sent.append(request)
        if self.error is not None:
            raise self.error

    def values(self, at: int) -> dict[str, float]:
        return {each["MetricName"]: each["Value"] for each in self.sent[at]["MetricData"]}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def stats(clock: ManualClock, client: Client) -> CloudWatchStats:
    return CloudWatchStats("us-east-1", "etl", clock, client=client)


def test_values_are_collected_for_half_a_minute(stats: CloudWatchStats, clock: ManualClock, client: Client) -> None:
    """Gauges as their maximum, counts as their sum, in one request."""
    for age, count in ((3.0, 1), (9.0, 2), (1.0, 4)):
        stats.gauge("state_age", age)
        stats.incr("held_runs", count)
        clock.advance(5)
    assert client.sent == []
    clock.advance(20)
    stats.gauge("role", 1)
    assert client.values(0) == {"state_age": 9.0, "held_runs": 7.0, "role": 1.0}
    assert client.sent[0]["Namespace"] == "MWAA-DR"
    first = client.sent[0]["MetricData"][0]
    assert first["Dimensions"] == [{"Name": "Environment", "Value": "etl"}]
    assert {each["MetricName"]: each["Unit"] for each in client.sent[0]["MetricData"]} == {
        "state_age": "Seconds", "held_runs": "Count", "role": "None"
    }  # fmt: skip
    clock.advance(31)
    stats.gauge("role", 0)
    assert client.values(1) == {"role": 0.0}


def test_an_error_of_cloudwatch_affects_nothing_else(clock: ManualClock, client: Client) -> None:
    """Airflow's own metrics go on, and the agent tries CloudWatch again after some minutes."""
    seen: list[str] = []

    class Airflow:
        def gauge(self, stat: str, value: float) -> None:
            seen.append(stat)

        def incr(self, stat: str, count: int) -> None:
            seen.append(stat)

    stats = CloudWatchStats("us-east-1", "etl", clock, client=client)
    publisher = Publishers(Metrics(lambda: stats, clock, prefix=""), Metrics(Airflow, clock))
    client.error = RuntimeError("AccessDenied")
    for beat in range(100):
        clock.advance(5)
        publisher.publish(
            Figures(
                role=Role.STANDBY, epoch=1, state_age_s=1.0, ledger_lag_s=None, heartbeats=beat, held=0, skipped=0,
                closed=0,
            )
        )  # fmt: skip
    assert len(client.sent) == 2
    assert seen.count("mwaa_dr.role") == 100
