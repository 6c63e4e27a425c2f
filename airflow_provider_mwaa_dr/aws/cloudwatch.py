"""
Sends an agent's metrics to CloudWatch itself.

MWAA's own collector has a fixed list of Airflow's metrics, so others most likely never arrive
(https://docs.aws.amazon.com/mwaa/latest/userguide/access-metrics-cw.html).
"""

from __future__ import annotations

from typing import Any

from airflow_provider_mwaa_dr.aws.session import metrics_client
from airflow_provider_mwaa_dr.core.ports import Clock

NAMESPACE = "MWAA-DR"
SEND_EVERY_S = 30.0
"""An alarm's period is a minute, so each period has a value of each agent."""
_SECONDS = frozenset({"state_age", "ledger_lag"})


class CloudWatchStats:
    """
    Collects values, and sends them at most twice a minute in one request: gauges as their maximum, counts as their sum.

    It has the methods of Airflow's metrics. Each may raise an error of boto3, and the values since the last request are
    then lost: a metric is a sample.

    :param environment: name of the MWAA environment, the only dimension.
    :param client: boto3's client; None: one without retries and with timeouts of a second.
    """

    def __init__(self, region: str, environment: str, clock: Clock, *, client: Any = None) -> None:
        self._region = region
        self._environment = environment
        self._clock = clock
        self._client = client
        self._gauges: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._sent_at = clock.monotonic()

    def gauge(self, stat: str, value: float) -> None:
        """Keep the highest value until the next request."""
        self._gauges[stat] = max(value, self._gauges.get(stat, value))
        self._send_if_due()

    def incr(self, stat: str, count: int) -> None:
        """Add to the count until the next request."""
        self._counts[stat] = self._counts.get(stat, 0) + count
        self._send_if_due()

    def _send_if_due(self) -> None:
        if self._clock.monotonic() - self._sent_at < SEND_EVERY_S:
            return
        self._sent_at = self._clock.monotonic()
        values = {**self._gauges, **self._counts}
        self._gauges, self._counts = {}, {}
        if self._client is None:
            self._client = metrics_client(self._region)
        now = self._clock.now()
        self._client.put_metric_data(
            Namespace=NAMESPACE,
            MetricData=[
                {
                    "MetricName": name,
                    "Dimensions": [{"Name": "Environment", "Value": self._environment}],
                    "Timestamp": now,
                    "Value": float(value),
                    "Unit": "Seconds" if name in _SECONDS else "None" if name in {"role", "epoch"} else "Count",
                }
                for name, value in sorted(values.items())
            ],
        )
