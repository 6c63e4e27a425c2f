"""
Conversion between the domain's values and the items of the state table.

Pure; works without boto3. The state item has the fields of the AWS sample, with the same types and meaning. So the
sample's scripts and AWS CLI queries can read and write it, and the provider can read the sample's items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

from airflow_provider_mwaa_dr.aws.dynamodb.contents import (
    AGENT,
    ENVIRONMENT,
    FAILOVER,
    FENCE,
    IDENTITY_CLAIM,
    IDENTITY_CLAIMS,
    ITEM_SCHEMAS,
    TRIGGERER,
    TRIGGERERS,
    ItemSchema,
    decoded,
    problem_of,
    to_utc,
    unreadable,
    valid,
)
from airflow_provider_mwaa_dr.core.display import shortened
from airflow_provider_mwaa_dr.core.ports import (
    FENCE_LOADS,
    AgentStatus,
    FailoverOutcome,
    FailoverRecord,
    FenceLoad,
    HeldTasks,
    Registration,
    SilentAgent,
    StepRecord,
)
from airflow_provider_mwaa_dr.core.state import (
    DEFAULT_HOLD_S,
    LONGEST_HOLD_S,
    LONGEST_LEASE_S,
    SHORTEST_LEASE_S,
    STATE_ID,
    DRState,
    FieldProblem,
    Mode,
    Phase,
    Plan,
    Stage,
    Stop,
)
from airflow_provider_mwaa_dr.exceptions import StateError, UnreadableItem, UnreadableItemError, UnusableStateError

T = TypeVar("T")

KEY = "state_id"
Item = Mapping[str, Any]
"""An item in the format of boto3's low-level client: attribute values such as ``{"S": ...}`` by name."""

NO_VERSION = -1
"""Version and epoch of an item that cannot be read. No state has them."""
_LONGEST_LIST_BYTES = 250_000
"""Maximum size of a list in a record, within the 400 KB of an item. The rest of the list is counted, not stored."""
_ENDED_BYTES = 20_000
"""Maximum size of a record's list of runs that were ended in a standby. The rest is counted; the log has all."""
_STEPS_BYTES = 100_000
"""Maximum size of a record's steps. Only the last steps are stored if they are larger."""
_TEXTS_BYTES = 50_000
"""Maximum size of a list of texts for users, in a heartbeat."""
_TEXT_CHARS = 2_000
"""Maximum length of a text for users. Limits for inputs are stricter."""


# Attributes.


def to_attribute(value: Any) -> dict[str, Any]:
    """
    Return a plain value as a DynamoDB attribute.

    :raises TypeError: DynamoDB has no such type.
    :raises StateError: DynamoDB cannot store the number: nan, inf, or more than 38 digits.
    """
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, (int, float)):
        text = f"{value:d}" if isinstance(value, int) else repr(value)
        if not math.isfinite(value) or len(text.strip("-0")) > 38:
            raise StateError(f"The number {text} cannot be stored in DynamoDB.", advice="Report it as a bug.")
        return {"N": text}
    if isinstance(value, str):
        return {"S": str(value.value) if isinstance(value, (Phase, Mode, Stage)) else value}
    if isinstance(value, datetime):
        return {"S": to_timestamp(value)}
    if isinstance(value, (tuple, list)):
        return {"L": [to_attribute(element) for element in value]}
    if isinstance(value, Mapping):
        return {"M": {name: to_attribute(element) for name, element in value.items()}}
    raise TypeError(f"{type(value).__name__} cannot be stored: {value!r}")


def from_attribute(attribute: Mapping[str, Any]) -> Any:
    """Return an attribute as a plain value; whole numbers as int. Never raises for a stored attribute."""
    ((kind, value),) = attribute.items()
    if kind == "NULL":
        return None
    if kind == "N":
        return _to_number(value)
    if kind == "L":
        return [from_attribute(element) for element in value]
    if kind == "M":
        return {name: from_attribute(element) for name, element in value.items()}
    if kind == "SS":
        return sorted(value)
    return value


def bounded(text: str | None) -> str | None:
    """Return a text for users, truncated if it is too long for an item."""
    if text is None or len(text) <= _TEXT_CHARS:
        return text
    return f"{text[:_TEXT_CHARS]} ... ({len(text)} characters)"


def _bounded_texts(texts: Sequence[str]) -> list[str]:
    """Return the first texts for users, each truncated, and the number of the others."""
    kept: list[str] = []
    size = 0
    for text in map(bounded, texts):
        size += len((text or "").encode()) + 4
        if size > _TEXTS_BYTES:
            return [*kept, *shortened(texts[len(kept) :], 0)]
        kept.append(text or "")
    return kept


def _to_number(text: str) -> int | float | str:
    for convert in (int, float):
        try:
            number = convert(text)
        except ValueError:
            continue
        return int(number) if isinstance(number, float) and number.is_integer() else number
    return text


def to_item(key: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item without the values that are None, as the scripts of the AWS sample expect."""
    return {KEY: {"S": key}, **to_attributes(values)}


def to_attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes by name, without the values that are None."""
    return {name: to_attribute(value) for name, value in values.items() if value is not None}


def from_item(item: Item) -> dict[str, Any]:
    """Return an item's plain values by name."""
    return {name: from_attribute(attribute) for name, attribute in item.items()}


def to_timestamp(at: datetime) -> str:
    """Return an aware time as ISO-8601 in UTC with ``Z``."""
    return at.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def from_timestamp(text: object) -> datetime | None:
    """Return an ISO-8601 text as an aware UTC time; a text without an offset is UTC. None: it is no time."""
    return to_utc(text) if isinstance(text, str) else None


_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_time(text: object) -> datetime:
    """Return an ISO-8601 text as an aware UTC time; 1970-01-01 if it is no time."""
    return from_timestamp(text) or _LONG_AGO


# The state item.


def state_to_item(state: DRState, *, write_token: str) -> dict[str, Any]:
    """
    Return the state item.

    :param write_token: unique for each write, so that a writer recognises its own write after a lost answer.
    """
    return to_item(STATE_ID, _state_values(state, write_token))


def state_changes(held: Item | None, state: DRState, *, write_token: str) -> dict[str, dict[str, Any] | None]:
    """
    Return the attributes that turn the item *held* into the item of *state*, by name; None removes an attribute.

    It leaves out what *held* has already, also in another form, such as a number that a script wrote as text. So a role
    needs no right for attributes that its step does not change, and attributes of a newer version stay.

    :param held: an item whose version can be used; None: it is unknown, so every attribute is returned.
    :param write_token: as in :func:`state_to_item`.
    """
    values = _state_values(state, write_token)
    wanted = {name: None if value is None else to_attribute(value) for name, value in values.items()}
    if held is None:
        return wanted
    before = state_from_item(held, default_lease_s=state.lease_s)
    found = _state_values(before, "")
    unusable = {problem.field.partition(".")[0] for problem in before.problems}
    return {
        name: attribute
        for name, attribute in wanted.items()
        if values[name] != found[name] or name in unusable or (attribute is not None and name not in held)
    }


def _state_values(state: DRState, write_token: str) -> dict[str, Any]:
    """Return all values of the state item by name; None for attributes that it does not have."""
    return {
        "active_region": state.active_region,
        "last_updated": state.last_updated,
        "failover_count": state.failover_count,
        "version": state.version,
        "epoch": state.epoch,
        "phase": state.phase,
        "lease_s": state.lease_s,
        "previous_region": state.previous_region,
        "failover_reason": bounded(state.failover_reason),
        "last_failover_time": state.last_failover_time,
        "changed_by": bounded(state.changed_by),
        "left_over": state.not_unpaused_set_id,
        "plan": _plan_to_values(state.plan) | _stopped(state) if state.plan is not None else None,
        "stops": [{"set_id": stop.set_id, "epoch": stop.epoch, "had_ended": stop.had_ended} for stop in state.stops]
        or None,
        "write_token": write_token,
    }


def state_from_item(item: Item, *, default_lease_s: float, table: str = "") -> DRState:
    """
    Return the state in an item, including an item of the AWS sample.

    The sample's items have no epoch and no phase: such an item is STEADY, with ``failover_count`` as its epoch. A
    script of the sample increments only ``failover_count`` in an item of the provider, so the epoch is the higher of
    the two. In the sample's items ``version`` may be a string, or missing (0).

    A field that cannot be used is a problem of the state, and raises no error. The region then holds, its agent still
    sends heartbeats, and an engine can overwrite the item.

    :param table: name of the table, for messages.
    :raises UnusableStateError: the version cannot be used, so no conditional write is possible.
    """
    values = from_item(item)
    problems: list[FieldProblem] = []

    def checked(field: str, allowed: str, usable: Callable[[Any], T | None], missing: T, unusable: T) -> T:
        value = values.get(field)
        if value is None:
            return missing
        found = usable(value)
        if found is None:
            problems.append(FieldProblem(field, _shown(value), allowed))
            return unusable
        return found

    version = _whole_number(values["version"]) if values.get("version") is not None else 0
    if version is None:
        raise UnusableStateError(
            f"The item {STATE_ID} of table {table or 'of the state'} cannot be read: version is "
            f"{_shown(values['version'])}, allowed is {_WHOLE}.",
            advice="Correct it, or run mwaa-dr init --active REGION --above-every-epoch.",
        )
    failover_count = checked("failover_count", _WHOLE, _whole_number, 0, 0)
    phase = checked("phase", f"one of {', '.join(each.value for each in Phase)}", _phase, Phase.STEADY, Phase.DRAINING)
    plan: Plan | None = None
    if phase is not Phase.STEADY and values.get("plan") is not None:
        try:
            plan = _plan_from_values(values["plan"])
        except _UnusableError as error:
            problems.append(FieldProblem(error.field, error.found, error.allowed))
    active_region = values.get("active_region")
    epoch = checked("epoch", _WHOLE, _whole_number, 0, 0)
    none: tuple[Stop, ...] = ()
    stops = checked("stops", _STOPS, _stops, none, none)
    if "stops" not in values and plan is not None and (set_id := _text(values["plan"].get("stopped"))):
        # An engine of an older version wrote the item: it has one set for the plan.
        stops = (Stop(set_id=set_id, epoch=max(epoch, failover_count)),)
    return DRState(
        # Any value is accepted: a region that is not registered counts as no region.
        active_region="" if active_region is None else str(active_region),
        epoch=max(epoch, failover_count),
        version=version,
        last_updated=to_time(values.get("last_updated")),
        lease_s=checked("lease_s", _LEASE, _lease_s, default_lease_s, LONGEST_LEASE_S),
        phase=phase,
        plan=plan,
        failover_count=failover_count,
        previous_region=_text(values.get("previous_region")),
        failover_reason=_text(values.get("failover_reason")),
        last_failover_time=from_timestamp(values.get("last_failover_time")),
        changed_by=_text(values.get("changed_by")),
        not_unpaused_set_id=_text(values.get("left_over")),
        stops=stops,
        problems=tuple(problems),
    )


_WHOLE = "a whole number from 0"
_LEASE = f"a number of seconds from {SHORTEST_LEASE_S:g} to {LONGEST_LEASE_S:g}"
_STOPS = "a list of maps with set_id (text), epoch (a whole number from 0) and had_ended (true or false)"
_HIGHEST = 10**15
"""Higher than any real count, and a float is exact up to it."""


def _whole_number(value: Any) -> int | None:
    """Return a whole number from 0, also if a script has stored it as text; None for any other value."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value) if len(value) <= len(str(_HIGHEST)) else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _HIGHEST:
        return None
    return value


def _lease_s(value: Any) -> float | None:
    try:
        lease_s = float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError):
        return None
    # The comparison is False for nan.
    return lease_s if lease_s is not None and SHORTEST_LEASE_S <= lease_s <= LONGEST_LEASE_S else None


def _stops(value: Any) -> tuple[Stop, ...] | None:
    if not isinstance(value, list):
        return None
    stops = []
    for each in value:
        found = each if isinstance(each, Mapping) else {}
        set_id, epoch = _text(found.get("set_id")), _whole_number(found.get("epoch"))
        had_ended = _truth(found.get("had_ended", False))
        if not set_id or epoch is None or had_ended is None:
            return None
        stops.append(Stop(set_id=set_id, epoch=epoch, had_ended=had_ended))
    return tuple(stops)


def _phase(value: Any) -> Phase | None:
    return next((phase for phase in Phase if phase.value == value), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _shown(value: Any) -> str:
    """Return a value for a message, so that a user can distinguish it from similar values; truncated if it is long."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


class _UnusableError(Exception):
    """A field of a plan has a value that cannot be used."""

    def __init__(self, field: str, found: Any, allowed: str) -> None:
        super().__init__(field)
        self.field, self.found, self.allowed = field, _shown(found), allowed


def _stopped(state: DRState) -> dict[str, Any]:
    """Return the attribute that an agent of an older version reads: the last set of runs that are being stopped."""
    return {"stopped": next((stop.set_id for stop in reversed(state.stops) if not stop.had_ended), None)}


def _plan_to_values(plan: Plan) -> dict[str, Any]:
    replaced = plan.replaced
    return {
        "id": plan.id,
        "from": plan.source,
        "to": plan.target,
        "mode": plan.mode,
        "reason": bounded(plan.reason),
        "by": bounded(plan.by),
        "owner": plan.owner,
        "beat": plan.beat,
        "started_at": plan.started_at,
        "set_id": plan.set_id,
        "stop_running": plan.stop_running,
        "starts_awaited": plan.starts_awaited or None,
        "drained": plan.drained,
        "takes_over": plan.is_recovery or None,
        "lease_s": plan.lease_s,
        "hold": plan.hold,
        "hold_s": plan.hold_s if plan.hold is not None or plan.hold_s != DEFAULT_HOLD_S else None,
        "halts": plan.halts or None,
        "quiet": plan.quiet or None,
        "replaced": {"phase": replaced[0], "plan": _plan_to_values(replaced[1])} if replaced is not None else None,
    }


def _plan_from_values(values: Any, field: str = "plan") -> Plan:
    """Return a plan. :raises _UnusableError: one of its fields is missing, or cannot be used."""
    if not isinstance(values, Mapping):
        raise _UnusableError(field, values, "a map")

    def required(name: str, allowed: str, usable: Callable[[Any], T | None]) -> T:
        found = usable(values.get(name))
        if found is None:
            raise _UnusableError(f"{field}.{name}", values.get(name), allowed)
        return found

    def optional(name: str, allowed: str, usable: Callable[[Any], T | None]) -> T | None:
        return None if values.get(name) is None else required(name, allowed, usable)

    def text(name: str) -> str:
        return required(name, "text", _text)

    replaced = values.get("replaced")
    return Plan(
        id=text("id"),
        source=text("from"),
        target=text("to"),
        mode=required("mode", f"one of {', '.join(mode.value for mode in Mode)}", _mode),
        reason=text("reason"),
        by=text("by"),
        owner=text("owner"),
        beat=required("beat", _WHOLE, _whole_number),
        started_at=to_time(text("started_at")),
        set_id=optional("set_id", "text", _text),
        stop_running=optional("stop_running", "true or false", _truth) or False,
        starts_awaited=optional("starts_awaited", "true or false", _truth) or False,
        drained=optional("drained", "true or false", _truth) or False,
        replaced=_replaced_from_values(replaced, f"{field}.replaced") if replaced is not None else None,
        is_recovery=optional("takes_over", "true or false", _truth) or False,
        lease_s=optional("lease_s", _LEASE, _lease_s),
        hold=optional("hold", f"one of {', '.join(stage.value for stage in Stage)}", _stage),
        hold_s=optional("hold_s", f"a number of seconds up to {LONGEST_HOLD_S:g}", _hold_s) or DEFAULT_HOLD_S,
        halts=optional("halts", _WHOLE, _whole_number) or 0,
        quiet=optional("quiet", "true or false", _truth) or False,
    )


def _replaced_from_values(values: Any, field: str) -> tuple[Phase, Plan]:
    phase = _phase(values.get("phase")) if isinstance(values, Mapping) else None
    if phase is None:
        raise _UnusableError(field, values, "a map with phase and plan")
    return phase, _plan_from_values(values.get("plan"), f"{field}.plan")


def _mode(value: Any) -> Mode | None:
    return next((mode for mode in Mode if mode.value == value), None)


def _stage(value: Any) -> Stage | None:
    return next((stage for stage in Stage if stage.value == value), None)


def _hold_s(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value <= LONGEST_HOLD_S else None


def _truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


# The other items. Each is checked separately: a fault is a fault of that item only (aws/dynamodb/contents.py).


_BESIDE_HEARTBEATS = {
    "claim": IDENTITY_CLAIM,
    "claims": IDENTITY_CLAIMS,
    "triggerer": TRIGGERER,
    "triggerers": TRIGGERERS,
}
"""Items of a region whose keys begin like those of its heartbeats."""


def schema_of(key: str) -> ItemSchema | None:
    """Return the schema of the item *key*; None if the provider has no such item."""
    parts = key.split("#")
    if parts[-1] == "generations":
        return None  # the announcements of pages; see state_store.py
    if parts[0] == "AGENT" and len(parts) > 2 and parts[2] in _BESIDE_HEARTBEATS:
        return _BESIDE_HEARTBEATS[parts[2]]
    return ITEM_SCHEMAS.get(parts[0])


def fault_of(item: Item, *, table: str) -> UnreadableItem | None:
    """Return the fault of an item; None if it has its required content, or if its key is unknown."""
    key = key_of(item)
    known = schema_of(key)
    problem = problem_of(from_item(item), known.schema) if known is not None else None
    return None if known is None or problem is None else unreadable(problem, table=table, key=key, advice=known.advice)


def values_of(item: Item, *, table: str) -> dict[str, Any]:
    """Return an item's plain values. :raises UnreadableItemError: it does not have its required content."""
    fault = fault_of(item, table=table)
    if fault is not None:
        raise UnreadableItemError(fault)
    return from_item(item)


# The item of a region.


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnItem:
    """
    The content of a region's own item, ``ENVIRONMENT#region``, for that region.

    :param reconciled: the stored attribute ``reconciled_epoch``, for the condition of the next write.
    :param jobs: None if the list of agents is not a set of texts.
    """

    reconciled: Mapping[str, Any] | None
    reconciled_epoch: int | None
    registered: frozenset[str] | None
    jobs: frozenset[str] | None
    environment: str | None
    environment_region: str
    disputed: tuple[str, ...]
    problems: tuple[str, ...]
    heartbeat_request: str | None


def own_item(item: Item | None, *, region: str, table: str) -> OwnItem:
    """Return the content of a region's own item. A field that cannot be used is a problem, and counts as missing."""
    values = from_item(item or {})
    agents = (item or {}).get("agents", {})
    problems = []

    def complain(field: str, allowed: str, advice: str) -> None:
        problems.append(
            f"{field} of the item ENVIRONMENT#{region} of table {table} is {_shown(values[field])}, allowed is "
            f"{allowed}; {advice}"
        )

    stored = values.get("reconciled_epoch")
    reconciled_epoch = _whole_number(stored)
    if stored is not None and reconciled_epoch is None:
        complain(
            "reconciled_epoch", _WHOLE, f"set it to the reconciled_epoch of the newest item {agent_key(region, 'JOB')}"
        )
    regions = _texts(values.get("regions"))
    if values.get("regions") is not None and not regions:
        complain("regions", "a set of texts", f"the agent of {region} writes it again, and mwaa-dr init does")
    return OwnItem(
        reconciled=(item or {}).get("reconciled_epoch"),
        reconciled_epoch=reconciled_epoch,
        registered=regions or None,
        # DynamoDB's ADD works only on a set.
        jobs=frozenset() if values.get("agents") is None else _texts(values["agents"]) if "SS" in agents else None,
        environment=_text(values.get("environment")),
        environment_region=_text(values.get("aws_region")) or "",
        disputed=tuple(values["disputed"]) if _texts(values.get("disputed")) else (),
        problems=tuple(problems),
        heartbeat_request=_text(values.get("heartbeat_request")),
    )


def _texts(value: Any) -> frozenset[str] | None:
    """Return a set of texts; None for anything else."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return None
    return frozenset(value)


def registration_from_item(item: Item) -> Registration | None:
    """
    Return the registration in an item; None if it has no valid one, for example because only agents wrote the item.
    """
    values = valid(from_item(item), ENVIRONMENT.schema)
    if "environment" not in values:
        return None
    region = key_of(item).partition("#")[2]
    return Registration(
        region=region,
        environment=values["environment"],
        account=values.get("account"),
        aws_region=values.get("aws_region"),
    )


def agent_to_item(status: AgentStatus) -> dict[str, Any]:
    """Return a heartbeat as an item of at most 400 KB. Texts for users are truncated if necessary."""
    values = {
        _STORED_AS.get(name, name): getattr(status, name)
        for name in AgentStatus.__dataclass_fields__
        if name not in _NOT_OF_ITEM
    }
    for name in ("host", "ledger_error", "inventory_error", "settings_problem", "history_error"):
        values[name] = bounded(values[name])
    for name in ("problems", "waiting", "unread", "waits", "repeats", "history"):
        values[name] = _bounded_texts(values[name])
    if status.exempt is not None:
        values["exempt"] = _bounded_texts(status.exempt)
    values["attempt"] = status.attempt if status.life is not None else None
    values["silent"] = [asdict(each) for each in status.silent] or None
    return to_item(agent_key(status.region, status.job), values)


_NOT_OF_ITEM = {"region", "job", "unreadable"}
_STORED_AS = {"final_plan_id": "final", "unclosed_runs": "leftovers"}
"""Fields of a heartbeat whose attribute in the table has another name."""
_FIELD_OF = {stored: name for name, stored in _STORED_AS.items()}
_PERMITTING = (
    "schedulers",
    "adopted_epoch",
    "reconciled_epoch",
    "final",
    "standby_as_of",
    "fence_file_s",
    "gone",
    "life",
    "silent",
    "knows_hold",
)
"""Attributes of a heartbeat that let a reader continue. Those of an unreadable heartbeat do not count."""


def agent_from_item(item: Item, *, table: str) -> AgentStatus:
    """
    Return a heartbeat. Attributes that this version does not know are ignored.

    From an unreadable heartbeat, the attributes that let a reader continue are left out: it acknowledges nothing, and
    lists no scheduler.
    """
    fault = fault_of(item, table=table)
    values = decoded(from_item(item), AGENT.schema)
    if fault is not None:
        values = {name: value for name, value in values.items() if name not in _PERMITTING}
        unknown = {"host": "?", "at": _LONG_AGO, "beat": 0, "provider_version": "?", "airflow_version": "?"}
        values = {**unknown, **values, "version": NO_VERSION, "epoch": NO_VERSION}
    _, region, job = key_of(item).split("#", maxsplit=2)
    fields = {_FIELD_OF.get(name, name): value for name, value in values.items()}
    fields["silent"] = tuple(
        SilentAgent(**{**each, "still_s": float(each["still_s"])}) for each in fields.get("silent", ())
    )
    return AgentStatus(region=region, job=job, unreadable=fault, **fields)


def fence_to_item(load: FenceLoad) -> dict[str, Any]:
    """Return the item that shows that the workers of a region load the fence, with the tasks that it holds."""
    held = load.held
    report = {} if held is None else {"held_since": held.since, "held_at": held.at, "held_why": bounded(held.why)}
    return to_item(FENCE_LOADS.key_of(load), {"at": load.at, **report})


def fence_from_item(item: Item, *, table: str) -> FenceLoad:
    """
    Return when the fence was loaded, with the tasks that it holds; without them if only a part of their report exists.

    :raises UnreadableItemError: the item cannot be read.
    """
    values = decoded(values_of(item, table=table), FENCE.schema)
    held: HeldTasks | None = None
    if values.keys() >= {"held_since", "held_at", "held_why"}:
        held = HeldTasks(since=values["held_since"], at=values["held_at"], why=values["held_why"])
    return FenceLoad(region=key_of(item).removeprefix(FENCE_LOADS.prefix), at=values["at"], held=held)


def record_to_item(record: FailoverRecord) -> dict[str, Any]:
    """Return a record as an item of at most 400 KB. A list that is too long is truncated, and its length is stored."""
    return to_item(
        f"FAILOVER#{record.id}",
        {
            "from": record.source,
            "to": record.target,
            "mode": record.mode,
            "reason": bounded(record.reason),
            "by": bounded(record.by),
            "started_at": record.started_at,
            "finished_at": record.finished_at,
            "outcome": record.outcome,
            "epoch": record.epoch,
            "steps": _steps_to_values(record.steps),
            "not_unpaused": first_texts(record.not_unpaused),
            "not_unpaused_total": len(record.not_unpaused),
            "ended_in_standby": paged(record.ended_in_standby, page_bytes=_ENDED_BYTES)[0],
            "ended_in_standby_total": len(record.ended_in_standby),
        },
    )


def _steps_to_values(steps: Sequence[StepRecord]) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    size = 0
    for step in reversed(steps):
        values = {"name": step.name, "seconds": step.seconds, "detail": bounded(step.detail)}
        size += 50 + len(f"{values['name']}{values['detail']}".encode())
        if size > _STEPS_BYTES:
            break
        kept.append(values)
    return kept[::-1]


def record_from_item(item: Item, *, table: str) -> FailoverRecord:
    """Return a record; from an unreadable item, the fields that can be read."""
    values = decoded(from_item(item), FAILOVER.schema)
    return FailoverRecord(
        id=key_of(item).partition("#")[2],
        source=values.get("from", "?"),
        target=values.get("to", "?"),
        mode=values.get("mode", Mode.AUTO),
        reason=values.get("reason", "?"),
        by=values.get("by", "?"),
        started_at=values.get("started_at", _LONG_AGO),
        finished_at=values.get("finished_at"),
        outcome=FailoverOutcome(values.get("outcome", "?")),
        epoch=values.get("epoch", NO_VERSION),
        steps=tuple(StepRecord(**{**step, "seconds": float(step["seconds"])}) for step in values.get("steps", ())),
        not_unpaused=values.get("not_unpaused", ()),
        ended_in_standby=values.get("ended_in_standby", ()),
        unreadable=fault_of(item, table=table),
    )


def agent_key(region: str, job: str) -> str:
    """Return the key of a scheduler's heartbeat."""
    return f"AGENT#{region}#{job}"


def key_of(item: Item) -> str:
    """Return an item's key."""
    return str(item[KEY]["S"])


def first_texts(texts: tuple[str, ...]) -> list[str]:
    """Return the first texts of a list, of at most 250 KB together."""
    return paged(texts, page_bytes=_LONGEST_LIST_BYTES)[0]


def paged(dag_ids: tuple[str, ...], *, page_bytes: int) -> list[list[str]]:
    """Return ids in pages of at most *page_bytes*. There is at least one page, which may be empty."""
    pages: list[list[str]] = [[]]
    size = 0
    for dag_id in dag_ids:
        # Size of a list element: its bytes and some overhead.
        cost = len(dag_id.encode()) + 4
        if pages[-1] and size + cost > page_bytes:
            pages.append([])
            size = 0
        pages[-1].append(dag_id)
        size += cost
    return pages
