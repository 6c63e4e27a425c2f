"""What an engine can know about the copies of a state table with eventual consistency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow_provider_mwaa_dr.core.config import Eventual
from airflow_provider_mwaa_dr.core.failover.context import EngineContext
from airflow_provider_mwaa_dr.core.readiness import refusals
from airflow_provider_mwaa_dr.core.state import DRState, Phase


def must_read(context: EngineContext, source: str, version: int) -> bool:
    """Whether each new read of *source* returns *version* or a later one, as far as this caller can read."""
    if not context.eventual or reads_all_copies(context, source):
        return True
    held = _copies(context).get(source)
    return held is not None and held.version >= version


def reads_all_copies(context: EngineContext, source: str) -> bool:
    """Whether all agents of *source* say that they run only while every copy can be read."""
    agents = [agent for agent in context.table.agents(source) if not agent.gone]
    return bool(agents) and all(agent.eventual == Eventual.SAFE.value for agent in agents)


def unread_copies(context: EngineContext, region: str) -> Sequence[str]:
    """Return why *region* would hold everything after its promotion; empty if it would not."""
    if not context.eventual or not any(agent.eventual == Eventual.SAFE.value for agent in context.table.agents(region)):
        return ()
    unread = set(context.environments).difference(_copies(context))
    if not unread:
        return ()
    why = (
        f"{region} runs only while every copy of the state table can be read ([dr] eventual = safe), and the copy "
        f"in {', '.join(sorted(unread))} cannot be read: first set [dr] eventual = available in {region}"
    )
    return (why,)


def why_lease_is_ignored(context: EngineContext, source: str) -> str | None:
    """Return why the lease does not stop *source*; None if it does."""
    if refusals.ignores_lease(context.table.agents(source)):
        return refusals.why_lease_is_ignored(source)
    if not context.eventual or reads_all_copies(context, source) or source in _copies(context):
        return None
    return why_copy_ignores_lease(source)


def why_copy_ignores_lease(source: str) -> str:
    """Return why the lease does not stop a region whose copy cannot be read."""
    return (
        f"if {source} is cut off, it continues with its own copy of the state table ([dr] eventual = available), which "
        "cannot be read from here, so no lease stops it"
    )


def why_target_copy_unreadable(context: EngineContext, state: DRState) -> str | None:
    """Return why the open plan must not be replaced: its target's copy cannot be read, and may show a promotion."""
    plan = state.plan
    if not context.eventual or plan is None or state.phase is not Phase.DRAINING:
        return None
    if plan.target in _copies(context):
        return None
    return f"the copy of the state table in {plan.target} cannot be read, and may show that {plan.target} is active"


def _copies(context: EngineContext) -> Mapping[str, DRState | None]:
    """Return the state in each copy that can be read, by region."""
    return context.table.retry(context.table.store.copies)
