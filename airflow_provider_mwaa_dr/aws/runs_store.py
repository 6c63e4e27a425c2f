"""
The runs table in DynamoDB: the ledger of every region.

Key ``pk`` (S) and ``sk`` (S). ``LOG#region`` holds the entries by number, which expire; ``PICTURE#region`` a manifest
and the pages of the picture that it names, which do not.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.aws import items
from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.replicas import Replicas
from airflow_provider_mwaa_dr.aws.session import DYNAMODB_TIMEOUT_S, errors
from airflow_provider_mwaa_dr.core.ledger import Head, LedgerRun, LogEntry, Replica, RunStatus
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.exceptions import StaleLedgerError, StateUnreachableError

if TYPE_CHECKING:
    import boto3

LOG_DAYS = 14
"""An entry expires after so long; a picture is kept within minutes."""
PAGE_BYTES = 300_000
"""Of JSON in one item, before it is packed: of the 400 KB that an item may have."""
BODY_BYTES = 350_000
"""Of a packed page in one item: what is told of one DAG may be longer than that, and goes on in the next item."""
LOG_PAGE = 200
"""Entries that one call returns at most; the next call goes on."""


class DynamoDBRunsStore:
    """
    The :class:`~airflow_provider_mwaa_dr.core.ports.RunsStore` in a DynamoDB table with key ``pk``, ``sk``.

    :param replicas: regions of the table's copies, nearest first.
    :param own_region: this region's own part is written to and read from this region's copy, and no other; None where
        one copy is as good as another.
    :param session: a boto3 session with credentials; None for boto3's own search.
    :param timeout_s: bounds one attempt against one replica.
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
    ) -> None:
        self.table = table
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

        def put(client: Any) -> bool:
            try:
                client.put_item(
                    TableName=self.table,
                    Item=item,
                    ConditionExpression="attribute_not_exists(pk)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except errors() as error:
                found = getattr(error, "response", {}).get("Item")
                if found is None:
                    raise
                # The answer to an earlier attempt may have been lost.
                return bool(_body(found) == item["body"]["B"])
            return True

        if not self._copies(region).ask(put, f"write the ledger of {region}"):
            raise StaleLedgerError(
                f"Entry {entry.number} of the ledger of {region} is there already, and says something else.",
                advice="Another agent of the region writes the ledger too; one of them will stop.",
            )

    def log(self, region: str, *, after: int) -> Sequence[LogEntry]:
        """Return entries above *after*, in order, the first few hundred at most."""
        answer = self._copies(region).ask(
            lambda client: client.query(
                TableName=self.table,
                KeyConditionExpression="pk = :pk AND sk > :after",
                ExpressionAttributeValues={":pk": {"S": f"LOG#{region}"}, ":after": {"S": _number(after)}},
                ConsistentRead=True,
                Limit=LOG_PAGE,
            ),
            f"read the ledger of {region}",
        )
        return [entry_from_item(item) for item in answer.get("Items", ())]

    def keep(self, region: str, picture: Replica) -> None:
        """Replace the picture: pages of a new generation, the manifest unless a later one is there, the old pages."""
        pk = f"PICTURE#{region}"
        pages, manifest = picture_to_items(region, picture)
        keys = [page["sk"]["S"] for page in pages]
        for page in pages:
            self._put(page, region)
        before = self._manifest(pk, region)
        landed = self._copies(region).ask_on_condition(
            lambda client: client.put_item(
                TableName=self.table,
                Item=manifest,
                ConditionExpression="attribute_not_exists(pk) OR #number <= :number",
                ExpressionAttributeNames={"#number": "number"},
                ExpressionAttributeValues={":number": manifest["number"]},
            ),
            f"keep the picture of {region}",
        )
        # A manifest that another agent wrote in between leaves pages behind that nobody reads.
        for sk in _page_keys(before) if landed else keys:
            self._delete(pk, sk, region)

    def picture(self, region: str) -> Replica:
        """Return the last picture; an empty one at first."""
        pk = f"PICTURE#{region}"
        # It may be replaced between manifest and pages; the next one is whole.
        for _ in range(3):
            manifest = self._manifest(pk, region)
            if manifest is None:
                return Replica()
            keys = _page_keys(manifest)
            pages = [page for page in (self._get(pk, sk, region) for sk in keys) if page is not None]
            if len(pages) == len(keys):
                return picture_from_items(manifest, pages)
        raise StateUnreachableError(
            f"The picture of {region} in table {self.table} is not complete: {len(pages)} of {len(keys)} pages.",
            advice="A copy that is behind catches up within seconds; read it again.",
        )

    def _copies(self, region: str) -> Replicas:
        """Return the copies in which *region*'s part is read and written."""
        return self._own.get(region, self._all)

    def _manifest(self, pk: str, region: str) -> items.Item | None:
        return self._get(pk, "manifest", region)

    def _get(self, pk: str, sk: str, region: str) -> items.Item | None:
        answer = self._copies(region).ask(
            lambda client: client.get_item(TableName=self.table, Key=_key(pk, sk), ConsistentRead=True),
            f"read the picture of {region}",
        )
        item: items.Item | None = answer.get("Item")
        return item

    def _put(self, item: Mapping[str, Any], region: str) -> None:
        self._copies(region).ask(
            lambda client: client.put_item(TableName=self.table, Item=item), f"keep the picture of {region}"
        )

    def _delete(self, pk: str, sk: str, region: str) -> None:
        self._copies(region).ask(
            lambda client: client.delete_item(TableName=self.table, Key=_key(pk, sk)), f"drop a picture of {region}"
        )


def entry_to_item(region: str, entry: LogEntry) -> dict[str, Any]:
    """Return an entry of *region*'s log as an item."""
    return {
        **_key(f"LOG#{region}", _number(entry.number)),
        "epoch": {"N": str(entry.epoch)},
        "at": {"S": items.to_timestamp(entry.at)},
        "body": {"B": _pack(_entry_to_json(entry))},
        "expires_at": {"N": str(int(entry.at.timestamp()) + LOG_DAYS * 86_400)},
    }


def entry_from_item(item: items.Item) -> LogEntry:
    """Return an entry."""
    return _entry_from_json(_unpack(_body(item)))


def picture_to_items(region: str, picture: Replica) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a picture's pages, each with a key that no other write shares, and its manifest."""
    pk, generation = f"PICTURE#{region}", uuid.uuid4().hex[:12]
    pages: list[dict[str, Any]] = []
    for body in _pages(picture):
        for start in range(0, len(body), BODY_BYTES):
            page: dict[str, Any] = {
                **_key(pk, f"{generation}#{len(pages):05}"),
                "body": {"B": body[start : start + BODY_BYTES]},
            }
            if start:
                page["continues"] = {"BOOL": True}
            pages.append(page)
    manifest = {
        **_key(pk, "manifest"),
        "generation": {"S": generation},
        "pages": {"N": str(len(pages))},
        "number": {"N": str(picture.number)},
        "first_id": {"N": str(picture.first_id)},
        "newest_id": {"N": str(picture.newest_id)},
        **({"epoch": {"N": str(picture.epoch)}} if picture.epoch is not None else {}),
        **({"final": {"S": picture.final}} if picture.final is not None else {}),
        **({"settled": {"N": str(picture.settled)}} if picture.settled is not None else {}),
    }
    return pages, manifest


def _key(pk: str, sk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _number(number: int) -> str:
    return f"{number:015}"


def _body(item: items.Item) -> bytes:
    return bytes(item["body"]["B"])


def _page_keys(manifest: items.Item | None) -> list[str]:
    if manifest is None:
        return []
    return [f"{manifest['generation']['S']}#{number:05}" for number in range(int(manifest["pages"]["N"]))]


def _pages(picture: Replica) -> Iterable[bytes]:
    """Yield the picture's runs and heads in packed pages that fit an item each."""
    lines = (
        *(json.dumps({"run": _run_to_json(run)}) for run in picture.runs.values()),
        *(json.dumps({"head": _head_to_json(head)}) for head in picture.heads.values()),
    )
    page: list[str] = []
    size = 0
    for line in lines:
        if page and size + len(line) > PAGE_BYTES:
            yield _pack_text(page)
            page, size = [], 0
        page.append(line)
        size += len(line) + 1
    if page:
        yield _pack_text(page)


def _pack_text(lines: Sequence[str]) -> bytes:
    return gzip.compress("\n".join(lines).encode(), mtime=0, compresslevel=4)


def picture_from_items(manifest: items.Item, pages: Iterable[items.Item]) -> Replica:
    """Return a picture of a manifest and all of its pages, in order."""
    picture = Replica(
        number=int(manifest["number"]["N"]),
        first_id=int(manifest["first_id"]["N"]),
        newest_id=int(manifest["newest_id"]["N"]),
        epoch=int(manifest["epoch"]["N"]) if "epoch" in manifest else None,
        final=manifest["final"]["S"] if "final" in manifest else None,
        settled=int(manifest["settled"]["N"]) if "settled" in manifest else None,
    )
    bodies: list[bytes] = []
    for page in pages:
        if "continues" in page:
            bodies[-1] += _body(page)
        else:
            bodies.append(_body(page))
    for body in bodies:
        for line in gzip.decompress(body).decode().splitlines():
            values = json.loads(line)
            if "run" in values:
                run = _run_from_json(values["run"])
                picture.runs[run.key] = run
            else:
                head = _head_from_json(values["head"])
                picture.heads[head.dag_id] = head
    return picture


def _pack(values: Mapping[str, Any]) -> bytes:
    return _pack_text([json.dumps(values)])


def _unpack(body: bytes) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(gzip.decompress(body))
    return values


# JSON: what is absent is left out, times are ISO-8601 UTC.


def _entry_to_json(entry: LogEntry) -> dict[str, Any]:
    return _without_nothing(
        {
            "number": entry.number,
            "at": items.to_timestamp(entry.at),
            "epoch": entry.epoch,
            "first_id": entry.first_id,
            "newest_id": entry.newest_id,
            "runs": [_run_to_json(run) for run in entry.runs],
            "dag_ids": list(entry.dag_ids),
            "final": entry.final,
            "settled": entry.settled,
        }
    )


def _entry_from_json(values: Mapping[str, Any]) -> LogEntry:
    return LogEntry(
        number=values["number"],
        at=items.to_time(values["at"]),
        epoch=values["epoch"],
        first_id=values["first_id"],
        newest_id=values["newest_id"],
        runs=tuple(map(_run_from_json, values.get("runs", ()))),
        dag_ids=tuple(values.get("dag_ids", ())),
        final=values.get("final"),
        settled=values.get("settled"),
    )


_TIMES = {"logical_date", "data_interval_start", "data_interval_end", "run_after", "partition_date", "taken_at"}
_RUN_FIELDS = tuple(field.name for field in fields(LedgerRun))


def _run_to_json(run: LedgerRun) -> dict[str, Any]:
    values = {name: getattr(run, name) for name in _RUN_FIELDS}
    for name in _TIMES:
        if values[name] is not None:
            values[name] = items.to_timestamp(values[name])
    return _without_nothing({**values, "status": run.status.value, "tasks": [list(task) for task in run.tasks]})


def _run_from_json(values: Mapping[str, Any]) -> LedgerRun:
    # A field that a later version adds is passed over.
    known = {name: values[name] for name in _RUN_FIELDS if name in values}
    times = {name: items.to_time(text) for name, text in known.items() if name in _TIMES}
    tasks = tuple((str(task), int(index), state) for task, index, state in known.get("tasks", ()))
    return LedgerRun(**{**known, **times, "status": RunStatus(known["status"]), "tasks": tasks})


def _head_to_json(head: Head) -> dict[str, Any]:
    return _without_nothing(
        {
            "dag_id": head.dag_id,
            "created": _optional(head.created),
            "finished": _run_to_json(head.finished) if head.finished is not None else None,
            "others": [_run_to_json(run) for run in head.others],
        }
    )


def _head_from_json(values: Mapping[str, Any]) -> Head:
    finished = values.get("finished")
    return Head(
        dag_id=values["dag_id"],
        created=items.from_timestamp(values.get("created")),
        finished=_run_from_json(finished) if finished is not None else None,
        others=tuple(map(_run_from_json, values.get("others", ()))),
    )


def _optional(at: datetime | None) -> str | None:
    return None if at is None else items.to_timestamp(at)


def _without_nothing(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != [] and value is not False}
