"""Secrets of users, after a failover between two real Airflows: in no table, log or output of the provider."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_mwaa_dr.aws.dynamodb.contents import unpacked
from airflow_provider_mwaa_dr.core.ports import INVENTORIES
from airflow_provider_mwaa_dr.core.state import Phase
from tests.sandbox.failovers import REASON, ChainRun, make_steady
from tests.sandbox.harness import Pair, Shape, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

DAG_FILE = """
import os
import time
from datetime import datetime, timezone
from pathlib import Path

from airflow import DAG
from airflow.decorators import task
from witness import body


@task
def waits(**context):
    body(**context)
    gate = Path(os.environ["AIRFLOW_HOME"]) / "gates" / context["dag_run"].run_id
    deadline = time.monotonic() + 300
    while not gate.exists() and time.monotonic() < deadline:
        time.sleep(0.2)


for dag_id, tags in (("fo_no_conf", ["dr:no-conf"]), ("fo_conf", [])):
    with DAG(dag_id, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False, tags=tags):
        waits()
"""


def texts_of(value: object) -> Iterator[str]:
    """Yield every text in a value of DynamoDB or JSON, also what is packed or encoded in it."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield str(name)
            yield from texts_of(part)
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            yield from texts_of(part)
    elif isinstance(value, bytes):
        with contextlib.suppress(ValueError):  # it is not packed
            value = unpacked(value)
        yield value.decode(errors="replace")
    elif isinstance(value, str):
        yield value
        try:
            yield from texts_of(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            return
    else:
        yield str(value)


def written(pair: Pair) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of everything that the provider writes: items of tables, and logs."""
    for table in pair.dynamodb.list_tables()["TableNames"]:
        for page in pair.dynamodb.get_paginator("scan").paginate(TableName=table):
            for item in page["Items"]:
                yield f"{table} {next(iter(item.values()))}", "\n".join(texts_of(item))
    for region in pair.airflows:
        yield f"inventory of {region}", repr(pair.table.get(INVENTORIES, region))
    for folder in (pair.home / "logs", *(airflow.home / "logs" for airflow in pair.airflows.values())):
        for path in folder.rglob("*"):
            if path.is_file():
                yield str(path), path.read_text(errors="replace")
    yield "requests", (pair.home / "aws" / "requests.jsonl").read_text()


def drilled(pair: Pair, folder: Path) -> list[tuple[str, str]]:
    """Run a drill in the pair, and return its output and the files of its report. The sandbox continues."""
    words = ("sandbox", "drill", "--home", str(pair.home), "--report", str(folder), "--keep")
    answer = pair.mwaa_dr(*words, timeout_s=900)
    assert folder.is_dir(), answer.stdout + answer.stderr
    files = [(path.name, path.read_text()) for path in folder.iterdir()]
    assert {name for name, text in files if "drill_orders" in text} == {"report.html"}, answer.stderr
    assert "report.json" in dict(files)
    return [("drill", answer.stdout + answer.stderr), *files]


@on(soak=(Shape(version="3.3.1", name="ledger-3.3.1", ledger=True),))
def test_no_table_log_or_output_contains_a_secret(pair: Pair, tmp_path: Path) -> None:
    """
    Planted: a variable, the password and the extra of a connection, the conf of a run of a DAG with ``dr:no-conf``, and
    a password in ``~/.netrc``.

    The control: names of all of them are found, and so is the conf of a DAG without the tag, in the same search.
    """
    kinds = ("variable", "password", "extra", "conf", "netrc")
    planted = {kind: f"planted-{kind}-{secrets.token_hex(12)}" for kind in kinds}
    readable = f"readable-{secrets.token_hex(12)}"
    make_steady(pair)
    source, target = pair.active, pair.standby
    for airflow in pair.airflows.values():
        airflow.deploy("secret_runs.py", DAG_FILE)
    pair.airflow_in_each("variables", "set", "planted_variable", planted["variable"])
    pair.airflow_in_each(
        "connections", "add", "planted_connection", "--conn-type", "http", "--conn-login", "ana",
        "--conn-password", planted["password"], "--conn-extra", json.dumps({"token": planted["extra"]}),
    )  # fmt: skip
    for region in pair.airflows.values():
        for dag_id in ("fo_conf", "fo_no_conf"):
            region.wait_for_dag(dag_id)
    source.unpause("fo_conf", "fo_no_conf")
    confs = {"fo_no_conf": planted["conf"], "fo_conf": readable}
    runs = [
        ChainRun(airflow=source, dag_id=dag_id, run_id=source.trigger(dag_id, conf={"password": word}))
        for dag_id, word in confs.items()
    ]
    for run in runs:
        wait_until(run.bodies, f"{run.dag_id} executes")

    def is_listed() -> bool:
        found = [repr(pair.table.get(INVENTORIES, region)) for region in pair.airflows]
        return all("planted_variable" in text and "planted_connection" in text for text in found)

    wait_until(is_listed, "both inventories list the variable and the connection")
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login ana password {planted['netrc']}\n")
    home = {"HOME": str(tmp_path)}
    with pair.start_mwaa_dr("failover", target.name, *REASON, DR_DRAIN_S="120", **home) as failover:
        wait_until(lambda: pair.state().phase is Phase.DRAINING, "the failover waits for the runs")
        for run in runs:
            run.let_go()
        output = "".join(failover.communicate(timeout=240))
    assert failover.returncode == 0, output
    outputs: list[tuple[str, str]] = [("failover", output)]
    for words in (("status",), ("status", "--json"), ("history", "--json"), ("check",), ("check", "--json")):
        answer = pair.mwaa_dr(*words, **home)
        outputs.append((" ".join(words), answer.stdout + answer.stderr))
    for form in ("html", "json"):
        file = tmp_path / f"failover.{form}"
        answer = pair.mwaa_dr("report", "--format", form, "--output", str(file), **home)
        assert answer.returncode == 0, answer.stderr
        outputs.append((file.name, file.read_text() + answer.stdout + answer.stderr))
    for run in runs:
        outputs.append((f"note of {run.dag_id}", run.note))
        run.wait_until_it_is("success")
    outputs += drilled(pair, tmp_path / "drill")

    def everything() -> list[tuple[str, str]]:
        return [*written(pair), *outputs]

    def has_found(word: str) -> bool:
        return any(word in text for _, text in everything())

    for word in (readable, "planted_variable", "planted_connection", "fo_no_conf", *(run.run_id for run in runs)):
        wait_until(lambda word=word: has_found(word), f"the search finds {word}")  # type: ignore[misc]
    forms = {
        f"{kind}, {form}": text
        for kind, secret in planted.items()
        for form, text in (("plain", secret), ("base64", base64.b64encode(secret.encode()).decode()))
    }
    found: dict[str, Any] = {
        kind: where for where, text in everything() for kind, secret in forms.items() if secret in text
    }
    assert found == {}
    for airflow in pair.airflows.values():
        airflow.remove("secret_runs.py")
