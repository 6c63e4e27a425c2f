"""The inventory that an agent writes, and the fingerprints in it."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_mwaa_dr.agent.fingerprints import KeyPair, SharedKey
from airflow_provider_mwaa_dr.agent.inventory import BATCH, RENEW_S, InventoryKeeper, installed_packages, option_texts
from airflow_provider_mwaa_dr.agent.loop import AgentLoop
from airflow_provider_mwaa_dr.agent.ports import GateCounts
from airflow_provider_mwaa_dr.core.config import OPTIONS, DRConfig, OnUnreachable, parse_config
from airflow_provider_mwaa_dr.core.inventory import DagFacts, DagSchedule, Inventory, UpgradeFacts, time_text
from airflow_provider_mwaa_dr.core.item_kind import ItemKind
from airflow_provider_mwaa_dr.core.ports import INVENTORIES, Registration
from airflow_provider_mwaa_dr.core.state import Phase
from airflow_provider_mwaa_dr.exceptions import StateAccessError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock
from tests.unit.agent.test_loop import FakeDb, plan, state

HERE, THERE = "us-east-1", "us-east-2"
EVERY_S = 60.0
PASSWORD = "tr0ub4dor"


@dataclass
class FakeAirflow:
    """The source of an inventory. ``read`` has the ids of the DAGs that each call read."""

    versions: dict[str, str] = field(default_factory=lambda: {"orders": "1", "billing": "1"})
    variables: dict[str, str | None] = field(default_factory=lambda: {"password": PASSWORD, "same": PASSWORD})
    read: list[list[str]] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    broken: bool = False

    def variable(self, name: str) -> str:
        return f"reserved.{name}"

    def secret(self, name: str) -> str | None:
        return self.secrets.get(name)

    def add_secret(self, name: str, value: str) -> str:
        return self.secrets.setdefault(name, value)

    def dag_versions(self) -> Mapping[str, str]:
        if self.broken:
            raise ConnectionError("no database")
        return dict(self.versions)

    def dag_facts(self, dag_ids: Collection[str], *, marks_from: datetime) -> Mapping[str, DagFacts]:
        self.read.append(sorted(dag_ids))
        return {
            dag_id: DagFacts(
                source=self.versions[dag_id],
                shape="x",
                traits=("control",) if dag_id.startswith("control") else (),
                schedule=DagSchedule(timetable="Cron", runs=((time_text(marks_from), time_text(marks_from)),)),
            )
            for dag_id in dag_ids
        }

    def import_errors(self) -> tuple[str, ...]:
        return ("broken.py",)

    def upgrade_facts(self, *, marks_from: datetime) -> UpgradeFacts:
        return UpgradeFacts(marks_from=marks_from, error_texts={"broken.py": "SyntaxError"})

    def values(self) -> Mapping[str, Mapping[str, str | None]]:
        return {"variables": dict(self.variables), "connections": {"db": PASSWORD}, "pools": {"default_pool": "128"}}


class Region:
    """A region's inventory keeper, its Airflow, and a connection to the table that both regions share."""

    def __init__(self, region: str, store: InMemoryStateStore, clock: ManualClock) -> None:
        self.region, self.store, self.clock = region, store.peer(), clock
        self.airflow = FakeAirflow()
        self.peers: tuple[str, ...] = (HERE, THERE)
        self.restart()

    def restart(self) -> None:
        """Start again as after a restart of the scheduler, with nothing remembered."""
        self.keeper = InventoryKeeper(
            self.store, self.airflow, self.clock, region=self.region, options={"lease_s": "60"}, peers=self.peers,
            every_s=EVERY_S,
        )  # fmt: skip

    def write(self) -> str | None:
        """Write an inventory; return the agent's error."""
        self.clock.advance(EVERY_S)
        self.keeper.try_turn()
        return self.keeper.error

    @property
    def listed(self) -> Inventory:
        found = self.store.get(INVENTORIES, self.region)
        assert found is not None
        return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def regions(clock: ManualClock) -> tuple[Region, Region]:
    store = InMemoryStateStore()
    return Region(HERE, store, clock), Region(THERE, store, clock)


def agree(regions: tuple[Region, Region], clock: ManualClock) -> None:
    """Let both regions write often enough to have read each other's keys."""
    for _ in range(2):
        for region in regions:
            region.write()


def prints(region: Region) -> Mapping[str, Mapping[str, str]]:
    ((_, found),) = region.listed.fingerprints.items()
    return found.values


def test_it_lists_names_versions_and_digests(regions: tuple[Region, Region]) -> None:
    """The first inventory of the first region has no fingerprint yet."""
    here, _ = regions
    here.write()
    listed = here.listed
    assert {dag_id: (facts.source, facts.shape) for dag_id, facts in listed.dags.items()} == {
        "orders": ("1", "x"),
        "billing": ("1", "x"),
    }
    assert listed.names == {"variables": ("password", "same"), "connections": ("db",), "pools": ("default_pool",)}
    assert listed.import_errors == ("broken.py",)
    assert listed.options == {"lease_s": "60"}
    assert "pytest" in listed.packages
    assert listed.fingerprints == {}


def test_the_runs_after_the_next_midnight_are_listed_and_read_again_each_day(
    regions: tuple[Region, Region], clock: ManualClock
) -> None:
    """Two regions list the same days. The item does not change during the day, although the next runs do."""
    here, there = regions
    here.write()
    clock.advance(3600.0)
    there.write()
    listed = here.listed
    assert listed.upgrade is not None
    assert listed.upgrade.marks_from == datetime(2026, 1, 2, tzinfo=timezone.utc)
    assert listed.upgrade == (there.listed.upgrade)
    assert listed.dags == there.listed.dags
    assert len(here.airflow.read) == 1
    clock.advance(24 * 3600.0)
    here.write()
    assert len(here.airflow.read) == 2
    schedule = here.listed.dags["orders"].schedule
    assert schedule is not None
    assert schedule.runs[0][1] == "2026-01-03T00:00:00Z"


def test_two_regions_can_compare_values_after_two_inventories_each(
    regions: tuple[Region, Region], clock: ManualClock
) -> None:
    """Equal values have equal fingerprints in both regions. A different value has a different one."""
    here, there = regions
    there.airflow.variables["same"] = "other"
    agree(regions, clock)
    assert here.listed.fingerprints[THERE].key_id == there.listed.fingerprints[HERE].key_id
    assert prints(here)["connections"] == prints(there)["connections"]
    assert prints(here)["variables"]["password"] == prints(there)["variables"]["password"]
    assert prints(here)["variables"]["same"] != prints(there)["variables"]["same"]


def test_a_restart_keeps_the_key(regions: tuple[Region, Region], clock: ManualClock) -> None:
    """The key pair is in the metadata database. Two schedulers, and one that starts again, use the same pair."""
    here, there = regions
    agree(regions, clock)
    before = here.listed
    here.restart()
    agree(regions, clock)
    assert here.listed.public_key == before.public_key
    assert prints(here) == prints(there) == before.fingerprints[THERE].values


def test_an_invented_peer_gets_no_fingerprints(regions: tuple[Region, Region], clock: ManualClock) -> None:
    """Who may write the state table can register a region with a key of its own, and write its inventory."""
    here, _ = regions
    agree(regions, clock)
    evil = KeyPair.generate()
    here.store.put_regions(HERE, (HERE, THERE, "evil"))
    here.store.register(Registration(region="evil", environment="evil"))
    here.store.put(INVENTORIES, Inventory(region="evil", taken_at=clock.now(), public_key=evil.public))
    assert here.write() is None
    assert set(here.listed.fingerprints) == {THERE}
    shared = evil.agree(here.listed.public_key)
    assert shared is not None
    assert _guess(shared) not in json.dumps(asdict(here.listed), default=str)


def test_a_changed_key_gets_no_fingerprints_until_it_is_accepted(
    regions: tuple[Region, Region], clock: ManualClock
) -> None:
    """
    Who may write the state table can replace the inventory of a peer. Only a change in the metadata database accepts
    the new key.
    """
    here, there = regions
    agree(regions, clock)
    evil = KeyPair.generate()
    here.store.put(INVENTORIES, replace(there.listed, public_key=evil.public))
    reports = {here.write() for _ in range(3)}
    here.restart()
    reports.add(here.write())
    (report,) = reports
    assert report is not None
    assert report.startswith(f"{THERE} has another public key than before")
    assert here.listed.fingerprints == {}
    shared = evil.agree(here.listed.public_key)
    assert shared is not None
    assert _guess(shared) not in json.dumps(asdict(here.listed), default=str)

    # A new metadata database of the peer looks the same, until a user deletes the variable that the report names.
    (name,) = [name for name in here.airflow.secrets if f"reserved.{name}" in report]
    del here.airflow.secrets[name]
    assert here.write() is None
    assert set(here.listed.fingerprints) == {THERE}


def _guess(shared: SharedKey) -> str:
    return shared.fingerprint("variables", "password", PASSWORD)


def test_a_key_of_an_earlier_version_is_not_remembered(regions: tuple[Region, Region], clock: ManualClock) -> None:
    """Its agent made a new key at each start. After its update, its lasting key must not count as a change."""
    here, there = regions
    there.write()
    lasting = there.listed
    there.store.put(INVENTORIES, replace(lasting, public_key=lasting.public_key.removeprefix("x25519:")))
    assert here.write() is None
    assert here.listed.fingerprints == {}
    there.store.put(INVENTORIES, lasting)
    assert here.write() is None
    assert set(here.listed.fingerprints) == {THERE}


def test_without_configured_peers_there_are_no_fingerprints(regions: tuple[Region, Region], clock: ManualClock) -> None:
    """The list of regions in the state table does not count. The agent says which setting is missing."""
    here, there = regions
    there.write()
    here.peers = ()
    here.restart()
    assert "[dr] environments names no other region" in (here.write() or "")
    assert here.listed.fingerprints == {}


def test_a_private_key_that_cannot_be_used_is_reported(regions: tuple[Region, Region], clock: ManualClock) -> None:
    """A user has edited the variable. The agent does not replace it by itself, because the peers remember the key."""
    here, _ = regions
    here.airflow.secrets[f"private_key_of_{HERE}"] = "junk"
    assert "has no private key. Delete it" in (here.write() or "")
    assert here.airflow.secrets[f"private_key_of_{HERE}"] == "junk"


def test_no_value_and_no_way_to_guess_one_is_in_the_table(regions: tuple[Region, Region], clock: ManualClock) -> None:
    """A reader of the whole table who guesses the right password cannot verify the guess."""
    agree(regions, clock)
    text = json.dumps([asdict(region.listed) for region in regions], default=str)
    assert PASSWORD not in text
    assert "128" not in [value for region in regions for value in prints(region)["pools"].values()]
    published = {print_ for region in regions for kind in prints(region).values() for print_ in kind.values()}
    strings = {
        piece
        for region in regions
        for piece in (region.listed.public_key, region.listed.fingerprints[_other(region)].key_id, region.region)
    }
    keys = [b"", *(key for piece in strings for key in (piece.encode(), _bytes(piece)))]
    guesses = [PASSWORD, json.dumps(["variables", "password", PASSWORD])]
    for guess in guesses:
        tried = {hashlib.new(name, guess.encode()).hexdigest()[:16] for name in ("md5", "sha1", "sha256")}
        tried |= {hmac.new(key, guess.encode(), hashlib.sha256).hexdigest()[:16] for key in keys}
        assert not tried & published


def _other(region: Region) -> str:
    return THERE if region.region == HERE else HERE


def _bytes(piece: str) -> bytes:
    try:
        return bytes.fromhex(piece)
    except ValueError:
        return b""


def test_equal_values_of_different_names_do_not_show_as_equal(
    regions: tuple[Region, Region], clock: ManualClock
) -> None:
    """A reader of the table cannot see that two connections share a password."""
    agree(regions, clock)
    found = prints(regions[0])
    assert len({found["variables"]["password"], found["variables"]["same"], found["connections"]["db"]}) == 3


def test_a_value_that_cannot_be_decrypted_has_a_name_and_no_fingerprint(
    regions: tuple[Region, Region], clock: ManualClock
) -> None:
    """It counts as different from a value that can be decrypted."""
    here, _ = regions
    here.airflow.variables["password"] = None
    agree(regions, clock)
    assert "password" in here.listed.names["variables"]
    assert "password" not in prints(here)["variables"]


def test_an_invalid_public_key_is_refused() -> None:
    """A user may have edited the table, or an attacker may have chosen a point of small order."""
    for junk in ("", "zz", "00", "x25519:", "x25519:zz", f"x25519:{'00' * 32}"):
        assert KeyPair.generate().agree(junk) is None


def test_an_unchanged_inventory_is_written_again_only_now_and_then(
    regions: tuple[Region, Region], clock: ManualClock
) -> None:
    """A useless write every minute would cost money. Without any write, the agent would look dead."""
    here, _ = regions
    here.write()
    at = here.listed.taken_at
    for _ in range(5):
        here.write()
    assert here.listed.taken_at == at
    clock.advance(RENEW_S)
    here.write()
    assert here.listed.taken_at > at


def test_only_dags_that_changed_are_read_and_a_few_at_a_time(
    regions: tuple[Region, Region], clock: ManualClock
) -> None:
    """Thousands of DAGs must not stop the agent from reading the state in time."""
    here, _ = regions
    here.airflow.versions = {f"dag_{number:04}": "1" for number in range(2 * BATCH + 50)}
    assert [here.keeper.turn() for _ in range(3)] == [False, False, True]
    assert [len(read) for read in here.airflow.read] == [BATCH, BATCH, 50]
    here.airflow.versions["dag_0007"] = "2"
    del here.airflow.versions["dag_0008"]
    here.write()
    assert here.airflow.read[3:] == [["dag_0007"]]
    assert here.listed.dags["dag_0007"].source == "2"
    assert "dag_0008" not in here.listed.dags


def test_packages_have_one_spelling() -> None:
    """The spelling is that of requirements files, whatever tool built the wheel."""
    packages = installed_packages()
    assert "airflow-provider-mwaa-dr" in packages
    assert all(name == name.lower() and "_" not in name for name in packages)


def test_options_are_texts_that_can_be_compared() -> None:
    """The same setting has the same text, whatever the order in which the user wrote it."""
    raw = {"lease_s": "60.0", "exempt_dags": "b,a", "environments": "us-east-2=b,us-east-1=a"}
    texts = option_texts(parse_config(raw))
    assert set(texts) == {option.field for option in OPTIONS if option.is_setting}
    assert (texts["lease_s"], texts["exempt_dags"], texts["environments"]) == ("60", "a,b", "us-east-1=a,us-east-2=b")
    assert option_texts(DRConfig(environments={}, on_unreachable=OnUnreachable.RUN))["on_unreachable"] == "run"


# The inventory in the agent's loop.


class Agent:
    """An agent that writes an inventory. Its region is active."""

    def __init__(self, inventories: InMemoryStateStore | None = None) -> None:
        self.clock, self.store, self.airflow, self.db = (
            ManualClock(),
            InMemoryStateStore(state(HERE), regions=(HERE, THERE)),
            FakeAirflow(),
            FakeDb(),
        )
        self.loop = AgentLoop(
            config=DRConfig(enabled=True, region=HERE, state_table="t", environments={}),
            store=self.store,
            db=self.db,
            clock=self.clock,
            counts=GateCounts(),
            airflow_version="3",
            inventory=InventoryKeeper(
                inventories or self.store,
                self.airflow,
                self.clock,
                region=HERE,
                options={},
                peers=(HERE, THERE),
                every_s=EVERY_S,
                exempt_dags=["billing", "gone"],
            ),
        )

    def turn(self, seconds: float = 20.0) -> None:
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            self.clock.advance(self.loop.turn())


def test_heartbeats_name_the_exempt_dags() -> None:
    """Those with the tag and those of the option, at most twenty; none before the first inventory."""
    agent = Agent()
    agent.turn(1)
    (status,) = agent.store.agents(HERE)
    assert status.exempt is None
    agent.airflow.versions |= {f"control_{number:02}": "1" for number in range(25)}
    agent.turn(100)
    (status,) = agent.store.agents(HERE)
    assert status.exempt is not None
    assert (status.exempt[0], status.exempt[-3:]) == ("billing", ("control_17", "control_18", "and 6 more"))


def test_only_the_leading_agent_writes_the_inventory() -> None:
    """Each region has one inventory. The agents of other schedulers do not write it."""
    agent = Agent()
    agent.turn()
    assert agent.store.get(INVENTORIES, HERE) is not None
    other = Agent()
    other.db.schedulers = ("1", "7")
    other.turn()
    assert other.store.get(INVENTORIES, HERE) is None


def test_a_failing_inventory_stops_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """Heartbeats continue and name the error. After the inventory works again, they name none."""
    agent = Agent()
    agent.airflow.broken = True
    with caplog.at_level(logging.WARNING):
        agent.turn(100)
    (status,) = agent.store.agents(HERE)
    assert status.inventory_error == "ConnectionError: no database"
    assert status.reconciled_epoch == 0
    assert len([record for record in caplog.records if "inventory" in record.message]) == 1
    agent.airflow.broken = False
    agent.turn(100)
    (status,) = agent.store.agents(HERE)
    assert status.inventory_error is None


def test_a_table_that_refuses_the_inventory_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """The IAM role is older than inventories. Everything else works."""

    class OldRole(InMemoryStateStore):
        def put(self, kind: ItemKind[Any], item: Any) -> None:
            if kind is INVENTORIES:
                raise StateAccessError("Could not write an inventory: refused.", advice="Allow it.")
            super().put(kind, item)

    agent = Agent(OldRole())
    agent.turn(100)
    (status,) = agent.store.agents(HERE)
    assert "Could not write an inventory" in (status.inventory_error or "")
    assert status.reconciled_epoch == 0


def test_no_inventory_is_written_while_a_failover_is_open() -> None:
    """The agent has more urgent work, and the failover is about to change what it would list."""
    agent = Agent()
    assert agent.store.state is not None
    agent.store.write(replace(agent.store.state, version=2, phase=Phase.RESUMING, plan=plan(HERE)), expected_version=1)
    agent.turn()
    assert agent.store.get(INVENTORIES, HERE) is None
