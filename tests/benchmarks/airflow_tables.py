"""The tables of a real Airflow in an embedded PostgreSQL, and a program that uses them in Airflow's environment."""

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
    Run ``python -m MODULE inside`` with migrated, empty tables; return the JSON in its last line of output.

    :param variables: additional environment variables.
    :raises RuntimeError: it failed; its output is on stderr.
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
            # Airflow writes an airflow.cfg there, which another version cannot read.
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
