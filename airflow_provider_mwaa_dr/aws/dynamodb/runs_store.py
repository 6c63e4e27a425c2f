"""
The runs table in DynamoDB: the ledger of every region.

Its key is ``pk`` (S) and ``sk`` (S). ``LOG#region`` has the entries by number; they expire. ``PICTURE#region`` has the
checkpoint, a manifest and the pages that it names; it does not expire.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.dynamodb import items
from airflow_provider_mwaa_dr.aws.dynamodb.contents import (
    CHECKPOINT,
    ENTRY,
    EVENT,
    NAME,
    RUN,
    Problem,
    Schema,
    each,
    optional,
    problem_of,
    record,
    unpacked,
    unreadable,
    valid,
)
from airflow_provider_mwaa_dr.aws.dynamodb.paged_item import AnnouncementItems, PagedContent, PagedItem, checkpoint_keys
from airflow_provider_mwaa_dr.aws.dynamodb.replicas import Replicas
from airflow_provider_mwaa_dr.aws.session import DYNAMODB_TIMEOUT_S, brief
from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ledger import (
    LOG_DAYS,
    CheckpointInfo,
    ChildRun,
    Head,
    LedgerRun,
    LogEntry,
    RegionLedger,
    RunDeadline,
    RunEvent,
    RunStatus,
)
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.exceptions import (
    IncompleteItemError,
    StaleLedgerError,
    UnreadableCheckpointError,
)

if TYPE_CHECKING:
    import boto3

log = get_logger(__name__)

PAGE_BYTES = 300_000
"""Maximum size of the JSON of one page before compression; an item may have 400 KB."""
BODY_BYTES = 350_000
"""Maximum size of a compressed page in one item. The data of one DAG may be larger; it continues in the next item."""
_DIGITS = 15
_LINES = "packed lines of JSON"
_LOG_ADVICE = (
    "Only the data of this entry is unknown. The region's agent saves a new checkpoint (PICTURE#) within minutes while "
    "it runs, and readers continue from that checkpoint."
)
_CHECKPOINT_ADVICE = (
    "The agent of the region saves a new checkpoint. If no agent runs, or if it reports that it cannot save one, "
    "delete the item: the region's ledger then begins at its log."
)
LOG_PAGE = 200
"""Maximum number of entries in the answer to one query."""


class DynamoDBRunsStore:
    """
    The :class:`~airflow_provider_mwaa_dr.core.ports.RunsStore` in a DynamoDB table with key ``pk``, ``sk``.

    :param replicas: regions of the table's replicas, nearest first.
    :param own_region: the region whose part is written to, and read from, only the replica in that region; None: any
        replica can be used for every part.
    :param is_eventual: whether a replica may lack what was written to another one.
    :param session: a boto3 session with credentials; None: boto3 searches for credentials itself.
    :param timeout_s: timeout of one attempt at one replica.
    """

    def __init__(
        self,
        table: str,
        replicas: Sequence[str],
        *,
        clock: Clock | None = None,
        session: boto3.session.Session | None = None,
        timeout_s: float = DYNAMODB_TIMEOUT_S,
        own_region: str | None = None,
        is_eventual: bool = False,
    ) -> None:
        self.table = table
        self._is_eventual = is_eventual
        self._clock = clock or SystemClock()

        def copies(regions: Sequence[str]) -> Replicas:
            return Replicas(
                table,
                regions,
                clock=self._clock,
                session=session,
                timeout_s=timeout_s,
                rights="GetItem, PutItem, DeleteItem and Query",
                key="pk (S), sk (S)",
                setting="[dr] runs_table",
            )

        self._all = copies(replicas)
        self._own = {own_region: copies((own_region,))} if own_region is not None else {}

    def append(self, region: str, entry: LogEntry) -> None:
        """Write the next entry. :raises StaleLedgerError: another entry has that number."""
        item = entry_to_item(region, entry)

        is_there = self._copies(region).put_if(
            lambda client: client.put_item(
                TableName=self.table,
                Item=item,
                ConditionExpression="attribute_not_exists(pk)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            ),
            f"write the ledger of {region}",
            # The answer to an earlier attempt may have been lost.
            is_mine=lambda found: bool(found.get("body") == item["body"]),
        )
        if not is_there:
            raise StaleLedgerError(
                f"Entry {entry.number} of the ledger of {region} exists already, with other content.",
                advice="Another agent of the region also writes the ledger. One of the two will stop.",
            )

    def log(self, region: str, *, after: int) -> Sequence[LogEntry]:
        """Return the entries above *after*, in order; at most the first few hundred."""
        above = number_key(after)
        while True:
            query = partial(self._query, region=region, above=above)
            answer = self._copies(region).ask(query, f"read the ledger of {region}")
            found = answer.get("Items", ())
            # An item whose key is not a number is not an entry, and is ignored.
            entries = [entry_from_item(item, table=self.table) for item in found if is_number_key(item["sk"].get("S"))]
            if entries or not answer.get("LastEvaluatedKey"):
                return entries
            above = str(found[-1]["sk"]["S"]) if found else str(answer["LastEvaluatedKey"]["sk"]["S"])

    def _query(self, client: Any, *, region: str, above: str) -> dict[str, Any]:
        answer: dict[str, Any] = client.query(
            TableName=self.table,
            KeyConditionExpression="pk = :pk AND sk > :after",
            ExpressionAttributeValues={":pk": {"S": f"LOG#{region}"}, ":after": {"S": above}},
            ConsistentRead=True,
            Limit=LOG_PAGE,
        )
        return answer

    def save_checkpoint(
        self, region: str, checkpoint: RegionLedger, *, begins_after: RegionLedger | None = None
    ) -> bool:
        """
        Replace the checkpoint with a new generation of pages and a new manifest.

        Writes nothing if the stored checkpoint is later, or if other agents replace it during each attempt.
        """

        def make(before: items.Item | None) -> PagedContent | None:
            return _checkpoint_content(checkpoint) if _may_replace(before, checkpoint, begins_after) else None

        return self._paged(region).replace(make, f"save the checkpoint of {region}")

    def checkpoint_info(self, region: str) -> CheckpointInfo | None:
        """Return life and number of the stored checkpoint; None if there is none, or if it cannot be read."""
        manifest = valid(items.from_item(self._paged(region).manifest() or {}), CHECKPOINT)
        return CheckpointInfo(life=manifest.get("life"), number=manifest["number"]) if "number" in manifest else None

    def checkpoint(self, region: str) -> RegionLedger:
        """Return the last checkpoint; an empty ledger if there is none yet."""
        found = self._paged(region).read(self._checkpoint_values)
        if found is None:
            return RegionLedger()
        if found.problem is None:
            return checkpoint_from_items(found.manifest, found.pages, table=self.table)
        if not self._is_eventual or region in self._own:
            raise _unreadable_checkpoint(found.manifest, found.problem, table=self.table, number=found.values["number"])
        advice = "A stale replica receives them within seconds. If it does not: " + _CHECKPOINT_ADVICE
        raise IncompleteItemError(
            unreadable(found.problem, table=self.table, key=name_of(found.manifest), advice=advice)
        )

    def _checkpoint_values(self, manifest: items.Item) -> dict[str, Any]:
        values = items.from_item(manifest)
        problem = problem_of(values, CHECKPOINT)
        if problem is not None:
            number = valid(values, CHECKPOINT).get("number")
            raise _unreadable_checkpoint(manifest, problem, table=self.table, number=number)
        return values

    def _paged(self, region: str) -> PagedItem:
        pk, name, replicas = _checkpoint_pk(region), f"the checkpoint of {region}", self._copies(region)
        return PagedItem(
            name,
            table=self.table,
            replicas=replicas,
            keys=checkpoint_keys(pk),
            announcements=AnnouncementItems(pk, table=self.table, replicas=replicas, name=name),
            clock=self._clock,
        )

    def _copies(self, region: str) -> Replicas:
        """Return the replicas that are used for *region*'s part."""
        return self._own.get(region, self._all)


def entry_to_item(region: str, entry: LogEntry) -> dict[str, Any]:
    """Return an entry of *region*'s log as an item."""
    return {
        **item_key(f"LOG#{region}", number_key(entry.number)),
        "epoch": {"N": str(entry.epoch)},
        "at": {"S": items.to_timestamp(entry.at)},
        "body": {"B": _pack(_entry_to_json(entry))},
        "expires_at": {"N": str(int(entry.at.timestamp()) + LOG_DAYS * 86_400)},
    }


def entry_from_item(item: items.Item, *, table: str) -> LogEntry:
    """Return an entry; if it cannot be read, an unreadable entry with its number."""
    number = int(item["sk"]["S"])
    lines = unpack_lines(item.get("body", {}).get("B"))
    values = lines[0] if isinstance(lines, list) and len(lines) == 1 else None
    if isinstance(lines, Problem):
        problem: Problem | None = lines
    elif values is None:
        problem = Problem("body", f"{len(lines)} lines", "one line of JSON")
    elif (problem := problem_of(values, _ENTRY)) is None and values["number"] != number:
        problem = Problem("number", str(values["number"]), f"{number}, as in its key")
    if problem is None and values is not None:
        return _entry_from_json(values)
    assert problem is not None  # noqa: S101  (one of the branches above)
    return LogEntry.unreadable_one(number, unreadable(problem, table=table, key=name_of(item), advice=_LOG_ADVICE))


def checkpoint_to_items(region: str, checkpoint: RegionLedger) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a checkpoint's pages, with keys that no other write uses, and its manifest."""
    return checkpoint_keys(_checkpoint_pk(region)).to_items(_checkpoint_content(checkpoint))


def _checkpoint_pk(region: str) -> str:
    return f"PICTURE#{region}"


def _checkpoint_content(checkpoint: RegionLedger) -> PagedContent:
    pages: list[dict[str, Any]] = []
    for body in _pages(checkpoint):
        for position, part in enumerate(batched(body, BODY_BYTES)):
            continues = {"continues": {"BOOL": True}} if position else {}
            pages.append({"body": {"B": part}, **continues})
    values = {
        "number": checkpoint.number,
        "first_id": checkpoint.first_id,
        "newest_id": checkpoint.newest_id,
        "epoch": checkpoint.epoch,
        "final": checkpoint.final_plan_id,
        "settled": checkpoint.complete_before,
        "stops": checkpoint.stops,
        "life": checkpoint.life,
        "at": checkpoint.at,
    }
    return PagedContent(manifest=items.to_attributes(values), pages=pages)


def _may_replace(manifest: items.Item | None, checkpoint: RegionLedger, begins_after: RegionLedger | None) -> bool:
    """Whether *checkpoint* may replace the one of *manifest*. An unreadable one may always be replaced."""
    there = valid(items.from_item(manifest or {}), CHECKPOINT)
    lives = {None, checkpoint.life, begins_after.life if begins_after is not None else checkpoint.life}
    return "number" not in there or (there.get("life") in lives and there["number"] <= checkpoint.number)


def item_key(pk: str, sk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def name_of(item: items.Item) -> str:
    return f"{item['pk']['S']} {item['sk']['S']}"


def number_key(number: int) -> str:
    return f"{number:0{_DIGITS}}"


def is_number_key(sk: object) -> bool:
    return isinstance(sk, str) and len(sk) == _DIGITS and sk.isascii() and sk.isdigit()


def unpack_lines(body: object) -> list[Any] | Problem:
    """Return the JSON values of an item's body, one for each line, or the problem of the body."""
    if not isinstance(body, (bytes, bytearray)):
        return Problem("body", "nothing" if body is None else "no binary data", _LINES)
    try:
        return [json.loads(line) for line in unpacked(bytes(body)).decode().splitlines()]
    except (ValueError, RecursionError) as error:
        return Problem("body", brief(error), _LINES)


def _pages(checkpoint: RegionLedger) -> Iterable[bytes]:
    """Yield the checkpoint's runs and heads in compressed pages that fit into one item each."""
    lines = (
        *(json.dumps({"run": run_to_json(run)}) for run in checkpoint.runs.values()),
        *(json.dumps({"head": _head_to_json(head)}) for head in checkpoint.heads.values()),
    )
    page: list[str] = []
    size = 0
    for line in lines:
        if page and size + len(line) > PAGE_BYTES:
            yield pack_lines(page)
            page, size = [], 0
        page.append(line)
        size += len(line) + 1
    if page:
        yield pack_lines(page)


def pack_lines(lines: Sequence[str]) -> bytes:
    return gzip.compress("\n".join(lines).encode(), mtime=0, compresslevel=4)


def checkpoint_from_items(manifest: items.Item, pages: Iterable[items.Item], *, table: str) -> RegionLedger:
    """
    Return the checkpoint of a manifest and all its pages, which must be in order.

    :raises UnreadableCheckpointError: a page cannot be read.
    """
    values = items.from_item(manifest)
    checkpoint = RegionLedger(
        number=values["number"],
        first_id=values["first_id"],
        newest_id=values["newest_id"],
        epoch=values.get("epoch"),
        final_plan_id=values.get("final"),
        complete_before=values.get("settled"),
        stops=values.get("stops"),
        life=values.get("life"),
        at=items.from_timestamp(values.get("at")),
    )
    bodies: list[tuple[items.Item, bytearray]] = []
    for page in pages:
        body = page.get("body", {}).get("B")
        if not isinstance(body, (bytes, bytearray)):
            problem = Problem("body", "nothing" if "body" not in page else "no binary data", _LINES)
            raise _unreadable_checkpoint(page, problem, table=table, number=checkpoint.number)
        if bodies and "continues" in page:
            bodies[-1][1].extend(body)
        else:
            bodies.append((page, bytearray(body)))
    for page, body in bodies:
        if (found := _add_lines(checkpoint, bytes(body))) is not None:
            raise _unreadable_checkpoint(page, found, table=table, number=checkpoint.number)
    return checkpoint


def _unreadable_checkpoint(
    item: items.Item, problem: Problem, *, table: str, number: int | None
) -> UnreadableCheckpointError:
    fault = unreadable(problem, table=table, key=name_of(item), advice=_CHECKPOINT_ADVICE)
    return UnreadableCheckpointError(fault, number=number)


def _add_lines(checkpoint: RegionLedger, body: bytes) -> Problem | None:
    """Add a page's runs and heads to *checkpoint*; return the page's problem if it has one."""
    lines = unpack_lines(body)
    if isinstance(lines, Problem):
        return lines
    for line in lines:
        problem = problem_of(line, _LINE)
        if problem is not None:
            return problem
        # Other lines, of a newer version, are ignored.
        if line.get("run") is not None:
            run = run_from_json(line["run"])
            checkpoint.runs[run.key] = run
        if line.get("head") is not None:
            head = _head_from_json(line["head"])
            checkpoint.heads[head.dag_id] = head
    return None


def _pack(values: Mapping[str, Any]) -> bytes:
    return pack_lines([json.dumps(values)])


# JSON: missing values are left out; times are ISO-8601 in UTC.


def _entry_to_json(entry: LogEntry) -> dict[str, Any]:
    return _without_nothing(
        {
            "number": entry.number,
            "at": items.to_timestamp(entry.at),
            "epoch": entry.epoch,
            "first_id": entry.first_id,
            "newest_id": entry.newest_id,
            "runs": [run_to_json(run) for run in entry.runs],
            "dag_ids": list(entry.dag_ids),
            "final": entry.final_plan_id,
            "settled": entry.complete_before,
            "stops": entry.stops,
            "life": entry.life,
        }
    )


def _entry_from_json(values: Mapping[str, Any]) -> LogEntry:
    return LogEntry(
        number=values["number"],
        at=items.to_time(values["at"]),
        epoch=values["epoch"],
        first_id=values["first_id"],
        newest_id=values["newest_id"],
        runs=tuple(map(run_from_json, values.get("runs") or ())),
        dag_ids=tuple(values.get("dag_ids") or ()),
        final_plan_id=values.get("final"),
        complete_before=values.get("settled"),
        stops=values.get("stops"),
        life=values.get("life"),
    )


_TIMES = {
    *("logical_date", "data_interval_start", "data_interval_end", "run_after"),
    *("partition_date", "taken_at", "started_at", "ended_at"),
}
_RUN_FIELDS = tuple(field.name for field in fields(LedgerRun))
_STORED_AS = {"retained_for_peers": "kept"}
"""Fields that are stored under another name."""
_FIELD_OF = {stored: name for name, stored in _STORED_AS.items()}
_NAMED: Schema = {"dag_id": NAME, "run_id": NAME}
"""The fields of a run that must be readable. If another field is not, these say which run it belongs to."""
_ENTRY: Schema = {**ENTRY, "runs": optional(each(record(_NAMED)))}
_LINE: Schema = {"run": optional(record(_NAMED)), "head": optional(record({"dag_id": NAME}))}


def run_to_json(run: LedgerRun) -> dict[str, Any]:
    values = {_STORED_AS.get(name, name): getattr(run, name) for name in _RUN_FIELDS}
    for name in _TIMES:
        if values[name] is not None:
            values[name] = items.to_timestamp(values[name])
    tasks = [list(task) for task in run.tasks]
    deadlines = [[each.alert, items.to_timestamp(each.at), each.is_missed] for each in run.deadlines]
    children = [[each.dag_id, each.run_id, each.is_awaited, each.has_fixed_id] for each in run.children]
    lists = {"tasks": tasks, "deadlines": deadlines, "children": children}
    found = _without_nothing({**values, "status": run.status.value, **lists})
    if run.events is None:
        return found
    # No event is not the same as an unknown number of events.
    return {**found, "events": [_event_to_json(event) for event in run.events]}


def _event_to_json(event: RunEvent) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in EVENT}
    return _without_nothing({**values, "at": items.to_timestamp(event.at), "aliases": list(event.aliases)})


def _event_from_json(values: Mapping[str, Any]) -> RunEvent:
    known = {name: values[name] for name in EVENT if values.get(name) is not None}
    unnamed = {"name": None, "group": None}
    return RunEvent(
        **{**unnamed, **known, "at": items.to_time(values["at"]), "aliases": tuple(values.get("aliases") or ())}
    )


def run_from_json(values: Mapping[str, Any]) -> LedgerRun:
    # Fields of a later version are ignored.
    problem = problem_of(values, RUN)
    known = valid(values, RUN) if problem is not None else {name: values[name] for name in RUN if name in values}
    known = {_FIELD_OF.get(name, name): value for name, value in known.items() if value is not None}
    times = {name: items.to_time(text) for name, text in known.items() if name in _TIMES}
    tasks = tuple((str(task), int(index), state) for task, index, state in known.get("tasks") or ())
    deadlines = tuple(
        RunDeadline(alert=alert, at=items.to_time(at), is_missed=is_missed)
        for alert, at, is_missed in known.get("deadlines") or ()
    )
    children = tuple(
        ChildRun(dag_id=dag_id, run_id=run_id, is_awaited=is_awaited, has_fixed_id=has_fixed_id)
        for dag_id, run_id, is_awaited, has_fixed_id in known.get("children") or ()
    )
    run = {
        **known,
        **times,
        "tasks": tasks,
        "deadlines": deadlines,
        "children": children,
        "status": RunStatus(known.get("status", RunStatus.OPEN)),
        "events": None if known.get("events") is None else tuple(map(_event_from_json, known["events"])),
    }
    if problem is not None:
        # Treat it as not ended. No region may resume it.
        why = f"its field {problem.path} in the ledger is {problem.found}, allowed is {problem.allowed}"
        unknown = {"run_type": "?", "epoch": 0}
        run = {**unknown, **run, "status": RunStatus.OPEN, "doubt": why}
    return LedgerRun(**run)


def _head_to_json(head: Head) -> dict[str, Any]:
    return _without_nothing(
        {
            "dag_id": head.dag_id,
            "created": _optional(head.created),
            "finished": run_to_json(head.finished) if head.finished is not None else None,
            "others": [run_to_json(run) for run in head.others],
            "dated": [run_to_json(run) for run in head.dated],
            "partition_created": _optional(head.partition_created),
            "partition": run_to_json(head.partition) if head.partition is not None else None,
            "triggered": run_to_json(head.triggered) if head.triggered is not None else None,
            "succeeded": [run_to_json(run) for run in head.succeeded],
        }
    )


def _head_from_json(values: Mapping[str, Any]) -> Head:
    """Return a head. Fields that cannot be read count as missing."""
    return Head(
        dag_id=values["dag_id"],
        created=items.from_timestamp(values.get("created")),
        finished=_ended_run(values.get("finished")),
        others=_ended_runs(values.get("others")),
        dated=_ended_runs(values.get("dated")),
        partition_created=items.from_timestamp(values.get("partition_created")),
        partition=_ended_run(values.get("partition")),
        triggered=_ended_run(values.get("triggered")),
        succeeded=_ended_runs(values.get("succeeded")),
    )


def _ended_runs(values: object) -> tuple[LedgerRun, ...]:
    found = [_ended_run(each) for each in values] if isinstance(values, list) else []
    return tuple(run for run in found if run is not None)


def _ended_run(values: object) -> LedgerRun | None:
    """Return a run that has ended; None if it has not, or if one of its fields cannot be read."""
    if not isinstance(values, Mapping) or problem_of(values, _NAMED) is not None:
        return None
    run = run_from_json(values)
    return run if run.doubt is None and run.has_ended else None


def _optional(at: datetime | None) -> str | None:
    return None if at is None else items.to_timestamp(at)


def _without_nothing(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != [] and value is not False}
