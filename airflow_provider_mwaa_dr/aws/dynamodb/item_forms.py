"""
How the items of each kind are stored in the state table: as one DynamoDB item, or as a manifest with pages.

Pure; works without boto3. :data:`FORMS` has an entry for each kind of
:mod:`~airflow_provider_mwaa_dr.core.ports`. Schemas are in :mod:`~airflow_provider_mwaa_dr.aws.dynamodb.contents`.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from airflow_provider_mwaa_dr.aws.dynamodb import contents, items
from airflow_provider_mwaa_dr.aws.dynamodb.contents import MOST_INVENTORY_BYTES, Problem, Schema, problem_of, unpacked
from airflow_provider_mwaa_dr.aws.dynamodb.items import Item
from airflow_provider_mwaa_dr.aws.dynamodb.paged_item import PagedContent
from airflow_provider_mwaa_dr.aws.session import brief
from airflow_provider_mwaa_dr.core.batches import batched
from airflow_provider_mwaa_dr.core.carrying import SettingsOffer
from airflow_provider_mwaa_dr.core.display import shortened
from airflow_provider_mwaa_dr.core.inventory import Inventory, contents_from_values, contents_to_text
from airflow_provider_mwaa_dr.core.item_kind import ItemKind
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
    DagSet,
    FailoverOutcome,
    FailoverRecord,
    IdentityClaim,
    NotificationAttempt,
    StoredReport,
    TriggererStatus,
    Unpublished,
)
from airflow_provider_mwaa_dr.exceptions import StateError

T = TypeVar("T")

PAGE_BYTES = 200_000
"""Maximum size of a page with DAG ids, or of an inventory: half of the 400 KB of an item, and fast to send."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Generic[T]):
    """
    A set of texts that lists the items of one region, in an item of its own. It replaces a scan of the table.

    :param key: the key of the list, from the region.
    :param attribute: the attribute with the texts.
    :param entry_of: the text for an item.
    :param item_key: the key of an item, from the region and the text.
    """

    key: Callable[[str], str]
    attribute: str
    schema: Schema
    entry_of: Callable[[T], str]
    item_key: Callable[[str, str], str]
    region_of: Callable[[T], str]

    def key_of(self, item: T) -> str:
        """Return the key of the list that an item is in."""
        return self.key(self.region_of(item))


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleForm(Generic[T]):
    """
    A value that is stored as one item.

    :param from_item: returns the value, from the item and the name of the table; raises UnreadableItemError.
    :param condition: the condition of a write, as parameters of PutItem; None: there is none.
    """

    to_item: Callable[[T], dict[str, Any]]
    from_item: Callable[[Item, str], T]
    condition: Callable[[T], Mapping[str, Any]] | None = None
    index: Index[T] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedForm(Generic[T]):
    """
    A value that is stored as a manifest with pages.

    :param to_content: returns what a write stores; raises StateError if the value is too large.
    :param page: schema of a page.
    :param from_pages: returns the value, or its problem, from its id and the plain values of manifest and pages.
    :param progress_of: returns the progress of a stored value, from the plain values of its manifest; None if the kind
        has no progress.
    """

    to_content: Callable[[T], PagedContent]
    page: Schema
    from_pages: Callable[[str, Mapping[str, Any], Sequence[Mapping[str, Any]]], T | Problem]
    progress_of: Callable[[Mapping[str, Any]], int] | None = None


def _plain(
    kind: ItemKind[T], value_type: type[T], schema: Schema, *, limit: Callable[[T], T] = lambda value: value
) -> SingleForm[T]:
    """
    Return the form of a dataclass whose fields are attributes of the same names; its region is also part of the key.

    :param limit: shortens a value that may be too large for an item.
    """

    def to_item(value: T) -> dict[str, Any]:
        limited = limit(value)
        return items.to_item(kind.key_of(value), {name: getattr(limited, name) for name in schema})

    def from_item(item: Item, table: str) -> T:
        region = items.key_of(item).removeprefix(kind.prefix)
        return value_type(**{"region": region, **contents.decoded(items.values_of(item, table=table), schema)})

    return SingleForm(to_item=to_item, from_item=from_item)


def _limited_unpublished(event: Unpublished) -> Unpublished:
    """Return an event with at most 250 KB of run ids. The rest of a longer list is counted."""
    runs = items.first_texts(event.runs)
    return replace(
        event,
        why=event.why[:2000],
        runs=(*runs, *shortened(event.runs[len(runs) :], 0)),
        unread=tuple(sentence[:2000] for sentence in event.unread),
    )


def _may_replace_record(record: FailoverRecord) -> Mapping[str, Any]:
    """Return the condition that no record with more progress is stored."""
    known = list(FailoverOutcome)
    if record.outcome not in known:
        return {}
    earlier = known[: known.index(record.outcome) + 1]
    replaceable = {f":outcome{rank}": {"S": outcome.value} for rank, outcome in enumerate(earlier)}
    return {
        # A value that is no text was changed by hand.
        "ConditionExpression": f"attribute_not_exists(outcome) OR outcome IN ({', '.join(replaceable)}) "
        "OR NOT attribute_type(outcome, :text)",
        "ExpressionAttributeValues": {":text": {"S": "S"}, **replaceable},
    }


def _attempt_to_item(attempt: NotificationAttempt) -> dict[str, Any]:
    values = {name: getattr(attempt, name) for name in contents.NOTIFICATION.schema}
    return items.to_item(NOTIFICATIONS.key_of(attempt), values)


def _attempt_from_item(item: Item, table: str) -> NotificationAttempt:
    values = contents.decoded(items.values_of(item, table=table), contents.NOTIFICATION.schema)
    return NotificationAttempt(**{name: value for name, value in values.items() if name != "progress"})


def _may_replace_attempt(attempt: NotificationAttempt) -> Mapping[str, Any]:
    """Return the condition that the stored attempt has less progress, or cannot be read."""
    return {
        "ConditionExpression": "attribute_not_exists(progress) OR progress < :progress OR "
        "NOT attribute_type(progress, :number)",
        "ExpressionAttributeValues": {":progress": items.to_attribute(attempt.progress), ":number": {"S": "N"}},
    }


def _set_content(dag_set: DagSet) -> PagedContent:
    values = {
        "id": dag_set.id,
        "region": dag_set.region,
        "recorded_at": dag_set.recorded_at,
        "dags": len(dag_set.dag_ids),
    }
    return PagedContent(
        manifest=items.to_attributes(values),
        # One text with one id in each line. DynamoDB and boto3 take much longer for a list of thousands of attributes.
        pages=[{"dag_ids": {"S": "\n".join(page)}} for page in items.paged(dag_set.dag_ids, page_bytes=PAGE_BYTES)],
    )


def _set_from_pages(_: str, manifest: Mapping[str, Any], pages: Sequence[Mapping[str, Any]]) -> DagSet:
    return DagSet(
        id=manifest["id"],
        region=manifest["region"],
        recorded_at=items.to_time(manifest["recorded_at"]),
        dag_ids=tuple(dag_id for page in pages for dag_id in page["dag_ids"].split("\n") if dag_id),
    )


def _inventory_content(inventory: Inventory) -> PagedContent:
    text = contents_to_text(inventory).encode()
    if len(text) > MOST_INVENTORY_BYTES:
        raise StateError(
            f"The inventory of {inventory.region} has {len(text)} bytes; the limit is {MOST_INVENTORY_BYTES}.",
            advice="mwaa-dr check compares the regions without it.",
        )
    body = zlib.compress(text, 9)
    return PagedContent(
        manifest=items.to_attributes({"taken_at": inventory.taken_at, "public_key": inventory.public_key}),
        pages=[{"body": {"B": part}} for part in batched(body, PAGE_BYTES)],
    )


def _inventory_from_pages(
    region: str, manifest: Mapping[str, Any], pages: Sequence[Mapping[str, Any]]
) -> Inventory | Problem:
    try:
        body = unpacked(b"".join(page["body"] for page in pages), most=MOST_INVENTORY_BYTES)
        values = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        return Problem("body", brief(error), "packed JSON")
    problem = problem_of(values, contents.INVENTORY_CONTENTS)
    if problem is not None:
        return problem
    values = contents.decoded(values, contents.INVENTORY_CONTENTS)
    return contents_from_values(
        values, region=region, taken_at=items.to_time(manifest["taken_at"]), public_key=manifest["public_key"]
    )


def _settings_content(offer: SettingsOffer) -> PagedContent:
    values = {
        kind: {name: b64encode(sealed).decode() for name, sealed in of.items()} for kind, of in offer.values.items()
    }
    body = json.dumps({"values": values}, sort_keys=True).encode()
    if len(body) > MOST_INVENTORY_BYTES:
        raise StateError(f"The settings of {offer.source} have {len(body)} bytes; the limit is {MOST_INVENTORY_BYTES}.")
    manifest = {name: getattr(offer, name) for name in _OFFER}
    return PagedContent(
        manifest=items.to_attributes(manifest),
        # Sealed values cannot be compressed, but their names and the base64 can.
        pages=[{"body": {"B": part}} for part in batched(zlib.compress(body, 1), PAGE_BYTES)],
    )


def _settings_from_pages(
    source: str, manifest: Mapping[str, Any], pages: Sequence[Mapping[str, Any]]
) -> SettingsOffer | Problem:
    try:
        body = unpacked(b"".join(page["body"] for page in pages), most=MOST_INVENTORY_BYTES)
        found = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        return Problem("body", brief(error), "packed JSON")
    problem = problem_of(found, contents.SETTINGS_CONTENTS)
    if problem is not None:
        # The value is sealed, but a message needs no part of it.
        return replace(problem, found="another value")
    values = {kind: {name: b64decode(text) for name, text in of.items()} for kind, of in found["values"].items()}
    known = {name: contents.SETTINGS.schema[name].decode(manifest[name]) for name in _OFFER}
    return SettingsOffer(**{**known, "source": source, "values": values})


def _report_content(report: StoredReport) -> PagedContent:
    body = report.body.encode()
    if len(body) > MOST_INVENTORY_BYTES:
        raise StateError(f"The report of {report.id} has {len(body)} bytes; the limit is {MOST_INVENTORY_BYTES}.")
    return PagedContent(
        manifest=items.to_attributes({"taken_at": report.taken_at}),
        pages=[{"body": {"B": part}} for part in batched(zlib.compress(body, 9), PAGE_BYTES)],
    )


def _report_from_pages(
    plan_id: str, manifest: Mapping[str, Any], pages: Sequence[Mapping[str, Any]]
) -> StoredReport | Problem:
    try:
        body = unpacked(b"".join(page["body"] for page in pages), most=MOST_INVENTORY_BYTES).decode()
    except ValueError as error:
        return Problem("body", brief(error), "packed text")
    return StoredReport(id=plan_id, taken_at=items.to_time(manifest["taken_at"]), body=body)


_OFFER = ("target", "epoch", "number", "sealed_at", "key_id", "ephemeral_key")
"""The attributes of the manifest of an offer."""
_IDENTITY_CLAIMS: Index[IdentityClaim] = Index(
    # Not in ENVIRONMENT#place, because that item registers a region. Execution roles may write keys that begin with
    # AGENT# and their region.
    key=lambda place: f"AGENT#{place}#claims",
    attribute="claims",
    schema=contents.IDENTITY_CLAIMS.schema,
    region_of=IDENTITY_CLAIMS.region,
    entry_of=lambda claim: IDENTITY_CLAIMS.id_of(claim).removeprefix(f"{claim.place}#claim#"),
    item_key=lambda place, entry: IDENTITY_CLAIMS.key.format(f"{place}#claim#{entry}"),
)
_TRIGGERERS: Index[TriggererStatus] = Index(
    key=lambda region: f"AGENT#{region}#triggerers",
    attribute="triggerers",
    schema=contents.TRIGGERERS.schema,
    region_of=TRIGGERERS.region,
    entry_of=lambda status: status.job,
    item_key=lambda region, job: TRIGGERERS.key.format(f"{region}#triggerer#{job}"),
)
_SET: PagedForm[DagSet] = PagedForm(to_content=_set_content, page=contents.SET_PAGE, from_pages=_set_from_pages)

FORMS: Mapping[ItemKind[Any], SingleForm[Any] | PagedForm[Any]] = {
    IDENTITY_CLAIMS: replace(
        _plain(IDENTITY_CLAIMS, IdentityClaim, contents.IDENTITY_CLAIM.schema), index=_IDENTITY_CLAIMS
    ),
    TRIGGERERS: replace(_plain(TRIGGERERS, TriggererStatus, contents.TRIGGERER.schema), index=_TRIGGERERS),
    FENCE_LOADS: SingleForm(
        to_item=items.fence_to_item, from_item=lambda item, table: items.fence_from_item(item, table=table)
    ),
    UNPUBLISHED_EVENTS: _plain(
        UNPUBLISHED_EVENTS, Unpublished, contents.UNPUBLISHED.schema, limit=_limited_unpublished
    ),
    RECORDS: SingleForm(
        to_item=items.record_to_item,
        from_item=lambda item, table: items.record_from_item(item, table=table),
        condition=_may_replace_record,
    ),
    NOTIFICATIONS: SingleForm(to_item=_attempt_to_item, from_item=_attempt_from_item, condition=_may_replace_attempt),
    SNAPSHOTS: _SET,
    PAUSED_SETS: _SET,
    DAG_SETS: _SET,
    REPORTS: PagedForm(to_content=_report_content, page=contents.BINARY_PAGE, from_pages=_report_from_pages),
    SETTINGS_OFFERS: PagedForm(
        to_content=_settings_content,
        page=contents.BINARY_PAGE,
        from_pages=_settings_from_pages,
        progress_of=lambda manifest: int(manifest["epoch"]),
    ),
    INVENTORIES: PagedForm(to_content=_inventory_content, page=contents.BINARY_PAGE, from_pages=_inventory_from_pages),
}


def form_of(kind: ItemKind[T]) -> SingleForm[T] | PagedForm[T]:
    """Return the form of a kind of item."""
    return FORMS[kind]


def single_form_of(kind: ItemKind[T]) -> SingleForm[T]:
    """Return the form of a kind whose items have no pages. :raises TypeError: they have pages."""
    form = form_of(kind)
    if not isinstance(form, SingleForm):
        raise TypeError(f"Items of kind {kind.name!r} have pages.")
    return form
