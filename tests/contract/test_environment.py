"""What every Environment promises: the fake, and MWAA in front of three Airflow versions over sockets."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.mwaa.environment import MwaaEnvironment
from airflow_provider_mwaa_dr.core.ports import DagInfo, Environment, EnvironmentStatus, RunInfo
from airflow_provider_mwaa_dr.exceptions import MwaaAccessError, MwaaRequestError, MwaaUnreachableError
from airflow_provider_mwaa_dr.testing import FakeEnvironment, ManualClock
from tests.contract.airflow_server import AirflowServer

VERSIONS = ["2.10.3", "3.0.6", "3.3.1"]
LONG = "a_dag_with_a_name_that_is_far_too_long_for_the_path_of_a_call_to_invoke_rest_api"


@pytest.fixture
def world(clock: ManualClock) -> FakeEnvironment:
    """What is really there, for tests to arrange and look at."""
    return FakeEnvironment("us-east-2", "etl", clock=clock)


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Process variables under which boto3 asks nobody but the server of a test."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL_MWAA", raising=False)
    return monkeypatch


@pytest.fixture
def server(
    request: pytest.FixtureRequest,
    world: FakeEnvironment,
    clock: ManualClock,
    aws_environment: pytest.MonkeyPatch,
) -> Iterator[AirflowServer]:
    """An MWAA and an Airflow of the version asked for."""
    server = AirflowServer(world, request.param, clock=clock.monotonic)
    aws_environment.setenv("AWS_ENDPOINT_URL", server.url)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["fake", *VERSIONS])
def environment(
    request: pytest.FixtureRequest,
    world: FakeEnvironment,
    clock: ManualClock,
    aws_environment: pytest.MonkeyPatch,
    session: boto3.session.Session,
) -> Iterator[Environment]:
    """The environment under test, in which *world* is what is there."""
    if request.param == "fake":
        yield world
        return
    server = AirflowServer(world, request.param, clock=clock.monotonic)
    aws_environment.setenv("AWS_ENDPOINT_URL", server.url)
    server.start()
    yield MwaaEnvironment("us-east-2", "etl", clock=clock, session=session)
    server.stop()


def test_environment_names_itself(environment: Environment) -> None:
    """Region and name are those it was made with."""
    assert (environment.region, environment.name) == ("us-east-2", "etl")


def test_status_is_the_services(environment: Environment) -> None:
    """The service's word is returned as a member."""
    assert environment.status() is EnvironmentStatus.AVAILABLE


def test_description_is_the_services(environment: Environment) -> None:
    """What a comparison of two environments needs, and the status with it."""
    found = environment.describe()
    assert found.status is EnvironmentStatus.AVAILABLE
    assert found.environment_class == "mw1.small"
    assert found.airflow_version is not None
    assert found.schedulers == 2


def test_rights_are_tried_without_effect(environment: Environment, world: FakeEnvironment) -> None:
    """Who may change DAGs gets no error, who may not is told, and no flag has moved."""
    world.add_dag("orders", is_paused=True)
    environment.try_change()
    world.read_only = True
    with pytest.raises(MwaaAccessError):
        environment.try_change()
    assert world.paused == {"orders"}


@pytest.mark.parametrize("healthy", [True, False])
def test_health_is_read_from_the_body(environment: Environment, world: FakeEnvironment, healthy: bool) -> None:
    """A dead scheduler is seen, although the health call itself succeeds."""
    world.scheduler_healthy = healthy
    assert environment.scheduler_is_healthy() is healthy


def test_every_dag_is_listed(environment: Environment, world: FakeEnvironment) -> None:
    """More DAGs than fit a page come back once each, sorted, with flag and tags."""
    for number in range(250):
        world.add_dag(f"load_{number:03}", is_paused=number % 3 == 0, tags={"dr:control"} if number == 7 else ())
    dags = environment.dags()
    assert [dag.dag_id for dag in dags] == [f"load_{number:03}" for number in range(250)]
    assert dags[7] == DagInfo(dag_id="load_007", is_paused=False, tags=frozenset({"dr:control"}))
    assert {dag.dag_id for dag in dags if dag.is_paused} == world.paused
    assert {dag.dag_id for dag in environment.dags(paused=True)} == world.paused
    assert {dag.dag_id for dag in environment.dags(paused=False)} == world.unpaused


def test_pausing_changes_exactly_what_was_asked(environment: Environment, world: FakeEnvironment) -> None:
    """Paused and unpaused again, the exempt DAG and those that people paused are as they were."""
    for number in range(230):
        world.add_dag(f"load_{number:03}", is_paused=number in {5, 77})
    world.add_dag("dr_failover")
    world.add_dag("None")
    wanted = sorted(world.unpaused - {"dr_failover"})
    progress: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        progress.append((done, total))

    changed = environment.set_paused(wanted, paused=True, on_progress=note)
    assert list(changed) == wanted
    assert world.unpaused == {"dr_failover"}
    assert progress[-1] == (229, 229)
    assert list(environment.set_paused(wanted, paused=False)) == wanted
    assert world.paused == {"load_005", "load_077"}
    assert list(environment.set_paused(wanted, paused=True, listing=environment.dags())) == wanted
    assert world.unpaused == {"dr_failover"}


def test_pausing_again_changes_nothing(environment: Environment, world: FakeEnvironment) -> None:
    """The call is repeatable and says what it changed, which the second time is nothing."""
    world.add_dag("a")
    assert list(environment.set_paused(["a"], paused=True)) == ["a"]
    assert list(environment.set_paused(["a"], paused=True)) == []


def test_unknown_ids_are_left_out(environment: Environment, world: FakeEnvironment) -> None:
    """A DAG of the set that this environment does not have is no error, and not among the changed."""
    world.add_dag("a", is_paused=True)
    assert list(environment.set_paused(["a", "gone"], paused=False)) == ["a"]


def test_ids_that_resemble_each_other_are_kept_apart(environment: Environment, world: FakeEnvironment) -> None:
    """Case, underscores and containment do not spread a change."""
    ids = ["etl", "ETL_2", "etlx2", "my_etl", LONG, LONG + "_2", "é"]
    for dag_id in ids:
        world.add_dag(dag_id, is_paused=True)
    for dag_id in ids:
        environment.set_paused([dag_id], paused=False)
        assert world.unpaused == {dag_id}
        environment.set_paused([dag_id], paused=True)
        assert not world.unpaused


def test_running_runs_are_listed(environment: Environment, world: FakeEnvironment) -> None:
    """Every running run, more than a page of them, and no run in another state."""
    world.add_dag("a")
    for number in range(130):
        world.add_run("a", f"r{number:03}")
    world.add_run("a", "queued", state="failed")
    runs = environment.running_runs()
    assert list(runs) == [RunInfo(dag_id="a", run_id=f"r{number:03}", state="running") for number in range(130)]
    assert [(run.dag_id, run.run_id) for run in environment.running_tasks()] == [(r.dag_id, r.run_id) for r in runs]


def test_stopped_run_is_executing_for_a_while(
    environment: Environment, world: FakeEnvironment, clock: ManualClock
) -> None:
    """A run that is stopped is no longer running at once; its task counts as executing until it can have ended."""
    world.add_dag("a")
    world.add_run("a", "scheduled__2026-01-01T00:00:00+00:00")
    (run,) = environment.running_runs()
    environment.stop_run(run)
    environment.stop_run(run)
    assert list(environment.running_runs()) == []
    assert environment.run_state(run.dag_id, run.run_id) == "failed"
    assert [(one.dag_id, one.run_id) for one in environment.running_tasks()] == [(run.dag_id, run.run_id)]
    clock.advance(11)
    assert list(environment.running_tasks()) == []


def test_run_that_ended_by_itself_keeps_its_state(environment: Environment, world: FakeEnvironment) -> None:
    """Stopping a run that succeeded a moment ago does not turn it into a failure."""
    world.add_dag("a")
    world.add_run("a", "r1")
    (run,) = environment.running_runs()
    world.end_run("a", "r1")
    environment.stop_run(run)
    assert environment.run_state("a", "r1") == "success"


def test_stopping_a_run_that_is_not_there(environment: Environment) -> None:
    """A run that does not exist is an error, not a success."""
    with pytest.raises(MwaaRequestError) as caught:
        environment.stop_run(RunInfo(dag_id="a", run_id="r1", state="running"))
    assert caught.value.status == 404


@pytest.mark.parametrize("dag_id", ["dr_test_dag", LONG], ids=["short", "long"])
def test_triggered_run_is_found_under_its_id(environment: Environment, world: FakeEnvironment, dag_id: str) -> None:
    """A run is started once, however often it is triggered under one id; long ids go another way."""
    world.add_dag(dag_id)
    assert environment.run_state(dag_id, "dr__f-1") is None
    for _ in range(2):
        environment.trigger(dag_id, run_id="dr__f-1", note="[mwaa-dr] verify")
    assert environment.run_state(dag_id, "dr__f-1") in {"queued", "running"}
    assert world.notes == {(dag_id, "dr__f-1"): "[mwaa-dr] verify"}


def test_triggering_a_dag_that_is_not_there(environment: Environment) -> None:
    """Airflow's refusal carries its status."""
    with pytest.raises(MwaaRequestError) as caught:
        environment.trigger("gone", run_id="r1", note="")
    assert caught.value.status == 404


# What only the adapter can get wrong.


@pytest.fixture
def adapter(server: AirflowServer, clock: ManualClock, session: boto3.session.Session) -> MwaaEnvironment:
    """The adapter, with *server* in front of it."""
    return MwaaEnvironment("us-east-2", "etl", clock=clock, session=session)


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_dag_deployed_between_listing_and_call_is_put_back(adapter: MwaaEnvironment, server: AirflowServer) -> None:
    """A DAG that a bulk call caught although it was never listed ends as it began, and the wanted are done."""
    world = server.world
    for number in range(40):
        world.add_dag(f"load_{number:03}", is_paused=True)

    def deploy(method: str, path: str) -> bool:
        if (method, path) == ("PATCH", "/dags"):
            world.add_dag("load_000_new", is_paused=True)
        return False

    server.before = deploy
    wanted = [f"load_{number:03}" for number in range(40)]
    adapter.set_paused(wanted, paused=False)
    assert world.paused == {"load_000_new"}


@pytest.mark.parametrize("server", ["3.0.6", "3.3.1"], indirect=True)
def test_dag_unpaused_by_hand_between_listing_and_call_stays_unpaused(
    adapter: MwaaEnvironment, server: AirflowServer
) -> None:
    """It was paused when it was listed, and is none of those to be paused; Airflow 2 does not tell what it changed."""
    world = server.world
    for number in range(40):
        world.add_dag(f"load_{number:03}")
    world.add_dag("load_000_exempt", is_paused=True)
    listing = adapter.dags()
    by_hand = ["load_000_exempt"]

    def unpause(method: str, path: str) -> bool:
        if (method, path) == ("PATCH", "/dags") and by_hand:
            world.set_paused([by_hand.pop()], paused=False)
        return False

    server.before = unpause
    adapter.set_paused([dag.dag_id for dag in listing if not dag.is_paused], paused=True, listing=listing)
    assert world.unpaused == {"load_000_exempt"}


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_pausing_many_takes_few_calls(adapter: MwaaEnvironment, server: AirflowServer) -> None:
    """Ten a second is all that MWAA takes: a page is listed once, and afterwards only what is still in the way."""
    for number in range(1000):
        server.world.add_dag(f"load_{number:04}")
    server.world.add_dag("dr_failover", tags=["dr:control"])
    listing = adapter.dags()
    assert len(server.requests) == (3 if (3,) <= server.version < (3, 2) else 11)
    server.requests.clear()
    adapter.set_paused([dag.dag_id for dag in listing if not dag.tags], paused=True, listing=listing)
    assert server.world.unpaused == {"dr_failover"}
    # On 3.3 one call changes them all, though its answer does not say so; before that a hundred each.
    changes = 2 if server.version >= (3, 3) else 10
    assert [method for method, _, _ in server.requests] == ["PATCH"] * changes + ["GET"]


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_airflow_that_answers_later_is_waited_for(
    adapter: MwaaEnvironment, server: AirflowServer, clock: ManualClock
) -> None:
    """A web server that is just being replaced costs a repeated call, not an error."""
    clock.after(2, lambda: setattr(server, "before", lambda method, path: False))
    server.before = lambda method, path: True
    server.world.add_dag("a")
    assert len(adapter.dags()) == 1


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_airflow_that_never_answers_is_unreachable(adapter: MwaaEnvironment, server: AirflowServer) -> None:
    """After the deadline the error is one of reach, for which another attempt later makes sense."""
    server.before = lambda method, path: True
    with pytest.raises(MwaaUnreachableError, match="503"):
        adapter.dags()


@pytest.mark.parametrize(("server", "pages"), [("2.10.3", 12), ("3.0.6", 3), ("3.3.1", 12)], indirect=["server"])
def test_long_work_tells_how_far_it_has_come(
    adapter: MwaaEnvironment, server: AirflowServer, clock: ManualClock, pages: int
) -> None:
    """Between any two slow calls; a listing takes as large pages as the server gives."""
    for number in range(1_200):
        server.world.add_dag(f"load_{number:04}")
    server.world.add_dag("dr_failover", is_paused=True)
    calls: list[str] = []
    told: list[tuple[int, int, int]] = []

    def slow(method: str, path: str) -> bool:
        clock.advance(5)
        calls.append(f"{method} {path}")
        return False

    def on_progress(done: int, total: int) -> None:
        told.append((len(calls), done, total))

    server.before = slow
    dags = adapter.dags(paused=False, on_progress=on_progress)
    assert len(dags) == 1_200
    assert [at for at, _, _ in told] == list(range(1, pages))
    assert [done for _, done, _ in told] == [1_200 // pages * at if pages == 12 else 500 * at for at in range(1, pages)]

    calls.clear()
    told.clear()
    assert len(adapter.set_paused([dag.dag_id for dag in dags], paused=True, on_progress=on_progress)) == 1_200
    assert {at for at, _, _ in told} >= set(range(pages, len(calls) + 1))
    assert told[-1][1:] == (1_200, 1_200)
    assert sorted(done for _, done, _ in told) == [done for _, done, _ in told]


@pytest.mark.parametrize("server", ["3.3.1"], indirect=True)
def test_environment_that_is_not_there(server: AirflowServer, session: boto3.session.Session) -> None:
    """A wrong name, or another account's, is an error of access with advice."""
    with pytest.raises(MwaaAccessError, match="name and region"):
        MwaaEnvironment("us-east-2", "other", session=session).status()


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_listing_that_is_cut_short_is_an_error(adapter: MwaaEnvironment, server: AirflowServer) -> None:
    """Pages that end before the server's own count are not taken for the whole."""
    server._page = lambda key, elements, query: {key: [], "total_entries": 3}  # type: ignore[method-assign]
    with pytest.raises(MwaaUnreachableError, match="0 of 3"):
        adapter.dags()


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_limit_of_ten_calls_a_second_is_kept(
    server: AirflowServer, clock: ManualClock, session: boto3.session.Session
) -> None:
    """However many calls a change needs, the service never has to turn one away."""
    for number in range(30):
        server.world.add_dag(f"{'x' * number}é", is_paused=True)
    environment = MwaaEnvironment("us-east-2", "etl", clock=clock, session=session, deadline_s=0)
    environment.set_paused([f"{'x' * number}é" for number in range(0, 30, 2)], paused=False)
    assert len(server.world.unpaused) == 15
