"""When the role may move: the arithmetic of the lease, without a clock."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from airflow_provider_mwaa_dr.core.lease import (
    Closing,
    awaited,
    fence_file_s,
    has_acknowledged,
    is_ready_to_resume,
    live_have_acknowledged,
)
from airflow_provider_mwaa_dr.core.ports import AgentStatus

CLOSING = Closing(version=5, gate_since=100.0, fence_since=110.0, lease_s=60.0, gate_commit_s=2.0)


def agent(job: str, version: int, *, listed: tuple[str, ...] = ("1", "2"), **changes: object) -> AgentStatus:
    status = AgentStatus(
        region="us-east-2", job=job, host="h", at=datetime(2026, 3, 1, tzinfo=timezone.utc), beat=1, version=version,
        epoch=0, provider_version="1", airflow_version="3", schedulers=listed, fence_file_s=3.0,
    )  # fmt: skip
    return replace(status, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("agents", "is_known", "is_known_to_the_live"),
    [
        pytest.param([], False, False, id="no item"),
        pytest.param([agent("1", 5), agent("2", 6)], True, True, id="all"),
        pytest.param([agent("1", 5), agent("2", 4)], False, False, id="one is behind"),
        pytest.param([agent("1", 5)], False, False, id="a listed one has no item"),
        pytest.param([agent("1", 5, listed=("1",)), agent("2", 4)], False, True, id="one that is not listed is behind"),
        pytest.param([agent("1", 5, listed=("1",)), agent("2", 0, gone=True)], True, True, id="one has ended"),
        pytest.param([agent("1", 5), agent("2", 0, gone=True)], True, True, id="one has ended, still listed"),
        pytest.param([agent("1", 5, listed=()), agent("2", 5, listed=())], False, False, id="no scheduler is listed"),
        pytest.param([agent("1", 5, gone=True), agent("2", 5, gone=True)], False, False, id="all have ended"),
    ],
)
def test_every_item_has_to_acknowledge(
    agents: list[AgentStatus], *, is_known: bool, is_known_to_the_live: bool
) -> None:
    """
    Every heartbeat item must acknowledge, also of an unlisted scheduler. Every listed scheduler must have an item.
    """
    assert has_acknowledged(agents, 5) is is_known
    assert live_have_acknowledged(agents, 5) is is_known_to_the_live


def test_the_role_moves_when_gate_and_fence_are_closed() -> None:
    """The gate closes by acknowledgement or lease, the fence by the age of its file. Each wait is a tenth longer."""
    known, late = [agent("1", 5, listed=("1",))], [agent("1", 5, listed=("1",)), agent("2", 4)]
    assert CLOSING.gate_closed_at(known) == 100
    assert CLOSING.gate_closed_at(late) == pytest.approx(100 + 66 + 2)
    assert CLOSING.role_may_move_at(known) == pytest.approx(113.3)
    assert CLOSING.role_may_move_at(late) == pytest.approx(168)
    assert math.isinf(replace(CLOSING, fence_since=None).role_may_move_at(known))


@pytest.mark.parametrize(("published", "used"), [(3.0, 3), (0.0, 0), (30.0, 30), (None, 30), (31.0, 30), (-1.0, 30)])
def test_the_longest_fence_file_of_the_region_counts(published: float | None, used: float) -> None:
    """An agent that does not publish a valid value counts with the largest value that the option allows."""
    assert fence_file_s([agent("1", 5, fence_file_s=published)]) == used
    assert fence_file_s([agent("1", 5, fence_file_s=1.0), agent("2", 5, fence_file_s=2.0)]) == 2
    assert fence_file_s([agent("1", 5, fence_file_s=math.nan)]) == 30
    assert fence_file_s([]) == 30


def test_a_silent_scheduler_of_the_target_is_waited_for_as_long_as_it_may_close_runs() -> None:
    """20 s, or a third of a shorter lease, and a tenth. The live schedulers must acknowledge in any case."""
    silent = [agent("1", 5, listed=("1",)), agent("2", 4)]

    def ready(agents: list[AgentStatus], now: float, lease_s: float = 60.0) -> bool:
        return is_ready_to_resume(agents, 5, since=100.0, now=now, lease_s=lease_s)

    assert ready([agent("1", 5, listed=("1",))], 100.0)
    assert (ready(silent, 121.9), ready(silent, 122.0)) == (False, True)
    assert (ready(silent, 104.3, lease_s=12.0), ready(silent, 104.4, lease_s=12.0)) == (False, True)
    assert not ready([agent("1", 5), agent("2", 4)], 1000.0)


def test_the_schedulers_that_are_waited_for_are_named() -> None:
    """Schedulers whose item is behind, and listed schedulers without an item."""
    assert awaited([agent("1", 5, listed=("1", "3")), agent("2", 4), agent("4", 0, gone=True)], 5) == ["2", "3"]
