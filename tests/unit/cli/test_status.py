"""``mwaa-dr status``."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_mwaa_dr.cli import main
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.ports import (
    FENCE_LOADS,
    IDENTITY_CLAIMS,
    UNPUBLISHED_EVENTS,
    FenceLoad,
    HeldTasks,
    IdentityClaim,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.status import WATCH_S, watch_agents
from airflow_provider_mwaa_dr.testing import InMemoryStateStore
from tests.unit.cli.conftest import Shell, Terminal


class Window(Terminal):
    """A terminal that is closed after a number of states."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self._left = states

    def write(self, text: str) -> int:
        if self._left == 0:
            raise OSError(5, "Input/output error")
        self._left -= text == "\n"
        return super().write(text)


def test_watch_shows_the_state_again_and_again(mwaa_dr: Shell) -> None:
    """Each state replaces the last one on the terminal. An error is shown, and the watch continues."""
    out, store, clock = Window(3), mwaa_dr.store, mwaa_dr.set.clock
    clock.after(20, lambda: setattr(store, "unreachable", True))
    clock.after(50, lambda: setattr(store, "unreachable", False))
    runtime = replace(mwaa_dr.runtime(out, io.StringIO(), io.StringIO()), make_store=lambda _: store)
    assert main(["status", "--watch", "30"], runtime=runtime) == 0
    states = out.getvalue().split("\033[H\033[2J")[1:]
    assert ["us-east-2 is active" in each for each in states] == [True, False, True]
    assert "! " in states[1]
    assert states[0].startswith("2026-01-01T00:00:02Z, every 30 s, Ctrl-C ends it.")


def test_watch_ends_at_ctrl_c_without_an_error(mwaa_dr: Shell) -> None:
    """The exit code is 0. Without a terminal, the states follow each other."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    mwaa_dr.set.clock.after(7, interrupt)
    result = mwaa_dr("status", "--watch")
    assert result.code == 0
    assert result.out.count("us-east-2 is active") == 2
    assert "\033" not in result.out


@pytest.mark.parametrize("words", [("--watch", "--json"), ("--watch", "0"), ("--watch", "soon")])
def test_a_wrong_watch_is_wrong_usage(mwaa_dr: Shell, words: tuple[str, ...]) -> None:
    """Many states are not one document."""
    assert mwaa_dr("status", *words).code == 2


def test_a_narrow_terminal_gets_a_block_for_each_region(mwaa_dr: Shell) -> None:
    """40 columns: no line is longer."""
    mwaa_dr.environ = {**mwaa_dr.environ, "COLUMNS": "40"}
    result = mwaa_dr("status")
    assert "REGION       us-east-1\nENVIRONMENT  virginia\nROLE         standby\n" in result.out
    assert max(map(len, result.out.splitlines())) <= 40


def test_the_document_has_the_keys_of_the_contract(mwaa_dr: Shell) -> None:
    """It has exactly the keys that external scripts read."""
    document = mwaa_dr("status", "--json").document
    assert document == {
        "active_region": "us-east-2",
        "epoch": 0,
        "version": 1,
        "phase": "STEADY",
        "plan": None,
        "failover_count": 0,
        "last_updated": "2026-01-01T00:00:00Z",
        "problems": [],
        "regions": {
            "us-east-1": {
                "role": "standby",
                "agent_age_s": 0.0,
                "schedulers": 1,
                "fence_ok": None,
                "ledger_lag_s": None,
                "environment_status": "AVAILABLE",
                "ledger_error": None,
                "final": None,
                "held_because": None,
                "waiting": [],
                "repeats": [],
                "unread": [],
                "inventory_error": None,
                "settings_problem": None,
                "history_error": None,
                "history": [],
                "exempt": None,
                "unguarded_triggerers": [],
                "leftovers": 0,
                "reconciled_epoch": 0,
                "closed": 0,
                "problems": [],
                "claims": [],
                "ledger_wait_s": None,
                "unpublished": None,
                "held_tasks": None,
            },
            "us-east-2": {
                "role": "active",
                "agent_age_s": 0.0,
                "schedulers": 1,
                "fence_ok": None,
                "ledger_lag_s": None,
                "environment_status": "AVAILABLE",
                "ledger_error": None,
                "final": None,
                "held_because": None,
                "waiting": [],
                "repeats": [],
                "unread": [],
                "inventory_error": None,
                "settings_problem": None,
                "history_error": None,
                "history": [],
                "exempt": None,
                "unguarded_triggerers": [],
                "leftovers": 0,
                "reconciled_epoch": 0,
                "closed": 0,
                "problems": [],
                "claims": [],
                "ledger_wait_s": None,
                "unpublished": None,
                "held_tasks": None,
            },
        },
        "unreadable": [],
    }


def _plan(mwaa_dr: Shell, *, mode: transitions.Mode = transitions.Mode.GRACEFUL) -> transitions.Plan:
    return transitions.Plan(
        id="p1",
        source="us-east-2",
        target="us-east-1",
        mode=mode,
        reason="flood",
        by="ana",
        owner="o",
        started_at=mwaa_dr.set.clock.now(),
    )


def _write(mwaa_dr: Shell, new: transitions.DRState) -> None:
    mwaa_dr.store.write(new, expected_version=mwaa_dr.set.state.version)


def _status_after(mwaa_dr: Shell, region: str, *, after_s: float = 2, **heartbeat: object) -> str:
    """Return the output of status after an agent of *region* has sent this heartbeat."""
    mwaa_dr.set.agents[region].changes = heartbeat
    mwaa_dr.set.clock.advance(after_s)
    return mwaa_dr("status").out


def test_an_open_plan_is_shown(mwaa_dr: Shell) -> None:
    """Status shows the open plan, and the command that resumes it."""
    state, now = mwaa_dr.set.state, mwaa_dr.set.clock.now()
    _write(mwaa_dr, transitions.claim(state, _plan(mwaa_dr, mode=transitions.Mode.AUTO), at=now))
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
        "hold": None,
        "silent_s": 0.0,
    }
    assert "PLAN OPEN: p1" in mwaa_dr("status").out


def test_the_silence_of_a_dead_region_grows(mwaa_dr: Shell) -> None:
    """An alarm can use the age of the last heartbeat. The dead scheduler is not counted."""
    mwaa_dr.set.agents["us-east-1"].alive = False
    mwaa_dr.set.clock.advance(100)
    found = mwaa_dr("status", "--json").document["regions"]
    assert found["us-east-1"]["agent_age_s"] >= 100
    assert found["us-east-1"]["schedulers"] == 0
    assert found["us-east-2"]["agent_age_s"] <= 2
    assert found["us-east-2"]["schedulers"] == 1


def test_status_names_an_environment_that_claims_the_wrong_region(mwaa_dr: Shell) -> None:
    """
    The message has the environment, the claimed region, the contradiction and the advice. A dead agent's claim is not
    shown.
    """
    claim = IdentityClaim(
        region="us-east-2",
        environment="virginia",
        aws_region="us-east-1",
        job="7",
        at=mwaa_dr.set.clock.now(),
        beat=1,
        problem="virginia (us-east-1) counts as us-east-2 by [dr] region, but AWS_REGION is us-east-1; unset it",
    )
    mwaa_dr.store.put(IDENTITY_CLAIMS, claim)
    assert f"us-east-1\n! an environment holds every run: {claim.problem}" in mwaa_dr("status").out
    (found,) = mwaa_dr("status", "--json").document["regions"]["us-east-1"]["claims"]
    assert found == {
        "region": "us-east-2",
        "environment": "virginia",
        "aws_region": "us-east-1",
        "problem": claim.problem,
    }
    mwaa_dr.set.clock.advance(60)
    assert "holds every run" not in mwaa_dr("status").out


def test_a_region_that_does_not_answer_has_no_status(mwaa_dr: Shell) -> None:
    """Its status is null and the reason is on stderr. The rest is complete."""
    mwaa_dr.environment("us-east-1").unreachable = True
    result = mwaa_dr("status", "--json")
    assert result.code == 0
    assert result.document["regions"]["us-east-1"]["environment_status"] is None
    assert "us-east-1" in result.err


def test_a_scheduler_whose_clock_is_wrong_is_alive_if_its_heartbeat_changes() -> None:
    """A change that status sees counts more than the time of another machine's clock."""
    shell = Shell()
    agent = shell.store.agents("us-east-2")[0]
    late = replace(agent, at=agent.at - timedelta(hours=1))
    store = InMemoryStateStore()
    store.put_agent(late)
    shell.set.clock.after(0.6, lambda: store.put_agent(replace(late, beat=late.beat + 1)))
    watched = watch_agents(store, ["us-east-2"], shell.set.clock, believable_s=2)
    assert watched["us-east-2"][0].age_s == 0.0


def test_a_silent_scheduler_is_watched_for_a_bounded_time() -> None:
    """Status answers within a fixed time, even if every agent is dead."""
    shell = Shell()
    agent = shell.store.agents("us-east-2")[0]
    store = InMemoryStateStore()
    store.put_agent(replace(agent, at=agent.at - timedelta(hours=1)))
    began = shell.set.clock.monotonic()
    watched = watch_agents(store, ["us-east-2"], shell.set.clock, believable_s=2)
    assert watched["us-east-2"][0].age_s > 3600
    assert shell.set.clock.monotonic() - began <= WATCH_S + 0.25


def test_one_scheduler_without_fence_is_shown(mwaa_dr: Shell) -> None:
    """False takes precedence over true and unknown."""
    mwaa_dr.set.agents["us-east-1"].changes = {"fence_ok": False}
    mwaa_dr.set.clock.advance(2)
    assert mwaa_dr("status", "--json").document["regions"]["us-east-1"]["fence_ok"] is False
    assert "MISSING" in mwaa_dr("status").out


def test_a_stalled_plan_is_shown_with_advice(mwaa_dr: Shell) -> None:
    """It is an alarm only after the owner has been silent for the time after which another caller may take over."""
    _write(mwaa_dr, transitions.claim(mwaa_dr.set.state, _plan(mwaa_dr), at=mwaa_dr.set.clock.now()))
    mwaa_dr.set.clock.advance(5)
    calm = mwaa_dr("status").out
    mwaa_dr.set.clock.advance(60)
    stalled = mwaa_dr("status").out

    assert "Its owner sent a heartbeat 5 s ago." in calm
    assert "!" not in calm
    assert "! It is stalled: its owner has been silent for 65 s, and no new run starts in any region." in stalled
    for words in (
        "DRAINING: us-east-2 starts no new run",
        "mwaa-dr failover us-east-1",
        "Cancel it: mwaa-dr failover",
    ):
        assert words in calm
        assert words in stalled
    assert mwaa_dr("status", "--json").document["plan"]["silent_s"] == 65.0


def _halted(mwaa_dr: Shell, stage: str, *, after_s: float) -> str:
    """Return what status prints after a failover has been halted for so long."""
    mwaa_dr("failover", "us-east-1", "--reason", "flood", "--yes", "--until", stage, "--hold-s", "300")
    mwaa_dr.set.clock.advance(after_s)
    return mwaa_dr("status").out


def test_a_halted_plan_shows_since_when_and_how_to_go_on(mwaa_dr: Shell) -> None:
    out = _halted(mwaa_dr, "drained", after_s=100)
    at = mwaa_dr("status", "--json").document["last_updated"]
    assert "  DRAINING: us-east-2 starts nothing, and us-east-1 is not active yet." in out
    assert f"  It is halted at drained for steps of users, since {at} (100 s ago). No region executes." in out
    assert "  In 200 s, the agents raise an alarm. No component promotes us-east-1." in out
    assert "  Continue it: mwaa-dr failover us-east-1 --reason TEXT" in out
    assert "  Continue it to the next stage: mwaa-dr failover us-east-1 --until promoted --reason TEXT" in out
    assert "  Cancel it: mwaa-dr failover us-east-2 --reason TEXT" in out
    assert "stalled" not in out


def test_a_drained_plan_whose_time_is_over_is_an_alarm(mwaa_dr: Shell) -> None:
    out = _halted(mwaa_dr, "drained", after_s=301)
    assert "! No caller has continued it within 300 s. Find out whether your data has moved to us-east-1" in out


def test_a_promoted_plan_shows_when_its_agent_finishes_it(mwaa_dr: Shell) -> None:
    out = _halted(mwaa_dr, "promoted", after_s=100)
    assert "  PROMOTING: us-east-1 is active and starts nothing yet." in out
    assert "  In 200 s, an agent of us-east-1 finishes it, because 300 s were allowed." in out
    assert "  Fail back instead: mwaa-dr failover us-east-2 --reason TEXT" in out
    mwaa_dr.set.clock.advance(300)
    out = mwaa_dr("status").out
    assert "  The time is over: an agent of us-east-1 finishes it, because 300 s were allowed." in out
    hold = mwaa_dr("status", "--json").document["plan"]["hold"]
    assert hold == {"stage": "promoted", "is_halted": True, "hold_s": 300.0, "halts": 1}


def test_after_promote_an_agent_of_the_target_finishes_the_plan(mwaa_dr: Shell) -> None:
    """A user has to act only if that agent is silent, too."""
    now = mwaa_dr.set.clock.now()
    claimed = transitions.claim(mwaa_dr.set.state, _plan(mwaa_dr), at=now)
    _write(mwaa_dr, claimed)
    _write(mwaa_dr, transitions.promote(claimed, at=now))
    mwaa_dr.set.clock.advance(60)
    cared_for = mwaa_dr("status").out
    mwaa_dr.set.agents["us-east-1"].alive = False
    mwaa_dr.set.clock.advance(60)
    left = mwaa_dr("status").out

    assert "silent for 60 s; an agent of us-east-1 finishes it." in cared_for
    assert "PROMOTING: us-east-1 is active and prepares its database" in cared_for
    assert "! It is stalled" not in cared_for
    assert "! It is stalled" in left
    assert "Fail back instead: mwaa-dr failover us-east-2" in left


def test_a_cancelled_plan_shows_only_the_command_that_resumes_it(mwaa_dr: Shell) -> None:
    """Its target is its source, so only one command is shown."""
    now = mwaa_dr.set.clock.now()
    claimed = transitions.claim(mwaa_dr.set.state, _plan(mwaa_dr), at=now)
    _write(mwaa_dr, claimed)
    _write(mwaa_dr, transitions.cancel(claimed, plan_id="p2", by="ana", owner="o", reason="over", at=now))
    out = mwaa_dr("status").out

    assert "RESUMING: cancelled; us-east-2 stays active" in out
    assert out.count("mwaa-dr failover") == 1


def test_a_ledger_that_cannot_be_used_is_shown_with_reason_and_effect(mwaa_dr: Shell) -> None:
    """The table also shows it."""
    error = "The runs table does not exist."
    out = _status_after(mwaa_dr, "us-east-2", ledger_error=error)

    assert f"! its ledger cannot be used: {error}" in out
    assert "runs that end in this region may run again after a failover" in out
    assert "UNUSABLE" in out
    assert mwaa_dr("status", "--json").document["regions"]["us-east-2"]["ledger_error"] == error
    standby = "this region does not learn which runs other regions finish"
    assert standby in _status_after(mwaa_dr, "us-east-1", ledger_error=error)


def test_the_lag_of_a_ledger_is_shown_in_the_active_region(mwaa_dr: Shell) -> None:
    """A standby publishes nothing, so its lag has no meaning."""
    assert "! its ledger" not in _status_after(mwaa_dr, "us-east-2", ledger_lag_s=2.0)
    assert "! its ledger is 90 s behind" in _status_after(mwaa_dr, "us-east-2", ledger_lag_s=90.0)
    assert "90 s" not in _status_after(mwaa_dr, "us-east-1", ledger_lag_s=90.0).partition("us-east-2")[0]
    regions = mwaa_dr("status", "--json").document["regions"]
    assert (regions["us-east-1"]["ledger_lag_s"], regions["us-east-2"]["ledger_lag_s"]) == (None, 90.0)


def test_only_the_leading_agent_knows_the_ledger(mwaa_dr: Shell) -> None:
    """A former leader has stale values, and its lag only grows."""
    leader = replace(mwaa_dr.store.agents("us-east-2")[0], schedulers=("1", "0"), ledger_lag_s=1.0, closed=1)
    mwaa_dr.set.agents["us-east-2"].changes = {"schedulers": ("1", "0"), "ledger_lag_s": 1.0, "closed": 1}
    mwaa_dr.store.put_agent(
        replace(leader, job="0", ledger_lag_s=900.0, ledger_error="long over", waiting=("d r: gone",), closed=2)
    )
    mwaa_dr.set.clock.advance(1)
    found = mwaa_dr("status", "--json").document["regions"]["us-east-2"]

    assert (found["schedulers"], found["ledger_lag_s"], found["ledger_error"], found["waiting"]) == (2, 1.0, None, [])
    assert found["closed"] == 3


def test_runs_that_wait_are_listed_with_the_reason(mwaa_dr: Shell) -> None:
    """No region resumes them without a user."""
    out = _status_after(mwaa_dr, "us-east-2", waiting=("orders r1: its DAG is not here", "and 3 more"))

    assert "! interrupted runs that wait" in out
    assert "    orders r1: its DAG is not here\n    and 3 more\n" in out


def test_triggerers_without_the_provider_are_named(mwaa_dr: Shell) -> None:
    """In a standby they take messages, and no task handles them."""
    out = _status_after(mwaa_dr, "us-east-2", unguarded=("31",), watchers=1, triggerers=("31", "32"))
    assert "! triggerers run asset watchers and do not load the provider: job 31" in out
    assert mwaa_dr("status", "--json").document["regions"]["us-east-2"]["unguarded_triggerers"] == ["31"]


def test_runs_that_request_others_again_are_listed(mwaa_dr: Shell) -> None:
    """The work of the others is done twice: a user should know."""
    out = _status_after(mwaa_dr, "us-east-2", repeats=("parent p1 requests again child c1 (had ended)",))

    assert "! resumed runs that request other runs again" in out
    assert "    parent p1 requests again child c1 (had ended)\n" in out


def test_exempt_dags_are_named(mwaa_dr: Shell) -> None:
    """For a region whose agent has listed them."""
    out = _status_after(mwaa_dr, "us-east-2", exempt=("cleanup", "dr_failover"))
    assert out.count("no promise covers") == 1
    assert "DAGs that no promise covers (exempt): cleanup, dr_failover" in out
    regions = mwaa_dr("status", "--json").document["regions"]
    assert (regions["us-east-2"]["exempt"], regions["us-east-1"]["exempt"]) == (["cleanup", "dr_failover"], None)


def test_what_was_copied_of_the_history_is_shown(mwaa_dr: Shell) -> None:
    """And why nothing is copied, for example without the permissions."""
    out = _status_after(
        mwaa_dr, "us-east-2", history_error="no rights", history=("runs imported: 7", "not imported: a")
    )
    assert "its history is not copied, and nothing waits for it: no rights\n" in out
    assert "  history: runs imported: 7\n" in out
    assert "  history: not imported: a\n" in out
    regions = mwaa_dr("status", "--json").document["regions"]
    assert regions["us-east-2"]["history"] == ["runs imported: 7", "not imported: a"]
    assert (regions["us-east-2"]["history_error"], regions["us-east-1"]["history_error"]) == ("no rights", None)


def test_why_no_values_are_compared_is_shown(mwaa_dr: Shell) -> None:
    """A peer may have another public key than before, which a user has to accept."""
    error = "us-east-1 has another public key than before"
    out = _status_after(mwaa_dr, "us-east-2", inventory_error=error)
    assert f"its inventory is incomplete or missing: {error}" in out
    regions = mwaa_dr("status", "--json").document["regions"]
    assert (regions["us-east-2"]["inventory_error"], regions["us-east-1"]["inventory_error"]) == (error, None)


def test_which_settings_are_not_copied_is_shown(mwaa_dr: Shell) -> None:
    """A value that was changed in the standby is not replaced: a person has to decide."""
    problem = "variables that were changed in us-east-2 are not replaced: bucket"
    assert f"copies of settings: {problem}" in _status_after(mwaa_dr, "us-east-2", settings_problem=problem)
    regions = mwaa_dr("status", "--json").document["regions"]
    assert (regions["us-east-2"]["settings_problem"], regions["us-east-1"]["settings_problem"]) == (problem, None)


def test_closed_and_unclosed_runs_are_shown(mwaa_dr: Shell) -> None:
    """For a region that has lost the role, or that runs again."""
    out = _status_after(mwaa_dr, "us-east-1", closed=7, unclosed_runs=2)
    assert "! open runs that do not belong to this region, not closed yet: 2" in out
    assert "runs that its agents closed since its schedulers started: 7" in out
    assert (
        "! it has not reconciled its open runs of epoch 3 yet: it starts no run, and 2 of them are still open"
        in _status_after(mwaa_dr, "us-east-1", reconciled_epoch=3, unclosed_runs=2)
    )


def test_while_a_plan_is_open_unreconciled_runs_are_no_alarm(mwaa_dr: Shell) -> None:
    """The failover is about to reconcile them. The output also shows that the source's ledger is complete."""
    _write(mwaa_dr, transitions.claim(mwaa_dr.set.state, _plan(mwaa_dr), at=mwaa_dr.set.clock.now()))
    out = _status_after(mwaa_dr, "us-east-2", reconciled_epoch=3, final_plan_id="p1")

    assert "  it has not reconciled its open runs of epoch 3 yet" in out
    assert "its ledger is complete for this plan" in out
    assert "!" not in out
    assert mwaa_dr("status", "--json").document["regions"]["us-east-2"]["final"] == "p1"


def test_a_lost_active_region_is_shown_with_the_failover_command(mwaa_dr: Shell) -> None:
    """A silent standby region gets no such advice."""
    mwaa_dr.set.agents["us-east-2"].alive = False
    mwaa_dr.set.clock.advance(60)
    out = mwaa_dr("status").out

    assert "! its schedulers have sent no heartbeat for 6" in out
    assert "If it can read the state table and not write it, it starts no run after the lease." in out
    assert "If the region is lost: mwaa-dr failover us-east-1 --reason TEXT" in out


def test_wrong_settings_and_a_missing_fence_are_shown(mwaa_dr: Shell) -> None:
    """Otherwise they would be only in the scheduler's log."""
    out = _status_after(mwaa_dr, "us-east-1", problems=("[dr] lease_s = 'x' is not understood",), fence_ok=False)

    assert "! a setting is wrong: [dr] lease_s = 'x' is not understood" in out
    assert "! a task ended without the fence" in out


def test_without_problems_the_output_is_short(mwaa_dr: Shell) -> None:
    """The output is only the state and the table."""
    assert mwaa_dr("status").out.count("\n") == 6


@pytest.mark.parametrize(
    ("is_terminal", "environ", "is_red"), [(True, {}, True), (True, {"NO_COLOR": "1"}, False), (False, {}, False)]
)
def test_alarms_are_red_on_a_terminal(mwaa_dr: Shell, is_terminal: bool, environ: dict[str, str], is_red: bool) -> None:
    """Never in a file or a pipe, and not with NO_COLOR."""
    mwaa_dr.is_terminal = is_terminal
    mwaa_dr.environ = {**mwaa_dr.environ, **environ}
    out = _status_after(mwaa_dr, "us-east-2", ledger_error="no table")

    assert ("\033[31m! its ledger cannot be used: no table\033[0m" in out) == is_red
    assert ("\033" in out) == is_red


def test_an_active_region_that_is_not_registered_is_shown_with_advice(mwaa_dr: Shell) -> None:
    """Regression test: status showed only the misspelled region, as the active one."""
    _write(mwaa_dr, replace(mwaa_dr.set.state, version=2, active_region=" us-east-2"))
    out = mwaa_dr("status").out
    assert out.startswith("! No region has a role, and every region holds every run:")
    assert "active_region of the item ACTIVE_REGION is ' us-east-2', which is not registered" in out
    assert "    mwaa-dr failover us-east-1 --reason TEXT\n    mwaa-dr failover us-east-2 --reason TEXT" in out
    document = mwaa_dr("status", "--json").document
    assert {region: found["role"] for region, found in document["regions"].items()} == {
        "us-east-1": "unknown",
        "us-east-2": "unknown",
    }
    assert len(document["problems"]) == 1


def test_a_phase_without_its_plan_is_shown_with_advice(mwaa_dr: Shell) -> None:
    """Regression test: it looked like a failover in progress, without advice."""
    _write(mwaa_dr, replace(mwaa_dr.set.state, version=2, phase=transitions.Phase.PROMOTING))
    out = mwaa_dr("status").out
    assert "the item ACTIVE_REGION is PROMOTING and has no plan" in out
    assert "mwaa-dr failover us-east-1 --reason TEXT" in out


def test_the_reason_why_a_region_holds_is_shown(mwaa_dr: Shell) -> None:
    """
    The agent reports the reason: for example, its own item cannot be used, or the state has a lower version than
    before.
    """
    out = _status_after(mwaa_dr, "us-east-1", held_because="the state went back")
    assert "! it holds every run, and closes none: the state went back" in out


UNPUBLISHED = Unpublished(
    id="us-east-1-epoch-1",
    region="us-east-1",
    epoch=1,
    begun_epoch=0,
    at=datetime(2026, 1, 1, tzinfo=timezone.utc),
    why="Could not write the ledger of us-east-1: refused.",
    first_id=7,
    runs=tuple(f"orders manual__{number:02}" for number in range(25)),
    unread=("us-east-2: read up to entry 17 (epoch 0); unfinished up to this entry: no run",),
)


def test_what_a_region_could_not_take_over_is_shown_until_a_user_acknowledges_it(mwaa_dr: Shell) -> None:
    """
    The report has the error, the runs, the last entry read from the other ledger, and the command that acknowledges it.
    """
    mwaa_dr.store.put(UNPUBLISHED_EVENTS, UNPUBLISHED)
    out = mwaa_dr("status").out
    for part in (UNPUBLISHED.why, *UNPUBLISHED.unread, "orders manual__19", "and 5 more", "check --acknowledge us-"):
        assert part in out
    listed = mwaa_dr("status", "--json").document["regions"]["us-east-1"]["unpublished"]
    assert (listed["id"], len(listed["runs"])) == (UNPUBLISHED.id, 25)
    warned = [entry["why"] for entry in mwaa_dr("check", "--json").document if entry["name"] == "unpublished"]
    assert len(warned) == 1
    assert UNPUBLISHED.why.rstrip(".") in warned[0]
    assert mwaa_dr("check", "--acknowledge", UNPUBLISHED.id, "--json").document == {
        "acknowledged": UNPUBLISHED.id,
        "changed": True,
    }
    assert UNPUBLISHED.why not in mwaa_dr("status").out
    assert "was acknowledged already" in mwaa_dr("check", "--acknowledge", UNPUBLISHED.id).out


def test_tasks_that_the_fence_holds_are_shown(mwaa_dr: Shell) -> None:
    """Also if no agent of the region is alive. A report that no worker repeats is not shown."""
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    mwaa_dr.set.agents["us-east-1"].alive = False
    held = HeldTasks(since=now - timedelta(minutes=20), at=now, why="Its scheduler sends no heartbeats.")
    mwaa_dr.store.put(FENCE_LOADS, FenceLoad(region="us-east-1", at=now, held=held))
    since = "2025-12-31T23:40:00Z"
    assert f"! its fence has held tasks since {since}: Its scheduler sends no heartbeats." in mwaa_dr("status").out
    document = mwaa_dr("status", "--json").document["regions"]["us-east-1"]["held_tasks"]
    assert document == {"since": since, "why": held.why}
    mwaa_dr.set.clock.advance(1000)
    assert "its fence has held tasks" not in mwaa_dr("status").out


def test_an_id_that_is_not_stored_cannot_be_acknowledged(mwaa_dr: Shell) -> None:
    """The error lists the stored ids."""
    mwaa_dr.store.put(UNPUBLISHED_EVENTS, UNPUBLISHED)
    result = mwaa_dr("check", "--acknowledge", "us-east-1-epoch-9")
    assert result.code == 2
    assert UNPUBLISHED.id in result.err
    assert mwaa_dr.store.get(UNPUBLISHED_EVENTS, "us-east-1") == UNPUBLISHED


def test_the_wait_for_a_ledger_is_shown_with_its_limit(mwaa_dr: Shell) -> None:
    """A region that lost the role reports that it waits without a time limit."""
    text = _status_after(mwaa_dr, "us-east-1", ledger_error="denied", ledger_wait_s=120.0, reconciled_epoch=7)
    assert "becomes active without its ledger in 120 s" in text
    text = _status_after(mwaa_dr, "us-east-1", ledger_error="denied", reconciled_epoch=7)
    assert "holds its runs without a time limit" in text


def test_items_that_cannot_be_read_are_counted_and_named_with_what_to_do(mwaa_dr: Shell) -> None:
    """One unreadable item of each kind: the command still succeeds, with the rest of the output."""
    for key in ("AGENT#us-east-1#9", "FAILOVER#old", "SNAPSHOT#us-east-1", "ENVIRONMENT#us-east-1", "FENCE#us-east-2"):
        mwaa_dr.store.damage(key, field="at", found="'yesterday'", allowed="a time")
    result = mwaa_dr("status", "--json")
    assert result.code == 0
    assert [item["key"] for item in result.document["unreadable"]] == [
        "AGENT#us-east-1#9", "ENVIRONMENT#us-east-1", "FAILOVER#old", "FENCE#us-east-2", "SNAPSHOT#us-east-1",
    ]  # fmt: skip
    assert set(result.document["unreadable"][0]) == {"table", "key", "field", "found", "allowed", "advice"}
    out = mwaa_dr("status").out
    assert "5 items cannot be read:" in out
    assert (
        "! Item SNAPSHOT#us-east-1 of table memory cannot be read: field at: found 'yesterday', allowed is a time."
        in out
    )
    assert "Write it again, or delete it." in out


def test_a_record_that_cannot_be_read_is_listed_in_the_history(mwaa_dr: Shell) -> None:
    """The list has its id and its fault. Readable records have exactly the keys of the contract."""
    mwaa_dr("failover", "us-east-1", "--reason", "there", "--yes")
    mwaa_dr.store.damage("FAILOVER#old", field="mode", found="'swift'", allowed="one of auto, graceful, forced")
    result = mwaa_dr("history", "--json")
    assert result.code == 0
    newest, old = result.document
    assert "unreadable" not in newest
    assert (old["id"], old["mode"], old["unreadable"]["field"]) == ("old", None, "mode")
    assert "! Item FAILOVER#old of table memory cannot be read: field mode: found 'swift'" in mwaa_dr("history").out
