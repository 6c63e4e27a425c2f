from __future__ import annotations

import pytest

from tests.unit.core.readiness.ready import ReadySet


@pytest.fixture
def ready() -> ReadySet:
    return ReadySet.build()
