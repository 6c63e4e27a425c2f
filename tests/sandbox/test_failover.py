"""Failovers between two real Airflows. The tests read the lines of task bodies, and never only states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.gate import NOTE_TOKEN
from airflow_provider_mwaa_dr.core.state import Phase
from tests.sandbox.failovers import (
    CHAIN,
    REASON,
    ChainRun,
    airflow,
    fail_over,
    make_steady,
    mwaa_dr,
    operator_words,
    start,
)
from tests.sandbox.harness import Airflow, Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

RECORD_KEYS = {
    "id", "from", "to", "mode", "reason", "by", "started_at", "finished_at", "outcome", "epoch", "steps",
    "not_unpaused", "ended_in_standby",
}  # fmt: skip
LONG_S = 120
"""A drain that ends because the test lets the runs continue, also on a slow machine."""
LONG_ID = "fo_" + "a_dag_id_that_is_far_too_long_for_a_path_of_" * 2 + "invoke_rest_api"


@pytest.fixture
def regions(pair: Pair) -> tuple[Airflow, Airflow]:
    """
    The active region and the standby, without a failover in progress. Each test finds the roles as the last one left
    them.
    """
    make_steady(pair)
    return pair.active, pair.standby


@on("3.3.1")
def test_a_run_in_flight_finishes_in_the_region_being_left(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """
    A run of two tasks executes its first task at the claim. It ends where it started; the next run is in the new
    region.
    """
    source, target = regions
    before = pair.status()
    run = start(source, waits=True)
    with mwaa_dr(pair, "failover", target.name, *REASON, drain_s=LONG_S) as failover:
        failover.wait_until_it_prints(f"run in progress: fo_chain {run.run_id}")
        assert pair.state().phase is Phase.DRAINING
        run.let_go()
        record = failover.document()

    assert set(record) == RECORD_KEYS
    assert (record["from"], record["to"]) == (source.name, target.name)
    assert (record["mode"], record["outcome"], record["not_unpaused"]) == ("graceful", "completed", [])
    assert record["epoch"] == before["epoch"] + 1
    assert [step["name"] for step in record["steps"]] == [
        "check", "claim", "record", "drain", "pause", "ledger", "lease", "promote", "adopt", "unpause", "verify",
        "complete",
    ]  # fmt: skip
    after = start(target)
    after.wait_until_it_executed()
    run.wait_until_it_is("success")
    assert run.bodies() == CHAIN
    assert run.bodies(target) == []


@on("3.3.1")
def test_runs_forced_in_the_old_region_after_a_failover_execute_nothing(
    pair: Pair, regions: tuple[Airflow, Airflow]
) -> None:
    """
    Users start them by REST, by command line, or under a paused DAG. They are closed with a note. The new region
    executes.
    """
    if pair.state().epoch == 0:
        fail_over(pair, regions[1].name)
    new, old = pair.active, pair.standby
    under_paused = start(old)
    wait_until(lambda: under_paused.state == "failed", f"{old.name} closes a run under a paused DAG")
    old.unpause("fo_chain")
    forced, control = start(old), start(new)
    old.airflow("dags", "trigger", "fo_chain", "--run-id", f"cli_{forced.run_id}")
    by_cli = ChainRun(airflow=old, dag_id="fo_chain", run_id=f"cli_{forced.run_id}")

    forced.wait_until_it_is("failed")
    by_cli.wait_until_it_is("failed")
    control.wait_until_it_executed()
    old.pause("fo_chain")
    for run in (forced, by_cli, under_paused):
        assert run.bodies() == []
        assert run.note.startswith(NOTE_TOKEN), run.note
        assert f"{old.name} is standby, {new.name} is active" in run.note
    assert control.note == ""


@on("3.3.1")
def test_a_run_that_outlasts_the_drain_makes_the_failover_give_up(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """
    Exit code 3, and stderr and the error document name the run. It finishes in its region, and so does a later one.
    """
    source, target = regions
    before = pair.status()
    run = start(source, waits=True)
    with mwaa_dr(pair, "failover", target.name, *REASON, drain_s=3) as failover:
        failover.wait_until_it_prints("in progress: ")
        queued = start(source)
        error = failover.document(code=3)["error"]
        last = failover.stderr.splitlines()[-1]

    assert error["type"] == "DrainTimeoutError"
    assert f"fo_chain {run.run_id}" in error["message"]
    assert "--stop-running" in error["advice"]
    assert f"fo_chain {run.run_id}" in last
    assert "--stop-running" in last
    after = pair.status()
    assert (after["active_region"], after["epoch"], after["phase"]) == (source.name, before["epoch"], "STEADY")
    run.let_go()
    later = start(source)
    for each in (run, queued, later):
        each.wait_until_it_is("success")
        assert each.bodies() == CHAIN
        assert each.bodies(target) == []
    back, given_up = pair.history()[:2]
    assert (given_up["to"], given_up["outcome"]) == (target.name, "aborted")
    assert (back["from"], back["to"], back["outcome"]) == (source.name, source.name, "completed")


@on("3.3.1")
def test_a_stopped_run_never_continues(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """
    With --stop-running it ends in its first body. No other task of it starts afterwards, not even after a failback.
    """
    source, target = regions
    run = start(source, waits=True)
    record = fail_over(pair, target.name, "--stop-running", drain_s=2)
    drained = next(step for step in record["steps"] if step["name"] == "drain")
    assert f"stopped fo_chain {run.run_id}" in drained["detail"]
    run.let_go()
    fail_over(pair, source.name)

    later = start(source)
    later.wait_until_it_executed()
    assert run.state == "failed"
    assert run.bodies() == ["first"]
    assert [line.kind for line in source.lines("fo_chain", run.run_id)] == ["executed"]
    assert run.bodies(target) == []


def wait_until_held(run: ChainRun, target: Airflow) -> None:
    """Wait until the run is held for the drain, and its note has the reason."""
    held = f"{NOTE_TOKEN} held: {run.airflow.name} is being drained for {target.name}"
    wait_until(lambda: held in run.note, f"{run.run_id} is held")
    assert (run.state, run.bodies()) == ("queued", [])


@on("3.3.1")
def test_a_run_held_in_the_drain_starts_after_a_cancel(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """
    A user names the active region, which cancels the plan. The held run executes once, and its held note is removed.
    """
    source, target = regions
    before = pair.status()
    in_flight = start(source, waits=True)
    with mwaa_dr(pair, "failover", target.name, *REASON, drain_s=LONG_S) as failover:
        failover.wait_until_it_prints("in progress: ")
        held, noted = start(source), start(source)
        for run in (held, noted):
            wait_until_held(run, target)
        source.rest("PATCH", f"/dags/fo_chain/dagRuns/{noted.run_id}", json={"note": "started by hand"})
        wait_until_held(noted, target)
        assert noted.note.startswith("started by hand\n")
        refused = pair.mwaa_dr("pause", source.name, "--yes", "--json")
        assert refused.returncode == 3
        assert json.loads(refused.stdout)["error"]["type"] == "RefusedError"

        back = fail_over(pair, source.name)
        assert failover.document(code=3)["error"]["type"] == "PlanSupersededError"

    assert (back["from"], back["to"]) == (source.name, source.name)
    after = pair.status()
    assert (after["active_region"], after["epoch"], after["phase"]) == (source.name, before["epoch"], "STEADY")
    in_flight.let_go()
    for run in (in_flight, held, noted):
        run.wait_until_it_is("success")
        assert run.bodies() == CHAIN
        assert run.bodies(target) == []
    wait_until(lambda: held.note == "", "the held note is gone")
    wait_until(lambda: noted.note == "started by hand", "what a person wrote stays")


@pytest.mark.soak
@on("3.3.1")
def test_the_operator_continues_the_plan_of_a_killed_command(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """
    dr_failover in the control environment takes over the plan of the killed command. A second run has nothing to do.
    """
    source, target = regions
    conf = {"target_region": target.name, "reason": "test"}
    run = start(source, waits=True)
    with mwaa_dr(pair, "failover", target.name, *REASON, drain_s=LONG_S) as failover:
        failover.wait_until_it_prints("in progress: ")
        failover.process.kill()
        failover.wait()
    plan = pair.status()["plan"]
    assert plan is not None
    run.let_go()

    # `airflow dags test` executes the tasks itself. If the DAG is not paused, the region's scheduler takes them.
    source.deploy("dr_failover.py", Path(pair.control["dags_folder"], "dr_failover.py").read_text())
    source.wait_for_dag("dr_failover")
    source.pause("dr_failover")
    with (
        airflow(pair.control, *operator_words(conf)) as operator,
        airflow({"bin": source.bin, "env": source.variables}, *operator_words(conf)) as in_source,
    ):
        assert in_source.wait() != 0
        refused = in_source.stdout + in_source.stderr
        assert f"in {source.name}, the region being left" in refused, refused
        assert operator.wait() == 0, operator.stdout + operator.stderr
        said = operator.stdout + operator.stderr
    assert f"took over plan {plan['id']}" in said
    source.remove("dr_failover.py")

    status = pair.status()
    assert (status["active_region"], status["phase"], status["plan"]) == (target.name, "STEADY", None)
    newest = pair.history()[0]
    assert (newest["id"], newest["outcome"]) == (plan["id"], "completed")
    after = start(target)
    after.wait_until_it_executed()
    assert run.bodies() == CHAIN

    with airflow(pair.control, *operator_words(conf)) as again:
        assert again.wait() == 0, again.stdout + again.stderr
        assert f"{target.name} is active already" in again.stdout + again.stderr
    assert pair.status()["version"] == status["version"]


@on("3.3.1")
def test_status_history_pause_and_unpause_keep_their_contract(pair: Pair, regions: tuple[Airflow, Airflow]) -> None:
    """The real commands have the keys and exit codes that the documents promise to scripts."""
    source, target = regions

    def said(*words: str, code: int = 0) -> Any:
        answer = pair.mwaa_dr(*words, "--json")
        assert answer.returncode == code, answer.stderr
        return json.loads(answer.stdout)

    already = said("failover", source.name, "--reason", "test", "--yes")
    assert (set(already), already["outcome"], already["steps"]) == (RECORD_KEYS, "completed", [])
    status = said("status")
    assert set(status) == {
        "active_region", "epoch", "version", "phase", "plan", "failover_count", "last_updated", "regions",
            "problems", "unreadable",
    }  # fmt: skip
    assert status["regions"].keys() == {source.name, target.name}
    for region, role in ((source.name, "active"), (target.name, "standby")):
        found = status["regions"][region]
        assert set(found) >= {
            "role", "agent_age_s", "schedulers", "fence_ok", "ledger_lag_s", "environment_status",
        }  # fmt: skip
        assert (found["role"], found["schedulers"], found["environment_status"]) == (role, 1, "AVAILABLE")
        assert found["agent_age_s"] is not None
        assert found["fence_ok"] is not False
        assert found["ledger_lag_s"] is None
    for record in said("history"):
        assert set(record) == RECORD_KEYS
        assert all(set(step) == {"name", "seconds", "detail"} for step in record["steps"])

    wanted = sorted(dag_id for dag_id, is_paused in source.dags().items() if not is_paused)
    for words in (("pause", source.name), ("unpause", source.name), ("failover", target.name, "--reason", "test")):
        assert said(*words, code=2)["error"]["type"] == "UsageError"
    assert said("pause", "eu-west-1", "--yes", code=2)["error"]["type"] == "ConfigError"
    assert said("failover", target.name, "--reason", " ", "--yes", code=2)["error"]["message"]
    assert said("pause", source.name, "--dry-run")["changed"] is False
    assert sorted(dag_id for dag_id, is_paused in source.dags().items() if not is_paused) == wanted
    assert said("pause", source.name, "--yes") == {"changed": True, "dags": wanted}
    assert all(source.dags().values())
    assert said("pause", source.name, "--yes") == {"changed": False, "dags": wanted}
    assert said("unpause", source.name, "--yes") == {"changed": True, "dags": wanted}
    assert sorted(dag_id for dag_id, is_paused in source.dags().items() if not is_paused) == wanted
    assert said("unpause", source.name, "--yes") == {"changed": False, "dags": []}


@on("2.10.3", soak=("3.0.6", "3.3.1"))
def test_a_graceful_failover_with_a_dag_id_too_long_for_invoke_rest_api(
    pair: Pair, regions: tuple[Airflow, Airflow]
) -> None:
    """Such a DAG is stopped, paused and unpaused like the others, with the web-token session."""
    source, target = regions
    source.unpause(LONG_ID)
    stopped = start(source, dag_id=LONG_ID, waits=True)
    finishing = start(source, waits=True)
    with mwaa_dr(pair, "failover", target.name, *REASON, "--stop-running", drain_s=30) as failover:
        failover.wait_until_it_prints("2 runs in progress")
        finishing.let_go()
        record = failover.document()
    assert (record["mode"], record["outcome"], record["not_unpaused"]) == ("graceful", "completed", [])
    assert pair.state().phase is Phase.STEADY

    for region, is_paused in ((source, True), (target, False)):
        dags = region.dags()
        assert (dags[LONG_ID], dags["fo_chain"]) == (is_paused, is_paused)
    stopped.let_go()
    after = [start(target, dag_id=dag_id) for dag_id in (LONG_ID, "fo_chain")]
    for run in after:
        run.wait_until_it_executed()
    # Its state proves nothing: on 2.10 the ending task replaces "failed" with "running", and the run ends as success.
    assert stopped.bodies() == ["first"]
    assert finishing.bodies() == CHAIN
    assert stopped.bodies(target) == finishing.bodies(target) == []
