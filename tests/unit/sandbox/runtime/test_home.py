"""The folder of a sandbox: recognised, guarded, and read back as it was written."""

from __future__ import annotations

import json
import socket
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError, RefusedError
from airflow_provider_mwaa_dr.sandbox.runtime import process
from airflow_provider_mwaa_dr.sandbox.runtime.home import (
    CONTROL,
    REGIONS,
    Blueprint,
    Home,
    Region,
    free_ports,
    is_free,
    new_blueprint,
)
from airflow_provider_mwaa_dr.sandbox.runtime.process import ProcessSession
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox


def _blueprint() -> Blueprint:
    return new_blueprint(
        versions=dict.fromkeys(REGIONS, "3.3.1"), executor="LocalExecutor", schedulers=1, dr={"lease_s": "5"}
    )


def test_a_home_is_read_back_as_it_was_made(tmp_path: Path) -> None:
    """Ports, secrets, versions and settings survive."""
    blueprint = _blueprint()
    Home(tmp_path / "home").make(blueprint)

    assert Home(tmp_path / "home").blueprint() == blueprint


def test_secrets_are_for_the_owner_only(tmp_path: Path) -> None:
    """No other user may read the file with passwords and tokens."""
    Home(tmp_path / "home").make(_blueprint())

    assert stat.S_IMODE((tmp_path / "home" / "home.json").stat().st_mode) == 0o600


def test_every_port_of_a_home_is_its_own() -> None:
    """Two API servers, three callers and six web servers never meet."""
    blueprint = _blueprint()

    ports = [region.port for region in blueprint.regions.values()]
    ports += blueprint.callers.values()
    ports += [port for targets in blueprint.web.values() for port in targets.values()]
    assert len(set(ports)) == len(ports) == 11
    assert set(blueprint.callers) == {*REGIONS, CONTROL}


def test_a_port_in_use_is_not_free() -> None:
    """A listening socket is seen, and its port not handed out."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]

        assert not is_free(port)
        assert port not in free_ports(20)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """A folder with other content is neither used nor removed."""
    (tmp_path / "thesis.tex").write_text("42")
    home = Home(tmp_path)

    with pytest.raises(ConfigError, match=r"not a sandbox.*thesis\.tex"):
        home.blueprint()
    with pytest.raises(ConfigError, match="not a sandbox"), home.locked():
        pass
    with pytest.raises(ConfigError, match="not a sandbox"):
        home.remove()
    assert (tmp_path / "thesis.tex").exists()


def test_an_empty_folder_may_become_a_home(tmp_path: Path) -> None:
    """It has no sandbox yet, and the error says this."""
    with Home(tmp_path).locked():
        pass
    with pytest.raises(ConfigError, match="There is no sandbox"):
        Home(tmp_path).blueprint()


@pytest.mark.parametrize(
    "damage", [{"provider_version": "0.0.1"}, {"format": 0}, {"regions": None}], ids=["version", "format", "damaged"]
)
def test_a_home_of_another_version_is_named(tmp_path: Path, damage: dict[str, object]) -> None:
    """What another version of the provider made is not guessed at."""
    home = Home(tmp_path)
    home.make(_blueprint())
    content = json.loads((tmp_path / "home.json").read_text())
    (tmp_path / "home.json").write_text(json.dumps(content | damage))

    with pytest.raises(ConfigError, match=r"(was created by|has a damaged home\.json) .*down --purge"):
        home.blueprint()


def test_only_one_command_works_on_a_home(tmp_path: Path) -> None:
    """The second one is refused, and the next one after it is not."""
    home = Home(tmp_path / "home")
    with (
        home.locked(),
        pytest.raises(RefusedError, match="Another mwaa-dr sandbox command is running"),
        Home(tmp_path / "home").locked(),
    ):
        pass
    with home.locked():
        pass


def test_a_command_may_wait_for_another_one(tmp_path: Path) -> None:
    """It continues after the other command has ended, and not earlier."""
    home = Home(tmp_path / "home")
    done: list[str] = []

    def second() -> None:
        with home.locked(wait_s=60):
            done.append("second")

    waiting = threading.Thread(target=second)
    with home.locked():
        waiting.start()
        with pytest.raises(RefusedError), home.locked(wait_s=0.5):
            pass
        done.append("first")
    waiting.join()
    assert done == ["first", "second"]


def test_a_bare_home_has_the_environments_of_the_readme(tmp_path: Path) -> None:
    """With bucket and role of their own, and what was described of them is kept."""
    home = Home(tmp_path / "home")
    bare = new_blueprint(
        versions=dict.fromkeys(REGIONS, "3.3.1"), executor="LocalExecutor", schedulers=1, dr={}, bare=True
    )
    assert {name: region.environment for name, region in bare.regions.items()} == {
        "us-east-2": "etl-primary",
        "us-east-1": "etl-secondary",
    }
    region = replace(bare.regions["us-east-1"], described={"AirflowConfigurationOptions": {"core.parallelism": "8"}})
    home.make(replace(bare, regions={**bare.regions, region.name: region}))
    assert home.blueprint().regions["us-east-1"].options == {"core.parallelism": "8"}
    assert home.blueprint().bare
    assert not _blueprint().bare


class Rebuilt(Sandbox):
    """A sandbox whose Airflow is a process that sleeps, and starts only without options."""

    def _rebuild(self, blueprint: Blueprint, region: Region) -> Blueprint:
        process.end(self.home.sessions().get(region.name, {}).values(), grace_s=0)
        session = process.start(["/bin/sleep", "60"], environment={}, log=self.home.log(region.name, "scheduler"))
        self.home.remember(region.name, "scheduler", session)
        if region.options:
            raise DRError("It does not start.")
        return blueprint


def test_what_an_update_restores_goes_on(tmp_path: Path) -> None:
    """The update has failed, and the processes of before run again, as sandbox.json says."""
    sandbox = Rebuilt(tmp_path / "home")
    sandbox.home.make(
        new_blueprint(
            versions=dict.fromkeys(REGIONS, "3.3.1"), executor="LocalExecutor", schedulers=1, dr={}, bare=True
        )
    )
    try:
        with pytest.raises(DRError, match="It does not start"):
            sandbox.update("us-east-1", {"AirflowConfigurationOptions": {"core.executor": "NoSuchExecutor"}})
        restored = sandbox.home.sessions()["us-east-1"]["scheduler"]
        assert process.is_alive(restored)
        assert sandbox.description()["regions"]["us-east-1"]["pids"] == {"scheduler": restored.pid}
        assert sandbox.home.blueprint().regions["us-east-1"].options == {}
    finally:
        process.end(sandbox.home.sessions().get("us-east-1", {}).values(), grace_s=0)


def test_processes_are_remembered_until_they_are_forgotten(tmp_path: Path) -> None:
    """Each owner's processes are kept apart."""
    home = Home(tmp_path)
    scheduler, server = ProcessSession(pid=1, started="a"), ProcessSession(pid=2, started="b")
    home.make(_blueprint())
    home.remember("us-east-2", "scheduler", scheduler)
    home.remember("aws", "aws-server", server)

    assert home.sessions() == {"us-east-2": {"scheduler": scheduler}, "aws": {"aws-server": server}}
    home.forget("us-east-2")
    home.forget("us-east-1")
    assert home.sessions() == {"aws": {"aws-server": server}}


def test_the_state_model_of_a_home_changes_while_nothing_runs(tmp_path: Path) -> None:
    """What runs keeps the tables that it began with."""
    sandbox = Sandbox(tmp_path / "home")
    sandbox.home.make(_blueprint())
    eventual = sandbox._with_model(sandbox.home.blueprint(), 2.0)
    assert sandbox.home.blueprint() == eventual
    session = process.start(["/bin/sleep", "60"], environment={}, log=tmp_path / "log")
    try:
        sandbox.home.remember("aws", "aws-server", session)
        assert sandbox._with_model(eventual, 2.0) == eventual
        with pytest.raises(RefusedError, match="runs with the eventual state model and a lag of 2 s, not with the st"):
            sandbox._with_model(eventual, None)
    finally:
        process.end([session], grace_s=0)
    assert sandbox._with_model(eventual, None).state_model == "strong"


def test_a_state_model_or_a_lag_that_is_none_is_refused(tmp_path: Path) -> None:
    """Before anything is made."""
    sandbox = Sandbox(tmp_path / "home")
    with pytest.raises(ConfigError, match="The state model weak does not exist"):
        sandbox.up(state_model="weak")
    with pytest.raises(ConfigError, match="The lag is -1 s"):
        sandbox.up(state_model="eventual", lag_s=-1)
    with pytest.raises(ConfigError, match="The lag of the data is 3601 s"):
        sandbox.up(data_lag_s=3601)
    assert not sandbox.home.path.exists()
