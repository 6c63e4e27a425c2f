"""The health of the active region: signals, quorum, strikes, and what never counts as a failure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.documents import diagnosis_document
from airflow_provider_mwaa_dr.core.health import (
    PROBE_S,
    RESTART_S,
    UPDATE_S,
    Diagnosis,
    Health,
    HealthWatch,
    Limits,
    Reading,
    Signal,
    Streak,
    diagnose,
)
from airflow_provider_mwaa_dr.core.ports import EnvironmentStatus, FailoverRecord
from airflow_provider_mwaa_dr.core.readiness.model import TEST_DAG
from airflow_provider_mwaa_dr.core.state import Mode, Plan, Stage
from airflow_provider_mwaa_dr.exceptions import (
    MwaaAccessError,
    MwaaThrottledError,
    MwaaUnreachableError,
    StateAccessError,
    StateUnreachableError,
    UnusableStateError,
)
from airflow_provider_mwaa_dr.testing import FakeEnvironment, InMemoryStateStore
from tests.unit.core.dr_set import A, B, World

NAMES = {A: "ohio", B: "virginia"}
SILENCE_S = 5.0
POLL_S = 10.0


class WithoutApi(FakeEnvironment):
    """An environment whose web server answers 500. Everything else in it works."""

    def scheduler_is_healthy(self) -> bool:
        raise MwaaUnreachableError("500 again and again.")


def watch(world: World, **changes: object) -> HealthWatch:
    arguments: dict[str, object] = {"silence_s": SILENCE_S, **changes}
    return HealthWatch(world.store.peer(), NAMES, world.environments.__getitem__, world.clock, **arguments)  # type: ignore[arg-type]


def polls(world: World, at: HealthWatch, count: int = 3) -> list[Diagnosis]:
    """Poll the health *count* times, ``POLL_S`` apart, and return the results."""
    found = []
    for _ in range(count):
        found.append(at.poll())
        world.clock.advance(POLL_S)
    return found


def lose(world: World, region: str = A) -> None:
    world.environments[region].unreachable = True
    world.agents[region].alive = False


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    # Agents send thousands of heartbeats in these tests, and no limit of an item matters.
    monkeypatch.setattr(InMemoryStateStore, "has_limits", False)
    return World.build()


def test_a_healthy_region(world: World) -> None:
    """
    From the second poll on, the watch knows that the agents are alive. The result names the other region as a standby.
    """
    _, found = polls(world, watch(world), 2)
    assert (found.region, found.health, found.standbys) == (A, Health.HEALTHY, (B,))
    assert {reading.signal: reading.health for reading in found.readings} == dict.fromkeys(
        (Signal.ENVIRONMENT, Signal.AGENT, Signal.API, Signal.SCHEDULER), Health.HEALTHY
    )


def test_a_lost_region(world: World) -> None:
    """
    The service and the agents are two signals. The API needs the same connection as the service, so it is not called.
    """
    at = watch(world)
    polls(world, at, 2)
    lose(world)
    *_, found = polls(world, at, 2)
    assert found.health is Health.FAILED
    assert [reading.signal for reading in found.readings] == [Signal.ENVIRONMENT, Signal.AGENT]
    assert "environment, agent" in found.why
    assert not [call for call in world.environments[A].calls if call[0] == "scheduler_is_healthy"][2:]


def test_a_region_lost_before_the_first_poll(world: World) -> None:
    """Its last heartbeats are still in the table, but do not change."""
    lose(world)
    first, second = polls(world, watch(world), 2)
    assert (first.health, second.health) == (Health.UNKNOWN, Health.FAILED)


def test_schedulers_that_died(world: World) -> None:
    """
    MWAA returns AVAILABLE and the API answers 200. Only the body of the answer and the heartbeats show the failure.
    """
    at = watch(world)
    world.environments[A].scheduler_healthy = False
    world.agents[A].alive = False
    *_, found = polls(world, at, 3)
    assert (found.health, found.why) == (Health.FAILED, "2 of 4 signals failed (agent, scheduler), 2 are enough")


def cut_off(world: World) -> None:
    """Break only the connection from this machine to the region."""
    world.environments[A].unreachable = True


def without_api(world: World) -> None:
    world.environments[A].__class__ = WithoutApi


def silent_agent(world: World) -> None:
    world.agents[A].alive = False


def without_rights(world: World) -> None:
    def refuse(_: object) -> None:
        raise MwaaAccessError("No right.")

    world.environments[A].status = refuse.__get__(world)  # type: ignore[method-assign]
    world.agents[A].alive = False


@pytest.mark.parametrize(
    ("happens", "alone"),
    [
        (cut_off, Health.UNKNOWN),
        (without_api, Health.UNKNOWN),
        (silent_agent, Health.FAILED),
        (without_rights, Health.UNKNOWN),
    ],
)
def test_one_signal_is_not_enough(world: World, happens: Callable[[World], None], alone: Health) -> None:
    """With a quorum of one, silent agents would be. Missing answers are not while heartbeats prove that it is alive."""
    eager, at = watch(world, quorum=1), watch(world)
    polls(world, at, 2)
    happens(world)
    polls(world, eager, 2)
    polls(world, at, 1)  # reads the last heartbeat that it had not read yet
    assert {found.health for found in polls(world, at, 5)} == {Health.UNKNOWN}
    last = eager.poll()
    assert last.health is alone
    assert ("its agents send heartbeats" in last.why) == (happens in {cut_off, without_api})


@pytest.mark.parametrize(
    "status", [status for status in EnvironmentStatus if not status.is_usable and status.value.isupper()]
)
def test_what_an_environment_status_means(world: World, status: EnvironmentStatus) -> None:
    """
    The schedulers are dead, too. During an update or maintenance, the health is unknown for as long as it takes, and
    never failed.
    """
    at = watch(world)
    world.environments[A].reported_status = status
    world.environments[A].scheduler_healthy = False
    world.agents[A].alive = False
    healths = {found.health for found in polls(world, at, 200)[2:]}
    gone = {"CREATE_FAILED", "DELETED", "DELETING", "UNAVAILABLE"}
    assert healths == ({Health.FAILED} if status.value in gone else {Health.UNKNOWN})


def test_an_agent_has_its_time_to_come_back_after_an_update(world: World) -> None:
    """The silence of half an hour of update does not count after the update has ended."""
    at = watch(world, silence_s=3 * POLL_S)
    world.environments[A].reported_status = EnvironmentStatus.UPDATING
    world.environments[A].scheduler_healthy = False
    world.agents[A].alive = False
    polls(world, at, 180)
    world.environments[A].reported_status = EnvironmentStatus.AVAILABLE
    assert [found.health for found in polls(world, at, 3)] == [Health.UNKNOWN] * 3
    assert at.poll().health is Health.FAILED


def test_a_state_table_that_does_not_answer_makes_the_health_unknown(world: World) -> None:
    """Also if the region is lost. Agents' silence counts only while the watch could read their heartbeats."""
    store = world.store.peer()
    at = HealthWatch(store, NAMES, world.environments.__getitem__, world.clock, silence_s=SILENCE_S)
    polls(world, at, 2)
    lose(world)
    store.unreachable = True
    found = polls(world, at, 5)[-1]
    assert (found.region, found.health) == (None, Health.UNKNOWN)
    assert "unknown" in found.why
    store.unreachable = False
    assert [each.health for each in polls(world, at, 2)] == [Health.UNKNOWN, Health.FAILED]


def test_heartbeats_that_cannot_be_read_are_no_silence(world: World) -> None:
    """The state was read, and the next call failed. The silence counts again from the next successful read on."""
    store = world.store.peer()
    at = HealthWatch(store, NAMES, world.environments.__getitem__, world.clock, silence_s=SILENCE_S)
    polls(world, at, 2)
    lose(world)
    store.failing["agents"] = StateUnreachableError("Timeout of the query.")
    found = polls(world, at, 5)[-1]
    (agents,) = [reading for reading in found.readings if reading.signal is Signal.AGENT]
    assert (found.region, agents.health, agents.why) == (A, Health.UNKNOWN, "Timeout of the query.")
    store.failing.clear()
    assert [each.health for each in polls(world, at, 2)] == [Health.UNKNOWN, Health.FAILED]


def test_an_active_region_without_a_known_environment_is_not_watched(world: World) -> None:
    """The watch cannot ask it, so it must not count as failed."""
    at = HealthWatch(world.store.peer(), {B: NAMES[B]}, world.environments.__getitem__, world.clock, silence_s=1)
    found = polls(world, at, 3)[-1]
    assert (found.region, found.health) == (A, Health.UNKNOWN)
    assert found.why == "its environment is not configured or registered"


def test_a_region_is_healthy_only_if_a_signal_shows_it() -> None:
    """No failed signal is not enough."""
    readings = [Reading(signal=Signal.AGENT, health=Health.UNKNOWN, why="not polled for long enough")]
    found = diagnose(A, readings, quorum=2)
    assert (found.health, found.why) == (Health.UNKNOWN, "all signals are unknown")
    assert str(found) == f"{A} is unknown: all signals are unknown [agent unknown (not polled for long enough)]"


def test_the_document_of_a_diagnosis_has_each_signal_with_its_reason(world: World) -> None:
    """The next task of a DAG reads it from the sensor's XCom, so it has plain values only."""
    lose(world)
    document = diagnosis_document(polls(world, watch(world), 2)[-1])
    assert json.loads(json.dumps(document)) == document
    assert (document["region"], document["health"], document["standbys"]) == (A, "failed", [B])
    assert [(each["signal"], each["health"]) for each in document["signals"]] == [
        ("environment", "failed"), ("agent", "failed")
    ]  # fmt: skip
    assert all(each["why"] in document["text"] for each in document["signals"])
    assert (document["problems"], document["is_halted"]) == ([], False)


def test_missing_rights_are_raised(world: World) -> None:
    """Without the right to read the state, the watch would wait for ever, and no user would know."""

    class Forbidden:
        def read(self) -> None:
            raise StateAccessError("No.")

    at = HealthWatch(Forbidden(), NAMES, world.environments.__getitem__, world.clock, silence_s=1)  # type: ignore[arg-type]
    with pytest.raises(StateAccessError):
        at.poll()


def test_the_health_is_unknown_while_a_failover_is_in_progress(world: World) -> None:
    """A lost region that a failover is leaving must not be reported as lost again."""
    plan = Plan(
        id="p", source=A, target=B, mode=Mode.FORCED, reason="r", by="b", started_at=world.clock.now(), owner="o"
    )
    world.store.write(transitions.claim(world.state, plan, at=world.clock.now()), expected_version=world.state.version)
    lose(world)
    assert {found.health for found in polls(world, watch(world), 5)} == {Health.UNKNOWN}


def test_a_halt_that_no_caller_continues_is_a_problem_and_no_failure(world: World) -> None:
    """It is reported when it has lasted for longer than allowed, as far as this process has observed. Nothing else."""
    world.fail_over(until=Stage.DRAINED, hold_s=6 * POLL_S)
    lose(world)
    found = polls(world, watch(world), 9)
    assert {each.health for each in found} == {Health.UNKNOWN}
    assert [each.is_halted for each in found] == [False] * 7 + [True] * 2
    (problem,) = found[-1].problems
    assert "has not continued to the next stage for 80 s, and 60 s were allowed. No region executes" in problem
    assert f"continue: mwaa-dr failover {B} --reason TEXT. Or cancel: mwaa-dr failover {A} --reason TEXT" in problem
    assert not any(each.problems for each in found[:7])
    assert diagnosis_document(found[-1])["is_halted"] is True

    at = watch(world)
    polls(world, at, 6)
    world.fail_over(until=Stage.PROMOTED, hold_s=POLL_S)
    assert not any(each.problems for each in polls(world, at, 9)), "the target's agent finishes it"


def test_a_halt_that_changes_is_not_overdue(world: World) -> None:
    """The time counts from the last write."""
    world.fail_over(until=Stage.DRAINED, hold_s=3 * POLL_S)
    at = watch(world)
    for _ in range(4):
        assert not any(each.problems for each in polls(world, at, 3))
        world.store.write(
            replace(world.state, version=world.state.version + 1), expected_version=world.state.version
        )  # fmt: skip


def test_an_airflow_does_not_watch_its_own_region(world: World) -> None:
    """An Airflow in the active region reads no signal."""
    found = watch(world, stands_in=lambda region: region == A).poll()
    assert (found.region, found.health, found.readings) == (A, Health.UNKNOWN, ())


def test_it_follows_the_role(world: World) -> None:
    """The watch starts from the beginning with a region that became active."""
    at = watch(world)
    polls(world, at, 2)
    world.fail_over(B)
    lose(world, A)
    first, second = polls(world, at, 2)
    assert (first.region, second.region, second.health, second.standbys) == (B, B, Health.HEALTHY, (A,))


class TestProbe:
    """Runs of dr_test_dag."""

    @pytest.fixture
    def at(self, world: World) -> HealthWatch:
        world.environments[A].add_dag(TEST_DAG)
        return watch(world, probe_every_s=600.0)

    def probe(self, found: Diagnosis) -> tuple[Health, str]:
        return next((each.health, each.why) for each in found.readings if each.signal is Signal.PROBE)

    def test_one_that_succeeds(self, world: World, at: HealthWatch) -> None:
        """One run for each interval, not one for each poll. Its result counts until the next run has ended."""
        found = polls(world, at, 50)
        assert self.probe(found[0])[0] is Health.UNKNOWN
        assert {self.probe(each)[0] for each in found[1:]} == {Health.HEALTHY}
        started = [call for call in world.environments[A].calls if call[0] == "trigger"]
        assert len(started) == 1
        polls(world, at, 20)
        assert len([call for call in world.environments[A].calls if call[0] == "trigger"]) == 2

    def test_one_that_does_not_end(self, world: World, at: HealthWatch) -> None:
        """A scheduler that writes heartbeats, but starts no run."""
        world.environments[A].trigger_s = 10_000
        found = polls(world, at, int(PROBE_S / POLL_S) + 1)
        assert [self.probe(each)[0] for each in found[:-1]] == [Health.UNKNOWN] * (len(found) - 1)
        assert self.probe(found[-1])[0] is Health.FAILED

    def test_one_that_fails(self, world: World, at: HealthWatch) -> None:
        """A task that cannot execute."""
        world.environments[A].trigger_s = 10_000
        at.poll()
        run_id = next(call[2] for call in world.environments[A].calls if call[0] == "trigger")
        world.environments[A].end_run(TEST_DAG, run_id, "failed")
        assert self.probe(at.poll())[0] is Health.FAILED

    def test_a_paused_dag_makes_the_probe_unknown(self, world: World, at: HealthWatch) -> None:
        """The run waits because a user paused the DAG."""
        world.environments[A].flip(TEST_DAG, is_paused=True)
        world.environments[A].trigger_s = 10_000
        found = polls(world, at, int(PROBE_S / POLL_S) + 1)
        assert self.probe(found[-1]) == (Health.UNKNOWN, f"{TEST_DAG} is paused")

    def test_a_dag_that_is_not_deployed_makes_the_probe_unknown(self, world: World) -> None:
        """The other signals still count."""
        found = polls(world, watch(world, probe_every_s=600.0), 3)[-1]
        assert (found.health, self.probe(found)) == (Health.HEALTHY, (Health.UNKNOWN, f"{TEST_DAG} is not deployed"))


def seen(region: str | None, health: Health) -> Diagnosis:
    return Diagnosis(region=region, health=health, why="")


def streak(world: World, polls: int = 3) -> Streak:
    return Streak(polls, world.clock, every_s=POLL_S)


def certain(world: World, at: Streak, *found: Diagnosis, every_s: float = POLL_S) -> list[bool]:
    """Add polls, ``every_s`` apart, and return after which of them the health is certain."""
    results = []
    for each in found:
        results.append(at.add(each))
        world.clock.advance(every_s)
    return results


def test_only_consecutive_polls_count(world: World) -> None:
    """A healthy poll, an unknown one and another region start the time again."""
    failed, at = seen(A, Health.FAILED), streak(world)
    for between in (seen(A, Health.HEALTHY), seen(A, Health.UNKNOWN), seen(B, Health.FAILED)):
        assert certain(world, at, failed, failed, between, failed, failed) == [False] * 5
        at.add(seen(None, Health.UNKNOWN))
    assert certain(world, at, *[failed] * 4) == [False, False, True, True]
    assert certain(world, streak(world, 1), *[seen(A, Health.UNKNOWN)] * 2) == [False, False]


def test_the_time_counts_and_not_the_number_of_polls(world: World) -> None:
    """Polls of a dead region take longer. That does not delay the decision, and a poll that begins early is enough."""
    failed = seen(A, Health.FAILED)
    assert certain(world, streak(world, 4), failed, failed, failed, every_s=3 * POLL_S) == [False, True, True]
    assert certain(world, streak(world), *[failed] * 3, every_s=0.95 * POLL_S) == [False, False, True]


def test_a_failure_while_the_service_answers_must_last_longer_than_a_restart(world: World) -> None:
    """A lost region starts the time of a lost region, so a single poll without an answer does not end the wait."""
    restarting = replace(seen(A, Health.FAILED), lasting_s=100.0)
    lost = seen(A, Health.FAILED)
    assert certain(world, streak(world), *[restarting] * 11) == [False] * 10 + [True]
    assert certain(world, streak(world), *[restarting] * 9, lost, restarting, lost, lost) == [False] * 13
    assert streak(world, 1).add(restarting)


def test_limits(world: World) -> None:
    """
    A cooldown counts from the end of the last failover, and a number within 24 hours. Without limits nothing is
    refused.
    """
    now = world.clock.now()
    record = FailoverRecord(
        id="1", source=A, target=B, mode=Mode.FORCED, reason="r", by="b", started_at=now - timedelta(hours=3), epoch=1
    )
    ended = replace(record, finished_at=now - timedelta(hours=1))
    assert Limits().refusal([ended] * 9, now) is None
    assert Limits(cooldown=timedelta(hours=2), per_day=1).refusal([], now) is None
    assert "60 min ago, and the cooldown is 120 min" in str(
        Limits(cooldown=timedelta(hours=2)).refusal([ended, record], now)
    )
    assert Limits(cooldown=timedelta(hours=2)).refusal([record], now) is None
    assert "1 failovers within 24 hours, and the limit is 1" in str(Limits(per_day=1).refusal([ended], now))
    assert Limits(per_day=1).refusal([ended], now + timedelta(hours=22)) is None


def test_a_state_that_gives_no_region_a_role_is_a_problem(world: World) -> None:
    """From the first poll on, the active region is unknown. The problem states what is wrong and what to do."""
    at = watch(world)
    polls(world, at, 2)
    world.store.overwrite(replace(world.state, active_region="us-est-2"))
    found = at.poll()
    assert (found.region, found.health) == (None, Health.UNKNOWN)
    (problem,) = found.problems
    assert "active_region of the item ACTIVE_REGION is 'us-est-2'" in problem
    assert "mwaa-dr failover" in problem
    assert problem.rstrip(".") in str(found)
    world.store.overwrite(replace(world.state, active_region=A))
    assert [each.problems for each in polls(world, at, 2)] == [(), ()]


def test_a_state_item_that_cannot_be_understood_is_a_problem(world: World) -> None:
    """Not even its version can be read. The watch continues and reports the problem."""
    world.store.failing["read"] = UnusableStateError("version is 'x'.", advice="Correct it.")
    store = world.store
    found = HealthWatch(store, NAMES, world.environments.__getitem__, world.clock, silence_s=SILENCE_S).poll()
    assert (found.health, found.problems) == (Health.UNKNOWN, ("version is 'x'. Correct it.",))


def test_items_that_cannot_be_read_are_reported_once_per_interval(world: World) -> None:
    """Finding them takes a scan. The first scan comes one interval after the start, and does not change the health."""
    at = watch(world, items_every_s=6 * POLL_S)
    world.store.damage(f"SNAPSHOT#{B}", field="pages", found="'three'", allowed="a whole number")
    world.agents[A].changes["unread"] = ("Entry 7 of the ledger of us-east-1 cannot be read.",)
    found = polls(world, at, 14)
    reported = [number for number, each in enumerate(found) if each.problems]
    assert reported == [6, 12]
    first, second = found[6].problems
    assert f"Item SNAPSHOT#{B}" in first
    assert "field pages: found 'three', allowed is a whole number" in first
    assert "Entry 7 of the ledger" in second
    assert found[6].health is Health.HEALTHY
    assert [each.problems for each in polls(world, watch(world), 14)] == [()] * 14


def test_items_that_cannot_be_listed_are_a_problem_unless_the_table_does_not_answer(world: World) -> None:
    """A missing right is reported. If the table does not answer, the watch tries again later."""
    store = world.store.peer()
    every_s = POLL_S / 2
    at = HealthWatch(
        store, NAMES, world.environments.__getitem__, world.clock, silence_s=SILENCE_S, items_every_s=every_s
    )
    polls(world, at, 1)
    store.failing["unreadable"] = StateUnreachableError("Silent.")
    assert at.poll().problems == ()
    world.clock.advance(POLL_S)
    store.failing["unreadable"] = StateAccessError("No right to scan.")
    assert at.poll().problems == ("The check for unreadable items failed: No right to scan.",)


def test_many_problems_are_counted(world: World) -> None:
    """A message has a limited length."""
    at = watch(world, items_every_s=1.0)
    polls(world, at, 1)
    for number in range(30):
        world.store.damage(f"PAUSED#{number:02d}")
    problems = at.poll().problems
    assert len(problems) == 11
    assert problems[-1] == "20 more cannot be read; mwaa-dr status lists them."


def test_a_heartbeat_that_cannot_be_read_is_no_silence(world: World) -> None:
    """
    The watch then does not know whether the scheduler is alive. A wrong edit of an item must not cause a failover.
    """
    world.agents[A].alive = False
    world.store.damage(f"AGENT#{A}#1", field="beat", found="'three'")
    found = polls(world, watch(world))[-1]
    (reading,) = [each for each in found.readings if each.signal is Signal.AGENT]
    assert (reading.health, found.health) == (Health.UNKNOWN, Health.HEALTHY)


class Throttled(FakeEnvironment):
    """An environment whose service throttles every call."""

    def status(self) -> EnvironmentStatus:
        raise MwaaThrottledError("Too many calls.")

    def scheduler_is_healthy(self) -> bool:
        raise MwaaThrottledError("Too many calls.")


def test_a_service_that_throttles_is_alive(world: World) -> None:
    """What it would have answered is unknown: perhaps that the environment is updated."""
    at = watch(world)
    polls(world, at, 2)
    world.agents[A].alive = False
    world.environments[A].__class__ = Throttled
    assert {found.health for found in polls(world, at, 10)} == {Health.UNKNOWN}
    world.environments[A].__class__ = FakeEnvironment
    world.environments[A].unreachable = True
    assert [found.health for found in polls(world, at, 2)] == [Health.UNKNOWN, Health.FAILED]


def test_an_api_that_throttles_has_not_failed(world: World) -> None:
    """Engines and other callers may use all calls of a second."""
    at = watch(world)
    world.environments[A].scheduler_is_healthy = Throttled.scheduler_is_healthy.__get__(world.environments[A])  # type: ignore[method-assign]
    found = polls(world, at, 3)[-1]
    assert {each.health for each in found.readings if each.signal is Signal.API} == {Health.UNKNOWN}


def test_an_update_that_the_service_reported_counts_until_the_agents_are_back(world: World) -> None:
    """The service does not answer any more, so it cannot say whether the update has ended. A state table that does not
    answer meanwhile changes nothing."""
    store = world.store.peer()
    at = HealthWatch(store, NAMES, world.environments.__getitem__, world.clock, silence_s=SILENCE_S)
    world.environments[A].reported_status = EnvironmentStatus.UPDATING
    polls(world, at, 3)
    lose(world)
    store.unreachable = True
    polls(world, at, 1)
    store.unreachable = False
    found = polls(world, at, 20)
    assert {each.health for each in found} == {Health.UNKNOWN}
    assert "it was changing the environment" in found[-1].why
    world.clock.advance(UPDATE_S)
    assert [each.health for each in polls(world, at, 2)] == [Health.UNKNOWN, Health.FAILED]


def test_an_update_has_ended_when_the_agents_are_back(world: World) -> None:
    """A region that is lost after an update is detected as usual."""
    at = watch(world)
    world.environments[A].reported_status = EnvironmentStatus.UPDATING
    polls(world, at, 3)
    world.environments[A].reported_status = EnvironmentStatus.AVAILABLE
    polls(world, at, 3)
    lose(world)
    assert polls(world, at, 3)[-1].health is Health.FAILED


def end_regularly(world: World) -> None:
    """End the schedulers of the region. Their agents write a last heartbeat."""
    world.agents[A].changes["gone"] = True
    world.clock.advance(1.5)
    world.agents[A].alive = False


@pytest.mark.parametrize(("answers", "after_s"), [(True, RESTART_S), (False, UPDATE_S)])
def test_schedulers_that_ended_regularly_are_expected_back(world: World, *, answers: bool, after_s: float) -> None:
    """A restart is shorter than an update, which a service that does not answer cannot report."""
    at = watch(world)
    polls(world, at, 2)
    world.environments[A].scheduler_healthy = False
    world.environments[A].unreachable = not answers
    end_regularly(world)
    found = polls(world, at, int(after_s / POLL_S) + 3)
    healths = [each.health for each in found]
    assert healths.count(Health.UNKNOWN) == pytest.approx(after_s / POLL_S, abs=2)
    assert healths[-1] is Health.FAILED
    assert "since a scheduler ended regularly" in str(found[5])


def test_schedulers_of_an_environment_that_is_deleted_are_not_expected_back(world: World) -> None:
    """The service says that the environment is gone."""
    at = watch(world)
    polls(world, at, 2)
    end_regularly(world)
    world.environments[A].reported_status = EnvironmentStatus.DELETING
    found = polls(world, at, 3)[-1]
    assert (found.health, found.lasting_s) == (Health.FAILED, 0.0)


def test_a_failure_is_certain_later_while_the_service_answers(world: World) -> None:
    """The schedulers may be restarting. If the service does not answer, either, the region is lost."""
    at = watch(world, restart_s=300.0)
    polls(world, at, 2)
    world.environments[A].scheduler_healthy = False
    world.agents[A].alive = False
    found = polls(world, at, 3)[-1]
    assert (found.health, found.lasting_s) == (Health.FAILED, 300.0)
    world.environments[A].unreachable = True
    found = polls(world, at, 1)[-1]
    assert (found.health, found.lasting_s) == (Health.FAILED, 0.0)


def test_silence_everywhere_is_a_problem_of_the_table(world: World) -> None:
    """No region can write heartbeats. Only after the time of a restart do silent agents count."""
    at = watch(world)
    polls(world, at, 2)
    world.environments[A].unreachable = True
    for agent in world.agents.values():
        agent.alive = False
    found = polls(world, at, int(RESTART_S / POLL_S) + 3)
    assert {each.health for each in found[:-4]} == {Health.UNKNOWN}
    assert "none from another region either" in str(found[5])
    assert found[-1].health is Health.FAILED
