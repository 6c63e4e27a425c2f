"""Operators with a DR set of fakes."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.config import parse_config
from tests.unit.core.dr_set import World

SETTINGS = {"environments": "us-east-2=ohio,us-east-1=virginia", "heartbeat_s": "1"}


@pytest.fixture
def dr_set() -> World:
    return World.build()


def with_hook(operator: Any, dr_set: World, **settings: str) -> Any:
    """Return *operator* with a hook that uses the store, environments and clock of *dr_set*."""
    from airflow_provider_mwaa_dr.hooks.dr_state import DRStateHook

    operator.hook = DRStateHook(
        dr_config=parse_config({**SETTINGS, **settings}),
        store=dr_set.store,
        make_environment=lambda site: dr_set.environments[site.id],
        clock=dr_set.clock,
    )
    return operator
