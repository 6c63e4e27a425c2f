"""
The pytest plugin: the fixture ``mwaa_dr_state``, a DR set in memory for the tests of your DAGs.

pytest loads this module wherever the provider is installed, so it imports the rest of the provider only when a test
uses the fixture, and Airflow only when a test asks for a hook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook
    from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock


class DRSet:
    """
    A DR set of two regions whose state is in memory.

    :param active, standby: the two regions.
    :ivar store: the state table. With ``store.unreachable = True`` each call raises ``StateUnreachableError``.
    :ivar clock: the time of the set. It moves only when the test moves it.
    """

    store: InMemoryStateStore
    clock: ManualClock

    def __init__(self, active: str = "us-east-2", standby: str = "us-east-1") -> None:
        from airflow_provider_mwaa_dr.core import state  # noqa: PLC0415
        from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock  # noqa: PLC0415

        self.regions = (active, standby)
        self.clock = ManualClock()
        first = state.initial(active, lease_s=60.0, by="test", at=self.clock.now())
        self.store = InMemoryStateStore(first, regions=self.regions)

    @property
    def active_region(self) -> str:
        """The region that has the active role, also while the state table does not answer."""
        state = self.store.state
        assert state is not None  # noqa: S101  (the fake was created with a state)
        return state.active_region

    def fail_over(self, region: str | None = None) -> None:
        """
        Move the active role in one step, without the steps of a real failover.

        :param region: the region to fail over to; None for the standby.
        :raises ValueError: *region* is not a region of the set.
        :raises AlreadyActiveError: *region* is active.
        """
        from airflow_provider_mwaa_dr.core import state  # noqa: PLC0415

        target = region or next(each for each in self.regions if each != self.active_region)
        if target not in self.regions:
            raise ValueError(f"{target} is not one of the regions {', '.join(self.regions)}.")
        before = self.store.read()
        after = state.set_active_region(before, target, reason="test", by="test", at=self.clock.now())
        self.store.write(after, expected_version=before.version)

    def hook(self, region: str) -> DRStateHook:
        """Return the hook as a task in *region* gets it. Needs Airflow with its Amazon provider, and no connection."""
        from airflow_provider_mwaa_dr.core.config import parse_config  # noqa: PLC0415
        from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook  # noqa: PLC0415

        environments = ",".join(f"{each}=environment-{each}" for each in self.regions)
        config = parse_config({"state_table": "test", "region": region, "environments": environments})
        return DRStateHook(dr_config=config, store=self.store, clock=self.clock)


@pytest.fixture
def mwaa_dr_state() -> DRSet:
    """A DR set in memory, in which us-east-2 is active and us-east-1 is the standby."""
    return DRSet()
