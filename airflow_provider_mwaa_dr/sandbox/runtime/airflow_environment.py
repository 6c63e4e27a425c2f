"""
The virtual environments in which the sandbox's Airflows run.

There are two layers. The lower layer is a read-only folder with the third-party packages of one Airflow version. It is
in a cache that all homes of a user share, because filling it needs the network and most of a minute. The upper layer is
a small virtual environment for each home and version. It uses the folder, and contains a copy of the provider that this
process runs (from a wheel or a checkout), with its entry points. This needs no network, and homes share no code of the
provider.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import airflow_provider_mwaa_dr
from airflow_provider_mwaa_dr.aws.deploy.example_dags import EXAMPLE_DAGS, example_dags
from airflow_provider_mwaa_dr.exceptions import ConfigError, DRError

CONSTRAINTS = Path(__file__).parents[1] / "constraints"
DISTRIBUTION = "airflow-provider-mwaa-dr"
DEFAULT_VERSION = "3.3.1"
# MWAA's Python first, then other versions on which the pinned packages can be installed.
PYTHONS = {
    "2.10": ("3.11", "3.12", "3.10"),
    "2.11": ("3.12", "3.11", "3.10"),
    "3": ("3.12", "3.11", "3.13", "3.10"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AirflowEnvironment:
    """
    An environment that is ready to run.

    :param bin: folder with ``airflow`` and ``python``.
    :param airflow_version: as in the name of its constraints file.
    """

    bin: Path
    airflow_version: str

    @property
    def major(self) -> int:
        """Airflow's major version."""
        return major(self.airflow_version)


def major(airflow_version: str) -> int:
    """Return the major version in an Airflow version."""
    return int(airflow_version.partition(".")[0])


def versions() -> Sequence[str]:
    """Return the Airflow versions that the sandbox can run (those with a constraints file), newest first."""
    found = [path.stem.removeprefix("airflow-") for path in CONSTRAINTS.glob("airflow-*.txt")]
    return sorted(found, key=lambda version: [int(part) for part in version.split(".")], reverse=True)


def constraints(airflow_version: str) -> Path:
    """
    Return the file that pins every package of an Airflow version.

    :raises ConfigError: the sandbox does not support this version.
    """
    path = CONSTRAINTS / f"airflow-{airflow_version}.txt"
    if not path.is_file():
        raise ConfigError(
            f"The sandbox does not support Airflow {airflow_version}.",
            option="--airflow",
            advice=f"Allowed are {', '.join(versions())}.",
        )
    return path


def cache_folder() -> Path:
    """Return the folder that all homes share: ``MWAA_DR_CACHE``, else the user's cache folder."""
    own = os.environ.get("MWAA_DR_CACHE")
    if own:
        return Path(own).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / DISTRIBUTION


def provide(folder: Path, airflow_version: str, *, say: Callable[[str], object]) -> AirflowEnvironment:
    """
    Return the environment of one Airflow version in *folder*, and create it if it is missing.

    Idempotent. Each call replaces the provider in the environment by the running one, so call it only while no process
    runs in the environment.

    :param say: called with a line before each slow step.
    :raises ConfigError: the version is not supported, or this machine has no Python for it.
    :raises DRError: the packages could not be installed; has the installer's output.
    """
    _copy_provider(_provide_airflow(folder, airflow_version, say=say))
    return AirflowEnvironment(bin=folder / "bin", airflow_version=airflow_version)


def provide_image(folder: Path, airflow_version: str, *, say: Callable[[str], object]) -> AirflowEnvironment:
    """
    Return a new environment of one Airflow version in *folder*, without the provider, like an image of MWAA.

    It has pip. All packages that were installed into *folder* before are removed. Raises like :func:`provide`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    _provide_airflow(folder, airflow_version, say=say)
    answer = subprocess.run(
        [folder / "bin" / "python", "-I", "-m", "ensurepip"], capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if answer.returncode != 0:
        raise DRError(
            f"pip could not be installed into {folder}: {answer.stderr.strip()[-2000:]}",
            advice="Check that this Python has the module ensurepip; some distributions package it separately.",
        )
    return AirflowEnvironment(bin=folder / "bin", airflow_version=airflow_version)


def pack_provider(folder: Path) -> Path:
    """Write the running provider as a wheel into *folder*, and return the wheel's path."""
    folder.mkdir(parents=True, exist_ok=True)
    package = Path(airflow_provider_mwaa_dr.__file__).parent
    installed = metadata.distribution(DISTRIBUTION)
    stem = f"{package.name}-{installed.version}"
    wheel = folder / f"{stem}-py3-none-any.whl"
    part = wheel.with_suffix(".part")
    record = []
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}\n")

        files = {path.relative_to(package).as_posix(): path for path in package.rglob("*")}
        files |= {f"{EXAMPLE_DAGS}/{path.name}": path for path in example_dags().glob("*.py")}
        for name, path in sorted(files.items()):
            if path.is_file() and "__pycache__" not in path.parts:
                add(f"{package.name}/{name}", path.read_bytes())
        for name in ("METADATA", "entry_points.txt"):
            add(f"{stem}.dist-info/{name}", (installed.read_text(name) or "").encode())
        add(
            f"{stem}.dist-info/WHEEL",
            b"Wheel-Version: 1.0\nGenerator: mwaa-dr\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        listed = f"{stem}.dist-info/RECORD"
        archive.writestr(listed, "".join([*record, f"{listed},,\n"]))
    part.replace(wheel)
    return wheel


def _provide_airflow(folder: Path, airflow_version: str, *, say: Callable[[str], object]) -> Path:
    """Create the environment of one Airflow version if it is missing, and return its site-packages folder."""
    packages, python = _shared_packages(airflow_version, say=say)
    if not (folder / "pyvenv.cfg").exists():
        _uv("venv", "--quiet", "--no-project", "--allow-existing", "--python", str(python), str(folder))
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "airflow_shared.pth").write_text(f"import site; site.addsitedir({os.fspath(packages)!r})\n")
    _write_airflow_script(folder / "bin")
    return site


def shared_folder(airflow_version: str, python_version: str) -> Path:
    """Return the folder for the packages of an Airflow version. If the folder exists, it is complete."""
    pins = constraints(airflow_version).read_text()
    mark = hashlib.sha256(f"{sysconfig.get_platform()}\n{pins}".encode()).hexdigest()[:12]
    return cache_folder() / f"airflow-{airflow_version}-py{python_version}-{mark}"


def _shared_packages(airflow_version: str, *, say: Callable[[str], object]) -> tuple[Path, Path]:
    """Return the folder with the packages of an Airflow version, and the Python for which they were installed."""
    pins = constraints(airflow_version)
    python, python_version = find_python(airflow_version)
    folder = shared_folder(airflow_version, python_version)
    if folder.is_dir():
        return folder, python
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if folder.is_dir():
            return folder, python
        say(f"installing Airflow {airflow_version} for Python {python_version} into {folder}")
        for incomplete in folder.parent.glob(f"{folder.name}.part-*"):
            shutil.rmtree(incomplete)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
        _uv(
            "pip", "install", "--quiet", "--no-deps", "--compile-bytecode", "--no-config",
            "--python", str(python), "--target", str(part), "--requirement", str(pins),
        )  # fmt: skip
        # Renaming makes the folder appear only when it is complete, also after an interrupted installation.
        part.chmod(0o755)
        part.rename(folder)
    return folder, python


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pythons_for(airflow_version: str) -> Sequence[str]:
    """Return the minor versions of Python that run an Airflow version, best first."""
    return next(row for release, row in PYTHONS.items() if airflow_version.startswith(f"{release}."))


def find_python(airflow_version: str) -> tuple[Path, str]:
    """
    Return the best interpreter on this machine for an Airflow version, and its minor version.

    :raises ConfigError: this machine has none.
    """
    usable = pythons_for(airflow_version)
    for version in usable:
        for candidate in _candidates(version):
            found = _probe(candidate, version)
            if found is not None:
                return found, version
    raise ConfigError(
        f"No Python for Airflow {airflow_version} was found on this machine. It needs one of {', '.join(usable)}.",
        option="--airflow",
        advice=f"Put python{usable[0]} on the PATH (MWAA uses this version), or name another --airflow version.",
    )


def _candidates(version: str) -> Iterator[Path]:
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        yield Path(sys.executable)
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        yield Path(folder) / f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
    yield from sorted(pyenv.glob(f"{version}*/bin/python{version}"), reverse=True)
    try:
        yield Path(_uv("python", "find", "--quiet", "--no-project", version).strip())
    except DRError:
        return


def _probe(candidate: Path, version: str) -> Path | None:
    """Return the interpreter that *candidate* runs. pyenv has shims also for versions that are not installed."""
    if not candidate.is_file():
        return None
    program = (
        "import ctypes, sqlite3, ssl, sys; from pathlib import Path; "
        "print('%d.%d' % sys.version_info[:2], getattr(sys, '_base_executable', sys.executable))"
    )
    answer = subprocess.run(
        [candidate, "-I", "-c", program], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if answer.returncode != 0:
        return None
    found, _, executable = answer.stdout.strip().partition(" ")
    return Path(executable) if found == version and Path(executable).is_file() else None


def _uv(*arguments: str) -> str:
    """Run uv and return its output. :raises DRError: it failed; has the end of its output."""
    try:
        from uv import find_uv_bin  # noqa: PLC0415  (part of the sandbox extra; the other commands work without it)

        program = find_uv_bin()
    except (ImportError, FileNotFoundError):
        program = shutil.which("uv") or ""
    if not program:
        raise ConfigError(
            "uv is not installed. The sandbox needs it to install Airflow.",
            advice="Run pip install 'mwaa-dr-cli[sandbox]'.",
        )
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    answer = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
    )
    if answer.returncode != 0:
        raise DRError(
            f"uv {' '.join(arguments[:2])} failed: {answer.stderr.strip()[-2000:]}",
            advice="Check the network and the package index. Airflow versions that are already installed stay usable.",
        )
    return answer.stdout


def _copy_provider(site: Path) -> None:
    """Copy the running provider into *site*, with the metadata that Airflow needs to find its plugin."""
    source = Path(airflow_provider_mwaa_dr.__file__).parent
    target = site / source.name
    for old in (target, *site.glob(f"{source.name}-*.dist-info")):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "constraints", "example_dags"))
    installed = metadata.distribution(DISTRIBUTION)
    info = site / f"{source.name}-{installed.version}.dist-info"
    info.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (info / name).write_text(installed.read_text(name) or "")


def _write_airflow_script(folder: Path) -> None:
    """Write the script ``airflow``, which runs under this environment's Python for any path of the folder."""
    script = folder / "airflow"
    # A #! line ends after 127 characters and at the first space, so sh starts Python, for which that line is a string.
    script.write_text(
        f"#!/bin/sh\n'''exec' {shlex.quote(os.fspath(folder / 'python'))} \"$0\" \"$@\"\n' '''\n"
        "import sys\n\nfrom airflow.__main__ import main\n\nif __name__ == '__main__':\n    sys.exit(main())\n"
    )
    script.chmod(0o755)
