"""
Settings in the metadata database of the installed Airflow: two homes with different Fernet keys, one table.

``MWAA_DR_TEST_VARIABLES=5000`` tries another number of variables; it takes three minutes of CPU on each version.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.plugins.metadata.test_inventory import Region

PASSWORD = "tr0ub4dor"
MANY = int(os.environ.get("MWAA_DR_TEST_VARIABLES", "300"))

FILL = """
from airflow import settings
from airflow.models import Connection, Pool, Variable
session = settings.Session()
session.add(Variable(key="password", val="tr0ub4dor", description="d"))
session.add(Variable(key="empty", val=""))
session.add(Connection(conn_id="db", conn_type="postgres", host="h", login="l", password="tr0ub4dor", schema="s",
                       port=5432, extra='{"b": 1, "a": "tr0ub4dor"}', description="d"))
session.add(Connection(conn_id="plain", conn_type="http"))
session.add(Pool(pool="etl", slots=7, include_deferred=True, description="d"))
session.query(Pool).filter(Pool.pool == "default_pool").one().slots = 20
for number in range(MANY):
    session.add(Variable(key=f"many_{number:04}", val=f"value {number}"))
session.commit()
"""

AGENT = """
import json, pickle, sys
from pathlib import Path
from airflow_provider_mwaa_dr.agent.inventory import InventoryKeeper
from airflow_provider_mwaa_dr.agent.settings_carrier import SettingsCarrier
from airflow_provider_mwaa_dr.core.config import Carry
from airflow_provider_mwaa_dr.core.ports import INVENTORIES, SETTINGS_OFFERS
from airflow_provider_mwaa_dr.core.state import initial
from airflow_provider_mwaa_dr.plugins.metadata.inventory import MetadataInventoryDb
from airflow_provider_mwaa_dr.plugins.metadata.settings import MetadataSettingsDb
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock
region, table, turns = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
clock, store = ManualClock(), InMemoryStateStore()
stored = pickle.loads(table.read_bytes()) if table.exists() else {}
store._table.items.update(stored)
clock.advance(float(sys.argv[4]))
modes = dict.fromkeys(("variables", "connections", "pools"), Carry.MIRROR)
names = {"region": region, "peers": ("blue", "green"), "every_s": 60.0}
carrier = SettingsCarrier(store, MetadataSettingsDb(), clock, modes=modes, accepted=(), **names)
keeper = InventoryKeeper(store, MetadataInventoryDb(), clock, options={}, carrier=carrier, **names)
state = initial("blue", lease_s=60, by="t", at=clock.now())
for _ in range(turns):
    clock.advance(60)
    keeper.try_turn()
    if carrier.try_turn(state):
        keeper.make_due()
        keeper.try_turn()
table.write_bytes(pickle.dumps(store._table.items))
offer = store.get(SETTINGS_OFFERS, "blue")
offered = [name for of in offer.values.values() for name in of] if offer else []
print("READ", json.dumps({"problem": carrier.problem, "offered": sorted(offered)}))
"""

READ = """
import json
from airflow import settings
from airflow.models import Connection, Pool, Variable
from sqlalchemy import text
session = settings.Session()
connections = {each.conn_id: [each.conn_type, each.host, each.login, each.password, each.schema, each.port, each.extra,
                              each.description] for each in session.query(Connection)
               if each.conn_id in ("db", "plain", "odd")}
variables = {each.key: [each.val, each.description] for each in session.query(Variable)
             if not each.key.startswith("airflow_provider")}
pools = {each.pool: [each.slots, each.include_deferred, each.description] for each in session.query(Pool)}
raw = {
    name: [list(map(str, row)) for row in session.execute(text(f"select {columns} from {name}"))]
    for name, columns in (("variable", "key, val, is_encrypted"),
                          ("connection", "conn_id, password, is_encrypted, extra, is_extra_encrypted"))
}
print("READ", json.dumps({"connections": connections, "variables": variables, "pools": pools, "raw": raw}))
"""

CHANGE = """
from airflow import settings
from airflow.models import Connection, Variable
session = settings.Session()
session.query(Variable).filter(Variable.key == "password").one().val = "changed"
connection = session.query(Connection).filter(Connection.conn_id == "db").one()
connection._password, connection.is_encrypted, connection.extra = None, False, None
session.commit()
"""

WRITE = """
import json
from airflow_provider_mwaa_dr.core.carrying import SettingWrite
from airflow_provider_mwaa_dr.plugins.metadata.settings import MetadataSettingsDb
db = MetadataSettingsDb()
there = db.settings({"variables": ["empty"]})
assert set(there["variables"]) == {"empty"} and there["connections"] == {}
plain = {**dict.fromkeys(("description", "host", "schema", "login", "port")), "conn_type": "http"}
untyped = {**plain, "conn_type": None, "password": "", "extra": ""}
empty, odd = there["variables"]["empty"], {**plain, "password": "tr0ub4dor", "extra": "no json"}
writes = [
    SettingWrite(key=("variables", "airflow_provider_mwaa_dr.private_key_of_blue"), content={"val": "x"}, before=None),
    SettingWrite(key=("variables", "n" * 251), content={"val": "x", "description": None}, before=None),
    SettingWrite(key=("variables", "empty"), content={"val": "x", "description": None}, before=None),
    SettingWrite(key=("variables", "gone"), content={"val": "x", "description": None}, before=empty),
    SettingWrite(key=("connections", "bad id\\n"), content={**plain, "password": "", "extra": ""}, before=None),
    SettingWrite(key=("connections", "odd"), content=odd, before=None),
    SettingWrite(key=("connections", "untyped"), content=untyped, before=None),
    SettingWrite(key=("variables", "fine"), content={"val": "x", "description": None}, before=None),
]
print("READ", json.dumps(sorted(db.write_settings(writes))))
"""


class Sites:
    """Two homes with different Fernet keys, and a table as a file."""

    def __init__(self, folder: Path, many: int) -> None:
        from cryptography.fernet import Fernet

        self.table, self.turns = folder / "table", 0
        self.blue, self.green = (Region(folder / name, Fernet.generate_key().decode()) for name in ("blue", "green"))
        migrated = os.environ.get("MWAA_DR_MIGRATED_DATABASE")
        if migrated:
            shutil.copy(migrated, self.blue.home / "airflow.db")
        else:
            self.blue.run("-m", "airflow", "db", "migrate")
        shutil.copy(self.blue.home / "airflow.db", self.green.home / "airflow.db")
        self.blue.run("-c", FILL.replace("MANY", str(many)))
        self.output = ""

    def work(self, times: int = 2) -> list[dict[str, Any]]:
        """Let both agents work some turns; each time in a new process, as after a restart."""
        found = []
        for _ in range(times):
            for name, site in (("blue", self.blue), ("green", self.green)):
                self.turns += 1
                output = site.run("-c", AGENT, name, str(self.table), "3", str(1000 * self.turns))
                self.output += output
                (line,) = [line for line in output.splitlines() if line.startswith("READ ")]
                found.append(json.loads(line.removeprefix("READ ")))
        return found

    def read(self, site: Region) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(site.printed(READ))
        return found


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Sites:
    return Sites(tmp_path_factory.mktemp("sites"), many=MANY)


def test_settings_arrive_under_the_fernet_key_of_the_standby(sites: Sites) -> None:
    """
    Variables, connections and pools with all their columns; then changes. No value is in the table or in the output,
    and each is encrypted in the standby under its own key.
    """
    sites.work(2)
    blue, green = sites.read(sites.blue), sites.read(sites.green)
    for kind in ("variables", "connections", "pools"):
        assert green[kind] == blue[kind]
    assert len(green["variables"]) == MANY + 2
    assert green["pools"]["default_pool"][0] == 20
    copied = {row[0]: row[1:] for row in green["raw"]["variable"] if row[0] in blue["variables"]}
    assert {encrypted for _, encrypted in copied.values()} <= {"1", "True"}
    original = {row[0]: row[1:] for row in blue["raw"]["variable"]}
    assert [name for name, row in copied.items() if row == original[name]] == []
    (connection,) = [row for row in green["raw"]["connection"] if row[0] == "db"]
    assert (connection[2], connection[4]) in {("1", "1"), ("True", "True")}

    sites.blue.run("-c", CHANGE)
    sites.work(1)
    blue, green = sites.read(sites.blue), sites.read(sites.green)
    assert green["variables"]["password"][0] == "changed"
    assert green["connections"]["db"] == blue["connections"]["db"]
    assert not green["connections"]["db"][3]
    reports = sites.work(1)
    assert [each["problem"] for each in reports] == [None, None]
    assert reports[-1]["offered"] == []

    table = sites.table.read_bytes()
    assert b"many_0001" in table
    for text in (table, sites.output.encode()):
        assert [secret for secret in (PASSWORD, f"value {MANY - 1}", "changed") if secret.encode() in text] == []


def test_a_write_leaves_what_it_was_not_decided_for(sites: Sites) -> None:
    """
    The provider's own variables, a name that is too long, one that exists, one that is gone, and what Airflow or its
    database refuses. The others are written.
    """
    written = json.loads(sites.blue.printed(WRITE))
    # Airflow 2 accepts an extra that is no JSON.
    assert [key for key in written if key != ["connections", "odd"]] == [["variables", "fine"]]
    found = sites.read(sites.blue)
    assert found["variables"]["empty"] == ["", None]
    assert "gone" not in found["variables"]
