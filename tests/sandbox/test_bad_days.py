"""``mwaa-dr failover`` with a target that is not ready. For problems with the table, see tests/contract."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.ports import RECORDS
from airflow_provider_mwaa_dr.sandbox.runtime.home import write_private_json
from tests.sandbox.failovers import make_steady, start
from tests.sandbox.harness import Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

REASON = 'flood: "the river\'s up" 🌊\nsecond line'


@contextmanager
def status(pair: Pair, region: str, says: str) -> Iterator[None]:
    """Let the MWAA service return another status of an environment."""
    path = pair.home / "aws" / "config.json"
    config = json.loads(path.read_text())
    try:
        changed = json.loads(path.read_text())
        changed["environments"][region]["status"] = says
        write_private_json(path, changed)
        yield
    finally:
        write_private_json(path, config)


@contextmanager
def unreachable(pair: Pair, region: str) -> Iterator[None]:
    """Let no call to an environment get a response."""
    pair.sandbox.fault(region, "mwaa", "refuse", from_caller="control")
    try:
        yield
    finally:
        pair.sandbox.fault(region, "mwaa", "none", from_caller="control")


@contextmanager
def without_scheduler(pair: Pair, region: str) -> Iterator[None]:
    """Kill a region's scheduler, and its agent with it."""
    killed = {agent.job for agent in pair.table.agents(region)}
    pair[region].stop("scheduler")
    try:
        yield
    finally:
        pair[region].start_scheduler()

        # While the job of the killed scheduler counts as alive, every failover is refused.
        def is_forgotten() -> bool:
            pair.forget_killed_schedulers()
            return any(
                agent.schedulers == (agent.job,) for agent in pair.table.agents(region) if agent.job not in killed
            )

        wait_until(is_forgotten, f"Airflow in {region} has forgotten its killed scheduler")


Trouble = Callable[[Pair, str], AbstractContextManager[Any]]
DAYS: dict[str, tuple[Trouble, int, str, str]] = {
    "environment updating": (lambda pair, region: status(pair, region, "UPDATING"), 3, "NotReadyError", "is UPDATING"),
    "environment deleted": (lambda pair, region: status(pair, region, "DELETED"), 3, "NotReadyError", "is DELETED"),
    "environment unknown": (lambda pair, region: nullcontext(), 3, "NotReadyError", "no-such-environment"),
    "API unreachable": (unreachable, 3, "NotReadyError", "GetEnvironment"),
    "agent dead": (without_scheduler, 3, "NotReadyError", "no agent is alive"),
}


@on("3.3.1")
@pytest.mark.parametrize("name", DAYS)
def test_a_target_that_is_not_ready_is_refused(pair: Pair, name: str) -> None:
    """Exit code 3, with the reason and the advice, as a document and as text. Nothing changes."""
    make_steady(pair)
    trouble, code, error_type, says = DAYS[name]
    target = pair.standby.name
    environments = {}
    if name == "environment unknown":
        known = {**{region: airflow.environment for region, airflow in pair.airflows.items()}, target: says}
        environments = {"DR_ENVIRONMENTS": ",".join(f"{region}={found}" for region, found in known.items())}
    words = ("failover", target, "--reason", "test", "--yes")
    before, records = pair.state(), len(pair.table.find_all(RECORDS))
    with trouble(pair, target):
        as_document = pair.mwaa_dr(*words, "--json", **environments)
        as_text = pair.mwaa_dr(*words, **environments)
    assert as_document.returncode == as_text.returncode == code, as_document.stdout
    error = json.loads(as_document.stdout)["error"]
    assert error["type"] == error_type
    assert says in error["message"]
    assert target in error["message"]
    assert "Nothing was changed" in error["advice"]
    assert as_text.stdout == ""
    assert "Traceback" not in as_text.stderr
    assert (pair.state(), len(pair.table.find_all(RECORDS))) == (before, records)
    print(f"\n{name}: exit {code}\n{as_text.stderr}", end="")


@pytest.mark.soak
@on("3.3.1")
def test_a_reason_may_contain_any_text(pair: Pair) -> None:
    """Control case: with a ready target, the same command moves the role. The reason is stored unchanged."""
    make_steady(pair)
    answer = pair.mwaa_dr("failover", pair.standby.name, "--reason", REASON, "--yes", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["reason"] == REASON
    assert pair.history()[0]["reason"] == REASON
    assert pair.state().failover_reason == REASON
    start(pair.active).wait_until_it_executed()
