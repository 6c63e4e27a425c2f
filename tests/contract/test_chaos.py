"""Pausing and unpausing through a REST API with random faults. The tests compare the result with the real flags."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.mwaa.environment import MwaaEnvironment
from airflow_provider_mwaa_dr.exceptions import IncompleteError, MwaaError
from airflow_provider_mwaa_dr.testing import FakeEnvironment, ManualClock
from tests.contract.airflow_server import AirflowServer
from tests.contract.test_environment import VERSIONS, aws_environment, server, world

__all__ = ["aws_environment", "server", "world"]  # fixtures

SEEDS = int(os.environ.get("DR_CHAOS", "24"))
LONG = "a_dag_with_a_name_that_is_far_too_long_for_the_path_of_a_call_to_invoke_rest_api_"
KINDS = ("lost", "throttled", "error", "bad gateway", "page", "truncated", "short", "empty", "odd")


class Chaos:
    """
    Random faults of requests.

    :param odds: probability of a fault, for each request.
    """

    def __init__(self, seed: int, odds: float) -> None:
        self.rng = random.Random(seed)
        self.odds = odds
        self.undo: Callable[[], object] = lambda: None
        self.faults: list[str] = []

    def before(self, method: str, path: str) -> bool:
        """Whether the request is answered with 503, and not carried out."""
        if not self._strikes():
            return False
        self.faults.append("unavailable")
        return True

    def after(self, method: str, path: str, status: int, body: bytes) -> tuple[int, bytes] | None:
        """Return an answer that is incomplete or wrong; None: the answer is lost."""
        self.undo()
        if not self._strikes():
            return status, body
        kind = self.rng.choice(
            ["lost", "throttled", "error", "bad gateway", "page", "truncated", "short", "empty", "odd"]
        )
        self.faults.append(kind)
        match kind:
            case "lost":
                return None
            case "throttled":
                return 429, b'{"detail": "slow down"}'
            case "error":
                return 500, b'{"detail": "oops"}'
            case "bad gateway":
                return 502, b"<html><body>Bad Gateway</body></html>"
            case "page":
                return 200, b"<html><body>Please log in</body></html>"
            case "truncated":
                return status, body[: len(body) // 2]
            case "empty":
                return status, b""
            case "odd":
                return status, b'{"unexpected": true}'
        answer = json.loads(body)
        if isinstance(answer.get("dags"), list):
            del answer["dags"][len(answer["dags"]) // 2 :]
        return status, json.dumps(answer).encode()

    def _strikes(self) -> bool:
        return self.rng.random() < self.odds


def dag_ids(rng: random.Random) -> list[str]:
    """Return similar ids. Some are too long for InvokeRestApi."""
    ids = [f"team_{rng.randrange(6)}.load-{number:03}" for number in range(rng.choice([8, 60, 130]))]
    return sorted({*ids, *(f"{LONG}{number}" for number in range(4)), "load", "load_é"})


def judge(seed: int, server: AirflowServer, adapter: MwaaEnvironment) -> str:
    """
    Change the flags of some DAGs with random faults, and return how it ended.

    :raises AssertionError: a false success, an unchanged DAG that the error does not name, or a changed DAG that was
        not wanted.
    """
    rng, there = random.Random(seed), server.world
    everything = dag_ids(rng)
    before = {dag_id: rng.random() < 0.5 for dag_id in everything}
    for dag_id, is_paused in before.items():
        there.add_dag(dag_id, is_paused=is_paused)
    wanted = {dag_id for dag_id in everything if rng.random() < rng.choice([0.1, 0.9])}
    paused = rng.random() < 0.5
    chaos = Chaos(seed, odds=rng.choice([0.03, 0.2, 0.5, 0.8]))
    server.before, server.after = chaos.before, chaos.after
    todo = sorted(dag_id for dag_id in wanted if before[dag_id] is not paused)
    if todo and rng.random() < 0.2:
        # Another caller changes this DAG back after each change.
        chaos.undo = partial(there.flip, rng.choice(todo), is_paused=not paused)
    left: Collection[str] | None = ()
    try:
        changed: Sequence[str] = adapter.set_paused(sorted(wanted), paused=paused)
        assert set(changed) == {dag_id for dag_id in wanted if before[dag_id] is not paused}
    except IncompleteError as error:
        left = error.left
    except MwaaError:
        left = None  # the error reports no DAGs
    now = {dag_id: dag_id in there.paused for dag_id in everything}
    not_done = {dag_id for dag_id in wanted if now[dag_id] is not paused}
    if left is not None:
        assert not_done == set(left), chaos.faults
    assert {dag_id for dag_id in everything if dag_id not in wanted and now[dag_id] is not before[dag_id]} == set()
    return "done" if left == () else "incomplete" if left else "failed"


def judge_all(server: AirflowServer, adapter: MwaaEnvironment) -> Counter[str]:
    """Run all seeds, and return how often each ending occurred."""
    ends: Counter[str] = Counter()
    for seed in range(SEEDS):
        for dag_id in (*server.world.paused, *server.world.unpaused):
            server.world.remove_dag(dag_id)
        try:
            ends[judge(seed, server, adapter)] += 1
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    return ends


@pytest.fixture
def adapter(server: AirflowServer, clock: ManualClock, session: boto3.session.Session) -> MwaaEnvironment:
    """The adapter for *server*, with a manual clock."""
    return MwaaEnvironment("us-east-2", "etl", clock=clock, session=session, pause_deadline_s=10)


@pytest.mark.parametrize("server", VERSIONS, indirect=True)
def test_there_is_no_false_success(server: AirflowServer, adapter: MwaaEnvironment) -> None:
    """
    Each call succeeds, or raises an error; an IncompleteError has exactly the unchanged DAGs. No other DAG is changed.
    """
    ends = judge_all(server, adapter)
    print(f"{SEEDS} seeds: {dict(ends)}")
    assert ends.keys() == {"done", "incomplete", "failed"}


@pytest.mark.parametrize("server", ["3.3.1"], indirect=True)
def test_an_adapter_that_does_not_verify_is_found(
    server: AirflowServer,
    clock: ManualClock,
    session: boto3.session.Session,
    world: FakeEnvironment,
) -> None:
    """Control: an adapter that does not verify its changes."""

    class Credulous(MwaaEnvironment):
        def set_paused(self, dag_ids: Collection[str], *, paused: bool, **_: object) -> Sequence[str]:
            listing = self.dags()
            left = {dag.dag_id for dag in listing if dag.dag_id in set(dag_ids) and dag.is_paused is not paused}
            with suppress(MwaaError):
                self._change(listing, left, paused=paused, on_progress=lambda _: None)
            return sorted(left)

    with pytest.raises(AssertionError, match="seed"):
        judge_all(server, Credulous("us-east-2", "etl", clock=clock, session=session))
