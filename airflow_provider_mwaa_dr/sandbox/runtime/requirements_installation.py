"""Install a requirements.txt into an environment of the sandbox, as an MWAA container does when it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from airflow_provider_mwaa_dr.aws.deploy.image_packages import LIMIT_S, constraints
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_environment import AirflowEnvironment
from airflow_provider_mwaa_dr.sandbox.runtime.package_index import PackageIndex


def install_requirements(
    environment: AirflowEnvironment, requirements: Path, index: PackageIndex, *, log: Path, limit_s: float = LIMIT_S
) -> bool:
    """
    Return whether pip has installed the file. It installs all packages of the file, or none.

    The constraints are those of MWAA's image. pip takes packages that the image does not have from *index*, unless the
    file names another index. As in MWAA, each line of pip's output has the level INFO in the log, also an error, and
    no other line reports a failure.

    :param log: lines are appended to this file.
    :param limit_s: pip is killed after this time, and the installation has failed.
    """
    command = [str(environment.bin / "python"), "-m", "pip", "install", "--requirement", str(requirements)]
    for path in constraints(environment.airflow_version, requirements.read_bytes()):
        command += ["--constraint", str(path)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    variables |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index.url,
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a") as output,
        # A session of its own, so that the processes with which pip builds a package end together with pip.
        subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,
        ) as pip,
    ):  # fmt: skip
        limit = threading.Timer(limit_s, _kill, [pip])
        limit.start()
        try:
            assert pip.stdout is not None
            for line in pip.stdout:
                output.write(f"[INFO] - {line}")
                output.flush()
            return pip.wait() == 0
        except BaseException:
            _kill(pip)
            raise
        finally:
            limit.cancel()


def _kill(pip: subprocess.Popen[str]) -> None:
    """Kill pip and all processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(pip.pid, signal.SIGKILL)
