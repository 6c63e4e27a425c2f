"""
Every reader of both tables, with items that are arbitrary, or valid except for one field.

For any content of one item: only the provider's errors are raised, all other items are read as before, and no reader
continues on the unreadable item. Each run uses new seeds; a failure prints how to repeat it.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, TypeVar

from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_mwaa_dr.aws.dynamodb import contents, items, runs_store
from airflow_provider_mwaa_dr.aws.dynamodb.contents import unpacked
from airflow_provider_mwaa_dr.aws.dynamodb.item_forms import PagedForm, form_of
from airflow_provider_mwaa_dr.aws.dynamodb.paged_item import PagedContent, state_keys
from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.bookkeeping import Bookkeeper
from airflow_provider_mwaa_dr.core.carrying import CarryReport, SettingsOffer
from airflow_provider_mwaa_dr.core.gate import Action, DecisionPoint, View, decide
from airflow_provider_mwaa_dr.core.inventory import DagFacts, DagSchedule, Fingerprints, Inventory, UpgradeFacts
from airflow_provider_mwaa_dr.core.item_kind import ItemKind
from airflow_provider_mwaa_dr.core.lease import has_acknowledged
from airflow_provider_mwaa_dr.core.ledger import Head, LedgerRun, LogEntry, RegionLedger, RunStatus
from airflow_provider_mwaa_dr.core.ports import (
    DAG_SETS,
    FENCE_LOADS,
    INVENTORIES,
    RECORDS,
    SETTINGS_OFFERS,
    SNAPSHOTS,
    AgentStatus,
    DagSet,
    FailoverOutcome,
    FailoverRecord,
    StepRecord,
)
from airflow_provider_mwaa_dr.core.state import Mode, Plan, initial
from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.testing import InMemoryRunsStore, ManualClock
from tests.unit.aws.dynamodb.dynamodb_reads import DynamoDBReads, key_of
from tests.unit.core.bookkeeping.ledger_regions import Rows

T = TypeVar("T")
AT = datetime(2026, 2, 26, 10, 30, tzinfo=timezone.utc)
X, Y = "us-east-1", "us-east-2"
EXAMPLES = settings(max_examples=300, deadline=None, print_blob=True)
PLAN = Plan(
    id="plan-2", source=X, target=Y, mode=Mode.AUTO, reason="r", by="b", owner="o", started_at=AT, set_id="plan-1"
)
STATE = transitions.claim(initial(X, lease_s=60, by="t", at=AT), PLAN, at=AT)
STATUS = AgentStatus(
    region=X, job="7", host="h", at=AT, beat=3, version=STATE.version, epoch=0, provider_version="1",
    airflow_version="3.3.1", schedulers=("7", "8"), adopted_epoch=0, reconciled_epoch=0, problems=("a problem",),
    waiting=("orders r1: why",), standby_as_of=AT, ledger_lag_s=1.5, fence_ok=True, final_plan_id="plan-0",
    has_ledger=True,
)  # fmt: skip
BEHIND = replace(STATUS, job="8", version=STATE.version - 1)
SET = DagSet(id="plan-1", region=X, recorded_at=AT, dag_ids=("billing", "orders"))
RECORD = FailoverRecord(
    id="plan-1", source=Y, target=X, mode=Mode.FORCED, reason="r", by="b", started_at=AT, finished_at=AT,
    outcome=FailoverOutcome.COMPLETED, epoch=2, steps=(StepRecord(name="claim", seconds=0.5, detail="d"),),
    not_unpaused=("billing",),
)  # fmt: skip
INVENTORY = Inventory(
    region=X, taken_at=AT, public_key="ab" * 32, options={"lease_s": "60"}, packages={"boto3": "1"},
    dags={
        "orders": DagFacts(
            source="s", shape="t", traits=("depends_on_past",), file="o.py",
            schedule=DagSchedule(timetable="Cron", runs=(("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),)),
        )
    },
    import_errors=("a.py",),
    names={"pools": ("default_pool",)}, fingerprints={Y: Fingerprints(key_id="k", values={"pools": {"p": "f"}})},
    upgrade=UpgradeFacts(
        marks_from=AT, error_texts={"a.py": "SyntaxError"}, changed_options={"core.x": "core.y"},
        unknown_options=("core.z",), teams=("sales",),
    ),
    settings=CarryReport(
        modes={"pools": "add"}, kept={"pools": ("p",)}, uncarried={"pools": ("q",)}, elsewhere=("e",), problem="no",
    ),
)  # fmt: skip

OFFER = SettingsOffer(
    source=X, target=Y, epoch=2, number=1, sealed_at=AT, key_id="k", ephemeral_key="e",
    values={"variables": {"bucket": b"sealed"}},
)  # fmt: skip


def content_of(kind: ItemKind[T], value: T) -> PagedContent:
    """Return what a write of a paged item stores."""
    form = form_of(kind)
    assert isinstance(form, PagedForm)
    return form.to_content(value)


def state_items() -> list[dict[str, Any]]:
    """Return a state table with one item of each kind, in the format of this version."""
    found = [
        items.state_to_item(STATE, write_token="t"),
        items.to_item(f"ENVIRONMENT#{X}", {"environment": "virginia", "account": "1", "reconciled_epoch": 0}),
        items.to_item(f"ENVIRONMENT#{Y}", {"environment": "ohio"}),
        items.agent_to_item(STATUS),
        items.agent_to_item(BEHIND),
        items.record_to_item(RECORD),
        items.record_to_item(replace(RECORD, id="plan-0")),
        items.to_item(f"FENCE#{X}", {"at": AT}),
    ]
    found[1] |= {"agents": {"SS": ["7", "8"]}, "regions": {"SS": [X, Y]}}
    for key in (f"SNAPSHOT#{X}", "PAUSED#plan-1"):
        pages, manifest = state_keys(key).to_items(content_of(SNAPSHOTS, SET))
        found += [*pages, manifest]
    pages, manifest = state_keys(f"INVENTORY#{X}").to_items(content_of(INVENTORIES, INVENTORY))
    found += [*pages, manifest]
    pages, manifest = state_keys(f"SETTINGS#{X}").to_items(content_of(SETTINGS_OFFERS, OFFER))
    return [*found, *pages, manifest]


def run(run_id: str, status: RunStatus, **values: Any) -> LedgerRun:
    return LedgerRun(
        dag_id="orders", run_id=run_id, run_type="scheduled", status=status, epoch=1, logical_date=AT,
        data_interval_start=AT, data_interval_end=AT, run_after=AT, conf='{"a": 1}', **values,
    )  # fmt: skip


NUMBERS = range(1, 7)


def entry(number: int) -> LogEntry:
    """Return the entry in which run r<number> begins and the previous run ends."""
    runs = [run(f"r{number}", RunStatus.OPEN)]
    if number > 1:
        runs.append(run(f"r{number - 1}", RunStatus.SUCCESS, tasks=(("one", -1, "success"), ("two", 0, None))))
    return LogEntry(
        number=number,
        at=AT,
        epoch=1,
        first_id=0,
        newest_id=number,
        runs=tuple(runs),
        dag_ids=("orders",),
        complete_before=1,
    )


def runs_items() -> list[dict[str, Any]]:
    """Return a runs table with the log of region X and a checkpoint of its first half."""
    checkpoint = RegionLedger()
    checkpoint.apply([entry(number) for number in NUMBERS[:3]])
    failed = (run("m1", RunStatus.FAILED),)
    checkpoint.heads["billing"] = Head(dag_id="billing", created=AT, others=failed, dated=failed)
    pages, manifest = runs_store.checkpoint_to_items(X, checkpoint)
    return [*(runs_store.entry_to_item(X, entry(number)) for number in NUMBERS), *pages, manifest]


STATE_ITEMS, RUNS_ITEMS = state_items(), runs_items()

# Attributes and bodies.

TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(["", " ", "-1", "0.5", "2026-13-45", "\x1b[2J", X, "open"]))
FIGURES = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)).map(
    lambda value: {"N": f"{value:d}" if isinstance(value, int) else repr(value)}
)
ATTRIBUTES = st.recursive(
    st.one_of(
        TEXTS.map(lambda text: {"S": text}),
        FIGURES,
        st.booleans().map(lambda value: {"BOOL": value}),
        st.just({"NULL": True}),
        st.binary(max_size=12).map(lambda value: {"B": value}),
        st.sets(TEXTS, min_size=1, max_size=3).map(lambda value: {"SS": sorted(value)}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda value: {"L": value}),
        st.dictionaries(TEXTS, inner, max_size=3).map(lambda value: {"M": value}),
    ),
    max_leaves=5,
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def damaged_values(draw: st.DrawFn, values: Any) -> Any:
    """Return a JSON value that differs from *values* in one place."""
    if isinstance(values, dict) and values and draw(st.booleans()):
        name = draw(st.sampled_from(sorted(values)))
        if draw(st.booleans()):
            return {**values, name: draw(damaged_values(values[name]))}
        return {each: value for each, value in values.items() if each != name}
    if isinstance(values, list) and values and draw(st.booleans()):
        place = draw(st.integers(0, len(values) - 1))
        return [*values[:place], draw(damaged_values(values[place])), *values[place + 1 :]]
    return draw(JSON)


@st.composite
def damaged_bodies(draw: st.DrawFn, body: bytes) -> bytes:
    """
    Return a compressed body that is truncated, arbitrary, too long when unpacked, or wrong in one place of its JSON.
    """
    kind = draw(st.sampled_from(["cut", "junk", "bomb", "tail", "lines", "values"]))
    if kind == "cut":
        return body[: draw(st.integers(0, len(body) - 1))]
    if kind == "junk":
        return draw(st.binary(max_size=30))
    if kind == "bomb":
        return BOMB
    if kind == "tail":
        return body + draw(st.binary(min_size=1, max_size=5))
    lines = zlib.decompress(body, wbits=32 + zlib.MAX_WBITS).decode().splitlines()
    place = draw(st.integers(0, len(lines) - 1))
    wrong = json.dumps(draw(damaged_values(json.loads(lines[place])))) if kind == "values" else draw(TEXTS)
    return gzip.compress("\n".join([*lines[:place], wrong, *lines[place + 1 :]]).encode())


BOMB = gzip.compress(b" " * 40_000_000)


@st.composite
def damaged(draw: st.DrawFn, table: list[dict[str, Any]]) -> tuple[tuple[str, str], dict[str, Any] | None]:
    """Return the key of one item of *table*, and the item that replaces it; None: it is deleted."""
    item = draw(st.sampled_from(table))
    key = key_of(item)
    keys = {name: value for name, value in item.items() if name in {"state_id", "pk", "sk"}}
    fields = sorted(item.keys() - keys.keys())
    kind = draw(st.sampled_from(["gone", "arbitrary", "field", "field", "field", "missing field", "body", "body"]))
    if kind == "gone":
        return key, None
    if kind == "arbitrary":
        return key, {**draw(st.dictionaries(st.sampled_from([*fields, "else"]), ATTRIBUTES, max_size=4)), **keys}
    if kind == "body" and "body" in item:
        return key, {**item, "body": {"B": draw(damaged_bodies(item["body"]["B"]))}}
    name = draw(st.sampled_from(fields))
    if kind == "missing field":
        return key, {each: value for each, value in item.items() if each != name}
    return key, {**item, name: draw(ATTRIBUTES)}


def with_damage(table: list[dict[str, Any]], key: tuple[str, str], item: dict[str, Any] | None) -> DynamoDBReads:
    kept = [each for each in table if key_of(each) != key]
    return DynamoDBReads(*kept, *([] if item is None else [item]))


# Reading.


def state_store_of(client: DynamoDBReads) -> DynamoDBStateStore:
    return DynamoDBStateStore("state", (X,), clock=ManualClock(), session=client.session)


def runs_store_of(
    client: DynamoDBReads, *, own_region: str | None = None, is_eventual: bool = False
) -> DynamoDBRunsStore:
    return DynamoDBRunsStore(
        "runs", (X,), clock=ManualClock(), session=client.session, own_region=own_region, is_eventual=is_eventual
    )


READS: Mapping[str, Callable[[DynamoDBStateStore], Any]] = {
    "ACTIVE_REGION": lambda store: store.read(),
    f"AGENT#{X}#7": lambda store: next((each for each in store.agents(X) if each.job == "7"), None),
    f"AGENT#{X}#8": lambda store: next((each for each in store.agents(X) if each.job == "8"), None),
    f"ENVIRONMENT#{X}": lambda store: store.registrations().get(X),
    f"ENVIRONMENT#{Y}": lambda store: store.registrations().get(Y),
    "FAILOVER#plan-0": lambda store: next((each for each in store.find_all(RECORDS) if each.id == "plan-0"), None),
    "FAILOVER#plan-1": lambda store: store.get(RECORDS, "plan-1"),
    f"FENCE#{X}": lambda store: store.get(FENCE_LOADS, X),
    f"SNAPSHOT#{X}": lambda store: store.get(SNAPSHOTS, X),
    "PAUSED#plan-1": lambda store: store.get(DAG_SETS, "plan-1"),
    f"INVENTORY#{X}": lambda store: (store.get(INVENTORIES, X), store.inventory_key(X)),
    f"SETTINGS#{X}": lambda store: store.get(SETTINGS_OFFERS, X),
}


def outcome(read: Callable[[DynamoDBStateStore], Any], store: DynamoDBStateStore) -> Any:
    """Return the result of a read, or its error if it is one of the provider's errors."""
    try:
        return read(store)
    except DRError as raised:
        error = raised
    assert error.advice, error
    assert str(error).isprintable(), error
    return str(error)


AS_WRITTEN = {key: outcome(read, state_store_of(DynamoDBReads(*STATE_ITEMS))) for key, read in READS.items()}


def test_every_kind_of_item_is_readable_as_it_is_written() -> None:
    """The next tests damage valid items."""
    assert not [value for value in AS_WRITTEN.values() if value is None or isinstance(value, str)]
    store = state_store_of(DynamoDBReads(*STATE_ITEMS))
    assert store.unreadable([X, Y]) == []
    runs = runs_store_of(DynamoDBReads(*RUNS_ITEMS))
    assert [(each.number, each.unreadable) for each in runs.log(X, after=0)] == [(number, None) for number in NUMBERS]
    assert runs.checkpoint(X).number == 3


@EXAMPLES
@given(damaged(STATE_ITEMS))
def test_an_item_of_the_state_table_is_a_problem_of_itself_only(
    damage: tuple[tuple[str, str], dict[str, Any] | None],
) -> None:
    """Only the provider's errors are raised, and every other item is read as before."""
    (key, _), item = damage
    store = state_store_of(with_damage(STATE_ITEMS, damage[0], item))
    for name, read in READS.items():
        found = outcome(read, store)
        # A list of agents with other names, or without names, hides the agents that it named before.
        is_listed = not (key == f"ENVIRONMENT#{X}" and name.startswith("AGENT#"))
        if not key.startswith(name) and is_listed:
            assert found == AS_WRITTEN[name], name
    for fault in store.unreadable([X, Y]):
        assert all((fault.table, fault.key, fault.found, fault.allowed, fault.advice))
        assert str(fault).isprintable()
        assert len(str(fault)) < 3000
    try:
        store.observe(X)
    except DRError:
        assert key == "ACTIVE_REGION"


STEADY = items.state_to_item(initial(X, lease_s=60, by="t", at=AT), write_token="t")


@EXAMPLES
@example((("ENVIRONMENT#us-east-1", ""), {**STATE_ITEMS[1], "reconciled_epoch": {"S": "0"}}), X)
@given(damaged([STEADY, STATE_ITEMS[1]]), st.sampled_from([X, Y]))
def test_gate_and_fence_run_or_skip_only_with_readable_items(
    damage: tuple[tuple[str, str], dict[str, Any] | None], region: str
) -> None:
    """
    A run needs an item that names this region, and a reconciled epoch. A close needs an item that names the other
    region.
    """
    own = {**STATE_ITEMS[1], "state_id": {"S": f"ENVIRONMENT#{region}"}}
    (key, _), item = damage
    if key.startswith("ENVIRONMENT#") and item is not None:
        own = {**item, "state_id": own["state_id"]}
    client = with_damage([STEADY, own], damage[0], item) if key == "ACTIVE_REGION" else DynamoDBReads(STEADY, own)
    try:
        observation = state_store_of(client).observe(region)
    except DRError:
        return  # the view becomes stale, and every run is held
    for point in DecisionPoint:
        view = View.of(observation, 0.0)
        action = decide(view, region=region, exempt=False, now=0.1, lease_s=60, point=point).action
        if action is Action.HOLD:
            continue
        state = client.items["ACTIVE_REGION", ""]
        assert state["active_region"] == {"S": region if action is Action.RUN else ({X, Y} - {region}).pop()}
        assert state.get("phase", {"S": "STEADY"}) in (
            {"S": "STEADY"},
            {"S": "RESUMING"},
            {"S": "DRAINING"},
            {"NULL": True},
        )
        # A number, or its digits as text.
        (reconciled,) = own["reconciled_epoch"].values()  # type: ignore[union-attr]
        assert float(reconciled) == observation.state.epoch


def test_every_field_of_a_heartbeat_has_a_rule() -> None:
    """The reader would ignore a field without a rule."""
    # Some fields are stored under another name.
    of_agent = set(AgentStatus.__dataclass_fields__) - {"region", "job", "unreadable"}
    assert set(contents.AGENT.schema) == of_agent - {"final_plan_id", "unclosed_runs"} | {"final", "leftovers"}
    assert set(contents.RUN) == set(LedgerRun.__dataclass_fields__) - {"retained_for_peers"} | {"kept"}


@EXAMPLES
@given(damaged([item for item in STATE_ITEMS if key_of(item)[0].startswith("AGENT#")]))
def test_an_unreadable_heartbeat_lets_no_reader_continue(
    damage: tuple[tuple[str, str], dict[str, Any] | None],
) -> None:
    """It acknowledges no version and no epoch, lists no scheduler, and has adopted and reconciled nothing."""
    agents = state_store_of(with_damage(STATE_ITEMS, *damage)).agents(X)
    for agent in agents:
        if agent.unreadable is None:
            assert isinstance(agent.version, int)
            assert isinstance(agent.beat, int)
            assert all(isinstance(job, str) for job in agent.schedulers)
            assert agent.ledger_lag_s is None or math.isfinite(agent.ledger_lag_s)
        else:
            assert (agent.version, agent.epoch, agent.schedulers) == (-1, -1, ())
            assert (agent.adopted_epoch, agent.reconciled_epoch, agent.final_plan_id) == (None, None, None)
    if any(agent.unreadable is not None and agent.job == "8" for agent in agents):
        assert not has_acknowledged(agents, STATE.version)


@EXAMPLES
@given(st.lists(damaged(RUNS_ITEMS), min_size=1, max_size=2))
def test_a_run_that_may_have_ended_in_an_unreadable_item_is_not_started_again(
    damages: list[tuple[tuple[str, str], dict[str, Any] | None]],
) -> None:
    """The other region starts no run whose end was published in an entry that is unreadable now."""
    table = RUNS_ITEMS
    for key, item in damages:
        table = [*with_damage(table, key, item).items.values()]
    store = runs_store_of(DynamoDBReads(*table))
    log = store.log(X, after=0)
    unreadable = {each.number for each in log if each.unreadable is not None}

    class Tables(InMemoryRunsStore):
        """Region X's part is damaged; the reading region's own part is not."""

        def log(self, region: str, *, after: int) -> Any:
            return store.log(region, after=after) if region == X else super().log(region, after=after)

        def checkpoint(self, region: str) -> RegionLedger:
            return store.checkpoint(region) if region == X else super().checkpoint(region)

    db = Rows()
    bookkeeper = Bookkeeper(Tables(), db, ManualClock(), region=Y, peers=lambda: [X, Y])
    try:
        bookkeeper.follow()
    except DRError:
        return  # held: the other region's ledger is unknown
    bookkeeper.begin(2)
    bookkeeper.adopt()
    bookkeeper.apply_outcomes()
    bookkeeper.resume(epoch=2)
    is_whole = {each.number for each in log} == set(NUMBERS) and not any(key[1] == "manifest" for key, _ in damages)
    if is_whole and all(key[0].startswith("LOG#") for key, _ in damages):
        # Run r<n> begins in entry n and ends in entry n + 1.
        started = {each.run_id for each in db.resumed}
        assert started.isdisjoint(f"r{number - 1}" for number in unreadable if number > 3)
        assert bool(bookkeeper.unread) == any(number > 3 for number in unreadable)
    assert all(isinstance(each, str) and each for each in bookkeeper.waiting)


@EXAMPLES
@given(st.binary(max_size=200), st.integers(1, 1000))
def test_nothing_is_unpacked_beyond_its_limit(packed: bytes, most: int) -> None:
    """Whatever the bytes are: at most so many come out, or an error says why not."""
    for body in (packed, zlib.compress(packed), gzip.compress(packed)):
        with suppress(ValueError):
            assert len(unpacked(body, most=most)) <= most
