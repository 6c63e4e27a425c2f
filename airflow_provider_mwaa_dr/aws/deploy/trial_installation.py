"""
A trial of a merged requirements.txt on this machine: pip resolves it as an MWAA container does, and installs nothing.

MWAA installs all lines or none, and reports a failure only in a log. The folder ``image`` has the packages of each MWAA
image: those that pip may not change (``airflow-*.txt``, unless the file names constraints of its own), and those that
it may never change (``essential-*.txt``).
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow_provider_mwaa_dr.aws.deploy.requirements_file import PLUGINS_FOLDER
from airflow_provider_mwaa_dr.exceptions import RefusedError

IMAGE = Path(__file__).with_name("image")
LIMIT_S = 540.0
"""MWAA ends an installation after nine minutes."""
OPTIONS_VARIABLE = "MWAA_DR_PIP_OPTIONS"
"""Environment variable with more options for pip, such as the address of a mirror."""
PYTHON_VARIABLE = "MWAA_DR_PIP_PYTHON"
"""Environment variable with the Python that runs pip; ``off``: nothing is tried."""

_PYTHONS = {"2.10": "3.11", "2.11": "3.12", "3": "3.12"}
_OWN_CONSTRAINTS = re.compile(rb"^\s*(?:-c\b|--constraint\b)", re.MULTILINE)
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

        :param plugins: the content of plugins.zip, which may contain wheels; None if there is none.
        :raises RefusedError: pip cannot install the file.
        """
        if self._given_python == "off":
            return f"not tried: {PYTHON_VARIABLE} is off"
        if not (IMAGE / f"airflow-{self._airflow_version}.txt").is_file():
            return f"not tried: the packages of MWAA's image of Airflow {self._airflow_version} are not known"
        if found := _IN_IMAGE.search(requirements):
            return f"not tried: the file refers to {found[0].decode(errors='replace')}, which exists only in MWAA"
        python = self._python()
        if python is None:
            return (
                f"not tried: this machine has no Python {self._python_version} with pip; {PYTHON_VARIABLE} can name one"
            )
        with tempfile.TemporaryDirectory(prefix="mwaa-dr-") as folder:
            return self._try(python, requirements, plugins, Path(folder))

    @property
    def _python_version(self) -> str:
        return next(python for prefix, python in _PYTHONS.items() if self._airflow_version.startswith(prefix))

    def _python(self) -> str | None:
        """Return a Python with pip of MWAA's version."""
        wanted = self._python_version
        for python in [self._given_python] if self._given_python else [sys.executable, f"python{wanted}"]:
            found = _run([python, "-c", "import sys, pip; print('%d.%d' % sys.version_info[:2])"], timeout_s=20)
            if found is not None and found.returncode == 0 and found.stdout.strip() == wanted:
                return python
        return None

    def _try(self, python: str, requirements: bytes, plugins: bytes | None, folder: Path) -> str:
        wheels = folder / "plugins"
        wheels.mkdir()
        if plugins is not None:
            with zipfile.ZipFile(io.BytesIO(plugins)) as archive:
                for inside in archive.namelist():
                    if inside.endswith(".whl") and "/" not in inside:
                        (wheels / inside).write_bytes(archive.read(inside))
        file = folder / "requirements.txt"
        file.write_bytes(requirements.replace(PLUGINS_FOLDER.encode(), str(wheels).encode()))
        kinds = ("essential",) if _OWN_CONSTRAINTS.search(requirements) else ("airflow", "essential")
        names = [IMAGE / f"{kind}-{self._airflow_version}.txt" for kind in kinds]
        command = [python, "-m", "pip", "--isolated", "install", "--dry-run", "--ignore-installed"]
        command += [
            "--retries",
            "1",
            "--disable-pip-version-check",
            "--no-input",
            "--requirement",
            str(file),
            *self._options,
        ]
        for name in names:
            command += ["--constraint", str(name)]
        done = _run(command, timeout_s=LIMIT_S)
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


def _run(command: Sequence[str], *, timeout_s: float) -> subprocess.CompletedProcess[str] | None:
    """Return the result of a command; None if it does not exist or does not end."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s,
            stdin=subprocess.DEVNULL,
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
