"""
A trial of a merged requirements.txt on this machine: pip resolves it as an MWAA container does, and installs nothing.

MWAA installs all lines or none, and reports a failure only in a log. In the trial, pip sees the packages of MWAA's
image as installed, and no package of this machine.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow_provider_mwaa_dr.aws.deploy.image_packages import LIMIT_S, constraints, installed, is_known
from airflow_provider_mwaa_dr.aws.deploy.requirements_file import PLUGINS_FOLDER
from airflow_provider_mwaa_dr.exceptions import RefusedError

OPTIONS_VARIABLE = "MWAA_DR_PIP_OPTIONS"
"""Environment variable with more options for pip, such as the address of a mirror."""
PYTHON_VARIABLE = "MWAA_DR_PIP_PYTHON"
"""Environment variable with the Python that runs pip; ``off``: nothing is tried."""

_PYTHONS = {"2.10": "3.11", "2.11": "3.12", "3": "3.12"}
_IN_IMAGE = re.compile(rb"/usr/local/airflow/(?!plugins\b)[^\s'\"]*")
_NO_NETWORK = re.compile(
    r"connection broken|NewConnectionError|Temporary failure|Name or service not known|ConnectTimeout|Proxy|SSLError"
)


class TrialInstallation:
    """
    Tries requirements with the Python and the packages of one Airflow version.

    :param environ: the variables of this process, with :data:`OPTIONS_VARIABLE` and :data:`PYTHON_VARIABLE`.
    """

    def __init__(self, airflow_version: str, environ: Mapping[str, str]) -> None:
        self._airflow_version = airflow_version
        self._options = shlex.split(environ.get(OPTIONS_VARIABLE, ""))
        self._given_python = environ.get(PYTHON_VARIABLE, "")

    def run(self, requirements: bytes, plugins: bytes | None) -> str:
        """
        Return what was tried, or why nothing could be tried.

        :param plugins: the content of plugins.zip, which may contain wheels and constraints; None if there is none.
        :raises RefusedError: pip cannot install the file.
        """
        if self._given_python == "off":
            return f"not tried: {PYTHON_VARIABLE} is off"
        if not is_known(self._airflow_version):
            return f"not tried: the packages of MWAA's image of Airflow {self._airflow_version} are not known"
        if found := _IN_IMAGE.search(requirements):
            return f"not tried: the file refers to {found[0].decode(errors='replace')}, which exists only in MWAA"
        found_python = self._python()
        if found_python is None:
            return (
                f"not tried: this machine has no Python {self._python_version} with pip; {PYTHON_VARIABLE} can name one"
            )
        with tempfile.TemporaryDirectory(prefix="mwaa-dr-") as folder:
            return self._try(*found_python, requirements, plugins, Path(folder))

    @property
    def _python_version(self) -> str:
        return next(python for prefix, python in _PYTHONS.items() if self._airflow_version.startswith(prefix))

    def _python(self) -> tuple[str, Path] | None:
        """Return a Python of MWAA's version that has pip, and the folder of its pip."""
        wanted = self._python_version
        program = "import sys, pip; print('%d.%d' % sys.version_info[:2], pip.__path__[0])"
        for python in [self._given_python] if self._given_python else [sys.executable, f"python{wanted}"]:
            found = _run([python, "-c", program], timeout_s=20)
            if found is not None and found.returncode == 0:
                version, _, pip = found.stdout.strip().partition(" ")
                if version == wanted:
                    return python, Path(pip)
        return None

    def _try(self, python: str, pip: Path, requirements: bytes, plugins: bytes | None, folder: Path) -> str:
        unpacked = folder / "plugins"
        unpacked.mkdir()
        if plugins is not None:
            # All files: requirements.txt may also refer to a constraints file.
            try:
                with zipfile.ZipFile(io.BytesIO(plugins)) as archive:
                    archive.extractall(unpacked)
            except zipfile.BadZipFile as error:
                return f"not tried: plugins.zip cannot be unpacked ({error})"
        file = folder / "requirements.txt"
        file.write_bytes(requirements.replace(PLUGINS_FOLDER.encode(), str(unpacked).encode()))
        # -S hides the packages of this Python. PYTHONPATH has pip and the packages of the image.
        command = [python, "-S", "-m", "pip", "--isolated", "install", "--dry-run", "--retries", "1"]
        command += ["--disable-pip-version-check", "--no-input", "--requirement", str(file), *self._options]
        for name in constraints(self._airflow_version, requirements):
            command += ["--constraint", str(name)]
        path = _image_folder(folder / "image", pip, self._airflow_version)
        done = _run(command, timeout_s=LIMIT_S, python_path=path)
        if done is None:
            return f"not tried to its end: pip needed more than {LIMIT_S / 60:g} minutes, the limit of MWAA"
        if done.returncode == 0:
            return f"pip {'resolves' if requirements.strip() else 'accepts'} it with Python {self._python_version}"
        if _NO_NETWORK.search(done.stderr):
            return "not tried: pip could not reach the package index; " + _last_lines(done.stderr, 1)
        why = _conflict(done.stdout) or _last_lines(done.stderr, 4)
        raise RefusedError(
            f"pip cannot install the merged requirements.txt in MWAA's image of Airflow {self._airflow_version}: "
            f"{why}. MWAA would install nothing of it. Nothing was changed.",
            advice="Correct the file, upload it, and deploy again. If pip does not find this package, give its wheel "
            f"(--wheel FILE). {OPTIONS_VARIABLE} gives pip more options, such as your mirror.",
        )


def _image_folder(folder: Path, pip: Path, airflow_version: str) -> Path:
    """Make a folder in which pip finds itself, and the names and versions of the packages in MWAA's image."""
    folder.mkdir()
    (folder / "pip").symlink_to(pip)
    for name, version in installed(airflow_version).items():
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def _run(
    command: Sequence[str], *, timeout_s: float, python_path: Path | None = None
) -> subprocess.CompletedProcess[str] | None:
    """Return the result of a command; None if it does not exist or does not end."""
    environment = None if python_path is None else {**os.environ, "PYTHONPATH": str(python_path)}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s,
            stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None


def _conflict(output: str) -> str:
    """Return what pip says about a conflict, on one line; empty if there is none."""
    _, _, rest = output.partition("The conflict is caused by:")
    return "; ".join(line.strip() for line in rest.partition("\n\n")[0].splitlines() if line.strip())[:600]


def _last_lines(text: str, count: int) -> str:
    """Return the last lines of pip's errors, on one line and without the password of an index."""
    lines = [line.removeprefix("ERROR: ").strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("WARNING", "[notice]"))] or lines
    return re.sub(r"(://)[^/@\s]+@", r"\1***@", " ".join(lines[-count:])).rstrip(".")[:600]
