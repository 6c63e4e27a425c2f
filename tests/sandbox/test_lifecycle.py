"""A sandbox from an empty folder on: up, up again, kill, revive, down, down again."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_mwaa_dr.sandbox.runtime import process
from airflow_provider_mwaa_dr.sandbox.runtime.home import ACTIVE, REGIONS, STANDBY
from airflow_provider_mwaa_dr.sandbox.runtime.process import ProcessSession
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox
from tests.sandbox.harness import has_memory

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """An empty home folder, which is removed after the test."""
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox") / "home", say=print)
    yield sandbox
    sandbox.down(purge=True)


def _mwaa_dr(sandbox: Sandbox, *words: str) -> Any:
    program = Path(sys.executable).parent / "mwaa-dr"
    answer = subprocess.run(
        [program, "sandbox", *words, "--json", "--home", str(sandbox.home)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def _sessions(sandbox: Sandbox, region: str) -> Mapping[str, ProcessSession]:
    return dict(sandbox.home.sessions()[region])


def _is_served(region: Mapping[str, Any]) -> bool:
    request = urllib.request.Request(
        f"{region['airflow_url']}/api/v2/dags?dag_id_pattern=~", headers={"Authorization": region["auth"]["header"]}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bool(json.load(answer)["total_entries"])


def test_up_kill_revive_and_down(sandbox: Sandbox) -> None:
    """
    Each command does what it reports. A second call is a no-op, ports and state stay, and at the end no process is
    left.
    """
    described = _mwaa_dr(sandbox, "up")
    assert described == json.loads((sandbox.home.path / "sandbox.json").read_text())
    assert described["active_region"] == ACTIVE
    assert set(described["regions"]) == set(REGIONS)
    first = {region: _sessions(sandbox, region) for region in REGIONS}
    for name, region in described["regions"].items():
        assert set(region["pids"]) == {"api-server", "scheduler", "dag-processor", "triggerer"}
        assert region["pids"] == {component: session.pid for component, session in first[name].items()}
        assert _is_served(region)

    assert _mwaa_dr(sandbox, "up") == described, "up again left everything as it was"
    assert {region: _sessions(sandbox, region) for region in REGIONS} == first

    workers = [pid for session in first[ACTIVE].values() for pid in process.members(session)]
    assert len(workers) > len(first[ACTIVE]), "the scheduler has workers of its own"
    killed = _mwaa_dr(sandbox, "kill", ACTIVE)
    assert killed["regions"][ACTIVE]["pids"] == {}
    assert killed["regions"][STANDBY] == described["regions"][STANDBY]
    assert not any(process.members(session) for session in first[ACTIVE].values())
    assert not any(Path(f"/proc/{pid}/environ").exists() and has_memory(pid) for pid in workers)
    assert killed["active_region"] == ACTIVE, "the state is read from the replica that is left"

    revived = _mwaa_dr(sandbox, "revive", ACTIVE)
    assert revived["regions"][ACTIVE]["airflow_url"] == described["regions"][ACTIVE]["airflow_url"]
    assert revived["regions"][ACTIVE]["auth"] == described["regions"][ACTIVE]["auth"]
    assert _is_served(revived["regions"][ACTIVE])

    everything = [session for known in sandbox.home.sessions().values() for session in known.values()]
    postgres = int((sandbox.postgres.folder / "postmaster.pid").read_text().split()[0])
    assert _mwaa_dr(sandbox, "down") == {"changed": True}
    assert not any(process.members(session) for session in everything)
    assert not has_memory(postgres)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(described["env"]["AWS_ENDPOINT_URL"].rpartition(":")[2]))) != 0
    assert _mwaa_dr(sandbox, "down") == {"changed": False}
