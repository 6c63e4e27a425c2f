"""A failover between real Airflows that halts for steps of users: nothing executes in either region meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core.gate import NOTE_TOKEN
from airflow_provider_mwaa_dr.core.state import Phase
from tests.sandbox.failovers import REASON, fail_over, make_steady, start
from tests.sandbox.harness import Pair, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox


def halt(pair: Pair, region: str, stage: str) -> dict[str, Any]:
    """Fail over up to a stage with the real command, and return the record."""
    answer = pair.mwaa_dr("failover", region, *REASON, "--until", stage)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    record: dict[str, Any] = json.loads(answer.stdout)
    assert (record["outcome"], record["steps"][-1]["name"]) == ("open", "halt")
    return record


@on("3.3.1")
def test_no_region_executes_while_a_failover_is_halted(pair: Pair) -> None:
    """A user unpauses a DAG and triggers it in the drained source, and then in the promoted target."""
    make_steady(pair)
    before, source, target = pair.state(), pair.active, pair.standby

    drained = halt(pair, target.name, "drained")
    assert (drained["mode"], pair.state().active_region) == ("graceful", source.name)
    source.unpause("fo_chain")
    in_source = start(source)
    wait_until(lambda: NOTE_TOKEN in in_source.note, "the gate of the source holds the run")
    assert "is being drained" in in_source.note
    source.pause("fo_chain")

    promoted = halt(pair, target.name, "promoted")
    assert (promoted["id"], pair.state().phase) == (drained["id"], Phase.PROMOTING)
    target.unpause("fo_chain")
    in_target = start(target)
    wait_until(lambda: NOTE_TOKEN in in_target.note, "the gate of the target holds the run")
    assert "is being promoted" in in_target.note
    assert pair.status()["plan"]["hold"]["stage"] == "promoted"

    record = fail_over(pair, target.name)
    assert (record["id"], record["epoch"]) == (drained["id"], before.epoch + 1)
    in_target.wait_until_it_executed()
    assert in_source.bodies() == []
