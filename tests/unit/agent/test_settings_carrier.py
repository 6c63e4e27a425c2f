"""Copies of settings from the active site to the standby: two agents, one table, two databases."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_mwaa_dr.agent.fingerprints import KeyPair
from airflow_provider_mwaa_dr.agent.inventory import InventoryKeeper
from airflow_provider_mwaa_dr.agent.loop import AgentLoop
from airflow_provider_mwaa_dr.agent.ports import GateCounts
from airflow_provider_mwaa_dr.agent.sealing import Envelope, Sealer
from airflow_provider_mwaa_dr.agent.settings_carrier import BATCH, VALUE_BYTES, SettingsCarrier
from airflow_provider_mwaa_dr.aws.dynamodb.item_forms import FORMS, PagedForm
from airflow_provider_mwaa_dr.core.carrying import Key, Setting, SettingsOffer, SettingWrite, text_of
from airflow_provider_mwaa_dr.core.config import Carry, DRConfig
from airflow_provider_mwaa_dr.core.inventory import DagFacts, Inventory, UpgradeFacts, contents_to_text
from airflow_provider_mwaa_dr.core.ports import INVENTORIES, SETTINGS_OFFERS, Registration
from airflow_provider_mwaa_dr.core.sites import parse_sites
from airflow_provider_mwaa_dr.core.state import DRState, Phase, initial
from airflow_provider_mwaa_dr.exceptions import StateAccessError
from airflow_provider_mwaa_dr.testing import InMemoryStateStore, ManualClock
from tests.unit.agent.test_loop import FakeDb

BLUE, GREEN = "blue", "green"
EVERY_S = 60.0
PASSWORD = "tr0ub4dor"
MIRROR = dict.fromkeys(("variables", "connections", "pools"), Carry.MIRROR)
ADD = dict.fromkeys(MIRROR, Carry.ADD)


@dataclass
class FakeDatabase:
    """
    The settings of one metadata database.

    :param refused: what this Airflow does not accept.
    :param broken: the error of each write.
    :param breaks_after: the number of writes after which the connection is lost.
    """

    found: dict[str, dict[str, Setting]] = field(default_factory=lambda: {kind: {} for kind in MIRROR})
    secrets: dict[str, str] = field(default_factory=dict)
    refused: set[Key] = field(default_factory=set)
    broken: Exception | None = None
    breaks_after: int | None = None
    writes: list[list[str]] = field(default_factory=list)

    def set(self, name: str, value: str | None) -> None:
        """Set a variable as a person does; None deletes it."""
        if value is None:
            self.found["variables"].pop(name, None)
        else:
            self.found["variables"][name] = Setting(text=value, content={"val": value, "description": None})

    def get(self, name: str) -> str | None:
        """Return the value of a variable."""
        found = self.found["variables"].get(name)
        return None if found is None else found.text

    def variable(self, name: str) -> str:
        return f"reserved.{name}"

    def secret(self, name: str) -> str | None:
        return self.secrets.get(name)

    def add_secret(self, name: str, value: str) -> str:
        return self.secrets.setdefault(name, value)

    def put_secret(self, name: str, value: str) -> None:
        self.secrets[name] = value

    def settings(self, names: Mapping[str, Collection[str]] | None = None) -> dict[str, dict[str, Setting]]:
        return {
            kind: {name: each for name, each in of.items() if names is None or name in names.get(kind, ())}
            for kind, of in self.found.items()
        }

    def write_settings(self, writes: Sequence[SettingWrite]) -> set[Key]:
        if self.broken is not None:
            raise self.broken
        if self.breaks_after is not None and len(self.writes) >= self.breaks_after:
            raise ConnectionError(f"parameters: {PASSWORD}")
        written = set()
        for write in writes:
            kind, name = write.key
            if write.key not in self.refused and self.found[kind].get(name) == write.before:
                self.found[kind][name] = Setting(text=text_of(kind, write.content), content=write.content)
                written.add(write.key)
        self.writes.append([name for _, name in sorted(written)])
        return written

    def elsewhere(self) -> tuple[str, ...]:
        return ("secrets backend x.Backend", "AIRFLOW_VAR_OTHER")

    # What an inventory needs besides.

    def dag_versions(self) -> Mapping[str, str]:
        return {}

    def dag_facts(self, dag_ids: Collection[str], *, marks_from: datetime) -> Mapping[str, DagFacts]:
        del marks_from
        return dict.fromkeys(dag_ids, DagFacts(source="", shape=""))

    def upgrade_facts(self, *, marks_from: datetime) -> UpgradeFacts:
        return UpgradeFacts(marks_from=marks_from)

    def import_errors(self) -> tuple[str, ...]:
        return ()

    def values(self) -> Mapping[str, Mapping[str, str | None]]:
        return {kind: {name: each.text for name, each in of.items()} for kind, of in self.found.items()}


class Site:
    """The leading agent of a site: its inventory and its copies."""

    def __init__(self, name: str, store: InMemoryStateStore, clock: ManualClock, modes: Mapping[str, Carry]) -> None:
        self.name, self.store, self.clock, self.modes = name, store.peer(), clock, dict(modes)
        self.db = FakeDatabase()
        self.accepted: tuple[str, ...] = ()
        self.start()

    def start(self) -> None:
        """Start as after a restart of the scheduler, with nothing remembered."""
        self.carrier = SettingsCarrier(
            self.store, self.db, self.clock, region=self.name, peers=(BLUE, GREEN), modes=self.modes,
            accepted=self.accepted, every_s=EVERY_S,
        )  # fmt: skip
        is_on = set(self.modes.values()) != {Carry.REPORT}
        self.keeper = InventoryKeeper(
            self.store, self.db, self.clock, region=self.name, options={}, peers=(BLUE, GREEN), every_s=EVERY_S,
            carrier=self.carrier if is_on else None,
        )  # fmt: skip
        self.is_on = is_on

    def turn(self, state: DRState) -> None:
        self.keeper.try_turn()
        if self.is_on and self.carrier.try_turn(state):
            self.keeper.make_due()

    @property
    def listed(self) -> Inventory:
        found = self.store.get(INVENTORIES, self.name)
        assert found is not None
        return found


class World:
    """Two sites, of which blue is active."""

    def __init__(self, modes: Mapping[str, Carry] = MIRROR) -> None:
        self.clock, self.store = ManualClock(), InMemoryStateStore()
        self.blue, self.green = (Site(name, self.store, self.clock, modes) for name in (BLUE, GREEN))
        self.state = initial(BLUE, lease_s=60, by="t", at=self.clock.now())

    def run(self, turns: int = 4) -> None:
        """Let both agents work for some minutes."""
        for _ in range(turns):
            self.clock.advance(EVERY_S)
            for site in (self.blue, self.green):
                for _ in range(3):
                    site.turn(self.state)

    def fail_over(self, to: str) -> None:
        self.state = replace(self.state, active_region=to, epoch=self.state.epoch + 1, version=self.state.version + 1)

    def offer(self, site: str) -> SettingsOffer:
        found = self.store.get(SETTINGS_OFFERS, site)
        assert found is not None
        return found

    @property
    def table(self) -> str:
        """Everything in the table, as texts."""
        parts: list[str] = []
        for site in (BLUE, GREEN):
            listed, offer = self.store.get(INVENTORIES, site), self.store.get(SETTINGS_OFFERS, site)
            parts += [repr(listed), contents_to_text(listed) if listed is not None else "", repr(offer)]
            if offer is not None:
                sealed = [each for of in offer.values.values() for each in of.values()]
                parts += [each.decode("latin-1") for each in sealed]
                parts += [base64.b64encode(each).decode() for each in sealed]
        return "\n".join(parts)


@pytest.fixture
def world() -> World:
    return World()


def test_a_missing_setting_of_each_kind_is_copied(world: World) -> None:
    """With its description. The values leave the table again as soon as the standby has them."""
    world.blue.db.set("bucket", "b-1")
    connection = {
        "conn_type": "http", "description": "d", "host": "h", "schema": None, "login": "l", "port": 1,
        "password": PASSWORD, "extra": '{"a": 1}',
    }  # fmt: skip
    pool = {"slots": 7, "include_deferred": True, "description": "etl"}
    for kind, name, content in (("connections", "db", connection), ("pools", "etl", pool)):
        world.blue.db.found[kind][name] = Setting(text=text_of(kind, content), content=content)
    world.run(6)
    assert world.green.db.get("bucket") == "b-1"
    assert world.green.db.found["connections"]["db"].content == connection
    assert world.green.db.found["pools"]["etl"].content == pool
    assert world.offer(BLUE).values == {}
    assert world.green.carrier.problem is world.blue.carrier.problem is None


def test_add_copies_what_is_missing_and_nothing_else() -> None:
    """A changed value is a difference that check reports, as before."""
    world = World(ADD)
    world.blue.db.set("new", "1")
    for site, value in ((world.blue, "blue"), (world.green, "green")):
        site.db.set("differs", value)
    world.run(6)
    assert (world.green.db.get("new"), world.green.db.get("differs")) == ("1", "green")
    assert world.green.listed.settings is not None
    assert world.green.listed.settings.kept == {}


def test_mirror_copies_changes_and_lists_deletions(world: World) -> None:
    """Both sites had the value. A deletion in the active site changes nothing in the standby."""
    for site in (world.blue, world.green):
        site.db.set("bucket", "1")
        site.db.set("deleted", "1")
    world.run()
    world.blue.db.set("bucket", "2")
    world.blue.db.set("deleted", None)
    world.run(6)
    assert (world.green.db.get("bucket"), world.green.db.get("deleted")) == ("2", "1")
    world.blue.db.set("bucket", "3")
    world.run(6)
    assert world.green.db.get("bucket") == "3"


def test_a_value_that_changes_again_before_both_sites_have_listed_it_is_copied(world: World) -> None:
    """The standby's own copy is no change of a person, also after a restart of its scheduler."""
    for site in (world.blue, world.green):
        site.db.set("bucket", "1")
    world.run()
    world.blue.db.set("bucket", "2")
    world.clock.advance(EVERY_S)
    world.blue.carrier.try_turn(world.state)
    assert world.green.carrier.try_turn(world.state)
    assert world.green.db.get("bucket") == "2"
    world.blue.db.set("bucket", "3")
    world.green.start()
    world.run(6)
    assert world.green.db.get("bucket") == "3"
    assert world.green.carrier.problem is None


def test_a_value_that_was_changed_in_the_standby_stays_and_is_reported(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in the inventory and in the heartbeat's problem. Its value is not even offered any more."""
    for site in (world.blue, world.green):
        site.db.set("bucket", "1")
    world.run()
    world.green.db.set("bucket", "mine")
    world.blue.db.set("bucket", "2")
    world.run(8)
    assert world.green.db.get("bucket") == "mine"
    assert world.green.listed.settings is not None
    assert world.green.listed.settings.kept == {"variables": ("bucket",)}
    assert world.green.carrier.problem == "variables that were changed in green are not replaced: bucket"
    assert world.offer(BLUE).values == {}

    # A person decides for the active site's value, by deleting the standby's.
    world.green.db.set("bucket", None)
    world.run(6)
    assert world.green.db.get("bucket") == "2"
    assert world.green.carrier.problem is None


def test_a_person_can_decide_for_the_value_of_the_standby(world: World) -> None:
    """By setting it in the active site, too. From then on it is copied again."""
    world.blue.db.set("bucket", "1")
    world.green.db.set("bucket", "mine")
    world.run()
    assert world.green.carrier.problem is not None
    world.blue.db.set("bucket", "mine")
    world.run()
    assert world.green.carrier.problem is None
    world.blue.db.set("bucket", "2")
    world.run(6)
    assert world.green.db.get("bucket") == "2"


def test_a_declared_difference_is_neither_copied_nor_reported(world: World) -> None:
    """A bucket of a region has another name in the other region, and a region may have no such bucket."""
    for site in (world.blue, world.green):
        site.accepted = ("variables:bucket*", "pools")
        site.start()
    world.blue.db.set("bucket", "of blue")
    world.green.db.set("bucket", "of green")
    world.blue.db.set("bucket_2", "of blue")
    world.blue.db.found["pools"]["etl"] = Setting(text="7 False", content={"slots": 7, "include_deferred": False})
    world.run(6)
    assert (world.green.db.get("bucket"), world.green.db.get("bucket_2")) == ("of green", None)
    assert "etl" not in world.green.db.found["pools"]
    assert world.green.carrier.problem is None
    assert world.store.get(SETTINGS_OFFERS, BLUE) is None


def test_after_a_failover_the_new_active_site_gives(world: World) -> None:
    """The last common values are known in both sites. What the old one was offering leaves the table."""
    for site in (world.blue, world.green):
        site.db.set("bucket", "1")
    world.run()
    world.blue.db.set("late", PASSWORD)
    world.blue.db.set("bucket", "2")
    world.clock.advance(EVERY_S)
    world.blue.turn(world.state)
    assert set(world.offer(BLUE).values["variables"]) == {"late", "bucket"}
    world.fail_over(GREEN)
    world.green.db.set("new", "1")
    world.run(6)
    assert world.offer(BLUE).values == {}
    assert world.blue.db.get("new") == "1"
    # It was changed in blue, and never copied: blue keeps it, and a person decides.
    assert world.blue.db.get("bucket") == "2"
    assert world.green.db.get("late") is None
    assert world.blue.carrier.problem == "variables that were changed in blue are not replaced: bucket"


def test_a_zombie_copies_nothing(world: World) -> None:
    """
    The old active site has not read that its role has moved. What it writes is of an earlier epoch: the new active site
    does not open it, and it replaces no later offer of its site.
    """
    world.run()
    old = world.state
    world.fail_over(GREEN)
    world.blue.db.set("zombie", "1")
    world.clock.advance(EVERY_S)
    world.green.turn(world.state)
    world.blue.turn(old)
    assert world.offer(BLUE).epoch == old.epoch
    assert "zombie" in world.offer(BLUE).values["variables"]
    for _ in range(4):
        world.clock.advance(EVERY_S)
        world.green.turn(world.state)
        world.blue.turn(old)
    assert world.green.db.get("zombie") is None

    # Blue becomes active again, and gives under the new epoch. A late write of the zombie changes nothing.
    late = world.offer(BLUE)
    world.fail_over(BLUE)
    world.blue.start()
    world.run(1)
    world.store.put(SETTINGS_OFFERS, replace(late, values={"variables": {"zombie": b"late"}}))
    assert world.offer(BLUE).epoch == world.state.epoch
    world.run(6)
    assert world.green.db.get("zombie") == "1"


def test_a_standby_opens_only_offers_of_the_present_epoch(world: World) -> None:
    """Take the rule out, and this fails: the offer of the earlier epoch is intact, and sealed for this site."""
    world.run()
    world.blue.db.set("bucket", "1")
    world.clock.advance(EVERY_S)
    world.blue.turn(world.state)
    world.fail_over(GREEN)
    world.fail_over(BLUE)
    world.clock.advance(EVERY_S)
    world.green.turn(world.state)
    assert world.green.db.get("bucket") is None
    world.run(6)
    assert world.green.db.get("bucket") == "1"


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.STEADY])
def test_nothing_is_copied_while_a_failover_is_open(world: World, phase: Phase) -> None:
    """Neither offered nor written, and an offer that is being written waits."""
    world.run()
    world.blue.db.set("bucket", "1")
    world.state = replace(world.state, phase=phase)
    world.run(6)
    assert world.store.get(SETTINGS_OFFERS, BLUE) is None
    world.state = replace(world.state, phase=Phase.STEADY)
    world.clock.advance(EVERY_S)
    world.blue.turn(world.state)
    world.state = replace(world.state, phase=phase)
    world.run(6)
    assert world.green.db.get("bucket") is None


def test_an_offer_of_another_writer_of_the_table_is_refused(world: World) -> None:
    """It knows all public keys, and everything in the table."""
    world.run()
    evil = KeyPair.generate()
    envelope = Envelope(source=BLUE, target=GREEN, epoch=world.state.epoch, number=1)
    sealer = Sealer(evil, world.green.listed.public_key, envelope)
    content = json.dumps({"val": "evil", "description": None}).encode()
    key_id = world.green.listed.fingerprints[BLUE].key_id
    world.blue.is_on = False
    forged = SettingsOffer(
        source=BLUE, target=GREEN, epoch=world.state.epoch, number=1, sealed_at=world.clock.now(), key_id=key_id,
        ephemeral_key=sealer.ephemeral_key, values={"variables": {"a": sealer.seal("variables", "a", content)}},
    )  # fmt: skip
    world.store.put(SETTINGS_OFFERS, forged)
    world.run(2)
    assert world.green.db.get("a") is None
    assert "SETTINGS#blue was not sealed by the agent of blue for green" in (world.green.carrier.problem or "")


def test_an_earlier_offer_cannot_be_repeated(world: World) -> None:
    """A writer of the table puts back an item that it copied before: the standby would get an old value again."""
    world.blue.db.set("bucket", "1")
    world.run(1)
    world.clock.advance(EVERY_S)
    world.blue.turn(world.state)
    first = world.offer(BLUE)
    assert "bucket" in first.values["variables"]
    world.run(4)
    world.blue.db.set("bucket", "2")
    world.run(6)
    assert world.green.db.get("bucket") == "2"
    world.blue.is_on = False
    world.store.put(SETTINGS_OFFERS, first)
    world.run(3)
    assert world.green.db.get("bucket") == "2"
    assert "SETTINGS#blue is older than the last one that green has copied" in (world.green.carrier.problem or "")


def test_rotation_of_the_pinned_key(world: World) -> None:
    """
    Green has a new metadata database, so a new key. Blue seals nothing for it until a person accepts the key in blue.
    """
    world.blue.db.set("bucket", "1")
    world.run(6)
    assert world.green.db.get("bucket") == "1"
    old_id = world.offer(BLUE).key_id
    world.green.db = FakeDatabase()
    world.green.start()
    world.run(4)
    assert world.green.db.get("bucket") is None
    assert "green has another public key than before" in (world.blue.carrier.problem or "")
    assert world.offer(BLUE).values == {}
    del world.blue.db.secrets[f"key_of_{GREEN}_for_{BLUE}"]
    world.run(8)
    assert world.green.db.get("bucket") == "1"
    assert world.offer(BLUE).key_id != old_id
    assert world.blue.carrier.problem is None

    # Blue's own key is rotated, and green has to accept it.
    del world.blue.db.secrets[f"private_key_of_{BLUE}"]
    world.blue.start()
    world.blue.db.set("bucket", "2")
    world.run(6)
    assert world.green.db.get("bucket") == "1"
    assert "blue has another public key than before" in (world.green.carrier.problem or "")
    del world.green.db.secrets[f"key_of_{BLUE}_for_{GREEN}"]
    world.run(8)
    assert world.green.db.get("bucket") == "2"


def test_an_earlier_version_on_one_site_breaks_nothing() -> None:
    """It has no report in its inventory, and opens no offer. The other site says why nothing is copied."""
    for old, new in ((BLUE, GREEN), (GREEN, BLUE)):
        world = World()
        site = world.blue if old == BLUE else world.green
        other = world.green if old == BLUE else world.blue
        site.modes = dict.fromkeys(MIRROR, Carry.REPORT)
        site.start()
        world.blue.db.set("bucket", "1")
        world.run(6)
        assert world.green.db.get("bucket") is None
        assert world.store.get(SETTINGS_OFFERS, BLUE) is None
        assert site.listed.settings is None
        assert site.carrier.problem is None
        assert f"settings are not copied, because {old} copies none" in (other.carrier.problem or "")
        assert other.name == new


def test_values_leave_the_table_when_the_standby_stops_to_copy(world: World) -> None:
    """The package of the standby was rolled back while an offer was there."""
    world.run()
    world.blue.db.set("bucket", PASSWORD)
    world.clock.advance(EVERY_S)
    world.blue.turn(world.state)
    assert world.offer(BLUE).values
    world.green.modes = dict.fromkeys(MIRROR, Carry.REPORT)
    world.green.start()
    world.run(4)
    assert world.offer(BLUE).values == {}


def test_a_role_without_the_permission_copies_nothing_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The policies are those of the first version. Everything else goes on."""
    world.blue.db.set("bucket", "1")
    world.blue.store.failing[f"put {SETTINGS_OFFERS.name}"] = StateAccessError("refused", advice="Allow it.")
    with caplog.at_level(logging.WARNING):
        world.run(6)
    assert world.green.db.get("bucket") is None
    assert "the role of blue may not use the item SETTINGS#blue: run mwaa-dr deploy" in (
        world.blue.carrier.problem or ""
    )
    assert len([each for each in caplog.records if "SETTINGS#blue" in each.message and "epoch" in each.message]) == 1
    assert world.blue.listed.fingerprints
    del world.blue.store.failing[f"put {SETTINGS_OFFERS.name}"]
    world.run(6)
    assert world.green.db.get("bucket") == "1"
    assert world.blue.carrier.problem is None


def test_many_variables_are_copied_in_batches_and_survive_a_crash(world: World) -> None:
    """A scheduler that stops between two transactions copies the rest later, and reports no change of a person."""
    values = {f"name_{number:04}": f"{number} {'x' * 100}" for number in range(12 * BATCH)}
    for name, value in values.items():
        world.blue.db.set(name, value)
    world.green.db.breaks_after = 7
    world.run(3)
    assert len(world.green.db.found["variables"]) == 7 * BATCH
    assert world.green.carrier.problem == "settings are not copied, because of a ConnectionError in green"
    world.green.db.breaks_after = None
    world.green.start()
    world.run(6)
    assert {name: world.green.db.get(name) for name in values} == values
    assert max(map(len, world.green.db.writes)) == BATCH
    assert world.green.carrier.problem is None
    assert world.offer(BLUE).values == {}
    for name in values:
        world.blue.db.set(name, f"{name} is new")
    world.run(6)
    assert {world.green.db.get(name) for name in values} == {f"{name} is new" for name in values}


def test_a_turn_writes_for_a_limited_time(world: World) -> None:
    """So the agent sends its heartbeats in time. The next turns continue without reading the offer again."""
    world.run()
    for number in range(5 * BATCH):
        world.blue.db.set(f"name_{number:04}", "1")
    world.clock.advance(EVERY_S)
    world.blue.turn(world.state)
    write = world.green.db.write_settings

    def slow(writes: Sequence[SettingWrite]) -> set[Key]:
        world.clock.advance(1.0)
        return write(writes)

    world.green.db.write_settings = slow  # type: ignore[method-assign]
    world.green.carrier.try_turn(world.state)
    assert [len(each) for each in world.green.db.writes] == [BATCH]
    reads = len(world.green.store.calls)
    for _ in range(4):
        world.green.carrier.try_turn(world.state)
    assert [len(each) for each in world.green.db.writes] == 5 * [BATCH]
    assert len(world.green.store.calls) == reads


def test_what_cannot_be_copied_is_named(world: World) -> None:
    """Unreadable in the active site, too large, or refused by the standby's Airflow. All others are copied."""
    world.blue.db.found["variables"]["unreadable"] = Setting(text=None, content=None)
    world.blue.db.found["variables"]["of_a_team"] = Setting(text="1", content=None)
    world.blue.db.set("large", "x" * (VALUE_BYTES + 1))
    world.blue.db.set("refused", "1")
    world.blue.db.set("fine", "1")
    world.green.db.refused.add(("variables", "refused"))
    world.run(6)
    assert world.green.db.get("fine") == "1"
    assert world.blue.listed.settings is not None
    assert world.blue.listed.settings.uncarried == {"variables": ("large", "of_a_team", "unreadable")}
    assert world.green.listed.settings is not None
    assert world.green.listed.settings.uncarried == {"variables": ("refused",)}
    assert world.green.listed.settings.elsewhere == ("secrets backend x.Backend", "AIRFLOW_VAR_OTHER")


def test_the_pool_that_airflow_creates_is_copied(world: World) -> None:
    """No person has decided on its slots in the standby."""
    content: dict[str, Any] = {"slots": 20, "include_deferred": False, "description": "Default pool"}
    world.blue.db.found["pools"]["default_pool"] = Setting(text="20 False", content=content)
    world.green.db.found["pools"]["default_pool"] = Setting(
        text="128 False", content={**content, "slots": 128}, is_default=True
    )
    world.run(6)
    assert world.green.db.found["pools"]["default_pool"].text == "20 False"


def test_no_value_is_in_the_table_in_a_log_or_in_a_problem(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """While values are offered, after they are copied, and if the database raises an error with all parameters."""
    caplog.set_level(logging.DEBUG)
    world.blue.db.set("password", PASSWORD)
    world.run(1)
    world.clock.advance(EVERY_S)
    world.blue.turn(world.state)
    assert "password" in world.offer(BLUE).values["variables"]
    world.green.db.broken = ValueError(f"[parameters: ({PASSWORD})]")
    tables = [world.table]
    world.run(3)
    tables.append(world.table)
    problems = [world.green.carrier.problem, world.green.carrier.problem]
    world.green.db.broken = None
    world.run(6)
    assert world.green.db.get("password") == PASSWORD
    texts = [*tables, world.table, caplog.text, *map(str, problems), repr(world.offer(BLUE))]
    forms = (PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), PASSWORD.encode().hex())
    assert [form for form in forms for text in texts if form in text] == []
    assert "password" in world.table
    assert "copied variables:password from blue" in caplog.text
    form = FORMS[SETTINGS_OFFERS]
    assert isinstance(form, PagedForm)
    assert PASSWORD not in str(list(pages(form, world.offer(BLUE))))


# The copies in the agent's loop.


class Agent:
    """The agent of blue, which is active; green is a site without a loop."""

    def __init__(self) -> None:
        self.world = World()
        self.clock, self.db = self.world.clock, FakeDb()
        self.store = self.world.store
        self.store.write(replace(self.world.state, epoch=0), expected_version=None)
        for site in (BLUE, GREEN):
            self.store.register(Registration(region=site, environment=f"mwaa-{site}", aws_region="us-east-2"))
        self.world.state = replace(self.world.state, epoch=0)
        blue = self.world.blue
        self.loop = AgentLoop(
            config=DRConfig(
                enabled=True,
                region=BLUE,
                state_table="t",
                environment="mwaa-blue",
                aws_region="us-east-2",
                environments=parse_sites("blue=mwaa-blue@us-east-2,green=mwaa-green@us-east-2"),
            ),
            store=self.store,
            db=self.db,
            clock=self.clock,
            counts=GateCounts(),
            airflow_version="3",
            inventory=blue.keeper,
            carrier=blue.carrier,
        )

    def run(self, minutes: int) -> None:
        for _ in range(minutes):
            until = self.clock.monotonic() + EVERY_S
            while self.clock.monotonic() < until:
                self.clock.advance(self.loop.turn())
            self.world.green.turn(self.world.state)


def test_the_leading_agent_copies_and_its_heartbeat_says_what_is_wrong() -> None:
    """The problem ends with its cause."""
    agent = Agent()
    agent.world.blue.db.set("bucket", "1")
    agent.world.blue.store.failing[f"put {SETTINGS_OFFERS.name}"] = StateAccessError("refused", advice="Allow it.")
    agent.run(5)
    (status,) = agent.store.agents(BLUE)
    assert "the role of blue may not use the item SETTINGS#blue" in (status.settings_problem or "")
    assert status.inventory_error is None
    assert status.reconciled_epoch == 0
    agent.world.blue.store.failing.clear()
    agent.run(5)
    (status,) = agent.store.agents(BLUE)
    assert status.settings_problem is None
    assert agent.world.green.db.get("bucket") == "1"


def test_an_agent_that_does_not_lead_copies_nothing() -> None:
    """Another scheduler's agent does."""
    agent = Agent()
    agent.db.schedulers = ("1", "7")
    agent.world.blue.db.set("bucket", "1")
    agent.run(5)
    assert agent.store.get(SETTINGS_OFFERS, BLUE) is None


def pages(form: PagedForm[SettingsOffer], offer: SettingsOffer) -> Iterator[Any]:
    content = form.to_content(offer)
    yield content.manifest
    yield from content.pages
