"""
Requirements of users with our line, tried by a real pip with the package set of each MWAA image.

The index is a folder with small wheels, so pip sends no request.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.aws.deploy import plugins_archive, trial_installation
from airflow_provider_mwaa_dr.aws.deploy.image_packages import constraints
from airflow_provider_mwaa_dr.aws.deploy.plugins_archive import Wheel
from airflow_provider_mwaa_dr.aws.deploy.requirements_file import Requirement, merge
from airflow_provider_mwaa_dr.aws.deploy.trial_installation import TrialInstallation
from airflow_provider_mwaa_dr.exceptions import RefusedError
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import pack_provider, versions
from tests.wheels import write_wheel

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with pip and a package."""
    folder = tmp_path_factory.mktemp("python")
    venv.create(folder, with_pip=True)
    info = next(folder.glob("lib/python*/site-packages")) / "only_here-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: only-here\nVersion: 1.0\n")
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our package, and packages of a user."""
    folder = tmp_path_factory.mktemp("index")
    pack_provider(folder)
    write_wheel(folder, "users-package", "1.0")
    write_wheel(folder, "users-package", "2.0")
    write_wheel(folder, "needs-old-jinja", "1.0", "jinja2<3")
    write_wheel(folder, "jinja2", "2.11.3")
    write_wheel(folder, "needs-requests", "1.0", "requests>=2")
    return folder


@pytest.fixture
def trial(python: str, index: Path, monkeypatch: pytest.MonkeyPatch) -> TrialInstallation:
    """Whatever Python runs the tests stands in for MWAA's."""
    monkeypatch.setattr(trial_installation, "_PYTHONS", {"2": HERE, "3": HERE})
    return TrialInstallation(
        "3.3.1", {"MWAA_DR_PIP_PYTHON": python, "MWAA_DR_PIP_OPTIONS": f"--no-index --find-links '{index}'"}
    )


@pytest.fixture
def wheel(index: Path) -> Wheel:
    return Wheel.read(next(index.glob("airflow_provider_mwaa_dr-*.whl")))


def with_wheel(text: bytes, wheel: Wheel) -> tuple[bytes, bytes]:
    """Return requirements and plugins.zip of a deployment with ``--wheel``."""
    requirement = Requirement(version=wheel.version, from_plugins=True, sha256=wheel.sha256)
    return merge(text, requirement), plugins_archive.merge(b"", wheel)


USERS = [
    b"",
    b"users-package==1.0\n",
    b"users-package==1.0",
    b"users-package>=1\r\n# the end",
    b"--no-index\nusers-package==1.0\n",
    b"--index-url https://mirror.invalid/simple\nusers-package\n",
    b"users-package==1.0 --hash=sha256:HASH\n",
    b"--constraint OLDER\nusers-package\n",
]


@pytest.mark.parametrize("text", USERS)
@pytest.mark.parametrize("from_index", [True, False], ids=["index", "wheel"])
def test_the_users_packages_are_installed_with_ours_or_deploy_refuses(
    trial: TrialInstallation, wheel: Wheel, index: Path, tmp_path: Path, text: bytes, from_index: bool
) -> None:
    """With the wheel, deploy accepts each file. From the index, it refuses three of them before any change."""
    older = tmp_path / "older.txt"
    older.write_text("users-package==1.0\nboto3==1.20.0\napache-airflow==2.2.0\n")
    users = index / "users_package-1.0-py3-none-any.whl"
    text = text.replace(b"OLDER", str(older).encode())
    text = text.replace(b"HASH", hashlib.sha256(users.read_bytes()).hexdigest().encode())
    if from_index:
        if b"--no-index" in text or b"--index-url" in text or b"--hash" in text:
            with pytest.raises(RefusedError, match="it was not changed"):
                merge(text, Requirement(version=__version__))
            return
        assert trial.run(merge(text, Requirement(version=__version__)), None).startswith("pip resolves it")
    else:
        assert trial.run(*with_wheel(text, wheel)).startswith("pip resolves it")


def test_a_file_that_pip_cannot_install_is_refused(trial: TrialInstallation, wheel: Wheel) -> None:
    """MWAA would install nothing of it, and would say so only in a log. Some users' files are broken already."""
    with pytest.raises(RefusedError, match=r"no-such-package.*MWAA would install nothing of it") as caught:
        trial.run(*with_wheel(b"no-such-package\n", wheel))
    assert "MWAA_DR_PIP_OPTIONS" in caught.value.advice


def test_a_package_that_conflicts_with_the_image_is_refused(trial: TrialInstallation, wheel: Wheel) -> None:
    """The constraints of the image pin it, unless the file has constraints of its own."""
    with pytest.raises(RefusedError, match=r"needs-old-jinja 1\.0 depends on jinja2<3; .*MWAA would install nothing"):
        trial.run(*with_wheel(b"needs-old-jinja\n", wheel))


def test_a_comment_switches_the_constraints_of_the_image_off(trial: TrialInstallation, wheel: Wheel) -> None:
    """MWAA decides so, and users rely on it. Deploy must not refuse such a file."""
    assert trial.run(*with_wheel(b"# no -c here\nneeds-old-jinja\n", wheel)).startswith("pip resolves it")


def test_the_packages_of_the_image_need_no_index(trial: TrialInstallation, wheel: Wheel) -> None:
    """A user's offline file may require what the image has; on this machine no index has it."""
    text = b"--no-index\nrequests\nneeds-requests\n"
    assert trial.run(*with_wheel(text, wheel)).startswith("pip resolves it")


def test_a_constraints_file_may_be_in_plugins_zip(trial: TrialInstallation, wheel: Wheel) -> None:
    """MWAA unpacks it before pip runs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("older.txt", "users-package==1.0\n")
    text = b"--constraint /usr/local/airflow/plugins/older.txt\nusers-package\n"
    requirements, _ = with_wheel(text, wheel)
    assert trial.run(requirements, plugins_archive.merge(buffer.getvalue(), wheel)).startswith("pip resolves it")


def test_a_damaged_plugins_zip_is_no_reason_to_refuse(trial: TrialInstallation) -> None:
    """It is the user's own, and the deployment does not change it."""
    assert trial.run(b"", b"no archive") == "not tried: plugins.zip cannot be unpacked (File is not a zip file)"


def test_the_packages_of_this_machine_do_not_count(trial: TrialInstallation, wheel: Wheel) -> None:
    """The Python that runs pip has packages that MWAA's image does not have."""
    with pytest.raises(RefusedError, match=r"No matching distribution found for only-here"):
        trial.run(*with_wheel(b"only-here\n", wheel))


def test_without_our_package_in_the_index_the_advice_is_the_wheel(trial: TrialInstallation) -> None:
    """A mirror may not have it."""
    with pytest.raises(RefusedError) as caught:
        trial.run(b"airflow-provider-mwaa-dr==999\n", None)
    assert "--wheel FILE" in caught.value.advice


@pytest.mark.parametrize(
    ("text", "environ", "why"),
    [
        (b"-r /usr/local/airflow/dags/more.txt\n", {}, "refers to /usr/local/airflow/dags/more.txt"),
        (b"", {"MWAA_DR_PIP_PYTHON": "off"}, "MWAA_DR_PIP_PYTHON is off"),
        (b"", {"MWAA_DR_PIP_PYTHON": "no-such-python"}, "this machine has no Python"),
    ],
)
def test_what_could_not_be_tried_is_said(text: bytes, environ: dict[str, str], why: str) -> None:
    """A deployment continues: the proof in the standby shows the rest."""
    message = TrialInstallation("3.3.1", environ).run(text, None)
    assert message.startswith("not tried: ")
    assert why in message


def test_an_index_without_an_answer_is_no_reason_to_refuse(
    python: str, wheel: Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine of the user may have no way to the index that MWAA uses."""
    monkeypatch.setattr(trial_installation, "_PYTHONS", {"3": HERE})
    options = "--index-url http://127.0.0.1:9/simple"
    environ = {"MWAA_DR_PIP_PYTHON": python, "MWAA_DR_PIP_OPTIONS": options}
    message = TrialInstallation("3.3.1", environ).run(*with_wheel(b"users-package\n", wheel))
    assert message.startswith("not tried: pip could not reach the package index")


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("own", [b"", b"--constraint OWN\n"], ids=["image", "own constraints"])
def test_our_wheel_changes_no_package_of_an_image(
    python: str, index: Path, tmp_path: Path, version: str, own: bytes
) -> None:
    """Under all constraints of the image, pip would install our wheel and nothing else."""
    (tmp_path / "own.txt").write_text("boto3==1.20.0\n")
    file = tmp_path / "requirements.txt"
    file.write_bytes(
        own.replace(b"OWN", str(tmp_path / "own.txt").encode()) + f"airflow-provider-mwaa-dr=={__version__}\n".encode()
    )
    command = [python, "-m", "pip", "--isolated", "install", "--dry-run", "--ignore-installed", "--no-index"]
    command += ["--find-links", str(index), "--requirement", str(file), "--disable-pip-version-check"]
    for path in constraints(version, file.read_bytes()):
        command += ["--constraint", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert done.stdout.splitlines()[-1] == f"Would install airflow-provider-mwaa-dr-{__version__}"
