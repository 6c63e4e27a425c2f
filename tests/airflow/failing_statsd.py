"""A statsd client with a bug, as a user could configure it for Airflow."""

from __future__ import annotations

from typing import Any

from statsd import StatsClient


class FailingClient(StatsClient):  # type: ignore[misc]
    """Raises for every gauge."""

    def gauge(self, *args: Any, **kwargs: Any) -> None:
        """Fail."""
        raise RuntimeError("no gauges here")
