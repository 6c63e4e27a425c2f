"""``mwaa-dr failover`` and ``mwaa-dr history``."""

from __future__ import annotations

import re

import pytest

from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.testing import InMemoryStateStore
from tests.unit.cli.conftest import Shell
from tests.unit.core.dr_set import WANTED

RECORD_KEYS = [
    "id", "from", "to", "mode", "reason", "by", "started_at", "finished_at", "outcome", "epoch", "steps",
    "not_unpaused", "ended_in_standby",
]  # fmt: skip


def test_a_failover_moves_the_role_and_prints_its_record(mwaa_dr: Shell) -> None:
    """One command moves the role and prints one document."""
    result = mwaa_dr("failover", "us-east-1", "--reason", "flood in Ohio", "--yes", "--json")
    assert result.code == 0
    record = result.document
    assert list(record) == RECORD_KEYS
    assert (record["from"], record["to"], record["mode"]) == ("us-east-2", "us-east-1", "graceful")
    assert (record["reason"], record["by"], record["outcome"], record["epoch"]) == (
        "flood in Ohio", "ana@laptop", "completed", 1,
    )  # fmt: skip
    assert record["started_at"].endswith("Z")
    assert record["finished_at"].endswith("Z")
    assert [list(step) for step in record["steps"]] == [["name", "seconds", "detail"]] * len(record["steps"])
    assert record["not_unpaused"] == []
    assert mwaa_dr.environment("us-east-1").unpaused == WANTED | {"dr_failover"}
    assert mwaa_dr.set.state.active_region == "us-east-1"


def test_progress_is_a_line_a_step_on_stderr(mwaa_dr: Shell) -> None:
    """Each step has its time. Stdout has only the document."""
    result = mwaa_dr("failover", "us-east-1", "--reason", "x", "--yes", "--json")
    done = re.findall(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  ok  (\w+) +[\d.]+ s", result.err, flags=re.MULTILINE)
    assert done == [step["name"] for step in result.document["steps"]]
    assert done[0] == "check"
    assert done[-1] == "complete"


def test_already_active_is_a_success(mwaa_dr: Shell) -> None:
    """The document has the keys of a record, without steps."""
    result = mwaa_dr("failover", "us-east-2", "--reason", "x", "--yes", "--json")
    assert result.code == 0
    assert list(result.document) == RECORD_KEYS
    assert (result.document["id"], result.document["steps"], result.document["outcome"]) == (None, [], "completed")
    assert mwaa_dr.set.state.epoch == 0


def test_a_failover_halts_for_steps_of_users_and_continues(mwaa_dr: Shell) -> None:
    """Exit 0 at each stage, with an open record, and with the commands that continue and cancel."""
    command = ("failover", "us-east-1", "--reason", "flood", "--yes")
    result = mwaa_dr(*command, "--until", "drained", "--json")
    record = result.document
    assert (result.code, list(record), record["outcome"], record["mode"]) == (0, RECORD_KEYS, "open", "graceful")
    assert record["steps"][-1]["name"] == "halt"
    assert mwaa_dr("history", "--json").document[0]["outcome"] == "open"

    again = mwaa_dr(*command, "--until", "drained")
    plan = record["id"]
    assert again.out.splitlines() == [
        f"Halted at drained: us-east-2 starts nothing, and us-east-1 is not active yet (plan {plan}).",
        "If no command continues it within 900 s, the agents raise an alarm.",
        "Then continue it: mwaa-dr failover us-east-1 --until promoted --reason TEXT",
        "Or to its end: mwaa-dr failover us-east-1 --reason TEXT",
        "Or cancel it: mwaa-dr failover us-east-2 --reason TEXT",
    ]
    promoted = mwaa_dr(*command, "--until", "promoted", "--hold-s", "60")
    assert promoted.out.splitlines() == [
        f"Halted at promoted: us-east-1 is active and starts nothing yet (plan {plan}).",
        "If no command continues it within 60 s, an agent of us-east-1 finishes it.",
        "Then continue it: mwaa-dr failover us-east-1 --reason TEXT",
        "Or fail back: mwaa-dr failover us-east-2 --reason TEXT",
    ]
    passed = mwaa_dr(*command, "--until", "drained")
    assert passed.code == 0
    assert passed.out.startswith(f"Failover {plan} has passed this stage (PROMOTING). Nothing was changed.")
    assert mwaa_dr(*command, "--json").document["outcome"] == "completed"
    assert mwaa_dr.set.state.active_region == "us-east-1"


def test_a_drained_failover_is_cancelled(mwaa_dr: Shell) -> None:
    mwaa_dr("failover", "us-east-1", "--reason", "x", "--yes", "--until", "drained")
    assert mwaa_dr("failover", "us-east-2", "--reason", "the data stays", "--yes").code == 0
    assert (mwaa_dr.set.state.active_region, mwaa_dr.set.state.phase) == ("us-east-2", Phase.STEADY)


def test_a_command_that_continues_a_cancelled_failover_is_refused(mwaa_dr: Shell) -> None:
    """Exit 3. A script that switches a database in between does not start a second failover."""
    command = ("failover", "us-east-1", "--reason", "x", "--yes", "--json")
    plan = mwaa_dr(*command, "--until", "drained").document["id"]
    mwaa_dr("failover", "us-east-2", "--reason", "the data stays", "--yes")
    result = mwaa_dr(*command, "--plan", plan)
    assert (result.code, result.document["error"]["type"]) == (3, "PlanSupersededError")
    assert (mwaa_dr.set.state.active_region, mwaa_dr.set.state.phase) == ("us-east-2", Phase.STEADY)


def test_a_dry_run_names_the_stage(mwaa_dr: Shell) -> None:
    out = mwaa_dr("failover", "us-east-1", "--reason", "x", "--dry-run", "--until", "promoted").out
    assert "Steps: check, claim, record, drain, pause, ledger, lease, promote, adopt, halt." in out
    assert "It halts at promoted, and a further command continues it." in out


def test_a_stage_that_an_agent_does_not_know_is_refused(mwaa_dr: Shell) -> None:
    """Exit 3. The message names the agents and their version."""
    mwaa_dr.set.agents["us-east-2"].changes = {"knows_hold": False}
    result = mwaa_dr("failover", "us-east-1", "--reason", "x", "--yes", "--until", "drained", "--json")
    assert (result.code, result.document["error"]["type"]) == (3, "NotReadyError")
    assert "us-east-2 (job 1, provider 0.1.0)" in result.document["error"]["message"]
    assert mwaa_dr.set.state.phase is Phase.STEADY


def test_the_time_of_a_halt_must_be_possible(mwaa_dr: Shell) -> None:
    result = mwaa_dr("failover", "us-east-1", "--reason", "x", "--yes", "--until", "drained", "--hold-s", "0")
    assert result.code == 2
    assert "may stay halted for 0 s" in result.err


def test_a_target_that_is_not_ready_is_refused(mwaa_dr: Shell) -> None:
    """Exit 3, and nothing is changed. With --even-if-not-ready the failover continues."""
    mwaa_dr.set.agents["us-east-1"].changes = {"fence_ok": False}
    mwaa_dr.set.clock.advance(2)
    result = mwaa_dr("failover", "us-east-1", "--reason", "x", "--yes", "--json")
    assert (result.code, result.document["error"]["type"]) == (3, "NotReadyError")
    assert mwaa_dr.set.state.phase is Phase.STEADY
    assert mwaa_dr("failover", "us-east-1", "--reason", "x", "--yes", "--even-if-not-ready").code == 0


def test_a_run_that_outlasts_the_drain_is_named_with_exit_3(mwaa_dr: Shell) -> None:
    """The failover is cancelled, and the source continues."""
    mwaa_dr.environment("us-east-2").add_run("dag_00", "manual__long")
    result = mwaa_dr("failover", "us-east-1", "--reason", "x", "--yes", "--json")
    assert (result.code, result.document["error"]["type"]) == (3, "DrainTimeoutError")
    assert "dag_00 manual__long" in result.document["error"]["message"]
    assert mwaa_dr.set.state.active_region == "us-east-2"
    assert mwaa_dr.environment("us-east-2").unpaused == WANTED | {"dr_failover"}


def test_stop_running_stops_it_instead(mwaa_dr: Shell) -> None:
    """With --stop-running, the same failover succeeds."""
    mwaa_dr.environment("us-east-2").add_run("dag_00", "manual__long")
    assert mwaa_dr("failover", "us-east-1", "--reason", "x", "--yes", "--stop-running").code == 0


def test_the_record_of_a_forced_failover_has_its_mode(mwaa_dr: Shell) -> None:
    """The record has the mode."""
    mwaa_dr.environment("us-east-2").unreachable = True
    result = mwaa_dr("failover", "us-east-1", "--reason", "x", "--mode", "forced", "--yes", "--json")
    assert (result.code, result.document["mode"]) == (0, "forced")


def test_a_dry_run_counts_and_changes_nothing(mwaa_dr: Shell) -> None:
    """It needs no confirmation, prints the preview, and writes nothing."""
    before = mwaa_dr.store.state
    mwaa_dr.environment("us-east-2").add_run("dag_00", "manual__1", seconds=30)
    result = mwaa_dr("failover", "us-east-1", "--reason", "x", "--dry-run", "--json")
    assert result.code == 0
    document = result.document
    assert (document["dry_run"], document["action"], document["dags_wanted"], document["dags_exempt"]) == (
        True, "claim", 8, 1,
    )  # fmt: skip
    assert document["running"] == ["dag_00 manual__1"]
    assert mwaa_dr.store.state is before
    assert mwaa_dr("failover", "us-east-1", "--reason", "x", "--dry-run").out.startswith("Failover us-east-2")


def test_the_preview_comes_before_the_question(mwaa_dr: Shell) -> None:
    """The preview comes before the question."""
    result = mwaa_dr("failover", "us-east-1", "--reason", "x", answer="yes\n")
    assert result.code == 0
    assert result.err.index("DAGs to pause in us-east-2") < result.err.index("Continue? [y/N]")


@pytest.mark.parametrize("reason", ['it\'s "down"', "line\nbreak", "🔥 Ohio", "a\\b;$(c)", "naïve — 日本"])
def test_any_reason_is_stored_unchanged(mwaa_dr: Shell, reason: str) -> None:
    """The reason is stored unchanged, and history prints one document."""
    assert mwaa_dr("failover", "us-east-1", "--reason", reason, "--yes", "--json").document["reason"] == reason
    history = mwaa_dr("history", "--json")
    assert [list(record) for record in history.document] == [RECORD_KEYS]
    assert history.document[0]["reason"] == reason
    assert len(mwaa_dr("history").out.splitlines()) == 2


def test_history_is_newest_first(mwaa_dr: Shell) -> None:
    """Failover and failback; the failback comes first."""
    assert mwaa_dr("history", "--json").document == []
    mwaa_dr("failover", "us-east-1", "--reason", "there", "--yes")
    mwaa_dr("failover", "us-east-2", "--reason", "back", "--yes")
    assert [record["reason"] for record in mwaa_dr("history", "--json").document] == ["back", "there"]


class Interrupting(InMemoryStateStore):
    """The user presses Ctrl-C during the third write."""

    writes = 0

    def peer(self) -> InMemoryStateStore:
        return self

    def write(self, state: DRState, *, expected_version: int | None) -> None:
        type(self).writes += 1
        if type(self).writes == 3:
            raise KeyboardInterrupt
        super().write(state, expected_version=expected_version)


def test_an_interrupted_failover_can_be_resumed(mwaa_dr: Shell) -> None:
    """Exit 130 with advice and an open plan; the same command then completes the failover."""
    whole = mwaa_dr.store
    cut = Interrupting()
    cut._table = whole._table
    mwaa_dr.store = cut
    result = mwaa_dr("failover", "us-east-1", "--reason", "x", "--yes", "--json")
    assert (result.code, result.document["error"]["type"]) == (130, "Interrupted")
    assert "same command" in result.document["error"]["advice"]
    assert mwaa_dr.set.state.phase is Phase.DRAINING
    mwaa_dr.store = whole
    assert mwaa_dr("failover", "us-east-1", "--reason", "x", "--yes").code == 0
    assert mwaa_dr.set.state.phase is Phase.STEADY


@pytest.mark.parametrize(
    ("reason", "message"),
    [(" ", "The reason is empty."), ("x" * 300_000, "The reason has 300,000 characters; at most 1,000 are allowed.")],
)
@pytest.mark.parametrize("flag", ["--yes", "--dry-run"])
def test_a_reason_that_does_not_fit_into_the_state_item_is_refused_first(
    mwaa_dr: Shell, reason: str, message: str, flag: str
) -> None:
    """The claim would fit into the item, but not the promotion. So it is refused before anything is read or written."""
    before = mwaa_dr.store.state
    result = mwaa_dr("failover", "us-east-1", "--reason", reason, flag, "--json")
    assert (result.code, result.document["error"]["message"]) == (2, message)
    assert mwaa_dr.store.state is before
    assert len(result.out) < 400


def test_the_longest_reason_is_carried_through_a_failover(mwaa_dr: Shell) -> None:
    """1,000 characters of four bytes each."""
    reason = "\U0001f525" * 1000
    assert mwaa_dr("failover", "us-east-1", "--reason", reason, "--yes", "--json").document["reason"] == reason
