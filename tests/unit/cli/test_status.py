"""``mwaa-dr status``."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from airflow_provider_mwaa_dr.cli.status import LOOK_S, watch_agents
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.testing import InMemoryStateStore
from tests.unit.cli.conftest import Shell


def test_the_document_has_the_keys_of_the_contract(mwaa_dr: Shell) -> None:
    """Key for key what scripts outside the project read."""
    document = mwaa_dr("status", "--json").document
    assert document == {
        "active_region": "us-east-2",
        "epoch": 0,
        "version": 1,
        "phase": "STEADY",
        "plan": None,
        "failover_count": 0,
        "last_updated": "2026-01-01T00:00:00Z",
        "regions": {
            "us-east-1": {
                "role": "standby",
                "agent_age_s": 0.0,
                "schedulers": 1,
                "fence_ok": None,
                "ledger_lag_s": None,
                "environment_status": "AVAILABLE",
            },
            "us-east-2": {
                "role": "active",
                "agent_age_s": 0.0,
                "schedulers": 1,
                "fence_ok": None,
                "ledger_lag_s": None,
                "environment_status": "AVAILABLE",
            },
        },
    }


def test_an_open_plan_is_shown(mwaa_dr: Shell) -> None:
    """Whoever looks sees that something is in progress, and how to go on with it."""
    state, now = mwaa_dr.set.state, mwaa_dr.set.clock.now()
    plan = transitions.Plan(
        id="p1",
        source="us-east-2",
        target="us-east-1",
        mode=transitions.Mode.AUTO,
        reason="flood",
        by="ana",
        owner="o",
        started_at=now,
    )
    mwaa_dr.store.write(transitions.claim(state, plan, at=now), expected_version=state.version)
    document = mwaa_dr("status", "--json").document
    assert document["phase"] == "DRAINING"
    assert document["plan"] == {
        "id": "p1",
        "from": "us-east-2",
        "to": "us-east-1",
        "mode": "auto",
        "reason": "flood",
        "by": "ana",
        "owner": "o",
        "started_at": "2026-01-01T00:00:02Z",
    }
    assert "PLAN OPEN: p1" in mwaa_dr("status").out


def test_the_silence_of_a_dead_region_goes_on_growing(mwaa_dr: Shell) -> None:
    """A number to alarm on: the age of the last heartbeat, and no scheduler counted."""
    mwaa_dr.set.agents["us-east-1"].alive = False
    mwaa_dr.set.clock.advance(100)
    found = mwaa_dr("status", "--json").document["regions"]
    assert found["us-east-1"]["agent_age_s"] >= 100
    assert found["us-east-1"]["schedulers"] == 0
    assert found["us-east-2"]["agent_age_s"] <= 2
    assert found["us-east-2"]["schedulers"] == 1


def test_a_region_that_does_not_answer_has_no_status(mwaa_dr: Shell) -> None:
    """null, the reason on stderr, and everything else as usual."""
    mwaa_dr.environment("us-east-1").unreachable = True
    result = mwaa_dr("status", "--json")
    assert result.code == 0
    assert result.document["regions"]["us-east-1"]["environment_status"] is None
    assert "us-east-1" in result.err


def test_a_scheduler_whose_clock_is_wrong_is_alive_if_its_heartbeat_changes() -> None:
    """Clocks of other machines are not trusted over what is seen."""
    shell = Shell()
    agent = shell.store.agents("us-east-2")[0]
    late = replace(agent, at=agent.at - timedelta(hours=1))
    store = InMemoryStateStore()
    store.put_agent(late)
    shell.set.clock.after(0.6, lambda: store.put_agent(replace(late, beat=late.beat + 1)))
    sights = watch_agents(store, ["us-east-2"], shell.set.clock, believable_s=2)
    assert sights["us-east-2"][0].age_s == 0.0


def test_a_silent_scheduler_is_watched_for_a_bounded_time() -> None:
    """Status answers soon, whatever has died."""
    shell = Shell()
    agent = shell.store.agents("us-east-2")[0]
    store = InMemoryStateStore()
    store.put_agent(replace(agent, at=agent.at - timedelta(hours=1)))
    began = shell.set.clock.monotonic()
    sights = watch_agents(store, ["us-east-2"], shell.set.clock, believable_s=2)
    assert sights["us-east-2"][0].age_s > 3600
    assert shell.set.clock.monotonic() - began <= LOOK_S + 0.25


def test_one_scheduler_without_fence_shows(mwaa_dr: Shell) -> None:
    """False wins over true and unknown."""
    mwaa_dr.set.agents["us-east-1"].changes = {"fence_ok": False}
    mwaa_dr.set.clock.advance(2)
    assert mwaa_dr("status", "--json").document["regions"]["us-east-1"]["fence_ok"] is False
    assert "MISSING" in mwaa_dr("status").out
