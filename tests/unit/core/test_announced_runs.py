"""The runs that a failover announces."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.announced_runs import get_announced_runs, put_announced_runs
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock


def test_announced_runs_are_recorded_once() -> None:
    """Sorted, without duplicates. A second write does not change them: an engine that died may have announced them."""
    store, at = InMemoryStateStore(), ManualClock().now()
    assert get_announced_runs(store, "p-stopped-1") is None
    put_announced_runs(store, "p-stopped-1", ["b r1", "a r1", "b r1"], region="us-east-2", at=at)
    put_announced_runs(store, "p-stopped-1", ["z r9"], region="us-east-2", at=at)
    assert get_announced_runs(store, "p-stopped-1") == ("a r1", "b r1")
