"""A ledger that refuses, between real Airflows: no run is lost, and none executes twice."""

from __future__ import annotations

import pytest

from tests.sandbox.failovers import CHAIN, ChainRun, fail_over, make_steady, start
from tests.sandbox.harness import Pair, Shape, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

LEDGERS = [Shape(version=version, name=f"ledger-{version}", ledger=True) for version in ("3.3.1", "2.10.3")]
RUNS = 3


@on(LEDGERS[0], soak=(LEDGERS[1],))
def test_runs_of_a_cut_off_region_survive_credentials_that_have_expired(pair: Pair) -> None:
    """
    The region closes no run while the ledger refuses. Then the other region executes each run once.

    The web server accepts these runs in a region that has lost the role, and cannot know it.
    """
    make_steady(pair)
    source, target = pair.active, pair.standby
    runs_table = pair.sandbox.description()["runs_table"]
    epoch = pair.state().epoch
    pair.sandbox.fault(source.name, "dynamodb", "blackhole")
    fail_over(pair, target.name, "--mode", "forced")
    accepted = [start(source) for _ in range(RUNS)]
    pair.sandbox.fault(source.name, f"dynamodb/{runs_table}", "expired")
    pair.sandbox.fault(source.name, "dynamodb", "none")

    def reports_the_refusal() -> bool:
        found = pair.status()["regions"][source.name]
        return found["reconciled_epoch"] == epoch and "ExpiredToken" in (found["ledger_error"] or "")

    wait_until(reports_the_refusal, f"{source.name} reads the state, and reports that its ledger refuses")
    assert [run.state for run in accepted] == ["queued"] * RUNS
    pair.sandbox.fault(source.name, f"dynamodb/{runs_table}", "none")
    for run in accepted:
        ChainRun(airflow=target, dag_id=run.dag_id, run_id=run.run_id).wait_until_it_executed()
        # The region closes the run as failed, and gives it the outcome of the other region when that is published.
        run.wait_until_it_is("success")
    assert [run.bodies(target) for run in accepted] == [CHAIN] * RUNS
    assert [run.bodies(source) for run in accepted] == [[]] * RUNS
