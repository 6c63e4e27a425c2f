"""The dashboards show exactly the metrics that an agent sends to CloudWatch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from airflow_provider_mwaa_dr.agent.metrics import Figures, Metrics
from airflow_provider_mwaa_dr.aws.cloudwatch import NAMESPACE, SEND_EVERY_S, CloudWatchStats
from airflow_provider_mwaa_dr.aws.deploy.template import alarms_template
from airflow_provider_mwaa_dr.core.gate import Role
from airflow_provider_mwaa_dr.testing import ManualClock

GRAFANA = Path(__file__).parents[4] / "packaging" / "grafana" / "mwaa-dr.json"
GAUGES = {"role", "epoch", "state_age", "ledger_lag"}


class Client:
    """CloudWatch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.namespaces: set[str] = set()

    def put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> None:
        self.namespaces.add(Namespace)
        self.rows += MetricData


def sent() -> tuple[set[str], dict[str, str]]:
    """Return the namespace, and the dimension of each metric that an agent sends in an eventful minute."""
    clock, client = ManualClock(), Client()
    stats = CloudWatchStats("us-east-2", "etl", clock, client=client)
    metrics = Metrics(lambda: stats, clock, prefix="")
    for number in (1, 2):
        clock.advance(SEND_EVERY_S)
        metrics.publish(
            Figures(
                role=Role.ACTIVE, epoch=number, state_age_s=1.0, ledger_lag_s=1.0, heartbeats=number, held=number,
                skipped=number, closed=number, hold_alarms=number,
            )
        )  # fmt: skip
        metrics.publish(Figures(role=Role.ACTIVE, epoch=1, state_age_s=1.0, ledger_lag_s=1.0, heartbeats=number,
                                held=number, skipped=number, closed=number, hold_alarms=number))  # fmt: skip
    clock.advance(SEND_EVERY_S)
    stats.gauge("role", 1)
    return client.namespaces, {row["MetricName"]: row["Dimensions"][0]["Name"] for row in client.rows}


def body() -> dict[str, Any]:
    """Return the dashboard of the template, with the values of its parameters."""
    text = alarms_template().partition("DashboardBody: !Sub |")[2]
    values = {"AWS::Region": "us-east-2", "EnvironmentName": "etl", "LeaseSeconds": "60", "LedgerLagSeconds": "120"}
    found: dict[str, Any] = json.loads(re.sub(r"\$\{([\w:]+)\}", lambda match: values[match.group(1)], text))
    return found


def assert_statistics(shown: dict[str, str]) -> None:
    """A gauge is shown as its maximum, a counter as its sum."""
    assert shown == {name: "Maximum" if name in GAUGES else "Sum" for name in shown}


def test_the_dashboard_in_cloudwatch_shows_what_agents_send() -> None:
    namespaces, names = sent()
    rows = [row for widget in body()["widgets"] for row in widget["properties"]["metrics"]]
    assert {row[0] for row in rows} == namespaces == {NAMESPACE}
    assert {row[1]: row[2] for row in rows} == names
    assert {row[3] for row in rows} == {"etl"}
    assert_statistics({row[1]: row[4]["stat"] for row in rows})


def test_widgets_do_not_overlap() -> None:
    """CloudWatch has 24 columns."""
    cells = [
        (widget["x"] + column, widget["y"] + row)
        for widget in body()["widgets"]
        for column in range(widget["width"])
        for row in range(widget["height"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_dashboard_in_grafana_shows_what_agents_send() -> None:
    namespaces, names = sent()
    dashboard = json.loads(GRAFANA.read_text(encoding="utf-8"))
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert {target["namespace"] for target in targets} == namespaces
    assert {target["metricName"]: next(iter(target["dimensions"])) for target in targets} == names
    assert_statistics({target["metricName"]: target["statistic"] for target in targets})
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)\b(?!\()", json.dumps(dashboard)))
    assert used == variables


def test_each_alarm_is_on_a_metric_that_agents_send() -> None:
    """A metric that was renamed would leave its alarm without data."""
    _, names = sent()
    assert set(re.findall(r"MetricName: (\w+)", alarms_template())) <= set(names)
