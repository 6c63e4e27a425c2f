"""The tables of a real Airflow on an embedded PostgreSQL, and a program that runs in Airflow's environment on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests.benchmarks.report import BUILD, ROOT


def measure_inside(module: str, version: str, **variables: str) -> Any:
    """
    Return what ``python -m MODULE inside`` prints as its last line, as JSON; it finds migrated, empty tables.

    :param variables: for its environment, on top of this one's.
    :raises RuntimeError: it failed; what it said is on stderr.
    """
    from airflow_provider_mwaa_dr.sandbox.runtime import airflow_environment
    from airflow_provider_mwaa_dr.sandbox.runtime.postgres import Postgres

    name = module.rpartition(".")[2]
    postgres = Postgres(BUILD / "postgres")
    environment = airflow_environment.provide(BUILD / f"airflow-{version}", version, say=print)
    python = str(environment.bin / "python")
    postgres.start()
    try:
        postgres.drop_database(name)
        postgres.create_database(name)
        env = {
            **os.environ,
            # Airflow leaves an airflow.cfg there, which another version does not understand.
            "AIRFLOW_HOME": str(BUILD / f"home-{version}"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url(name),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        _run([python, "-m", "airflow", "db", "migrate"], env)
        printed = _run([python, "-W", "ignore", "-m", module, "inside"], {**env, **variables})
    finally:
        postgres.stop()
    return json.loads(printed.splitlines()[-1])


def _run(words: list[str], env: Mapping[str, str]) -> str:
    answer = subprocess.run(words, env=env, stdout=subprocess.PIPE, check=False, text=True, cwd=ROOT)
    if answer.returncode != 0:
        print(answer.stdout[-3000:], file=sys.stderr)
        raise RuntimeError(f"{' '.join(words[1:])} ended with {answer.returncode}")
    return answer.stdout
