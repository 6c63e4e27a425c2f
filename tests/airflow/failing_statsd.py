"""A statsd client that somebody wrote for their Airflow, with a mistake in it."""

from __future__ import annotations

from typing import Any

from statsd import StatsClient


class FailingClient(StatsClient):  # type: ignore[misc]
    """Raises for every gauge."""

    def gauge(self, *args: Any, **kwargs: Any) -> None:
        """Fail."""
        raise RuntimeError("no gauges here")
