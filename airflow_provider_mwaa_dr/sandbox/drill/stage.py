"""What every drill uses: the sandbox with its regions, the steps of the drill, and what its task bodies wrote."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import airflow_provider_mwaa_dr
from airflow_provider_mwaa_dr import __version__
from airflow_provider_mwaa_dr.aws.deploy.example_dags import example_dags
from airflow_provider_mwaa_dr.core.ledger import LogEntry
from airflow_provider_mwaa_dr.core.ports import FailoverRecord
from airflow_provider_mwaa_dr.core.readiness.model import TEST_DAG
from airflow_provider_mwaa_dr.core.sites import Sites
from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.sandbox.cloud.tables import SandboxTables
from airflow_provider_mwaa_dr.sandbox.drill.report import DrillStep, Line
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_settings
from airflow_provider_mwaa_dr.sandbox.runtime.airflow_api import SandboxAirflowApi
from airflow_provider_mwaa_dr.sandbox.sandbox import Sandbox

DAGS = Path(__file__).parent / "dags"
BODY = "drill_body.py"
"""What the task bodies of all loads import. It has no DAG, so Airflow need not parse it."""
TIMEOUT_S = 240.0
"""For a wait that takes one or two seconds on an idle machine."""
LIKE_MWAA_FACTOR = 4
"""With MWAA's settings, each task starts an interpreter of its own, which imports all of Airflow."""
FAILOVER_DEADLINE_S = 420.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillRegion:
    """
    One region, and the ways in which a user acts in it.

    :param name: the id of its site.
    :param described: its part of ``sandbox.json``.
    """

    name: str
    described: Mapping[str, Any]

    @property
    def api(self) -> SandboxAirflowApi:
        """Return its REST API."""
        return SandboxAirflowApi(self.described)

    def lines(self, since: datetime) -> Sequence[Line]:
        """Return the lines that task bodies wrote since *since*, oldest first."""
        home = Path(self.described["airflow_home"])
        # With the settings of MWAA, the worker has a home of its own in this folder.
        texts = [path.read_text() for path in (*home.glob("drill.jsonl"), *home.glob("*/drill.jsonl"))]
        lines = [Line.parse(row) for text in texts for row in text.splitlines(keepends=True) if row.endswith("\n")]
        return sorted((line for line in lines if line.at >= since), key=lambda line: line.at)

    def program(self, *words: str | Path, timeout_s: float = TIMEOUT_S) -> str:
        """
        Run ``airflow``, ``python`` or another program of its Airflow until it ends, and return its output.

        :raises DRError: it failed.
        """
        folder = Path(self.described["bin"])
        answer = subprocess.run(
            [folder / words[0], *words[1:]],
            env=airflow_settings.process_variables(self.described["env"], bin_folder=folder),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
        if answer.returncode != 0:
            raise DRError(
                f"{' '.join(map(str, words[:3]))} in {self.name} ended with {answer.returncode}: {answer.stderr[-800:]}"
            )
        return answer.stdout


class Stage:
    """
    The sandbox of a drill, and the progress of the drill.

    :param say: called with each line of progress.
    :param sites: two sites, each with a version of Airflow in place of the environment's name; the first one is active
        first. None for the sites of the sandbox, which are two regions in a new one.
    """

    def __init__(self, sandbox: Sandbox, *, say: Callable[[str], object], sites: Sites | None = None) -> None:
        self.sandbox = sandbox
        self.say = say
        self.sites = sites
        self.steps: list[DrillStep] = []
        self.started_at = datetime.now(timezone.utc)

    def start(self, **options: Any) -> Mapping[str, Any]:
        """Start the sandbox with the sites of this drill; *options* as for :meth:`.Sandbox.up`."""
        sites = self.sites
        return self.sandbox.up(
            airflow=sites and dict(sites),
            places=sites and {site.id: site.aws_region for site in sites.all},
            **options,
        )

    @staticmethod
    def put_load(folder: Path, name: str, start: datetime) -> None:
        """Write the DAGs of a load into *folder*, with the time at which they start, and the DAG that verifies."""
        for path in (DAGS / BODY, DAGS / name, example_dags() / f"{TEST_DAG}.py"):
            shutil.copy(path, folder)
        (folder / ".airflowignore").write_text(f"{BODY}\n")
        (folder / "drill_start.txt").write_text(start.isoformat())

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step of the drill, and show its name."""
        self.say(f"{name} ...")
        begun = time.monotonic()
        yield
        self.steps.append(DrillStep(name=name, seconds=round(time.monotonic() - begun, 1)))

    def limit_s(self, seconds: float) -> float:
        """Return the limit of a wait with the settings of this sandbox."""
        is_like_mwaa = any(region.like_mwaa for region in self.sandbox.home.blueprint().regions.values())
        return seconds * (LIKE_MWAA_FACTOR if is_like_mwaa else 1)

    def until(self, condition: Callable[[], bool], what: str, *, within_s: float = TIMEOUT_S) -> None:
        """Wait until a condition is true. :raises DRError: the deadline passed; names *what* it waited for."""
        limit_s = self.limit_s(within_s)
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                raise DRError(
                    f"Timed out after {limit_s:.0f} s, while waiting until {what}.",
                    advice=f"The sandbox's logs are in {self.sandbox.home.path / 'logs'}.",
                )
            time.sleep(0.5)

    def mwaa_dr(self, words: Sequence[str], variables: Mapping[str, str]) -> None:
        """
        Run ``mwaa-dr`` in an empty folder, with the variables that ``mwaa-dr sandbox env`` prints, and show its output.

        :raises DRError: it failed.
        """
        environment = airflow_settings.process_variables(variables, bin_folder=Path(sys.executable).parent)
        with tempfile.TemporaryDirectory() as folder, subprocess.Popen(
            [sys.executable, "-m", "airflow_provider_mwaa_dr.cli", *words],
            env={**environment, "PYTHONPATH": str(Path(airflow_provider_mwaa_dr.__file__).parent.parent)}, cwd=folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    self.say(f"  {line.rstrip()}")
                code = process.wait(FAILOVER_DEADLINE_S)
            except BaseException:
                process.kill()
                raise
        if code != 0:
            raise DRError(f"mwaa-dr {words[0]} ended with {code}.", advice="Its output is above.")

    def ledgers(self, tables: SandboxTables) -> Mapping[str, Sequence[LogEntry]]:
        """Return all entries of each region's ledger."""
        ledgers: dict[str, list[LogEntry]] = {}
        for region in self.sandbox.home.blueprint().regions:
            entries = ledgers.setdefault(region, [])
            while found := tables.runs.log(region, after=entries[-1].number if entries else 0):
                entries += found
        return ledgers

    def taken_over(self, ledgers: Mapping[str, Sequence[LogEntry]]) -> frozenset[tuple[str, str, str]]:
        """Return region, DAG id and run id of the runs that a region took over from the other one in this drill."""
        return frozenset(
            (region, *run.key)
            for region, entries in ledgers.items()
            for entry in entries
            for run in entry.runs
            if entry.at >= self.started_at and run.taken_at is not None
        )

    def lines(self, regions: Mapping[str, DrillRegion]) -> list[Line]:
        """Return what task bodies wrote in all regions since the start of the drill."""
        return [line for region in regions.values() for line in region.lines(self.started_at)]

    def calls_to(self, region: str, record: FailoverRecord) -> int:
        """Return the number of requests to the MWAA environment of *region* since the claim of a failover."""
        return len(self.sandbox.requests(region, "mwaa", since=record.started_at))

    def versions(self) -> Mapping[str, Mapping[str, str]]:
        """Return the versions of Airflow and of the provider, by region."""
        regions = self.sandbox.home.blueprint().regions
        return {name: {"airflow": region.airflow_version, "provider": __version__} for name, region in regions.items()}
