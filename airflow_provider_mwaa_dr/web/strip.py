"""The strip on every page of a site that is not simply active: a sentence that says what does not start, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.documents import state_document
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View, decide, why_role_unknown
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.core.status import plan_meaning
from airflow_provider_mwaa_dr.web.reader import Knowledge

UNREAD_S = 30.0
"""From this age on, a read no longer says what the role of the site is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """
    What the strip shows.

    :param word: the condition in one word, in capitals.
    :param text: what it means, in sentences.
    :param is_alarm: whether a user should act.
    """

    word: str
    text: str
    is_alarm: bool


def strip_of(known: Knowledge, config: DRConfig, clock: Clock) -> Strip | None:
    """Return the strip; None for an active site, and before the first read."""
    site = config.region
    if known.observation is None or known.read_at is None or known.read_time is None:
        if known.error is None or known.failing_since is None:
            return None
        since = moment(known.failing_since, clock.now())
        return Strip(
            word="UNKNOWN", text=f"{site}. The state has not been read since {since}: {known.error}", is_alarm=True
        )
    if clock.monotonic() - known.read_at > UNREAD_S:
        why = known.error or "the last read has not ended"
        since = moment(known.read_time, clock.now())
        return Strip(word="UNKNOWN", text=f"{site}. The state has not been read since {since}: {why}", is_alarm=True)
    view = View.of(known.observation, known.read_at)
    state = view.state
    if state is not None and state.plan is not None and why_role_unknown(view, site) is None:
        plan = state.plan
        document = state_document(state)["plan"]
        what = f"{plan.source} to {plan.target}: {plan_meaning(document, state.phase)}"
        word = "FAILOVER HALTED" if plan.is_halted else "FAILOVER"
        return Strip(word=word, text=f"{site}. {what} ({plan.by}: {plan.reason}).", is_alarm=plan.is_halted)
    decision = decide(
        view, region=site, exempt=False, now=known.read_at, lease_s=config.lease_s, point=DecisionPoint.FENCE
    )
    if decision.action is Action.RUN:
        return None
    if decision.action is Action.SKIP and state is not None:
        return Strip(word="STANDBY", text=f"{site}. Nothing starts here; {_active(state, clock)}.", is_alarm=False)
    why = decision.reason.removeprefix("held: ")
    return Strip(word="HELD", text=f"{site}. No run starts: {why}.", is_alarm=True)


def moment(at: datetime, now: datetime) -> str:
    """Return a time for users: with the date if it is not within the last day."""
    text = at.astimezone(timezone.utc)
    return f"{text:%H:%M} UTC" if timedelta() <= now - at < timedelta(days=1) else f"{text:%Y-%m-%d %H:%M} UTC"


def _active(state: DRState, clock: Clock) -> str:
    if state.last_failover_time is None:
        return f"{state.active_region} is active"
    who = f" ({state.changed_by or 'unknown'}: {state.failover_reason})" if state.failover_reason else ""
    return f"{state.active_region} has been active since {moment(state.last_failover_time, clock.now())}{who}"
