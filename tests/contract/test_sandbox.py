"""The sandbox's own requests to its emulated AWS, without Airflow. Faults apply to them, too."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.sandbox.cloud import faults, tables
from airflow_provider_mwaa_dr.sandbox.runtime import process
from airflow_provider_mwaa_dr.sandbox.runtime.home import ACTIVE, REGIONS, new_blueprint
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox
from tests.waiting import DEADLINE_S, wait_until

STANDBY = next(region for region in REGIONS if region != ACTIVE)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A home with a running AWS and its tables, and no Airflow."""
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox") / "home")
    blueprint = new_blueprint(versions=dict.fromkeys(REGIONS, "3.3.1"), executor="LocalExecutor", schedulers=1, dr={})
    sandbox.home.make(blueprint)
    yield sandbox
    process.end([each for known in sandbox.home.sessions().values() for each in known.values()], grace_s=0)


@pytest.fixture
def sandbox(started: Sandbox) -> Sandbox:
    """The running sandbox, without faults."""
    faults.change(started.faults_file, lambda _: ())
    blueprint = started.home.blueprint()
    started._start_aws(blueprint)
    started._await_aws()
    started._ensure_tables(blueprint)
    return started


def in_time(step: object) -> None:
    """Call *step*; fail if it hangs."""
    assert callable(step)
    ended: list[BaseException | None] = []

    def call() -> None:
        try:
            step()
        except BaseException as error:
            ended.append(error)
        else:
            ended.append(None)

    threading.Thread(target=call, daemon=True).start()
    wait_until(lambda: ended, "it ends", deadline_s=DEADLINE_S)
    if ended[0] is not None:
        raise ended[0]


def saved_state(home: Path) -> str:
    found = json.loads((home / "aws" / "state-table.json").read_text())
    (items,) = [items for name, items in found.items() if "state" in name]
    return str(next(item["active_region"]["S"] for item in items if item["state_id"]["S"] == "ACTIVE_REGION"))


@pytest.mark.parametrize("region", REGIONS)
def test_down_after_kill_saves_the_tables(sandbox: Sandbox, region: str) -> None:
    """The killed region's AWS is a black hole. The reads of the tables during `down` must not wait for it."""
    (sandbox.home.path / "aws" / "state-table.json").unlink(missing_ok=True)
    in_time(lambda: sandbox.kill(region))
    in_time(sandbox.down)
    assert saved_state(sandbox.home.path) == ACTIVE
    assert sandbox.down() is False


def test_tables_are_read_after_a_kill_is_lifted(sandbox: Sandbox) -> None:
    """As in `up` after `kill`: no process of the region runs, so its faults are removed."""
    in_time(lambda: sandbox.kill(ACTIVE))
    sandbox._remove_faults_of_stopped_regions()
    in_time(lambda: sandbox._ensure_tables(sandbox.home.blueprint()))


def test_the_error_of_the_sandboxs_own_request_names_the_fault(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request times out, and the error names the command that removes the fault."""
    monkeypatch.setattr(tables, "BOUNDED", tables.BOUNDED.merge(tables.Config(read_timeout=1)))
    sandbox.fault(ACTIVE, "dynamodb", "blackhole")
    with pytest.raises(DRError, match=f"mwaa-dr sandbox fault {ACTIVE} all none"):
        in_time(lambda: sandbox._ensure_tables(sandbox.home.blueprint()))


@pytest.mark.parametrize("kind", ["blackhole", "error", "delay:60"])
def test_every_other_command_ends_with_any_fault(sandbox: Sandbox, kind: str) -> None:
    """These commands need no answer from AWS."""
    sandbox.fault(STANDBY, "all", kind)
    sandbox.fault(ACTIVE, "all", kind)
    in_time(lambda: sandbox.kill(STANDBY))
    in_time(lambda: sandbox.kill(STANDBY))
    in_time(sandbox.description)
    in_time(sandbox.is_up)
    in_time(sandbox.down)
    assert saved_state(sandbox.home.path) == ACTIVE
