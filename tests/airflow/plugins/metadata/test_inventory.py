"""The inventory, read from the metadata database of the installed Airflow, with DAGs that Airflow itself parsed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import pytest

DAGS = """
from datetime import datetime, timedelta, timezone
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable
try:
    from airflow.sdk import DAG, BaseOperator
except ImportError:
    from airflow import DAG
    from airflow.models.baseoperator import BaseOperator
try:
    from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
except ImportError:
    from airflow.sensors.external_task import ExternalTaskSensor


class Work(BaseOperator):
    template_fields = ("text",)

    def __init__(self, *, text="", **kwargs):
        super().__init__(**kwargs)
        self.text = text

    def execute(self, context):
        return self.text


START = datetime(2024, 1, 1, tzinfo=timezone.utc)
with DAG("plain", schedule=None, start_date=START, catchup=False, tags=["b", "a"]):
    Work(task_id="one", text="{text}") >> Work(task_id="two")
with DAG("past", schedule=None, start_date=START, catchup=False, default_args={{"depends_on_past": True}}):
    Work(task_id="one")
with DAG("downstream", schedule=None, start_date=START, catchup=False):
    Work(task_id="one", wait_for_downstream=True)
with DAG("mapped", schedule=None, start_date=START, catchup=False):
    Work.partial(task_id="one", depends_on_past=True).expand(text=["1", "2"])
with DAG("waits", schedule=None, start_date=START, catchup=False):
    ExternalTaskSensor(task_id="one", external_dag_id="plain", external_task_id="one")
with DAG("cron", schedule="30 6 * * 1-5", start_date=START, catchup=False):
    Work(task_id="one")
with DAG("delta", schedule=timedelta(hours=6), start_date=START, catchup=False):
    Work(task_id="one")
with DAG("intervals", schedule=CronDataIntervalTimetable("0 0 * * *", "UTC"), start_date=START, catchup=False):
    Work(task_id="one")
with DAG("triggers", schedule=CronTriggerTimetable("0 0 * * *", timezone="Europe/Berlin"), start_date=START):
    Work(task_id="one")
with DAG("continuous", schedule="@continuous", start_date=START, max_active_runs=1):
    Work(task_id="one")
with DAG("control", schedule=None, start_date=START, catchup=False, tags=["dr:control"]):
    Work(task_id="one")
"""

READ = """
import json
from datetime import datetime, timezone
from airflow_provider_mwaa_dr.core.ports import INVENTORIES
from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.core.inventory import contents_to_text
from airflow_provider_mwaa_dr.agent.inventory import InventoryKeeper
from airflow_provider_mwaa_dr.plugins.metadata.inventory import MetadataInventoryDb
from airflow_provider_mwaa_dr.testing import InMemoryStateStore
db, store = MetadataInventoryDb(), InMemoryStateStore()
InventoryKeeper(store, db, SystemClock(), region="here", options={}, peers=["here"], every_s=60).turn()
versions = db.dag_versions()
facts = db.dag_facts(versions, marks_from=datetime(2026, 1, 2, tzinfo=timezone.utc))
upgrade = db.upgrade_facts(marks_from=datetime(2026, 1, 2, tzinfo=timezone.utc))
print("READ", json.dumps({
    "versions": versions,
    "facts": {dag_id: [each.source, each.shape, *each.traits] for dag_id, each in facts.items()},
    "import_errors": db.import_errors(),
    "values": db.values(),
    "schedules": {dag_id: [each.schedule.timetable, *each.schedule.runs] for dag_id, each in facts.items()},
    "files": sorted({each.file for each in facts.values()}),
    "errors": upgrade.error_texts, "changed": upgrade.changed_options, "unknown": upgrade.unknown_options,
    "teams": upgrade.teams,
    "inventory": contents_to_text(store.get(INVENTORIES, "here")),
}))
"""

KEYS = """
import json, threading
from airflow import settings
from sqlalchemy import text
from airflow_provider_mwaa_dr.plugins.metadata.inventory import MetadataInventoryDb
db, start, found = MetadataInventoryDb(), threading.Barrier(2), []

def add(value):
    before = db.secret("private_key_of_x")
    start.wait()
    found.append([before, db.add_secret("private_key_of_x", value)])

threads = [threading.Thread(target=add, args=(value,)) for value in ("one", "two")]
for thread in threads: thread.start()
for thread in threads: thread.join()
with settings.engine.connect() as connection:
    of_x = {"name": db.variable("private_key_of_x")}
    rows = connection.execute(text("select * from variable where key = :name"), of_x).mappings().all()
print("READ", json.dumps({
    "found": found, "again": db.secret("private_key_of_x"), "name": db.variable("private_key_of_x"),
    "rows": [[row["key"], row["val"], bool(row["is_encrypted"])] for row in rows],
    "variables": sorted(db.values()["variables"]),
}))
"""

READ_KEY = """
from airflow_provider_mwaa_dr.exceptions import ConfigError
from airflow_provider_mwaa_dr.plugins.metadata.inventory import MetadataInventoryDb
try:
    print("READ", repr(MetadataInventoryDb().secret("private_key_of_x")))
except ConfigError as error:
    print("READ", error)
"""

SCHEDULED = ("cron", "delta", "intervals", "triggers", "continuous")
BREAK = """
import sys
from airflow import settings
from airflow.models.errors import ParseImportError
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:
    from airflow.models.dagbag import DagBag
session = settings.Session()
for name, trace in DagBag(sys.argv[1]).import_errors.items():
    session.add(ParseImportError(filename=name, stacktrace=trace))
session.commit()
"""
BROKEN = {
    "module.py": "from airflow.operators.not_there import NotThere  # a dag\n",
    "secret.py": "raise RuntimeError('postgres://me:tr0ub4dor@db')  # a dag of airflow\n",
    "argument.py": """
from datetime import datetime
from airflow import DAG
try:
    from airflow.sdk import BaseOperator
except ImportError:
    from airflow.models.baseoperator import BaseOperator
with DAG("argument", schedule=None, start_date=datetime(2024, 1, 1)):
    BaseOperator(task_id="one", password="tr0ub4dor")
""",
}

READ_VALUES = """
import json
from airflow_provider_mwaa_dr.plugins.metadata.inventory import MetadataInventoryDb
print("READ", json.dumps(MetadataInventoryDb().values()))
"""

FILL = """
from airflow import settings
from airflow.models import Connection, Pool, Variable
session = settings.Session()
variable = Variable(key="password"); variable.set_val("tr0ub4dor"); session.add(variable)
session.add(Variable(key="empty", val=""))
session.add(Connection(conn_id="db", conn_type="postgres", host="h", login="l", password="tr0ub4dor",
                       extra='{"b": 1, "a": 2}'))
session.add(Connection(conn_id="same", conn_type="postgres", host="h", login="l", password="tr0ub4dor",
                       extra='{"a": 2,   "b": 1}'))
session.add(Pool(pool="etl", slots=7, include_deferred=True))
session.commit()
"""


Both: TypeAlias = tuple[dict[str, Any], dict[str, Any]]


class Region:
    """An Airflow home with its own database, key and DAG folder, as each region has."""

    def __init__(self, home: Path, fernet_key: str) -> None:
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir(parents=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_", "DR_"))}
        self.environ = {
            **kept,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__CORE__FERNET_KEY": fernet_key,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        }

    def run(self, *argv: str, **environ: str) -> str:
        done = subprocess.run(
            [sys.executable, *argv], env={**self.environ, **environ}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    def parse(self, **values: str) -> None:
        """Let Airflow parse the folder."""
        (self.dags / "dags.py").write_text(DAGS.format(**values))
        self.run("-m", "airflow", "dags", "reserialize")

    def read(self, **environ: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.printed(READ, **environ))
        return found

    def printed(self, code: str, **environ: str) -> str:
        (line,) = [line for line in self.run("-c", code, **environ).splitlines() if line.startswith("READ ")]
        return line.removeprefix("READ ")


@pytest.fixture(scope="module")
def both(regions: tuple[Region, Region]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is read from both homes before a test changes anything."""
    return regions[0].read(), regions[1].read()


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Region, Region]:
    """Two homes with the same DAGs and values, and with different keys."""
    from cryptography.fernet import Fernet

    one, other = (
        Region(tmp_path_factory.mktemp(name), Fernet.generate_key().decode()) for name in ("us-east-2", "us-east-1")
    )
    one.run("-m", "airflow", "db", "migrate")
    shutil.copy(one.home / "airflow.db", other.home / "airflow.db")
    for region in (one, other):
        region.parse(text="")
        region.run("-c", FILL)
    return one, other


def test_what_two_regions_have_in_common_reads_the_same(regions: tuple[Region, Region], both: Both) -> None:
    """Folder, database and key may differ. The exempt DAG is included."""
    one, other = both
    assert set(one["facts"]) == {"plain", "past", "downstream", "mapped", "waits", "control", *SCHEDULED}
    assert one["facts"] == other["facts"]
    assert one["values"] == other["values"]
    source = hashlib.md5((regions[0].dags / "dags.py").read_bytes()).hexdigest()[:16]
    assert {facts[0] for facts in one["facts"].values()} == {source}


def test_the_inventory_has_names_and_no_values(both: Both) -> None:
    """The test reads the whole inventory, as the agent would write it."""
    text = both[0]["inventory"]
    listed = json.loads(text)
    assert "apache-airflow" in listed["packages"]
    assert listed["names"]["variables"] == ["empty", "password"]
    assert set(listed["names"]["connections"]) >= {"db", "same"}
    assert set(listed["dags"]) == set(both[0]["facts"])
    assert "tr0ub4dor" not in text


def test_values_are_read_as_they_are_meant(both: Both) -> None:
    """Values are decrypted, and the extra of a connection has one spelling, because fingerprints are made of them."""
    values = both[0]["values"]
    assert values["variables"] == {"password": "tr0ub4dor", "empty": ""}
    assert values["connections"]["db"] == values["connections"]["same"]
    assert "tr0ub4dor" in values["connections"]["db"]
    assert values["pools"]["etl"] == "7 True"


def test_traits_of_dags_that_depend_on_history(both: Both) -> None:
    """
    depends_on_past by default or by task, also mapped; wait_for_downstream implies it; a sensor of another DAG. And the
    tag dr:control.
    """
    facts = both[0]["facts"]
    traits = {dag_id: each[2:] for dag_id, each in facts.items() if dag_id not in SCHEDULED}
    assert traits == {
        "plain": [],
        "control": ["control"],
        "past": ["depends_on_past"],
        "downstream": ["depends_on_past"],
        "mapped": ["depends_on_past"],
        "waits": ["external_sensor"],
    }


def test_a_value_under_another_key_is_none(regions: tuple[Region, Region]) -> None:
    """As after a restore into an environment with its own key: no error, and no value."""
    other_key = regions[1].environ["AIRFLOW__CORE__FERNET_KEY"]
    values = json.loads(regions[0].printed(READ_VALUES, AIRFLOW__CORE__FERNET_KEY=other_key))
    assert values["variables"]["password"] is None
    assert values["connections"]["db"] is None


def test_a_change_of_the_file_shows_and_the_shape_holds_no_value(regions: tuple[Region, Region], both: Both) -> None:
    """An argument of a task may come from a variable. It changes the digest of the file, and never the shape."""
    before = both[1]
    regions[1].parse(text="changed")
    after = regions[1].read()
    assert before["versions"] != after["versions"]
    assert {dag_id for dag_id in before["facts"] if before["facts"][dag_id][0] == after["facts"][dag_id][0]} == set()
    assert {dag_id: facts[1] for dag_id, facts in before["facts"].items()} == {
        dag_id: facts[1] for dag_id, facts in after["facts"].items()
    }


def test_files_that_cannot_be_imported_are_listed(regions: tuple[Region, Region]) -> None:
    """They are listed without their folder, which differs between the regions of a sandbox."""
    region = regions[1]
    fill = (
        "from airflow import settings\nfrom airflow.models.errors import ParseImportError as E\n"
        "s = settings.Session()\n"
        f"s.add(E(filename={str(region.dags / 'etl' / 'broken.py')!r}, stacktrace='x'))\n"
        "s.add(E(filename='relative.py', stacktrace='x'))\ns.commit()\n"
    )
    region.run("-c", fill)
    assert region.read()["import_errors"] == ["etl/broken.py", "relative.py"]


def test_two_schedulers_that_start_at_once_agree_on_one_key(regions: tuple[Region, Region]) -> None:
    """Both find no key and add one. The stored key is encrypted, no inventory lists it, and a restart finds it."""
    region, other = regions
    found = json.loads(region.printed(KEYS))
    assert [before for before, _ in found["found"]] == [None, None]
    assert {key for _, key in found["found"]} == {found["again"]} < {"one", "two"}
    ((name, stored, is_encrypted),) = found["rows"]
    assert name == found["name"]
    assert is_encrypted
    assert found["again"] not in stored
    assert found["variables"] == ["empty", "password"]
    assert region.printed(READ_KEY) == repr(found["again"])
    assert other.printed(READ_KEY) == "None"


def test_a_stored_key_that_cannot_be_decrypted_is_an_error(regions: tuple[Region, Region]) -> None:
    """The key is not replaced silently: the other region would then report a change."""
    region, other = regions
    region.printed(KEYS.replace("private_key_of_x", "private_key_of_y"))
    text = region.printed(
        READ_KEY.replace("private_key_of_x", "private_key_of_y"),
        AIRFLOW__CORE__FERNET_KEY=other.environ["AIRFLOW__CORE__FERNET_KEY"],
    )
    assert "private_key_of_y cannot be decrypted" in text


def test_the_next_runs_are_those_of_the_installed_airflow(both: Both) -> None:
    """
    Each mark is the same in all versions. The logical date of a cron string and of a timedelta is the one that this
    version gives. A delta counts from midnight, and @continuous has no marks of its own.
    """
    from airflow import __version__

    schedules = both[0]["schedules"]
    is_2 = __version__.startswith("2.")

    def due(dag_id: str) -> list[str]:
        return [mark for _, mark in schedules[dag_id][1:]]

    def dates(dag_id: str) -> list[str]:
        return [date for date, _ in schedules[dag_id][1:]]

    days = ["2026-01-02T06:30:00Z", "2026-01-05T06:30:00Z", "2026-01-06T06:30:00Z"]
    assert due("cron") == days
    assert dates("cron") == (["2026-01-01T06:30:00Z", *days[:2]] if is_2 else days)
    hours = ["2026-01-02T06:00:00Z", "2026-01-02T12:00:00Z", "2026-01-02T18:00:00Z"]
    assert due("delta") == hours
    assert dates("delta") == (["2026-01-02T00:00:00Z", *hours[:2]] if is_2 else hours)
    assert due("intervals") == [f"2026-01-0{day}T00:00:00Z" for day in (3, 4, 5)]
    assert dates("intervals") == [f"2026-01-0{day}T00:00:00Z" for day in (2, 3, 4)]
    assert due("triggers") == dates("triggers") == [f"2026-01-0{day}T23:00:00Z" for day in (2, 3, 4)]
    assert schedules["cron"][0] == ("CronDataIntervalTimetable" if is_2 else "CronTriggerTimetable")
    assert schedules["continuous"] == ["ContinuousTimetable"]
    assert schedules["plain"] == ["NullTimetable"]
    assert both[0]["files"] == ["dags.py"]
    assert both[0]["teams"] == []


def test_an_option_decides_what_a_cron_string_means(regions: tuple[Region, Region], both: Both) -> None:
    """[scheduler] create_cron_data_intervals gives the cron string the timetable of the other major version."""
    from airflow import __version__

    region, text = regions[1], (regions[1].dags / "dags.py").read_text()
    wanted = "False" if __version__.startswith("2.") else "True"
    region.run("-m", "airflow", "dags", "reserialize", AIRFLOW__SCHEDULER__CREATE_CRON_DATA_INTERVALS=wanted)
    changed = region.read()["schedules"]["cron"]
    assert changed[0] != both[1]["schedules"]["cron"][0]
    assert [mark for _, mark in changed[1:]] == [mark for _, mark in both[1]["schedules"]["cron"][1:]]
    assert changed[1] != both[1]["schedules"]["cron"][1]
    (region.dags / "dags.py").write_text(text)
    region.run("-m", "airflow", "dags", "reserialize")


def test_an_import_error_is_published_without_values(regions: tuple[Region, Region], tmp_path: Path) -> None:
    """Airflow itself imports the files. Of an argument that an operator does not know, it stores the value, too."""
    for name, text in BROKEN.items():
        (tmp_path / name).write_text(text)
    regions[1].run("-c", BREAK, str(tmp_path))
    found = regions[1].read()
    errors = {Path(name).name: text for name, text in found["errors"].items()}
    assert errors["module.py"] == "ModuleNotFoundError: No module named 'airflow.operators.not_there'"
    assert errors["secret.py"] == "RuntimeError"
    assert errors["argument.py"].startswith(("AirflowException", "TypeError"))
    assert "BaseOperator" in errors["argument.py"]
    assert "tr0ub4dor" not in found["inventory"]


def test_options_that_this_version_renamed_or_does_not_know(regions: tuple[Region, Region]) -> None:
    """By Airflow's own tables. An option of a plugin's section is left out, and no value is published."""
    from airflow import __version__

    found = regions[0].read(
        AIRFLOW__CORE__NOT_THERE="tr0ub4dor",
        AIRFLOW__CORE__PARALLELISM="7",
        AIRFLOW__SMTP__SMTP_HOST_CMD="echo",
        AIRFLOW__OF_A_PLUGIN__X="tr0ub4dor",
    )
    assert found["unknown"] == ["core.not_there"]
    assert found["changed"]["core.dag_concurrency"] == "core.max_active_tasks_per_dag"
    removed = "core.task_runner"  # 3.0 removed it, and 2.11 lists it
    assert found["changed"].get(removed) == (None if __version__.startswith("2.") else "")
    assert "core.parallelism" not in found["changed"]
    assert "tr0ub4dor" not in found["inventory"]
