"""
The required content of each kind of item in both tables.

A schema names each field that a reader uses, and the values that the field may hold. Other fields are ignored: a newer
version may write them. :func:`problem_of` checks one item and returns its first wrong field. A damaged item is
therefore a problem of that item only.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from airflow_provider_mwaa_dr.core.ledger import RunStatus
from airflow_provider_mwaa_dr.core.state import Mode
from airflow_provider_mwaa_dr.exceptions import UnreadableItem

_SHOWN = 80
"""Maximum length of a value in a message, in characters."""
_LONGEST_NUMBER = 2**63
MOST_BYTES = 8_000_000
"""Maximum size of an unpacked page. The provider writes at most a fifth of it."""
MOST_INVENTORY_BYTES = 32_000_000
"""Maximum size of an unpacked inventory, over all its pages."""
MOST_PAGES = 10_000
"""Maximum pages of one item. A manifest that names more is damaged: the provider never writes so many."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A wrong value: the path to the wrong part, the value found there, and the allowed values."""

    path: str
    found: str
    allowed: str


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    The values that one field may hold.

    :param decode: returns the value of the dataclass's field, from a stored value that meets the rule.
    """

    allowed: str
    find: Callable[[object], Problem | None]
    is_required: bool = True
    decode: Callable[[Any], Any] = _unchanged

    def is_met_by(self, value: object) -> bool:
        """Whether the field may hold *value*."""
        return self.find(value) is None


Schema = Mapping[str, Rule]


def problem_of(values: object, schema: Schema) -> Problem | None:
    """Return the first field of *values* that breaks its rule; None when none does. Never raises."""
    if not isinstance(values, Mapping):
        return Problem("", shown(values), "a map of fields")
    for name, rule in schema.items():
        # A missing field and a field with NULL are the same.
        if values.get(name) is None:
            if rule.is_required:
                return Problem(name, "nothing", rule.allowed)
            continue
        problem = rule.find(values[name])
        if problem is not None:
            return replace(problem, path=name + problem.path)
    return None


def valid(values: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Return the fields of *schema* that *values* has and that meet their rule."""
    there = {name: values[name] for name in schema if values.get(name) is not None}
    return {name: value for name, value in there.items() if schema[name].is_met_by(value)}


def decoded(values: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Return the same, with times, enums and tuples in place of the stored texts and lists."""
    return {name: schema[name].decode(value) for name, value in valid(values, schema).items()}


def unreadable(problem: Problem, *, table: str, key: str, advice: str) -> UnreadableItem:
    """Return *problem* as the fault of the item *key*."""
    return UnreadableItem(
        table=table, key=key, field=problem.path, found=problem.found, allowed=problem.allowed, advice=advice
    )


def shown(value: object) -> str:
    """Return a value for a message: shortened, with control characters escaped."""
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    if isinstance(value, str) and len(value) > _SHOWN:
        return f"{value[:_SHOWN]!r}... ({len(value)} characters)"
    if isinstance(value, int) and abs(value) > 10 * _LONGEST_NUMBER:
        return "a number of more than 19 digits"
    text = repr(value)
    return text if len(text) <= 4 * _SHOWN else f"{text[:_SHOWN]}..."


def unpacked(packed: bytes, *, most: int = MOST_BYTES) -> bytes:
    """
    Return the content of a gzip or zlib stream. Uses memory for at most *most* bytes of content.

    :raises ValueError: the stream is damaged or truncated, has trailing data, or contains more than *most* bytes.
    """
    # 32: detect gzip or zlib from the header.
    stream = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
    try:
        data = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise ValueError(f"{len(packed)} bytes that cannot be unpacked ({error})") from error
    if len(data) > most:
        raise ValueError(f"{len(packed)} bytes that unpack to more than {most}")
    if not stream.eof or stream.unused_data:
        raise ValueError(f"{len(packed)} bytes that cannot be unpacked (truncated, or followed by other data)")
    return data


# Rules.


def _rule(allowed: str, is_allowed: Callable[[Any], bool], decode: Callable[[Any], Any] = _unchanged) -> Rule:
    def find(value: object) -> Problem | None:
        return None if is_allowed(value) else Problem("", shown(value), allowed)

    return Rule(allowed=allowed, find=find, decode=decode)


def optional(rule: Rule) -> Rule:
    """Return *rule* for a field that may be missing."""
    return replace(rule, is_required=False)


def whole(*, least: int = 0, most: int = _LONGEST_NUMBER) -> Rule:
    """Return the rule for a whole number."""
    upper = "" if most == _LONGEST_NUMBER else f" to {most}"
    return _rule(
        f"a whole number from {least}{upper}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
    )


def one_of(kind: type[Enum]) -> Rule:
    """Return the rule for a value of the enum *kind*."""
    values = [str(member.value) for member in kind]
    return _rule(f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values, kind)


def each(rule: Rule) -> Rule:
    """Return the rule for a list whose elements meet *rule*."""
    allowed = f"a list, each element {rule.allowed}"

    def find(value: object) -> Problem | None:
        if not isinstance(value, (list, tuple)):
            return Problem("", shown(value), allowed)
        for position, element in enumerate(value):
            problem = rule.find(element)
            if problem is not None:
                return replace(problem, path=f"[{position}]{problem.path}")
        return None

    return Rule(allowed=allowed, find=find, decode=lambda elements: tuple(map(rule.decode, elements)))


def record(schema: Schema) -> Rule:
    """Return the rule for a map that meets *schema*."""

    def find(value: object) -> Problem | None:
        problem = problem_of(value, schema)
        return problem and replace(problem, path=f".{problem.path}" if problem.path else "")

    return Rule(allowed=f"a map with {', '.join(schema)}", find=find, decode=lambda values: decoded(values, schema))


def by_name(rule: Rule) -> Rule:
    """Return the rule for a map from names to values that meet *rule*."""
    allowed = f"a map from names, each value {rule.allowed}"

    def find(value: object) -> Problem | None:
        if not isinstance(value, Mapping):
            return Problem("", shown(value), allowed)
        for name, of in value.items():
            problem = rule.find(of)
            if problem is not None:
                return replace(problem, path=f"[{shown(name)}]{problem.path}")
        return None

    return Rule(allowed=allowed, find=find)


def texts_by_name() -> Rule:
    """Return the rule for a map from names to texts."""
    return by_name(TEXT)


def _is_dag_facts(value: object) -> bool:
    return isinstance(value, list) and len(value) >= 2 and all(isinstance(each, str) for each in value)


def _is_schedule(value: object) -> bool:
    return isinstance(value, list) and len(value) % 2 == 1 and all(isinstance(each, str) for each in value)


def _is_time(value: object) -> bool:
    return isinstance(value, str) and to_utc(value) is not None


def to_utc(text: str) -> datetime | None:
    """Return an ISO-8601 text as an aware UTC time; a text without an offset is UTC. None: the text is no time."""
    try:
        # fromisoformat of Python 3.10 does not accept Z.
        at = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def _is_json(value: object) -> bool:
    try:
        json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return False
    return isinstance(value, str)


def _is_base64(value: object) -> bool:
    try:
        base64.b64decode(value, validate=True) if isinstance(value, str) else None
    except ValueError:
        return False
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_task(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return False
    task_id, index, state = value
    return (
        isinstance(task_id, str)
        and isinstance(index, int)
        and not isinstance(index, bool)
        and (state is None or isinstance(state, str))
    )


def _is_history_task(value: object) -> bool:
    """Whether *value* has the fields of :class:`.history.pages.HistoryTask`, in their order. More may follow."""
    if not isinstance(value, list) or len(value) < 11:
        return False
    times, texts = value[5:8], (value[2], *value[8:10])
    return (
        _is_task(value[:3])
        and all(isinstance(count, int) and not isinstance(count, bool) for count in value[3:5])
        and all(at is None or _is_time(at) for at in times)
        and all(text is None or isinstance(text, str) for text in texts)
        and isinstance(value[10], str)
    )


def _is_waiting(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 3:
        return False
    return isinstance(value[0], int) and all(isinstance(text, str) for text in value[1:])


def _is_deadline(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 3:
        return False
    alert, at, is_missed = value
    return isinstance(alert, str) and _is_time(at) and isinstance(is_missed, bool)


def _is_child(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 4:
        return False
    dag_id, run_id, *flags = value
    return (
        isinstance(dag_id, str)
        and (run_id is None or isinstance(run_id, str))
        and all(isinstance(flag, bool) for flag in flags)
    )


TEXT = _rule("a text", lambda value: isinstance(value, str))
NAME = _rule("a text that is not empty", lambda value: isinstance(value, str) and bool(value.strip()))
NAMES = each(NAME)
TEXTS = each(TEXT)
COUNT = whole()
NUMBER = _rule("a finite number", _is_number)
FLAG = _rule("true or false", lambda value: isinstance(value, bool))
TIME = _rule("a time such as 2026-02-26T10:30:00Z", _is_time, to_utc)
BINARY = _rule("binary data", lambda value: isinstance(value, (bytes, bytearray)))
PAGES = whole(most=MOST_PAGES)
JSON = _rule("JSON", _is_json)
BASE64 = _rule("a text in base64", _is_base64, base64.b64decode)
TASK = _rule("a list of task id, map index and state", _is_task)
HISTORY_TASK = _rule(
    "a list of task id, map index, state, tries, most tries, three times, operator, pool and host", _is_history_task
)
WAITING = _rule("a list of page, DAG id and run id", _is_waiting)
EVENT: Schema = {
    "uri": TEXT,
    "name": optional(TEXT),
    "group": optional(TEXT),
    "at": TIME,
    "extra": JSON,
    "source_dag_id": optional(TEXT),
    "source_task_id": optional(TEXT),
    "source_run_id": optional(TEXT),
    "source_map_index": optional(whole(least=-1)),
    "partition_key": optional(TEXT),
    "aliases": optional(TEXTS),
}
CHILD = _rule("a list of DAG id, run id or nothing, and two times true or false", _is_child)
DEADLINE = _rule("a list of alert, time, and true or false", _is_deadline)


# The state table. The field names are the attribute names of the items.


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSchema:
    """
    The schema of one kind of item.

    :param schema: of the item, or of its manifest if it has pages.
    :param advice: what to do if the item cannot be read.
    """

    schema: Schema
    advice: str


_MANIFEST: Schema = {"generation": NAME, "pages": PAGES}
_SET: Schema = {"id": NAME, "region": NAME, "recorded_at": TIME, "dags": optional(COUNT), **_MANIFEST}
_SILENT: Schema = {"region": NAME, "job": NAME, "number": NAME, "still_s": NUMBER}
_STEP: Schema = {"name": TEXT, "seconds": NUMBER, "detail": TEXT}

AGENT = ItemSchema(
    schema={
        "host": TEXT,
        "at": TIME,
        "beat": COUNT,
        "version": COUNT,
        "epoch": COUNT,
        "provider_version": TEXT,
        "airflow_version": TEXT,
        "protocol": optional(COUNT),
        "adopted_epoch": optional(COUNT),
        "reconciled_epoch": optional(COUNT),
        "on_unreachable": optional(TEXT),
        "eventual": optional(TEXT),
        "schedulers": optional(NAMES),
        "fence_file_s": optional(NUMBER),
        "gone": optional(FLAG),
        "fence_ok": optional(FLAG),
        "ledger_lag_s": optional(NUMBER),
        "leftovers": optional(COUNT),
        "held": optional(COUNT),
        "skipped": optional(COUNT),
        "closed": optional(COUNT),
        "problems": optional(TEXTS),
        "ledger_error": optional(TEXT),
        "has_ledger": optional(FLAG),
        "final": optional(TEXT),
        "waiting": optional(TEXTS),
        "unread": optional(TEXTS),
        "exempt": optional(TEXTS),
        "environment": optional(TEXT),
        "aws_region": optional(TEXT),
        "held_because": optional(TEXT),
        "inventory_error": optional(TEXT),
        "history_error": optional(TEXT),
        "history": optional(TEXTS),
        "standby_as_of": optional(TIME),
        "ledger_wait_s": optional(NUMBER),
        "awaited": optional(COUNT),
        "waits": optional(TEXTS),
        "repeats": optional(TEXTS),
        "idle": optional(COUNT),
        "lists_dags": optional(FLAG),
        "restored_version": optional(COUNT),
        "not_restored": optional(COUNT),
        "settings_problem": optional(TEXT),
        "watchers": optional(COUNT),
        "triggerers": optional(NAMES),
        "unguarded": optional(NAMES),
        "life": optional(NAME),
        "attempt": optional(COUNT),
        "lease_s": optional(NUMBER),
        "silent": optional(each(record(_SILENT))),
        "knows_hold": optional(FLAG),
    },
    advice="Its scheduler writes it again within seconds. If that scheduler no longer runs, the region's agent deletes "
    "it after ten minutes, if the region has an agent that runs. You may delete it before.",
)
ENVIRONMENT = ItemSchema(
    schema={
        "environment": optional(NAME),
        "account": optional(TEXT),
        "aws_region": optional(NAME),
        "agents": optional(NAMES),
        "reconciled_epoch": optional(COUNT),
        "disputed": optional(TEXTS),
        "regions": optional(NAMES),
        "heartbeat_request": optional(TEXT),
    },
    advice="Correct the field, or run mwaa-dr init, which writes environment, account and aws_region; the region's "
    "agents write the rest.",
)
FENCE = ItemSchema(
    schema={"at": TIME, "held_since": optional(TIME), "held_at": optional(TIME), "held_why": optional(TEXT)},
    advice="A worker of the region writes it again within an hour. You may delete it before.",
)
SNAPSHOT = ItemSchema(
    schema=_SET,
    advice="The agent of the region writes it again within a minute while that region is active. If that region is "
    "lost, unpause the DAGs that should run in the other region.",
)
PAUSED = ItemSchema(
    schema=_SET,
    advice="Correct the item, or unpause the DAGs that should run in the active region.",
)
INVENTORY = ItemSchema(
    schema={"taken_at": TIME, "public_key": NAME, **_MANIFEST},
    advice="The agent of the region writes it again. You may delete it.",
)
REPORT = ItemSchema(
    schema={"taken_at": TIME, **_MANIFEST},
    advice="mwaa-dr report reads the ledger in its place, while that has the entries. You may delete it.",
)
UNPUBLISHED = ItemSchema(
    schema={
        "id": NAME,
        "epoch": COUNT,
        "begun_epoch": COUNT,
        "at": TIME,
        "why": TEXT,
        "first_id": COUNT,
        "runs": optional(TEXTS),
        "unread": optional(TEXTS),
        "acknowledged_at": optional(TIME),
    },
    advice="It lists runs that a region could not take over. Compare the runs of both regions, then delete it.",
)
FAILOVER = ItemSchema(
    schema={
        "from": NAME,
        "to": NAME,
        "mode": one_of(Mode),
        "reason": TEXT,
        "by": TEXT,
        "started_at": TIME,
        "finished_at": optional(TIME),
        "outcome": NAME,
        "epoch": COUNT,
        "steps": optional(each(record(_STEP))),
        "not_unpaused": optional(TEXTS),
        "ended_in_standby": optional(TEXTS),
    },
    advice="It only records a failover. Read it with the version of mwaa-dr that wrote it, or correct or delete it.",
)
NOTIFICATION = ItemSchema(
    schema={
        "plan_id": NAME,
        "event": NAME,
        "channel": NAME,
        "owner": NAME,
        "attempt": COUNT,
        "at": TIME,
        "sent_at": optional(TIME),
        "error": optional(TEXT),
        "progress": COUNT,
    },
    advice="A process writes it again, and sends the notification again. You may delete it.",
)
IDENTITY_CLAIM = ItemSchema(
    schema={
        "region": NAME,
        "environment": TEXT,
        "aws_region": TEXT,
        "job": NAME,
        "at": TIME,
        "beat": COUNT,
        "problem": TEXT,
        "site": optional(NAME),
    },
    advice="The agent of the environment that claims the region writes it again within seconds. You may delete it.",
)
SETTINGS = ItemSchema(
    schema={
        "target": NAME,
        "epoch": COUNT,
        "number": COUNT,
        "sealed_at": TIME,
        "key_id": NAME,
        "ephemeral_key": NAME,
        **_MANIFEST,
    },
    advice="The agent of the active region writes it again. You may delete it.",
)
IDENTITY_CLAIMS = ItemSchema(
    schema={"claims": optional(NAMES)},
    advice="Delete it: agents of environments that claim the region write it again within seconds.",
)
TRIGGERER = ItemSchema(
    schema={
        "region": NAME,
        "job": NAME,
        "at": TIME,
        "version": COUNT,
        "watchers": COUNT,
        "provider_version": TEXT,
    },
    advice="Its triggerer writes it again within an hour. You may delete it before.",
)
TRIGGERERS = ItemSchema(
    schema={"triggerers": optional(NAMES)},
    advice="Delete it, and restart the triggerers of the region, which write it again.",
)
ITEM_SCHEMAS = {
    "AGENT": AGENT,
    "ENVIRONMENT": ENVIRONMENT,
    "FENCE": FENCE,
    "SNAPSHOT": SNAPSHOT,
    "PAUSED": PAUSED,
    "INVENTORY": INVENTORY,
    "SETTINGS": SETTINGS,
    "UNPUBLISHED": UNPUBLISHED,
    "FAILOVER": FAILOVER,
    "REPORT": REPORT,
    "NOTIFICATION": NOTIFICATION,
}
"""
Schema by prefix of the item's key. The state item has none; see
:mod:`~airflow_provider_mwaa_dr.aws.dynamodb.items`.
"""

SET_PAGE: Schema = {"dag_ids": TEXT}
BINARY_PAGE: Schema = {"body": BINARY}
INVENTORY_CONTENTS: Schema = {
    "options": optional(texts_by_name()),
    "packages": optional(texts_by_name()),
    "dags": optional(by_name(_rule("a list of at least two texts", _is_dag_facts))),
    "import_errors": optional(TEXTS),
    "names": optional(by_name(TEXTS)),
    "fingerprints": optional(by_name(record({"key_id": NAME, "values": by_name(texts_by_name())}))),
    "schedules": optional(by_name(_rule("a timetable, and two times for each run", _is_schedule))),
    "files": optional(texts_by_name()),
    "upgrade": optional(
        record(
            {
                "marks_from": TIME,
                "error_texts": optional(texts_by_name()),
                "changed_options": optional(texts_by_name()),
                "unknown_options": optional(TEXTS),
                "teams": optional(TEXTS),
            }
        )
    ),
    "settings": optional(
        record(
            {
                "modes": optional(texts_by_name()),
                "kept": optional(by_name(TEXTS)),
                "uncarried": optional(by_name(TEXTS)),
                "elsewhere": optional(TEXTS),
                "problem": optional(TEXT),
            }
        )
    ),
}
SETTINGS_CONTENTS: Schema = {"values": by_name(by_name(BASE64))}


# The runs table.

RUN: Schema = {
    "dag_id": NAME,
    "run_id": NAME,
    "run_type": NAME,
    "status": one_of(RunStatus),
    "epoch": COUNT,
    "logical_date": optional(TIME),
    "data_interval_start": optional(TIME),
    "data_interval_end": optional(TIME),
    "run_after": optional(TIME),
    "partition_key": optional(TEXT),
    "partition_date": optional(TIME),
    "conf": optional(JSON),
    "conf_lost": optional(TEXT),
    "taken_at": optional(TIME),
    "kept": optional(FLAG),
    "tasks": optional(each(TASK)),
    "holds_date": optional(FLAG),
    "doubt": optional(TEXT),
    "triggered_by": optional(TEXT),
    "triggering_user": optional(TEXT),
    "deadlines": optional(each(DEADLINE)),
    "events": optional(each(record(EVENT))),
    "events_lost": optional(TEXT),
    "children": optional(each(CHILD)),
    "is_replaced": optional(FLAG),
    "started_at": optional(TIME),
    "ended_at": optional(TIME),
}
ENTRY: Schema = {
    "number": whole(least=1),
    "at": TIME,
    "epoch": COUNT,
    "first_id": COUNT,
    "newest_id": COUNT,
    "runs": optional(each(record(RUN))),
    "dag_ids": optional(NAMES),
    "final": optional(TEXT),
    "settled": optional(COUNT),
    "stops": optional(TEXT),
    "life": optional(TEXT),
}
CHECKPOINT: Schema = {
    "generation": NAME,
    "pages": PAGES,
    "number": COUNT,
    "first_id": COUNT,
    "newest_id": COUNT,
    "epoch": optional(COUNT),
    "final": optional(TEXT),
    "settled": optional(COUNT),
    "stops": optional(TEXT),
    "life": optional(TEXT),
    "at": optional(TIME),
}
HISTORY_PAGE: Schema = {
    "number": whole(least=1),
    "at": TIME,
    "epoch": COUNT,
    "progress": optional(record({"swept_id": COUNT, "sweep_end": COUNT, "live_at": TIME})),
}
HISTORY_LINE: Schema = {
    "run": record({"dag_id": NAME, "run_id": NAME}),
    "note": optional(TEXT),
    "tasks": optional(each(HISTORY_TASK)),
    "part": optional(COUNT),
}
HISTORY_CURSOR: Schema = {"number": COUNT, "waiting": each(WAITING), "imported": COUNT, "kept": TEXTS}
