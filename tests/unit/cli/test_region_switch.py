"""The Lambda function for AWS Region switch."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.cli.region_switch import StepFailedError, handler
from airflow_provider_mwaa_dr.cli.runtime import Runtime
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.state import Mode, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import ConfigError
from tests.unit.cli.conftest import ENVIRON, Shell

ARN = "arn:aws:lambda:us-east-1:111122223333:function:failover"


def invoke(shell: Shell, **environ: str) -> dict[str, Any]:
    """Invoke the function of us-east-1."""
    shell.environ = {**ENVIRON, "AWS_REGION": "us-east-1", **environ}

    def make_runtime(who: str) -> Runtime:
        return shell.runtime(io.StringIO(), io.StringIO(), io.StringIO(), who=who)

    return handler({}, SimpleNamespace(invoked_function_arn=ARN), make_runtime=make_runtime)


def test_the_function_of_a_region_makes_it_the_active_one(mwaa_dr: Shell) -> None:
    record = invoke(mwaa_dr)
    assert (record["to"], record["outcome"], record["by"], record["reason"]) == (
        "us-east-1", "completed", ARN, "AWS Region switch",
    )  # fmt: skip
    assert mwaa_dr.set.state.active_region == "us-east-1"
    assert invoke(mwaa_dr)["id"] is None, "a further invocation finds the region active"


def test_steps_of_the_plan_halt_at_stages(mwaa_dr: Shell) -> None:
    """Each step is a function with another FAILOVER_UNTIL. A further invocation of a step changes nothing."""
    first = invoke(mwaa_dr, FAILOVER_UNTIL="drained", FAILOVER_MODE="graceful", FAILOVER_REASON="flood")
    assert (first["outcome"], first["mode"], first["reason"]) == ("open", "graceful", "flood")
    assert invoke(mwaa_dr, FAILOVER_UNTIL="drained")["id"] == first["id"]
    assert mwaa_dr.set.state.active_region == "us-east-2"
    assert invoke(mwaa_dr, FAILOVER_UNTIL="promoted")["outcome"] == "open"
    assert mwaa_dr.set.state.phase is Phase.PROMOTING
    last = invoke(mwaa_dr)
    assert (last["id"], last["outcome"]) == (first["id"], "completed")


def test_an_invocation_after_a_timeout_continues_the_plan(mwaa_dr: Shell) -> None:
    """The owner of the plan is the invocation that AWS has ended."""
    now = mwaa_dr.set.clock.now()
    plan = Plan(
        id="p1", source="us-east-2", target="us-east-1", mode=Mode.AUTO, reason="r", by=ARN, owner="timed out",
        started_at=now,
    )  # fmt: skip
    state = mwaa_dr.set.state
    mwaa_dr.set.store.write(transitions.claim(state, plan, at=now), expected_version=state.version)
    record = invoke(mwaa_dr)
    assert (record["id"], record["outcome"]) == ("p1", "completed")


def test_a_refused_step_fails_with_its_reason_and_advice(mwaa_dr: Shell) -> None:
    """Region switch shows the message."""
    mwaa_dr.set.agents["us-east-1"].changes = {"fence_ok": False}
    mwaa_dr.set.clock.advance(2)
    with pytest.raises(StepFailedError, match=r"without the fence.*Nothing was changed"):
        invoke(mwaa_dr)


def test_a_function_without_a_region_says_so(mwaa_dr: Shell) -> None:
    with pytest.raises(ConfigError, match="target region is unknown"):
        invoke(mwaa_dr, AWS_REGION="")
    assert invoke(mwaa_dr, AWS_REGION="", FAILOVER_TARGET_REGION="us-east-2")["outcome"] == "completed"
