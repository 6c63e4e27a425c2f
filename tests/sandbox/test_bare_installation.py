"""
``mwaa-dr deploy`` with the requirements of users, into bare environments that install them as MWAA's containers do.

The users' packages are small wheels in the sandbox's own index, in ``plugins.zip`` or in an index of the user, all of
them folders. Whether a package is there, is asked of the environment's own Python.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import pack_provider
from airflow_provider_mwaa_dr.sandbox.runtime.home import ACTIVE, STANDBY
from airflow_provider_mwaa_dr.sandbox.runtime.package_index import PackageIndex
from airflow_provider_mwaa_dr.sandbox.runtime.preparation import Preparation, region_environment
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox
from tests.sandbox.bare_environments import Deployer, bare_blueprint, environments
from tests.sandbox.harness import HOMES
from tests.wheels import write_wheel

pytestmark = [pytest.mark.sandbox]

OURS = "airflow_provider_mwaa_dr"


class Users:
    """The packages and files of a user, in *folder*, and the sandbox's index with our package."""

    def __init__(self, folder: Path, index: PackageIndex) -> None:
        folder.mkdir()
        index.folder.mkdir(parents=True, exist_ok=True)
        self.path = pack_provider(index.folder)
        for name in ("users_package", "pinned_package"):
            write_wheel(index.folder, name, "1.0")
        write_wheel(index.folder, "users_package", "2.0")
        write_wheel(index.folder, "needs_another_dr", "1.0", "airflow-provider-mwaa-dr<0.1")
        write_wheel(index.folder, "airflow_provider_mwaa_dr", "0.0.1")
        index.write_pages()
        (folder / "own index").mkdir()
        own = PackageIndex(folder / "own index")
        write_wheel(own.folder, "only_in_own_index", "1.0")
        own.write_pages()
        pinned = (index.folder / "pinned_package-1.0-py3-none-any.whl").read_bytes()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            wheel = write_wheel(folder, "in_plugins", "1.0", "requests>=2")
            archive.write(wheel, wheel.name)
            archive.writestr("older.txt", "users-package==1.0\nboto3==1.20.0\napache-airflow==2.2.0\n")
        self.plugins = buffer.getvalue()
        links = "--find-links /usr/local/airflow/plugins\n"
        hashed = f"pinned-package==1.0 --hash=sha256:{hashlib.sha256(pinned).hexdigest()}\n"
        # Each file of a user, and the modules that it installs.
        self.files: Mapping[str, tuple[bytes | None, Mapping[str, str]]] = {
            "no index": (f"--no-index\n{links}in-plugins\nrequests\n".encode(), {"in_plugins": "1.0"}),
            "older constraint": (
                b"--constraint /usr/local/airflow/plugins/older.txt\nusers-package\n",
                {"users_package": "1.0"},
            ),
            "hashes": (hashed.encode(), {"pinned_package": "1.0"}),
            "foreign index": (f"--index-url {own.url}\nonly-in-own-index\n".encode(), {"only_in_own_index": "1.0"}),
            "conflict with ours": (b"needs-another-dr\n", {"needs_another_dr": "1.0"}),
            "no newline": (b"requests\nusers-package==2.0", {"users_package": "2.0"}),
            "empty": (b"", {}),
            "no file": (None, {}),
        }


def version_of(python: Path, module: str) -> str | None:
    """Import a module in an environment, and return its distribution's version; None if there is no such module."""
    program = (
        "import importlib, importlib.metadata, importlib.util, sys\n"
        "if importlib.util.find_spec(sys.argv[1]):\n"
        "    importlib.import_module(sys.argv[1])\n"
        "    print(importlib.metadata.version(sys.argv[1].replace('_', '-')))"
    )
    answer = subprocess.run([python, "-I", "-c", program, module], capture_output=True, text=True, check=True)
    return answer.stdout.strip() or None


def has(python: Path, modules: Mapping[str, str]) -> bool:
    """Return whether an environment has modules of these versions."""
    return {module: version_of(python, module) for module in modules} == dict(modules)


# Without Airflow's processes: what MWAA's API received is installed into a new image of the real Airflow.

IN_SOAK = ["older constraint", "hashes", "foreign index", "conflict with ours", "no newline", "empty", "no file"]


@pytest.mark.parametrize("name", ["no index", *(pytest.param(name, marks=pytest.mark.soak) for name in IN_SOAK)])
def test_deploy_refuses_or_installs_each_file_and_keeps_the_users_packages(tmp_path: Path, name: str) -> None:
    """From the index, then as a wheel if the index was refused. No image is without the user's packages."""
    sandbox = Sandbox(tmp_path / "images")
    blueprint = bare_blueprint()
    sandbox.home.make(blueprint)
    region = blueprint.regions[STANDBY]
    prepare = Preparation(sandbox.home, sandbox.postgres, say=print)
    users = Users(tmp_path / "user", prepare.index)
    text, modules = users.files[name]
    python = region_environment(sandbox.home, blueprint, region).bin / "python"
    with environments(tmp_path / "aws", requirements=text is not None) as aws:
        options = {"MWAA_DR_PIP_PYTHON": str(python), "MWAA_DR_PIP_OPTIONS": f"--index-url {prepare.index.url}"}
        user = Deployer({**aws, **options})
        user.use(STANDBY, "Plugins", "plugins.zip", users.plugins)
        if text is not None:
            user.use(STANDBY, "Requirements", "requirements.txt", text)

        def update() -> None:
            """Install into a new image what the environment uses now."""
            prepare.images(blueprint, [region])
            requirements, plugins = (user.file_in_use(STANDBY, kind) for kind in ("Requirements", "Plugins"))
            prepare.install(blueprint, region, requirements=requirements, plugins=plugins)

        update()
        assert has(python, modules)
        is_installed = False
        for words in ((), ("--wheel", str(users.path))):
            before = user.environment(STANDBY)
            done = user.deploy("--both-at-once", *words)
            if done.returncode == 0:
                assert "pip resolves it with Python 3.12" in done.stdout
                update()
                is_installed = True
                break
            assert "it was not changed" in done.stdout or "Nothing was changed" in done.stdout
            assert user.environment(STANDBY) == before
        assert is_installed is (name != "conflict with ours")
        assert bool(words) is (name in {"no index", "hashes", "foreign index", "conflict with ours"})
        assert has(python, modules)
        assert version_of(python, OURS) == (__version__ if is_installed else "0.0.1")


# With Airflow.


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Two real environments without the provider."""
    # Not below pytest's own folder: each session on this machine takes PostgreSQL's right to it away.
    sandbox = Sandbox(HOMES / "bare", say=print)
    sandbox.down(purge=True)
    try:
        sandbox.up(bare=True)
        Users(tmp_path_factory.mktemp("user") / "files", PackageIndex(sandbox.home.path / "index"))
        yield sandbox
    finally:
        sandbox.down(purge=True)


@pytest.mark.soak
@pytest.mark.parametrize("cause", ["role", "package"])
def test_a_standby_that_does_not_work_leaves_the_active_environment_unchanged(bare: Sandbox, cause: str) -> None:
    """A role without permissions, and a file that pip cannot install. The standby is AVAILABLE with each of them."""
    description = bare.description()
    user = Deployer(description["env"])
    before = user.environment(ACTIVE)
    variables = {}
    if cause == "role":
        user.put(STANDBY, "requirements.txt", b"users-package==1.0")
        bare.fault(STANDBY, "dynamodb", "deny", from_caller=STANDBY)
        bare.fault(ACTIVE, "dynamodb", "deny", from_caller=STANDBY)
    else:
        # The user's machine has no Python for the trial, so the deployment finds out only in the standby.
        user.put(STANDBY, "requirements.txt", b"users-package==1.0\nno-such-package\n")
        variables["MWAA_DR_PIP_PYTHON"] = "off"
    try:
        failed = user.deploy("--build-on", "latest", "--proof-minutes", "1", **variables)
    finally:
        bare.fault(STANDBY, "all", "none")
        bare.fault(ACTIVE, "all", "none")
    assert failed.returncode != 0
    assert "is updated, but does not work: No agent of version" in failed.stdout
    assert "The active environment was not changed." in failed.stdout
    assert user.environment(STANDBY)["Status"] == "AVAILABLE"
    assert user.environment(ACTIVE) == before
    python = Path(description["regions"][STANDBY]["bin"]) / "python"
    assert version_of(python, OURS) == (__version__ if cause == "role" else None)
    assert version_of(python, "users_package") == ("1.0" if cause == "role" else None)
    if cause == "package":
        log = bare.home.log(STANDBY, "requirements_install").read_text()
        assert "[INFO] - ERROR: No matching distribution found for no-such-package" in log
