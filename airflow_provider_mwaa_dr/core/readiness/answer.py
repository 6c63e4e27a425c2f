"""The answer to the question behind a check: can I fail over now, and what will it cost?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from airflow_provider_mwaa_dr.core.display import counted
from airflow_provider_mwaa_dr.core.lease import CLOCK_MARGIN
from airflow_provider_mwaa_dr.core.ports import FailoverOutcome
from airflow_provider_mwaa_dr.core.readiness.causes import is_lost
from airflow_provider_mwaa_dr.core.readiness.model import CheckResult, Facts, Unknown, Verdict
from airflow_provider_mwaa_dr.core.readiness.refusals import REFUSALS, ignores_lease
from airflow_provider_mwaa_dr.core.timing import Timing


def answer(facts: Facts, results: Sequence[CheckResult]) -> str:
    """Return whether a failover to the target is possible now, and its cost, in one line."""
    source, target = facts.source.region, facts.target.region
    failed = [result.name for result in results if result.verdict is Verdict.FAIL]
    refused = [name for name in failed if name in {refusal.name for refusal in REFUSALS}]
    if facts.state.plan is not None:
        plan = facts.state.plan
        return f"A failover to {plan.target} is in progress: mwaa-dr status shows how to continue it."
    if refused or "state" in failed:
        return f"No: {target} cannot take over from {source} now. A failover would be refused: {', '.join(failed)}."
    if is_lost(facts.source) and ignores_lease(facts.source.heartbeats):
        return f"No: {source} does not answer, and no lease stops it. A forced failover to {target} would be refused."
    if failed:
        return f"Not without risk: a failover to {target} would not be refused, but checks fail: {', '.join(failed)}."
    return f"Yes: {target} can take over from {source} now. Cost: {_cost(facts)}."


def _cost(facts: Facts) -> str:
    """Return what a failover would cost, by what is known now."""
    source, timing = facts.source, Timing.from_config(facts.settings)
    if is_lost(source):
        wait_s = math.ceil(CLOCK_MARGIN * facts.state.lease_s + timing.gate_commit_s)
        parts = [
            f"no run starts for about {wait_s} s, until the lease of {source.region} has expired",
            "runs that ended in its last seconds may run again",
        ]
    else:
        took = _last_duration_s(facts)
        more = "some seconds" if took is None else f"some seconds (the last failover took {took:.0f} s)"
        parts = [
            f"no run starts while runs in progress finish (at most {timing.drain_s:.0f} s), and for {more} more",
            "no run is repeated",
        ]
    if facts.runs_table is None:
        parts[-1] = "interrupted runs are not resumed, because no runs table is set"
    if not isinstance(facts.wanted, Unknown):
        parts.append(f"{counted(len(facts.wanted), 'DAG')} {'moves' if len(facts.wanted) == 1 else 'move'}")
    return "; ".join(parts)


def _last_duration_s(facts: Facts) -> float | None:
    """Return how long the last completed failover of the set took, from its claim to its last step."""
    if isinstance(facts.records, Unknown):
        return None
    for record in facts.records:
        if record.outcome is FailoverOutcome.COMPLETED and record.finished_at is not None:
            return (record.finished_at - record.started_at).total_seconds()
    return None
