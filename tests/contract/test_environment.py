"""The contract of every Environment: the fake, and MWAA with three Airflow versions over sockets."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import boto3
import pytest
import requests

from airflow_provider_mwaa_dr.aws.mwaa.environment import MwaaEnvironment
from airflow_provider_mwaa_dr.core.ports import DagInfo, Environment, EnvironmentStatus, RunInfo
from airflow_provider_mwaa_dr.exceptions import MwaaAccessError, MwaaError, MwaaRequestError, MwaaUnreachableError
from airflow_provider_mwaa_dr.sandbox.cloud.mwaa_endpoint import Answer, Request, json_answer
from airflow_provider_mwaa_dr.testing import FakeEnvironment, ManualClock
from tests.contract.airflow_server import AirflowServer

VERSIONS = ["2.10.3", "3.0.6", "3.3.1"]
LONG = "a_dag_with_a_name_that_is_far_too_long_for_the_path_of_a_call_to_invoke_rest_api"


@pytest.fixture
def world(clock: ManualClock) -> FakeEnvironment:
    """The real DAGs and runs, for tests to set up and to check."""
    return FakeEnvironment("us-east-2", "etl", clock=clock)


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Environment variables with which boto3 uses only the test's server."""
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
    """An MWAA, and an Airflow of the requested version."""
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
    """The environment under test, with the DAGs and runs of *world*."""
    if request.param == "fake":
        yield world
        return
    server = AirflowServer(world, request.param, clock=clock.monotonic)
    aws_environment.setenv("AWS_ENDPOINT_URL", server.url)
    server.start()
    yield MwaaEnvironment("us-east-2", "etl", clock=clock, session=session)
    server.stop()


def test_environment_names_itself(environment: Environment) -> None:
    """It has the region and the name of its constructor."""
    assert (environment.region, environment.name) == ("us-east-2", "etl")


def test_status_is_the_services(environment: Environment) -> None:
    """The status of the service is returned as an enum member."""
    assert environment.status() is EnvironmentStatus.AVAILABLE


def test_description_is_the_services(environment: Environment) -> None:
    """It has all fields for a comparison of two environments, and the status."""
    found = environment.describe()
    assert found.status is EnvironmentStatus.AVAILABLE
    assert found.environment_class == "mw1.small"
    assert found.airflow_version is not None
    assert found.schedulers == 2
    assert found.logs is not None
    assert (found.logs["SchedulerLogs"], found.logs["TaskLogs"]) == ("INFO", "INFO")


def test_permissions_are_checked_without_effect(environment: Environment, world: FakeEnvironment) -> None:
    """A caller with the permission gets no error, a caller without it gets one, and no flag is changed."""
    world.add_dag("orders", is_paused=True)
    environment.try_change()
    world.read_only = True
    with pytest.raises(MwaaAccessError):
        environment.try_change()
    assert world.paused == {"orders"}


@pytest.mark.parametrize("healthy", [True, False])
def test_health_is_read_from_the_body(environment: Environment, world: FakeEnvironment, healthy: bool) -> None:
    """A dead scheduler is reported, although the health call itself succeeds."""
    world.scheduler_healthy = healthy
    assert environment.scheduler_is_healthy() is healthy


def test_every_dag_is_listed(environment: Environment, world: FakeEnvironment) -> None:
    """More DAGs than fit into a page: each is returned once, sorted, with flag and tags."""
    for number in range(250):
        world.add_dag(f"load_{number:03}", is_paused=number % 3 == 0, tags={"dr:control"} if number == 7 else ())
    dags = environment.dags()
    assert [dag.dag_id for dag in dags] == [f"load_{number:03}" for number in range(250)]
    assert dags[7] == DagInfo(dag_id="load_007", is_paused=False, tags=frozenset({"dr:control"}))
    assert {dag.dag_id for dag in dags if dag.is_paused} == world.paused
    assert {dag.dag_id for dag in environment.dags(paused=True)} == world.paused
    assert {dag.dag_id for dag in environment.dags(paused=False)} == world.unpaused
    assert [dag.dag_id for dag in environment.dags(tag="dr:control")] == ["load_007"]
    assert list(environment.dags(tag="dr:control", paused=True)) == []


def test_pausing_changes_exactly_the_wanted_dags(environment: Environment, world: FakeEnvironment) -> None:
    """After pausing and unpausing, the exempt DAG and the DAGs that users paused are unchanged."""
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
    """The call is idempotent, and returns what it changed: the second time nothing."""
    world.add_dag("a")
    assert list(environment.set_paused(["a"], paused=True)) == ["a"]
    assert list(environment.set_paused(["a"], paused=True)) == []


def test_unknown_ids_are_left_out(environment: Environment, world: FakeEnvironment) -> None:
    """A DAG that this environment does not have causes no error, and is not among the changed ones."""
    world.add_dag("a", is_paused=True)
    assert list(environment.set_paused(["a", "gone"], paused=False)) == ["a"]


def test_ids_that_resemble_each_other_are_kept_apart(environment: Environment, world: FakeEnvironment) -> None:
    """Ids that differ only in case or at an underscore, or that contain each other, are not confused."""
    ids = ["etl", "ETL_2", "etlx2", "my_etl", LONG, LONG + "_2", "é"]
    for dag_id in ids:
        world.add_dag(dag_id, is_paused=True)
    for dag_id in ids:
        environment.set_paused([dag_id], paused=False)
        assert world.unpaused == {dag_id}
        environment.set_paused([dag_id], paused=True)
        assert not world.unpaused


def test_running_runs_are_listed(environment: Environment, world: FakeEnvironment) -> None:
    """Every running run is returned, more than one page, and no run in another state."""
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
    """A stopped run is not running any longer, but its task counts as executing until it must have ended."""
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
    """A stop does not change a run that has just succeeded into a failed one."""
    world.add_dag("a")
    world.add_run("a", "r1")
    (run,) = environment.running_runs()
    world.end_run("a", "r1")
    environment.stop_run(run)
    assert environment.run_state("a", "r1") == "success"


def test_stopping_a_run_that_does_not_exist(environment: Environment) -> None:
    """A run that does not exist is an error, not a success."""
    with pytest.raises(MwaaRequestError) as caught:
        environment.stop_run(RunInfo(dag_id="a", run_id="r1", state="running"))
    assert caught.value.status == 404


@pytest.mark.parametrize("dag_id", ["dr_test_dag", LONG], ids=["short", "long"])
def test_triggered_run_is_found_under_its_id(environment: Environment, world: FakeEnvironment, dag_id: str) -> None:
    """
    A run is started once, even if it is triggered twice with one id; also with a long id, which uses the web session.
    """
    world.add_dag(dag_id)
    assert environment.run_state(dag_id, "dr__f-1") is None
    for _ in range(2):
        environment.trigger(dag_id, run_id="dr__f-1", note="[mwaa-dr] verify")
    assert environment.run_state(dag_id, "dr__f-1") in {"queued", "running"}
    assert world.notes == {(dag_id, "dr__f-1"): "[mwaa-dr] verify"}


def test_triggering_a_dag_that_does_not_exist(environment: Environment) -> None:
    """The error has the status of Airflow's answer."""
    with pytest.raises(MwaaRequestError) as caught:
        environment.trigger("gone", run_id="r1", note="")
    assert caught.value.status == 404


# For the adapter only.


@pytest.fixture
def adapter(server: AirflowServer, clock: ManualClock, session: boto3.session.Session) -> MwaaEnvironment:
    """The adapter for *server*."""
    return MwaaEnvironment("us-east-2", "etl", clock=clock, session=session)


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_web_session_sends_its_token_and_no_password_of_netrc(
    adapter: MwaaEnvironment, server: AirflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``~/.netrc`` has a password for the web server: the login and the calls do not send it."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ana password planted\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert requests.Session().prepare_request(requests.Request("GET", server.url)).headers["Authorization"]
    arrived: list[Request] = []
    answer = server.endpoint.web_answer

    def record(request: Request) -> Answer:
        arrived.append(request)
        return answer(request)

    server.endpoint.web_answer = record  # type: ignore[method-assign]
    server.world.add_dag(LONG)
    adapter.trigger(LONG, run_id="dr__f-1", note="")
    login, call = arrived
    assert "authorization" not in login.headers
    session_token = call.headers["cookie"].removeprefix("_token=")
    assert call.headers.get("authorization") == (f"Bearer {session_token}" if server.version >= (3,) else None)


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_tokens_of_the_web_session_are_in_no_log_line_and_no_error(
    adapter: MwaaEnvironment, server: AirflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The token of the login and the token of the session, at the level DEBUG, also when a call fails."""
    caplog.set_level(logging.DEBUG, logger="airflow_provider_mwaa_dr")
    arrived: list[Request] = []
    answer = server.endpoint.web_answer

    def fail_after_the_login(request: Request) -> Answer:
        arrived.append(request)
        return answer(request) if len(arrived) == 1 else json_answer(500, {"detail": "planted"})

    server.endpoint.web_answer = fail_after_the_login  # type: ignore[method-assign]
    server.world.add_dag(LONG)
    with pytest.raises(MwaaError) as caught:
        adapter.trigger(LONG, run_id="dr__f-1", note="")
    login, call = arrived[0], arrived[-1]
    tokens = [parse_qs(login.body.decode())["token"][0], call.headers["cookie"].removeprefix("_token=")]
    assert all(len(token) > 20 for token in tokens)
    shown = f"{caplog.text} {caught.value!r} {caught.value} {vars(caught.value)}"
    assert not [token for token in tokens if token in shown]


@pytest.mark.parametrize("server", ["3.3.1"], indirect=True)
def test_web_session_uses_no_proxy_of_the_environment(
    adapter: MwaaEnvironment, server: AirflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy variables name a port that refuses: the web session does not connect to it."""
    adapter.status()  # boto3 reads the variables only when it creates its client
    with socket.create_server(("127.0.0.1", 0)) as server_socket:
        port = server_socket.getsockname()[1]
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://ana:planted@127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "")
    server.world.add_dag(LONG)
    adapter.trigger(LONG, run_id="dr__f-1", note="")
    assert adapter.run_state(LONG, "dr__f-1") is not None


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_dag_deployed_between_listing_and_call_is_changed_back(adapter: MwaaEnvironment, server: AirflowServer) -> None:
    """A bulk call changes a DAG that was not listed. That DAG is changed back, and the wanted DAGs are changed."""
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
    """It was listed as paused and is not wanted. Airflow 2 does not return which DAGs it changed."""
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


@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_expected_dags_save_the_listing_if_their_number_is_right(
    adapter: MwaaEnvironment, server: AirflowServer, *, is_right: bool
) -> None:
    """A list of thousands takes half a minute. A DAG that a user unpaused since keeps its flag in any case."""
    for number in range(300):
        server.world.add_dag(f"load_{number:04}")
    server.world.add_dag("dr_failover", tags=["dr:control"])
    expected = [DagInfo(dag_id=dag_id, is_paused=False) for dag_id in sorted(server.world.unpaused)]
    if not is_right:
        server.world.add_dag("by_hand")
    wanted = [dag.dag_id for dag in expected if dag.dag_id != "dr_failover"]
    assert adapter.set_paused(wanted, paused=True, expected=expected) == wanted
    assert server.world.unpaused == {"dr_failover"} | (set() if is_right else {"by_hand"})
    limits = [int(query["limit"]) for method, path, query in server.requests if (method, path) == ("GET", "/dags")]
    # The second list is that of the DAGs that are not paused yet.
    has_listed = len([limit for limit in limits if limit > 1]) > 1
    assert has_listed is (server.version < (3,) or not is_right)


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_pausing_many_takes_few_calls(adapter: MwaaEnvironment, server: AirflowServer) -> None:
    """MWAA accepts ten calls a second. All pages are listed once, and then only the DAGs that are not changed yet."""
    for number in range(1000):
        server.world.add_dag(f"load_{number:04}")
    server.world.add_dag("dr_failover", tags=["dr:control"])
    listing = adapter.dags()
    assert len(server.requests) == (3 if (3,) <= server.version < (3, 2) else 11)
    server.requests.clear()
    adapter.set_paused([dag.dag_id for dag in listing if not dag.tags], paused=True, listing=listing)
    assert server.world.unpaused == {"dr_failover"}
    # On 3.3 one call changes all DAGs, although its answer has only a page; before, each call changes a hundred.
    changes = 1 if server.version >= (3, 3) else 10
    assert [method for method, _, _ in server.requests] == ["PATCH"] * changes + ["GET"]


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_airflow_that_answers_later_is_waited_for(
    adapter: MwaaEnvironment, server: AirflowServer, clock: ManualClock
) -> None:
    """While a web server is being replaced, the call is repeated, and raises no error."""
    clock.after(2, lambda: setattr(server, "before", lambda method, path: False))
    server.before = lambda method, path: True
    server.world.add_dag("a")
    assert len(adapter.dags()) == 1


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_airflow_that_never_answers_is_unreachable(adapter: MwaaEnvironment, server: AirflowServer) -> None:
    """After the deadline, the call raises MwaaUnreachableError, for which a later attempt makes sense."""
    server.before = lambda method, path: True
    with pytest.raises(MwaaUnreachableError, match="503"):
        adapter.dags()


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_a_call_of_one_attempt_is_not_repeated(server: AirflowServer, session: boto3.session.Session) -> None:
    """A monitor polls again soon, and a poll of a dead region must be short."""
    clock = ManualClock()
    environment = MwaaEnvironment("us-east-2", "etl", clock=clock, session=session, attempt_s=4.0)
    environment.status()
    requests: list[str] = []
    server.before = lambda method, path: requests.append(f"{method} {path}") or True
    with pytest.raises(MwaaUnreachableError, match="503"):
        environment.scheduler_is_healthy()
    assert (len(requests), clock.monotonic()) == (1, 0.0)


@pytest.mark.parametrize(("server", "pages"), [("2.10.3", 12), ("3.0.6", 3), ("3.3.1", 12)], indirect=["server"])
def test_long_operations_report_their_progress(
    adapter: MwaaEnvironment, server: AirflowServer, clock: ManualClock, pages: int
) -> None:
    """Progress is reported after each slow call. A listing uses the largest pages that the server returns."""
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
def test_environment_that_does_not_exist(server: AirflowServer, session: boto3.session.Session) -> None:
    """A wrong name, or an environment of another account, is an access error with advice."""
    with pytest.raises(MwaaAccessError, match="name and region"):
        MwaaEnvironment("us-east-2", "other", session=session).status()


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_incomplete_listing_is_an_error(adapter: MwaaEnvironment, server: AirflowServer) -> None:
    """A listing that ends before the server's own count is an error."""
    server._page = lambda key, elements, query: {key: [], "total_entries": 3}  # type: ignore[method-assign]
    with pytest.raises(MwaaUnreachableError, match="0 of 3"):
        adapter.dags()


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_limit_of_ten_calls_a_second_is_kept(
    server: AirflowServer, clock: ManualClock, session: boto3.session.Session
) -> None:
    """For any number of calls, the service never throttles one."""
    for number in range(30):
        server.world.add_dag(f"{'x' * number}é", is_paused=True)
    environment = MwaaEnvironment("us-east-2", "etl", clock=clock, session=session, deadline_s=0)
    environment.set_paused([f"{'x' * number}é" for number in range(0, 30, 2)], paused=False)
    assert len(server.world.unpaused) == 15
