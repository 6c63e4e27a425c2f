"""The halt of a plan at the stage that its caller named, and the refusal of callers that must not halt it."""

from __future__ import annotations

from collections.abc import Collection

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.failover.context import EngineContext
from airflow_provider_mwaa_dr.core.failover.ownership import OwnedPlan
from airflow_provider_mwaa_dr.core.failover.table import plan_of
from airflow_provider_mwaa_dr.core.heartbeats import beats, live_agents
from airflow_provider_mwaa_dr.core.ports import RECORDS, FailoverRecord
from airflow_provider_mwaa_dr.core.state import DRState, Stage
from airflow_provider_mwaa_dr.exceptions import NotReadyError


def halt(own: OwnedPlan) -> FailoverRecord:
    """
    Leave the plan without an owner, and return its open record.

    Every step before its stage is complete. The record is written before the state: only the owner writes it.
    """
    own.progress.begin("halt")
    state = own.state()
    plan = plan_of(state)
    assert plan.hold is not None  # noqa: S101  (the caller has checked it)
    own.progress.done(f"{plan.hold.value}: {transitions.meaning(plan.hold, source=plan.source, target=plan.target)}")
    record = own.progress.record
    assert record is not None  # noqa: S101  (the engine opens it when it enters a plan)
    own.write(state.phase, lambda row: transitions.halt(row, at=own.clock.now()))
    return record


def record_of(context: EngineContext, state: DRState) -> FailoverRecord:
    """Return the record of the open plan, as its owner wrote it."""
    plan = plan_of(state)
    found = context.progress.history(lambda: context.table.store.get(RECORDS, plan.id))
    return found if found is not None else FailoverRecord.of(plan, epoch=state.epoch)


class HoldCheck:
    """
    Whether every live agent knows that a plan can be halted.

    An agent of an earlier version drops the plan's stage when it writes the state, and continues the plan. Until then
    its fence may let tasks start in a drained region.

    The check waits for one heartbeat of each scheduler. Create it early, so that these arrive during other checks.

    :param is_needed: whether it may be used.
    """

    def __init__(self, context: EngineContext, *, is_needed: bool = True) -> None:
        self._context = context
        self._seen = beats(context.table.agents, sorted(context.regions())) if is_needed else {}

    def unaware(self, lost: Collection[str]) -> list[str]:
        """
        Return the agents that do not know it, a text for each; empty if all know it.

        :param lost: regions that a forced plan leaves. Their agents do not count: they write no part of the plan.
        """
        timing = self._context.timing
        found = live_agents(
            self._context.table.agents,
            {region: seen for region, seen in self._seen.items() if region not in lost},
            self._context.clock,
            silence_s=timing.agent_silence_s,
            poll_s=timing.table_poll_s,
            on_wait=lambda region: self._context.progress.report(f"waiting for a heartbeat from {region}"),
        )
        return [
            f"{region} (job {agent.job}, provider {agent.provider_version})"
            for region, agents in sorted(found.items())
            for agent in agents
            if not agent.knows_hold
        ]

    def refuse(self, until: Stage, lost: Collection[str]) -> None:
        """:raises NotReadyError: an agent does not know it. No write was made."""
        unaware = self.unaware(lost)
        if unaware:
            why = why_unaware(unaware)
            raise NotReadyError(
                f"The failover cannot halt at {until.value}: {why}.",
                why=[why],
                advice="Nothing was changed. Install this version of the provider there and restart the schedulers, or "
                "fail over without until.",
            )


def why_unaware(unaware: Collection[str]) -> str:
    """Return why a plan cannot be halted, as a text for display."""
    return f"these agents would not wait, because their version does not know until: {', '.join(unaware)}"
