"""How long a region is silent: as this process observes it, and as the agents of all regions report it."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_mwaa_dr.core.ports import AgentStatus, SilentAgent
from airflow_provider_mwaa_dr.core.signs_of_life import ENDING_S, SignsOfLife
from airflow_provider_mwaa_dr.exceptions import UnreadableItem
from airflow_provider_mwaa_dr.testing import ManualClock
from tests.unit.core.dr_set import A, B

SILENCE_S = 17.0


def agent(region: str, number: int, *, job: str = "1", life: str | None = "l", **changes: object) -> AgentStatus:
    status = AgentStatus(
        region=region,
        job=job,
        host="host",
        at=ManualClock().now(),
        beat=number,
        version=1,
        epoch=0,
        provider_version="1",
        airflow_version="3.3.1",
        life=life,
        attempt=number if life else 0,
    )
    return replace(status, **changes)  # type: ignore[arg-type]


class Observed:
    """A process that reads the heartbeats of two regions."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.signs = SignsOfLife(self.clock, silence_s=SILENCE_S)

    def read(self, *agents: AgentStatus, after_s: float = 5.0) -> None:
        """Note *agents*, and let some time pass."""
        self.signs.note({region: [each for each in agents if each.region == region] for region in (A, B)})
        self.clock.advance(after_s)


def report(number: int, still_s: float, *, job: str = "1", life: str = "l") -> tuple[SilentAgent, ...]:
    return (SilentAgent(region=A, job=job, number=f"{life}-{number}", still_s=still_s),)


def test_silence_counts_from_the_first_read_of_the_last_heartbeat() -> None:
    """A new heartbeat of any scheduler of the region ends the silence."""
    at = Observed()
    at.read(agent(A, 1), agent(A, 1, job="2"))
    at.read(agent(A, 1), agent(A, 1, job="2"))
    assert (at.signs.of(A).silent_s, at.signs.of(A).has_changed) == (10.0, False)
    at.read(agent(A, 1), agent(A, 2, job="2"))
    assert (at.signs.of(A).silent_s, at.signs.of(A).has_changed) == (5.0, True)


def test_heartbeats_without_a_number_are_compared_by_beat() -> None:
    """With eventual consistency and in earlier versions, an agent has no life."""
    at = Observed()
    at.read(agent(A, 1, life=None))
    at.read(agent(A, 2, life=None))
    assert at.signs.of(A).silent_s == 5.0


def test_an_agent_of_the_other_region_has_observed_the_silence_for_longer() -> None:
    """A process that has just started knows the silence, if it reads the heartbeat with the number in the report."""
    at = Observed()
    at.read(agent(A, 7), agent(B, 1, silent=report(7, 40.0)))
    assert at.signs.of(A).silent_s == 40.0
    at.read(agent(A, 8), agent(B, 2, silent=report(7, 45.0)))
    assert at.signs.of(A).silent_s == 5.0


def test_a_report_about_an_earlier_agent_of_the_scheduler_counts_nothing() -> None:
    """The scheduler restarted, and its numbers began again."""
    at = Observed()
    at.read(agent(A, 7, life="second"), agent(B, 1, silent=report(7, 40.0, life="first")))
    assert at.signs.of(A).silent_s == 5.0


def test_silence_before_an_unknown_time_does_not_count() -> None:
    """An example is an update. The silence that any agent observed before it is ignored, and so are signs of life."""
    at = Observed()
    at.read(agent(A, 7), agent(B, 1))
    at.read(agent(A, 7), agent(B, 2))
    at.signs.forget()
    at.read(agent(A, 7), agent(B, 3, silent=report(7, 900.0)))
    assert (at.signs.of(A).silent_s, at.signs.of(A).witnesses) == (5.0, ())


def test_a_region_is_a_witness_while_its_heartbeats_change() -> None:
    """A region whose agents are silent, too, or have ended, shows nothing about the table."""
    at = Observed()
    at.read(agent(A, 1), agent(B, 1))
    assert at.signs.of(A).witnesses == ()
    at.read(agent(A, 1), agent(B, 2))
    assert at.signs.of(A).witnesses == (B,)
    at.read(agent(A, 1), agent(B, 2), after_s=SILENCE_S)
    assert at.signs.of(A).witnesses == ()
    at.read(agent(A, 1), agent(B, 3, gone=True))
    assert at.signs.of(A).witnesses == ()


def test_the_last_heartbeat_of_a_scheduler_shows_that_it_ended_regularly() -> None:
    """Also if the other scheduler was killed up to two minutes later, but not if it was alive for longer."""
    at = Observed()
    ended = agent(A, 2, gone=True)
    at.read(ended, agent(A, 1, job="2"))
    at.read(ended, agent(A, 2, job="2"), after_s=20.0)
    assert at.signs.of(A).has_ended
    assert not at.signs.of(B).has_ended
    for number in range(3, 12):
        at.read(ended, agent(A, number, job="2"), after_s=20.0)
    assert at.clock.monotonic() > ENDING_S
    assert not at.signs.of(A).has_ended


def test_an_unreadable_heartbeat_shows_nothing() -> None:
    """Neither silence nor life."""
    defect = UnreadableItem(table="t", key="k", field="beat", found="x", allowed="y", advice="z")
    at = Observed()
    at.read(agent(A, 1, unreadable=defect))
    assert (at.signs.of(A).silent_s, at.signs.of(A).has_ended) == (None, False)
