"""Items of the state table that other versions of the provider write or read."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

from airflow_provider_mwaa_dr.aws.dynamodb.items import from_item, state_from_item, state_to_item, to_item
from airflow_provider_mwaa_dr.core.state import Mode, Plan, Stop, announce, claim, initial

AT = datetime(2026, 2, 26, 10, 30, tzinfo=timezone.utc)
PLAN = Plan(
    id="f-1", source="us-east-2", target="us-east-1", mode=Mode.AUTO, reason="r", by="b", owner="o", started_at=AT
)
CLAIMED = claim(initial("us-east-2", lease_s=10.0, by="test", at=AT), PLAN, at=AT)


def test_an_agent_of_an_older_version_reads_the_last_set_of_stopped_runs_in_the_plan() -> None:
    """It reads the set only from the plan."""
    state = announce(announce(CLAIMED, "s-1", had_ended=False, at=AT), "s-2", had_ended=True, at=AT)
    assert from_item(state_to_item(state, write_token="t"))["plan"]["stopped"] == "s-1"


def test_a_set_of_stopped_runs_that_an_engine_of_an_older_version_announces_counts() -> None:
    """That version stores the set in the plan, and without an epoch."""
    values = from_item(state_to_item(replace(CLAIMED, epoch=3), write_token="t"))
    del values["state_id"]
    values["plan"]["stopped"] = "s-1"
    state = state_from_item(to_item("ACTIVE_REGION", values), default_lease_s=60)
    assert state.stops == (Stop(set_id="s-1", epoch=3),)


def test_an_announcement_that_cannot_be_read_is_a_problem_of_the_state() -> None:
    """The region holds, as for every unusable value: it cannot know which runs were stopped."""
    values = from_item(state_to_item(CLAIMED, write_token="t"))
    del values["state_id"]
    for broken in ("s-1", [{"set_id": "s-1"}], [{"set_id": "s-1", "epoch": 0, "had_ended": "no"}], [None]):
        state = state_from_item(to_item("ACTIVE_REGION", values | {"stops": broken}), default_lease_s=60)
        assert [problem.field for problem in state.problems] == ["stops"]
        assert state.stops == ()
