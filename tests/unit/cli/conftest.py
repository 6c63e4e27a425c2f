"""The command line with fakes in place of AWS and Airflow."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_mwaa_dr.cli import main
from airflow_provider_mwaa_dr.cli.runtime import Runtime
from airflow_provider_mwaa_dr.testing import FakeEnvironment, FakeTables, InMemoryStateStore
from tests.unit.core.dr_set import World as DRSet

ENVIRON = {
    "DR_STATE_TABLE": "mwaa-dr-state",
    "DR_STATE_TABLE_REGION": "us-east-2",
    "DR_ENVIRONMENTS": "us-east-2=ohio,us-east-1=virginia",
    "DR_HEARTBEAT_S": "1",
}


@dataclass(frozen=True)
class Result:
    """Exit code and output of a call."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Stdout, which must be exactly one JSON document."""
        return json.loads(self.out)


class Terminal(io.StringIO):
    """A stdin or stdout that is a terminal."""

    def isatty(self) -> bool:
        return True


class Shell:
    """
    Calls ``mwaa-dr`` in this process, on a DR set of fakes: two regions with ten DAGs, live agents, us-east-2 active.
    """

    def __init__(self) -> None:
        self.set = DRSet.build()
        self.environ: Mapping[str, str] = ENVIRON
        self.is_terminal = False
        self.store: InMemoryStateStore = self.set.store
        self.tables = FakeTables()
        self.tables.add("mwaa-dr-state", "us-east-2", "us-east-1")

    def environment(self, region: str) -> FakeEnvironment:
        return self.set.environments[region]

    def __call__(self, *argv: str, answer: str | None = None) -> Result:
        out, err = Terminal() if self.is_terminal else io.StringIO(), io.StringIO()
        code = main(argv, runtime=self.runtime(out, err, io.StringIO() if answer is None else Terminal(answer)))
        return Result(code, out.getvalue(), err.getvalue())

    def runtime(self, out: io.StringIO, err: io.StringIO, stdin: io.StringIO, *, who: str = "ana@laptop") -> Runtime:
        return Runtime(
            environ=self.environ,
            stdin=stdin,
            stdout=out,
            stderr=err,
            clock=self.set.clock,
            who=who,
            make_store=lambda _: self.store.peer() if not self.store.unreachable else self.store,
            make_environment=lambda site: self.environment(site.id),
            make_tables=lambda _: self.tables,
            silence_s=math.inf,
        )


@pytest.fixture
def mwaa_dr() -> Shell:
    return Shell()


@pytest.fixture
def fresh() -> Shell:
    """A shell with an empty state table."""
    shell = Shell()
    shell.store = InMemoryStateStore()
    return shell
