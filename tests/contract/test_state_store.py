"""The contract of every StateStore. Each test runs with the fake and with DynamoDB over a socket."""

from __future__ import annotations

import os
import random
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_mwaa_dr.core.announced_runs import put_announced_runs
from airflow_provider_mwaa_dr.core.carrying import SettingsOffer
from airflow_provider_mwaa_dr.core.inventory import DagFacts, Fingerprints, Inventory
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    FENCE_LOADS,
    IDENTITY_CLAIMS,
    INVENTORIES,
    NOTIFICATIONS,
    PAUSED_SETS,
    RECORDS,
    REPORTS,
    SETTINGS_OFFERS,
    SNAPSHOTS,
    TRIGGERERS,
    UNPUBLISHED_EVENTS,
    AgentStatus,
    DagSet,
    FailoverOutcome,
    FailoverRecord,
    FenceLoad,
    HeldTasks,
    IdentityClaim,
    NotificationAttempt,
    Registration,
    StateStore,
    StepRecord,
    StoredReport,
    TriggererStatus,
    Unpublished,
)
from airflow_provider_mwaa_dr.core.state import (
    DRState,
    Mode,
    Phase,
    Plan,
    Stage,
    announce,
    announced_set_id,
    claim,
    halt,
    initial,
    not_unpaused_set_id,
    promote,
    record_set,
    supersede,
)
from airflow_provider_mwaa_dr.exceptions import StaleStateError, StateNotFoundError

AT = datetime(2026, 2, 26, 10, 30, tzinfo=timezone.utc)
FIRST = initial("us-east-2", lease_s=10.0, by="test", at=AT)
PLAN = Plan(
    id="f-1",
    source="us-east-2",
    target="us-east-1",
    mode=Mode.AUTO,
    reason="flood",
    by="ann",
    owner="host:1",
    started_at=AT + timedelta(microseconds=1),
)
STATUS = AgentStatus(
    region="us-east-1",
    job="7",
    host="ip-10-0-0-1",
    at=AT,
    beat=3,
    version=4,
    epoch=2,
    provider_version="0.1.0",
    airflow_version="3.3.1",
)

Peer = Callable[[], StateStore]


def test_empty_table_has_no_state(store: StateStore) -> None:
    """A table without a state item is distinguished from a table that does not answer."""
    assert store.observe("us-east-1").state is None
    with pytest.raises(StateNotFoundError):
        store.read()


@pytest.mark.parametrize(
    "state",
    [
        FIRST,
        replace(FIRST, lease_s=2.5, changed_by=None),
        replace(FIRST, not_unpaused_set_id=""),
        replace(FIRST, not_unpaused_set_id="f-1-left-0a1b2c3d"),
        claim(FIRST, PLAN, at=AT),
        promote(record_set(claim(FIRST, PLAN, at=AT), "s-1", at=AT), at=AT),
        supersede(promote(claim(FIRST, PLAN, at=AT), at=AT), replace(PLAN, id="f-2", target="us-east-2"), at=AT),
        halt(claim(FIRST, replace(PLAN, hold=Stage.DRAINED, hold_s=60.5), at=AT), at=AT),
        announce(announce(claim(FIRST, PLAN, at=AT), "s-1", had_ended=False, at=AT), "s-2", had_ended=True, at=AT),
    ],
    ids=[
        "initial",
        "fractional lease",
        "no DAGs not unpaused",
        "DAGs not unpaused",
        "claimed",
        "promoted",
        "superseded",
        "halted",
        "stopping",
    ],
)
def test_written_state_is_read_back_equal(store: StateStore, state: DRState) -> None:
    """Every state that the transitions produce is stored and read back unchanged, including plans in plans."""
    store.write(state, expected_version=None)
    assert store.read() == state
    assert store.observe("us-east-1").state == state


def test_write_on_the_wrong_version_fails_with_the_stored_state(store: StateStore) -> None:
    """The error has the stored state, and nothing is changed."""
    store.write(FIRST, expected_version=None)
    second = claim(FIRST, PLAN, at=AT)
    store.write(second, expected_version=1)
    for expected in (None, 1, 7):
        with pytest.raises(StaleStateError) as caught:
            store.write(replace(FIRST, version=99), expected_version=expected)
        assert (caught.value.expected, caught.value.found) == (expected, second)
    assert store.read() == second


def test_write_that_expects_a_version_of_no_item_is_stale(store: StateStore) -> None:
    """A writer does not restore a state item that was deleted after its read."""
    with pytest.raises(StaleStateError) as caught:
        store.write(FIRST, expected_version=1)
    assert caught.value.found is None
    assert store.observe("us-east-1").state is None


def test_sixteen_writers_race_and_exactly_one_wins(peer: Peer) -> None:
    """Of concurrent writes on the same version one succeeds; all others get an error with the winner's plan."""
    peer().write(FIRST, expected_version=None)
    outcomes: dict[str, str] = {}
    start = threading.Barrier(16)

    def write(name: str, store: StateStore) -> None:
        state = claim(FIRST, replace(PLAN, id=name), at=AT)
        store.observe("us-east-1")
        start.wait()
        try:
            store.write(state, expected_version=1)
            outcomes[name] = name
        except StaleStateError as error:
            outcomes[name] = error.found.plan.id

    threads = [threading.Thread(target=write, args=(f"f-{number}", peer())) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    plan = peer().read().plan
    assert plan is not None
    assert outcomes == dict.fromkeys((f"f-{number}" for number in range(16)), plan.id)


def test_registered_environments_are_found(store: StateStore) -> None:
    """The registry returns all environments, or the requested ones. A second registration replaces the first."""
    store.register(Registration(region="us-east-2", environment="etl-old"))
    store.register(Registration(region="us-east-2", environment="etl", account="123456789012"))
    store.register(Registration(region="us-east-1", environment="etl-dr"))
    ohio = Registration(region="us-east-2", environment="etl", account="123456789012")
    virginia = Registration(region="us-east-1", environment="etl-dr")
    assert dict(store.registrations()) == {"us-east-1": virginia, "us-east-2": ohio}
    assert dict(store.registrations(["us-east-2", "eu-west-1"])) == {"us-east-2": ohio}


def test_the_registry_has_the_aws_region_of_a_named_site(store: StateStore) -> None:
    """Its id does not tell it. Gate and fence read it with the state."""
    blue = Registration(region="blue", environment="etl-v2", account="123456789012", aws_region="us-east-2")
    store.register(blue)
    store.register(Registration(region="us-east-1", environment="etl-dr"))
    assert store.registrations(["blue"]) == {"blue": blue}
    assert store.observe("blue").environment_region == "us-east-2"
    assert store.observe("us-east-1").environment_region == ""


def test_agents_are_listed_by_region(store: StateStore) -> None:
    """Each scheduler's last heartbeat is returned for its region, with all fields."""
    full = replace(
        STATUS,
        beat=4,
        adopted_epoch=2,
        reconciled_epoch=2,
        on_unreachable="run",
        schedulers=("7", "8"),
        fence_file_s=17.5,
        gone=True,
        fence_ok=False,
        ledger_lag_s=1.5,
        unclosed_runs=1,
        held=2,
        skipped=3,
        closed=4,
        problems=("[dr] lease_s = 'x' is not understood",),
        ledger_error="The runs table mwaa-dr-runs does not exist.",
        standby_as_of=AT,
        ledger_wait_s=120.5,
        final_plan_id="p1",
        knows_hold=True,
        waiting=("orders manual__1: its DAG is not here", "and 3 more"),
    )
    other = replace(STATUS, job="8", fence_ok=True)
    store.put_agent(STATUS)
    store.put_agent(other)
    store.put_agent(full)
    store.put_agent(replace(STATUS, region="us-east-2", job="1"))
    assert list(store.agents("us-east-1")) == [full, other]
    assert list(store.agents("eu-west-1")) == []


def test_what_a_region_could_not_take_over_is_stored_until_it_is_acknowledged(store: StateStore) -> None:
    """All fields are read back. An acknowledgement needs the stored id, and is idempotent."""
    found = Unpublished(
        id="us-east-1-epoch-3", region="us-east-1", epoch=3, begun_epoch=1, at=AT, why="refused", first_id=41,
        runs=("orders manual__1", "orders manual__2"), unread=("us-east-2: read up to entry 17",),
    )  # fmt: skip
    assert store.get(UNPUBLISHED_EVENTS, "us-east-1") is None
    assert not store.acknowledge_unpublished("us-east-1", found.id, AT)
    assert store.get(UNPUBLISHED_EVENTS, "us-east-1") is None
    store.put(UNPUBLISHED_EVENTS, found)
    assert store.get(UNPUBLISHED_EVENTS, "us-east-1") == found
    assert store.get(UNPUBLISHED_EVENTS, "us-east-2") is None
    assert not store.acknowledge_unpublished("us-east-1", "us-east-1-epoch-2", AT)
    for _ in range(2):
        assert store.acknowledge_unpublished("us-east-1", found.id, AT)
    assert store.get(UNPUBLISHED_EVENTS, "us-east-1") == replace(found, acknowledged_at=AT)


def test_forgotten_agent_is_gone_and_may_come_back(store: StateStore) -> None:
    """Forgetting is idempotent, and a later heartbeat is listed again."""
    store.put_agent(STATUS)
    for _ in range(2):
        store.forget_agent("us-east-1", "7")
        assert list(store.agents("us-east-1")) == []
    store.observe("us-east-1")
    store.put_agent(STATUS)
    assert list(store.agents("us-east-1")) == [STATUS]


def test_reconciled_epoch_is_observed_beside_the_state(store: StateStore) -> None:
    """The region's next observation has the reconciled epoch. Other regions and the registry are unchanged."""
    store.register(Registration(region="us-east-1", environment="etl-dr"))
    assert store.observe("us-east-1").reconciled_epoch is None
    store.put_agent(STATUS)
    assert store.observe("us-east-1").reconciled_epoch is None
    store.put_agent(replace(STATUS, reconciled_epoch=2))
    assert store.observe("us-east-1").reconciled_epoch == 2
    assert store.observe("us-east-2").reconciled_epoch is None
    assert "us-east-1" in store.registrations()
    store.register(Registration(region="us-east-1", environment="etl-dr-2"))
    assert store.observe("us-east-1").reconciled_epoch == 2


def test_agent_with_a_stale_view_does_not_undo_a_reconciled_epoch(peer: Peer) -> None:
    """Of two schedulers of a region, the one with the older observation cannot undo the other's reconciled epoch."""
    leader, follower = peer(), peer()
    leader.put_agent(replace(STATUS, reconciled_epoch=1))
    leader.observe("us-east-1")
    follower.observe("us-east-1")
    leader.put_agent(replace(STATUS, reconciled_epoch=2))
    follower.put_agent(replace(STATUS, job="8", reconciled_epoch=1))
    assert leader.observe("us-east-1").reconciled_epoch == 2


def test_reconciled_epoch_may_decrease_after_a_new_init(store: StateStore) -> None:
    """After a new init, epochs start again at 0. An agent that has read that may store the lower epoch."""
    store.put_agent(replace(STATUS, reconciled_epoch=5))
    store.observe("us-east-1")
    store.put_agent(replace(STATUS, reconciled_epoch=0))
    assert store.observe("us-east-1").reconciled_epoch == 0


def test_fence_is_recorded_by_region(store: StateStore) -> None:
    """A region whose workers never loaded the fence has no record."""
    assert store.get(FENCE_LOADS, "us-east-1") is None
    later = FenceLoad(region="us-east-1", at=AT + timedelta(hours=1))
    store.put(FENCE_LOADS, FenceLoad(region="us-east-1", at=AT))
    store.put(FENCE_LOADS, later)
    assert store.get(FENCE_LOADS, "us-east-1") == later
    assert store.get(FENCE_LOADS, "us-east-2") is None


def test_tasks_that_the_fence_holds_are_reported_until_one_passes(store: StateStore) -> None:
    """The report is in the item of the fence; the next write without one removes it."""
    held = HeldTasks(since=AT, at=AT + timedelta(minutes=7), why="no heartbeats")
    for load in (
        FenceLoad(region="us-east-1", at=held.at, held=held),
        FenceLoad(region="us-east-1", at=AT + timedelta(minutes=8)),
    ):
        store.put(FENCE_LOADS, load)
        assert store.get(FENCE_LOADS, "us-east-1") == load


def test_recorded_set_is_never_changed(peer: Peer) -> None:
    """The set of the first caller that records it stays."""
    first = DagSet(id="s-1", region="us-east-2", recorded_at=AT, dag_ids=("a", "b"))
    assert peer().get(DAG_SETS, "s-1") is None
    peer().put(DAG_SETS, first)
    peer().put(DAG_SETS, replace(first, dag_ids=("z",)))
    assert peer().get(DAG_SETS, "s-1") == first


def test_set_is_stored_sorted_and_each_id_once(store: StateStore) -> None:
    """For any order of ids, the stored set is sorted, with each id once."""
    given = DagSet(id="s-1", region="us-east-2", recorded_at=AT, dag_ids=("b", "a", "b"))
    store.put(DAG_SETS, given)
    found = store.get(DAG_SETS, "s-1")
    assert found is not None
    assert found.dag_ids == ("a", "b")


def test_largest_set_fits(store: StateStore) -> None:
    """10,000 ids of 250 characters, far more than fit into one item, are read back completely."""
    dag_ids = tuple(f"{number:05}{'x' * 245}" for number in range(10_000))
    largest = DagSet(id="s-1", region="us-east-2", recorded_at=AT, dag_ids=dag_ids)
    store.put(DAG_SETS, largest)
    assert store.get(DAG_SETS, "s-1") == largest


def test_empty_set_is_a_set(store: StateStore) -> None:
    """An empty recorded set is different from no recorded set."""
    empty = DagSet(id="s-1", region="us-east-2", recorded_at=AT, dag_ids=())
    store.put(DAG_SETS, empty)
    assert store.get(DAG_SETS, "s-1") == empty


def test_snapshot_is_replaced_completely(store: StateStore) -> None:
    """Only the last snapshot of a region is stored, without a page of an older one."""
    assert store.get(SNAPSHOTS, "us-east-2") is None
    big = DagSet(id="n-1", region="us-east-2", recorded_at=AT, dag_ids=tuple(f"{n:04}{'x' * 240}" for n in range(2000)))
    small = DagSet(id="n-2", region="us-east-2", recorded_at=AT, dag_ids=("a",))
    for snapshot in (big, small, big, small):
        store.put(SNAPSHOTS, snapshot)
        assert store.get(SNAPSHOTS, "us-east-2") == snapshot
    assert store.get(SNAPSHOTS, "us-east-1") is None


def test_the_paused_set_is_separate_from_snapshot_and_plan(store: StateStore) -> None:
    """Each region has its own set, the last one is valid, and an empty set is a set."""
    assert store.get(PAUSED_SETS, "us-east-2") is None
    snapshot = DagSet(id="n-1", region="us-east-2", recorded_at=AT, dag_ids=("a", "b", "c"))
    store.put(SNAPSHOTS, snapshot)
    for dag_ids in (("a", "b"), ("b",), ()):
        taken = DagSet(id="us-east-2/paused", region="us-east-2", recorded_at=AT, dag_ids=dag_ids)
        store.put(PAUSED_SETS, taken)
        assert store.get(PAUSED_SETS, "us-east-2") == taken
    assert store.get(SNAPSHOTS, "us-east-2") == snapshot
    assert store.get(PAUSED_SETS, "us-east-1") is None


def test_a_set_that_the_first_version_paused_is_found(store: StateStore) -> None:
    """That version wrote the set as the snapshot of a region with the name REGION/paused."""
    legacy = DagSet(id="us-east-2/paused", region="us-east-2/paused", recorded_at=AT, dag_ids=("a", "b"))
    store.put(SNAPSHOTS, legacy)
    found = store.get(PAUSED_SETS, "us-east-2")
    assert found is not None
    assert found.dag_ids == ("a", "b")
    later = replace(legacy, region="us-east-2", recorded_at=AT + timedelta(hours=1), dag_ids=())
    store.put(PAUSED_SETS, later)
    assert store.get(PAUSED_SETS, "us-east-2") == later


def test_inventory_is_replaced_completely(store: StateStore) -> None:
    """10,000 DAGs fit. Only the last inventory is stored, and its public key can be read without it."""
    assert store.get(INVENTORIES, "us-east-2") is None
    assert store.inventory_key("us-east-2") is None
    small = Inventory(
        region="us-east-2",
        taken_at=AT,
        public_key="p1",
        options={"lease_s": "60"},
        packages={"pandas": "2"},
        dags={"orders": DagFacts(source="s", shape="x", traits=("depends_on_past",))},
        import_errors=("ä.py",),
        names={"pools": ("default_pool",), "variables": ()},
        fingerprints={"us-east-1": Fingerprints(key_id="k", values={"pools": {"default_pool": "f"}})},
    )
    dags = {f"{n:04}{'x' * 240}": DagFacts(source=uuid.uuid4().hex, shape=uuid.uuid4().hex) for n in range(10_000)}
    big = replace(small, public_key="p2", dags=dags)
    for inventory in (small, big, small):
        store.put(INVENTORIES, inventory)
        assert store.get(INVENTORIES, "us-east-2") == inventory
        assert store.inventory_key("us-east-2") == inventory.public_key
    assert store.get(INVENTORIES, "us-east-1") is None


def test_an_offer_of_settings_is_replaced_completely(store: StateStore) -> None:
    """Any bytes and any number of values fit: 5,000 of them, and one that is larger than an item of DynamoDB."""
    assert store.get(SETTINGS_OFFERS, "us-east-2") is None
    small = SettingsOffer(
        source="us-east-2", target="us-east-1", epoch=3, number=17, sealed_at=AT, key_id="k", ephemeral_key="e",
        values={"variables": {"ä": bytes(range(256))}, "pools": {}},
    )  # fmt: skip
    many = {f"name_{number}": os.urandom(156) for number in range(5_000)}
    big = replace(small, number=18, values={"variables": {**many, "large": os.urandom(1_000_000)}})
    for offer in (small, big, replace(small, epoch=4, values={})):
        store.put(SETTINGS_OFFERS, offer)
        assert store.get(SETTINGS_OFFERS, "us-east-2") == offer
    assert store.get(SETTINGS_OFFERS, "us-east-1") is None


def test_an_offer_of_an_earlier_epoch_replaces_none_of_a_later_one(store: StateStore) -> None:
    """A scheduler that was active, and has not read the new state, cannot take back what its site offers now."""
    later = SettingsOffer(
        source="us-east-2", target="us-east-1", epoch=5, number=1, sealed_at=AT, key_id="k", ephemeral_key="e",
        values={"variables": {"a": b"new"}},
    )  # fmt: skip
    store.put(SETTINGS_OFFERS, later)
    store.put(SETTINGS_OFFERS, replace(later, epoch=4, number=2, values={"variables": {"a": b"old"}}))
    assert store.get(SETTINGS_OFFERS, "us-east-2") == later
    again = replace(later, number=2)
    store.put(SETTINGS_OFFERS, again)
    assert store.get(SETTINGS_OFFERS, "us-east-2") == again


def test_records_are_listed_newest_first(store: StateStore) -> None:
    """Each record is returned as last written, the newest first."""
    record = FailoverRecord(
        id="f-1",
        source="us-east-2",
        target="us-east-1",
        mode=Mode.GRACEFUL,
        reason="flood",
        by="ann",
        started_at=AT,
        epoch=1,
    )
    done = replace(
        record,
        finished_at=AT + timedelta(seconds=31),
        outcome=FailoverOutcome.COMPLETED,
        steps=(StepRecord(name="check", seconds=0.4, detail="ready"), StepRecord(name="claim", seconds=1.0, detail="")),
        not_unpaused=("a", "b"),
    )
    newer = replace(
        record, id="f-2", started_at=AT + timedelta(days=1), mode=Mode.FORCED, outcome=FailoverOutcome.ABORTED
    )
    assert list(store.find_all(RECORDS)) == []
    assert store.get(RECORDS, "f-1") is None
    for each in (record, newer, done):
        store.put(RECORDS, each)
    assert list(store.find_all(RECORDS)) == [newer, done]
    assert store.get(RECORDS, "f-1") == done


def test_phase_is_read_back_as_the_enum_member(store: StateStore) -> None:
    """A phase from the table is the enum member, so comparisons by identity work."""
    store.write(claim(FIRST, PLAN, at=AT), expected_version=None)
    assert store.read().phase is Phase.DRAINING


@pytest.mark.parametrize(
    ("stored", "late", "stays"),
    [
        ("open", "open", "late"),
        ("open", "aborted", "late"),
        ("aborted", "open", "stored"),
        ("aborted", "completed", "late"),
        ("completed", "open", "stored"),
        ("completed", "aborted", "stored"),
        ("completed", "completed", "late"),
    ],
)
def test_a_late_write_does_not_replace_the_record_of_a_later_stage(
    store: StateStore, stored: str, late: str, stays: str
) -> None:
    """An engine that was suspended during a write cannot reopen a record that another engine has completed."""
    record = FailoverRecord.of(PLAN, epoch=1)
    store.put(RECORDS, replace(record, outcome=FailoverOutcome(stored), not_unpaused=("a",)))
    store.put(RECORDS, replace(record, outcome=FailoverOutcome(late)))
    found = store.get(RECORDS, record.id)
    assert found is not None
    assert (found.outcome, found.not_unpaused) == ((stored, ("a",)) if stays == "stored" else (late, ()))


CLAIM = IdentityClaim(
    region="us-east-2",
    environment="etl",
    aws_region="us-east-1",
    job="7",
    at=AT,
    beat=1,
    problem="etl (us-east-1) counts as us-east-2, but AWS_REGION is us-east-1",
)


def test_an_observation_names_the_registered_environment(store: StateStore) -> None:
    """Gate and fence compare it with AIRFLOW_ENV_NAME, without a separate read."""
    assert store.observe("us-east-1").environment is None
    store.put_agent(STATUS)
    assert store.observe("us-east-1").environment is None
    store.register(Registration(region="us-east-1", environment="blue"))
    store.register(Registration(region="us-east-1", environment="green"))
    assert store.observe("us-east-1").environment == "green"
    assert store.observe("us-east-2").environment is None


def test_a_heartbeat_names_environment_and_aws_region(store: StateStore) -> None:
    """None is read back as None, as from a provider that reports neither; an empty name as an empty name."""
    for values in ({}, {"environment": "", "aws_region": ""}, {"environment": "etl", "aws_region": "us-east-1"}):
        status = replace(STATUS, **values)
        store.put_agent(status)
        assert store.agents("us-east-1") == [status]


def test_claims_are_kept_apart_from_heartbeats(store: StateStore, peer: Peer) -> None:
    """A claim with the job number of a region's own agent replaces no heartbeat, and failovers ignore it."""
    store.register(Registration(region="us-east-1", environment="etl-2"))
    store.put_agent(replace(STATUS, reconciled_epoch=2))
    other = peer()
    other.observe("us-east-1")
    claims = [CLAIM, replace(CLAIM, environment="other"), replace(CLAIM, environment="other", job="8")]
    for each in claims:
        other.put(IDENTITY_CLAIMS, each)
    other.put(IDENTITY_CLAIMS, replace(CLAIM, beat=2))
    claims[0] = replace(CLAIM, beat=2)

    assert store.find_all(IDENTITY_CLAIMS, "us-east-1") == claims
    assert store.find_all(IDENTITY_CLAIMS, "us-east-2") == []
    assert store.agents("us-east-1") == [replace(STATUS, reconciled_epoch=2)]
    assert store.agents("us-east-2") == []
    assert store.observe("us-east-1").reconciled_epoch == 2
    assert list(store.registrations()) == ["us-east-1"]

    named = replace(CLAIM, site="green")
    other.put(IDENTITY_CLAIMS, named)
    assert store.find_all(IDENTITY_CLAIMS, "green") == [named]
    for each in (*claims[1:], claims[1]):
        store.delete(IDENTITY_CLAIMS, each)
    assert store.find_all(IDENTITY_CLAIMS, "us-east-1") == claims[:1]
    other.put(IDENTITY_CLAIMS, claims[1])
    assert store.find_all(IDENTITY_CLAIMS, "us-east-1") == claims[:2]


def test_triggerers_are_listed_by_region_beside_the_heartbeats(store: StateStore, peer: Peer) -> None:
    """They are no schedulers: no failover waits for one to acknowledge the state."""
    other = peer()
    other.put_agent(STATUS)
    first = TriggererStatus(region="us-east-1", job="7", at=AT, version=0, watchers=2, provider_version="0.1.0")
    second = replace(first, job="70", version=4)
    for each in (first, second, replace(first, region="us-east-2")):
        other.put(TRIGGERERS, each)
    other.put(TRIGGERERS, replace(first, version=5))

    assert store.find_all(TRIGGERERS, "us-east-1") == [replace(first, version=5), second]
    assert store.agents("us-east-1") == [STATUS]
    assert store.find_all(IDENTITY_CLAIMS, "us-east-1") == []
    for each in (first, first):
        store.delete(TRIGGERERS, each)
    assert other.find_all(TRIGGERERS, "us-east-1") == [second]
    assert other.unreadable(["us-east-1", "us-east-2"]) == []


def test_a_claim_without_an_aws_region_is_stored_under_the_claimed_one(store: StateStore) -> None:
    """Without it, only the claimed region is known."""
    claim = replace(CLAIM, aws_region="", environment="")
    store.put(IDENTITY_CLAIMS, claim)
    assert store.find_all(IDENTITY_CLAIMS, "us-east-2") == [claim]


def test_a_dispute_is_seen_with_the_state_until_it_ends(store: StateStore, peer: Peer) -> None:
    """The fence needs no separate read for it."""
    assert store.observe("us-east-2").disputed == ()
    peer().put_dispute("us-east-2", ["one", "two"])
    store.put_agent(replace(STATUS, region="us-east-2"))
    assert store.observe("us-east-2").disputed == ("one", "two")
    assert store.observe("us-east-1").disputed == ()
    peer().put_dispute("us-east-2", [])
    assert store.observe("us-east-2").disputed == ()


def test_a_request_for_heartbeats_is_seen_with_the_state_of_that_region(store: StateStore, peer: Peer) -> None:
    """An agent needs no separate read for it. Heartbeats and registrations keep it."""
    peer().request_heartbeats("us-east-2", "engine-0 before the region is registered")
    assert store.regions() == frozenset()
    assert store.observe("us-east-2").heartbeat_request is None
    store.register(Registration(region="us-east-2", environment="one"))
    peer().request_heartbeats("us-east-2", "engine-1 at noon")
    store.put_agent(replace(STATUS, region="us-east-2"))
    store.register(Registration(region="us-east-2", environment="one"))
    assert store.observe("us-east-2").heartbeat_request == "engine-1 at noon"
    assert store.observe("us-east-1").heartbeat_request is None
    peer().request_heartbeats("us-east-2", "engine-2 at one")
    assert store.observe("us-east-2").heartbeat_request == "engine-2 at one"


def test_a_region_is_registered_by_its_own_item_and_observes_the_list_of_all(store: StateStore) -> None:
    """
    Init, the region's agent or a heartbeat may write the item first. A write of the list keeps the other attributes.
    """
    assert store.regions() == frozenset()
    assert store.observe("us-east-1").registered is None
    store.register(Registration(region="us-east-2", environment="one"))
    store.put_agent(STATUS)
    store.observe("us-east-1")
    store.put_agent(replace(STATUS, reconciled_epoch=3))
    assert store.regions() == {"us-east-1", "us-east-2"}
    assert store.regions(["us-east-1", "us-est-2", " us-east-2"]) == {"us-east-1"}
    assert store.observe("us-east-1").registered is None
    store.put_regions("us-east-1", ["us-east-2"])
    store.put_regions("us-east-1", ["us-east-2"])
    observed = store.observe("us-east-1")
    assert (observed.registered, observed.reconciled_epoch, observed.problems) == ({"us-east-1", "us-east-2"}, 3, ())
    assert store.observe("us-east-2").registered is None
    store.put_regions("us-east-2", ["us-east-2"])
    assert store.observe("us-east-2").registered == {"us-east-2"}
    assert store.registrations()["us-east-2"].environment == "one"


def test_a_state_is_overwritten_without_a_condition(store: StateStore) -> None:
    """For an item whose version cannot be read."""
    store.overwrite(FIRST)
    assert store.read() == FIRST
    newer = replace(FIRST, version=9, epoch=7)
    store.overwrite(newer)
    assert store.read() == newer


def test_the_newest_wanted_set_ignores_sets_of_stopped_runs_and_of_dags_not_unpaused(store: StateStore) -> None:
    """It may be the only remaining set of a plan."""
    assert store.newest_wanted_set() is None
    older = DagSet(id="p-1", region="us-east-2", recorded_at=AT, dag_ids=("a",))
    newest = DagSet(id="p-2", region="us-east-2", recorded_at=AT + timedelta(hours=1), dag_ids=("a", "b"))
    store.put(DAG_SETS, newest)
    store.put(DAG_SETS, older)
    others = [announced_set_id("p-3", 12, ("a r1",), had_ended=had_ended) for had_ended in (False, True)]
    later = AT + timedelta(hours=2)
    for set_id in (*others, "p-3-stopped-12"):
        put_announced_runs(store, set_id, ["a r1"], region="us-east-2", at=later)
    store.put(DAG_SETS, replace(newest, id=not_unpaused_set_id("p-3", ("a",)), recorded_at=later))
    assert store.newest_wanted_set() == newest


def test_the_data_of_a_report_have_any_size(store: StateStore) -> None:
    """A report of thousands of runs has more than an item; a later one replaces it."""
    assert store.get(REPORTS, "p1") is None
    for body in ("{}", "".join(random.Random(1).choices("abcdefghij0123456789 ", k=600_000))):
        report = StoredReport(id="p1", taken_at=AT, body=body)
        store.put(REPORTS, report)
        assert store.get(REPORTS, "p1") == report
    assert store.get(REPORTS, "p2") is None


def test_of_two_processes_that_begin_to_send_a_notification_one_gets_the_attempt(peer: Peer) -> None:
    """The first attempt stays, and only more progress replaces it: its result, or the next attempt."""
    first, second = peer(), peer()
    mine = NotificationAttempt(plan_id="p", event="started", channel="t", owner="a", attempt=1, at=AT)
    theirs = replace(mine, owner="b")
    for store, attempt in ((first, mine), (second, theirs), (first, mine)):
        store.put(NOTIFICATIONS, attempt)
        assert second.get(NOTIFICATIONS, mine.id) == mine
    failed = replace(mine, error="no answer")
    first.put(NOTIFICATIONS, failed)
    second.put(NOTIFICATIONS, replace(theirs, attempt=2))
    first.put(NOTIFICATIONS, failed)
    assert first.get(NOTIFICATIONS, mine.id) == replace(theirs, attempt=2)
    sent = replace(theirs, attempt=2, sent_at=AT)
    second.put(NOTIFICATIONS, sent)
    first.put(NOTIFICATIONS, replace(mine, attempt=3))
    assert first.get(NOTIFICATIONS, mine.id) == sent
