"""How long a task is held: pure decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.gate import View
from airflow_provider_mwaa_dr.core.hold import (
    LATER_RETRY_S,
    RETRY_S,
    SILENT_ROUNDS,
    WORKER_ROUNDS,
    Hold,
    may_end,
    silence_of,
)
from airflow_provider_mwaa_dr.core.ports import AgentStatus
from airflow_provider_mwaa_dr.core.state import DRState, FieldProblem, Phase, initial, set_active_region

HERE, THERE = "us-east-1", "us-east-2"
AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
NEVER_ACTIVE = initial(THERE, lease_s=60, by="t", at=AT)
LEFT = set_active_region(initial(HERE, lease_s=60, by="t", at=AT), THERE, reason="r", by="b", at=AT)
SILENT = Hold(since=AT, rounds=99, silence="s", silent_rounds=SILENT_ROUNDS)


def view(state: DRState | None, **changes: Any) -> View:
    return replace(View(state=state, read_at=0.0, registered=frozenset({HERE, THERE})), **changes)


def agent(beat: int = 1) -> AgentStatus:
    return AgentStatus(
        region=HERE, job="7", host="h", at=AT, beat=beat, version=1, epoch=0, provider_version="1", airflow_version="3"
    )  # fmt: skip


def test_after_some_rounds_a_task_no_longer_occupies_its_worker() -> None:
    """It is deferred for minutes instead."""
    hold = Hold(since=AT)
    for _ in range(WORKER_ROUNDS - 1):
        hold = hold.next_round()
        assert (hold.is_long, hold.retry_s) == (False, RETRY_S)
    assert (hold.next_round().is_long, hold.next_round().retry_s) == (True, LATER_RETRY_S)
    assert hold.next_round().since == AT


def test_silence_is_counted_while_the_same_is_read() -> None:
    """A new heartbeat, another epoch, or a read that failed begins the count again."""
    found = view(NEVER_ACTIVE)
    silent = silence_of(found, [agent()], region=HERE)
    hold = Hold(since=AT).having_read(silent)
    assert hold.silent_rounds == 0
    hold = hold.having_read(silent).having_read(silence_of(replace(found, read_at=9.0), [agent()], region=HERE))
    assert (hold.silent_rounds, hold.silent_s) == (2, 2 * LATER_RETRY_S)
    for other in (
        "",
        silence_of(found, [agent(beat=2)], region=HERE),
        silence_of(found, [], region=HERE),
        silence_of(view(LEFT), [agent()], region=HERE),
        silence_of(replace(found, reconciled_epoch=0), [agent()], region=HERE),
    ):
        assert hold.having_read(other).silent_rounds == 0
    assert Hold(since=AT).having_read("").having_read("").silent_rounds == 0


def ends(found: View, *, hold: Hold = SILENT, began_at: datetime | None = AT + timedelta(hours=1)) -> bool:
    return may_end(hold, found, region=HERE, run_began_at=began_at)


@pytest.mark.parametrize("state", [NEVER_ACTIVE, LEFT])
def test_a_task_of_a_silent_standby_ends(state: DRState) -> None:
    """No agent settled the epoch for an hour, and no region will execute a run that began in a standby."""
    reconciled = None if state is NEVER_ACTIVE else 0
    assert ends(view(state, reconciled_epoch=reconciled))


@pytest.mark.parametrize(
    ("found", "changes"),
    [
        pytest.param(view(None), {}, id="no state"),
        pytest.param(view(initial(HERE, lease_s=60, by="t", at=AT)), {}, id="active"),
        pytest.param(view(NEVER_ACTIVE, problem="a copy"), {}, id="another environment"),
        pytest.param(view(NEVER_ACTIVE, problems=("x",)), {}, id="unusable item"),
        pytest.param(
            view(replace(NEVER_ACTIVE, problems=(FieldProblem("lease_s", "nan", "x"),))), {},
            id="unusable state",
        ),
        pytest.param(
            view(replace(NEVER_ACTIVE, active_region="us-est-2"), registered=frozenset({HERE})), {},
            id="no region is active",
        ),
        pytest.param(view(replace(NEVER_ACTIVE, phase=Phase.DRAINING)), {}, id="failover"),
        pytest.param(view(NEVER_ACTIVE, reconciled_epoch=0), {}, id="reconciled"),
        pytest.param(
            view(NEVER_ACTIVE), {"hold": replace(SILENT, silent_rounds=SILENT_ROUNDS - 1)}, id="soon"
        ),
        pytest.param(view(NEVER_ACTIVE), {"began_at": None}, id="unknown start"),
        pytest.param(
            view(replace(NEVER_ACTIVE, epoch=1), reconciled_epoch=0), {}, id="unknown failover"
        ),
        pytest.param(
            view(LEFT, reconciled_epoch=0), {"began_at": AT - timedelta(minutes=1)},
            id="began while active",
        ),
        pytest.param(
            view(LEFT, reconciled_epoch=0), {"began_at": AT + timedelta(seconds=30)},
            id="clocks may differ",
        ),
    ],
)  # fmt: skip
def test_any_other_task_is_held_on(found: View, changes: dict[str, Any]) -> None:
    """A run that another region may resume, or that this region may execute later, is never failed."""
    assert not ends(found, **changes)
