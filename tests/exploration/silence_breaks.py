"""
Rules of the silence of heartbeats. For each rule: a function that breaks it, and the bounds of the world that finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from airflow_provider_mwaa_dr.core import lease
from airflow_provider_mwaa_dr.core.lease import Closing
from airflow_provider_mwaa_dr.core.ports import AgentStatus
from tests.exploration.silence import Bounds, Silence

Patch = pytest.MonkeyPatch


def with_a_gate_that_needs_no_heartbeat(patch: Patch) -> None:
    """The engine counts silence, but a view permits for a lease after its read, as in versions before."""
    patch.setattr(Silence, "needs_heartbeat", False)


def with_a_heartbeat_that_extends_an_older_view(patch: Patch) -> None:
    patch.setattr(Silence, "keeps_permission", False)


def with_reports_that_are_read_before_the_claim(patch: Patch) -> None:
    patch.setattr(Silence, "reads_after_claim", False)


def with_reports_that_are_kept_after_a_cancellation(patch: Patch) -> None:
    """The source has run again in between."""
    patch.setattr(Silence, "forgets_reads_of_a_cancelled_claim", False)


def with_silence_of_another_number(patch: Patch) -> None:
    patch.setattr(AgentStatus, "number", property(lambda agent: None if agent.life is None else "any"))


def with_silence_counted_without_the_margin_of_a_tenth(patch: Patch) -> None:
    patch.setattr(lease, "CLOCK_MARGIN", 1.0)


def with_numbers_that_a_new_agent_uses_again(patch: Patch) -> None:
    patch.setattr(Silence, "numbers_lives", False)


def with_a_repeated_request_that_has_the_same_number(patch: Patch) -> None:
    """For example the same item, sent to a second replica: the first request may arrive later."""
    patch.setattr(Silence, "numbers_requests", False)


def with_silence_that_begins_before_the_response_of_the_read(patch: Patch) -> None:
    patch.setattr(Silence, "observes_from_response", False)


def with_silence_that_is_counted_from_the_claim(patch: Patch) -> None:
    """The silence between the claim and the reads counts twice."""
    patch.setattr(Silence, "counts_from_reads", False)


def with_silence_of_the_first_scheduler_only(patch: Patch) -> None:
    closed_at = Closing.gate_closed_at

    def first_only(closing: Closing, agents: Any) -> float:
        return closed_at(
            closing, [agent for agent in agents if agent.job == min(closing.silent_until, default=agent.job)]
        )

    patch.setattr(Closing, "gate_closed_at", first_only)


def with_silence_of_agents_that_need_no_heartbeat(patch: Patch) -> None:
    """Agents of versions before this one publish no life."""
    patch.setattr(AgentStatus, "number", property(lambda agent: f"{agent.life}-{agent.attempt}"))


def with_the_lease_of_the_row_only(patch: Patch) -> None:
    """A user has lowered the lease, and a scheduler of the source still uses the longer one."""
    patch.setattr(Silence, "publishes_lease", False)


@dataclass(frozen=True)
class Shown:
    """
    Where the search finds a break.

    :param depth: the number of steps of the shortest history that shows it.
    """

    bounds: Bounds
    depth: int


_ONE = Bounds()
_TWO_BEATS = Bounds(beats=2)
SILENCE_BREAKS: Mapping[Callable[[Patch], None], Shown] = {
    with_a_gate_that_needs_no_heartbeat: Shown(_ONE, 12),
    with_a_heartbeat_that_extends_an_older_view: Shown(_TWO_BEATS, 10),
    with_reports_that_are_read_before_the_claim: Shown(_TWO_BEATS, 14),
    with_reports_that_are_kept_after_a_cancellation: Shown(replace(_TWO_BEATS, cancels=True), 16),
    with_silence_of_another_number: Shown(_TWO_BEATS, 15),
    with_silence_counted_without_the_margin_of_a_tenth: Shown(_ONE, 10),
    with_numbers_that_a_new_agent_uses_again: Shown(Bounds(lives=2), 16),
    with_a_repeated_request_that_has_the_same_number: Shown(Bounds(beats=2, net=2), 17),
    with_silence_that_begins_before_the_response_of_the_read: Shown(_ONE, 11),
    with_silence_that_is_counted_from_the_claim: Shown(_ONE, 12),
    with_silence_of_the_first_scheduler_only: Shown(Bounds(schedulers=2), 12),
    with_silence_of_agents_that_need_no_heartbeat: Shown(Bounds(earlier=1), 12),
    with_the_lease_of_the_row_only: Shown(Bounds(leases=(1,)), 11),
}
"""The function that breaks each rule, and the world with the shortest history that shows it."""
SILENCE_SCOPES: Mapping[str, tuple[Bounds, int | None]] = {
    "one scheduler": (Bounds(beats=2), None),
    "a request that is sent twice, and a new agent": (Bounds(beats=2, lives=2, net=2), 11),
    "two schedulers": (Bounds(schedulers=2), 11),
    "a lease that a user lowers": (Bounds(beats=2, leases=(1,)), None),
    "a lease that a user raises and lowers": (Bounds(lease=1, beats=2, leases=(2, 1)), 15),
    "a plan that is cancelled, and another claim": (Bounds(beats=2, cancels=True), 13),
    "agents of this version and of the version before": (Bounds(schedulers=2, earlier=1), 12),
    "an engine of the version before": (Bounds(beats=2, earlier_engine=True), None),
}
"""Worlds in which the rules hold, and the number of steps that ``make test`` searches; None: all."""
