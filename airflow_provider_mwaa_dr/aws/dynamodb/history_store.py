"""
The history of each site in the runs table.

``HISTORY#site`` has the pages by number, and for each other site a cursor, ``cursor#site``: how far the site has
imported that site's pages. Pages expire; cursors do not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.aws.dynamodb import items
from airflow_provider_mwaa_dr.aws.dynamodb.contents import (
    HISTORY_CURSOR,
    HISTORY_LINE,
    HISTORY_PAGE,
    Problem,
    problem_of,
    unreadable,
)
from airflow_provider_mwaa_dr.aws.dynamodb.replicas import Replicas
from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import (
    is_number_key,
    item_key,
    name_of,
    number_key,
    pack_lines,
    run_from_json,
    run_to_json,
    unpack_lines,
)
from airflow_provider_mwaa_dr.aws.session import DYNAMODB_TIMEOUT_S
from airflow_provider_mwaa_dr.core.history.pages import (
    ExportProgress,
    HistoryPage,
    HistoryRun,
    HistoryTask,
    ImportCursor,
    Waiting,
)
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.exceptions import StaleLedgerError

if TYPE_CHECKING:
    import boto3

KEPT_DAYS = 7
"""A page stays for so long after ``[dr] history_days``, so that a standby that was down still finds it."""
_QUERY_PAGES = 20
_ADVICE = "The runs in this page are missing in the history of other sites. Delete the item to remove this message."
_FIRST, _LAST = number_key(0), "9" * len(number_key(0))


class DynamoDBHistoryStore:
    """
    The :class:`~airflow_provider_mwaa_dr.core.history.store.HistoryStore` in a table with key ``pk``, ``sk``.

    :param days: ``[dr] history_days``.
    :param replicas, own_region, session, timeout_s: as for :class:`.DynamoDBRunsStore`.
    """

    def __init__(
        self,
        table: str,
        replicas: Sequence[str],
        *,
        days: int,
        clock: Clock | None = None,
        session: boto3.session.Session | None = None,
        timeout_s: float = DYNAMODB_TIMEOUT_S,
        own_region: str | None = None,
    ) -> None:
        self.table = table
        self._days = days

        def copies(regions: Sequence[str]) -> Replicas:
            return Replicas(
                table,
                regions,
                clock=clock or SystemClock(),
                session=session,
                timeout_s=timeout_s,
                rights="GetItem, PutItem and Query",
                key="pk (S), sk (S)",
                setting="[dr] runs_table",
            )

        self._all = copies(replicas)
        # If a site wrote to two replicas, a page could replace another page with the same number.
        self._own = {own_region: copies((own_region,))} if own_region is not None else {}

    def append_page(self, site: str, page: HistoryPage) -> None:
        """See :meth:`.HistoryStore.append_page`."""
        item = page_to_item(site, page, days=self._days)
        is_there = self._copies(site).put_if(
            lambda client: client.put_item(
                TableName=self.table,
                Item=item,
                ConditionExpression="attribute_not_exists(pk)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            ),
            f"write the history of {site}",
            # The answer to an earlier attempt may have been lost.
            is_mine=lambda found: bool(found.get("body") == item["body"]),
        )
        if not is_there:
            raise StaleLedgerError(
                f"Page {page.number} of the history of {site} exists already, with other content.",
                advice="Another agent of the site also writes the history. This agent reads it again.",
            )

    def pages(self, site: str, *, after: int) -> Sequence[HistoryPage]:
        """See :meth:`.HistoryStore.pages`."""
        found = self._query(site, first=number_key(after + 1), limit=_QUERY_PAGES)
        return [page_from_item(item, table=self.table) for item in found]

    def page(self, site: str, number: int) -> HistoryPage | None:
        """See :meth:`.HistoryStore.page`."""
        item = self._copies(site).get(item_key(_pk(site), number_key(number)), f"read the history of {site}")
        return None if item is None else page_from_item(item, table=self.table)

    def last_page(self, site: str) -> HistoryPage | None:
        """See :meth:`.HistoryStore.last_page`."""
        found = self._query(site, first=_FIRST, limit=1, is_reverse=True)
        return page_from_item(found[0], table=self.table) if found else None

    def cursor(self, site: str, source: str) -> ImportCursor:
        """See :meth:`.HistoryStore.cursor`. A cursor that cannot be read counts as missing."""
        item = self._copies(site).get(item_key(_pk(site), _cursor_sk(source)), f"read the history of {site}")
        return ImportCursor() if item is None else cursor_from_item(item)

    def save_cursor(self, site: str, source: str, cursor: ImportCursor) -> None:
        """See :meth:`.HistoryStore.save_cursor`."""
        self._copies(site).put(cursor_to_item(site, source, cursor), f"write the history of {site}")

    def _query(self, site: str, *, first: str, limit: int, is_reverse: bool = False) -> Sequence[items.Item]:
        query = partial(self._ask, site=site, first=first, limit=limit, is_reverse=is_reverse)
        answer = self._copies(site).ask(query, f"read the history of {site}")
        return [item for item in answer.get("Items", ()) if is_number_key(item["sk"].get("S"))]

    def _ask(self, client: Any, *, site: str, first: str, limit: int, is_reverse: bool) -> dict[str, Any]:
        answer: dict[str, Any] = client.query(
            TableName=self.table,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :last",
            ExpressionAttributeValues={":pk": {"S": _pk(site)}, ":first": {"S": first}, ":last": {"S": _LAST}},
            ConsistentRead=True,
            Limit=limit,
            ScanIndexForward=not is_reverse,
        )
        return answer

    def _copies(self, site: str) -> Replicas:
        return self._own.get(site, self._all)


def _pk(site: str) -> str:
    return f"HISTORY#{site}"


def _cursor_sk(source: str) -> str:
    return f"cursor#{source}"


def page_to_item(site: str, page: HistoryPage, *, days: int) -> dict[str, Any]:
    """Return a page as an item."""
    head = {
        "number": page.number,
        "at": items.to_timestamp(page.at),
        "epoch": page.epoch,
        "progress": None
        if page.progress is None
        else {
            "swept_id": page.progress.swept_id,
            "sweep_end": page.progress.sweep_end,
            "live_at": items.to_timestamp(page.progress.live_at),
        },
    }
    lines = [json.dumps(head), *(json.dumps(_run_to_json(run)) for run in page.runs)]
    last = max((run.run.ended_at for run in page.runs if run.run.ended_at is not None), default=page.at)
    expires_at = max(last + timedelta(days=days), page.at) + timedelta(days=KEPT_DAYS)
    return {
        **item_key(_pk(site), number_key(page.number)),
        "body": {"B": pack_lines(lines)},
        "expires_at": {"N": str(int(expires_at.timestamp()))},
    }


def page_from_item(item: items.Item, *, table: str) -> HistoryPage:
    """Return a page; if it cannot be read, an unreadable page with its number."""
    number = int(item["sk"]["S"])
    lines = unpack_lines(item.get("body", {}).get("B"))
    problem: Problem | None = lines if isinstance(lines, Problem) else None
    values = lines if isinstance(lines, list) else []
    if problem is None:
        problem = problem_of(values[0] if values else None, HISTORY_PAGE)
    if problem is None and values[0]["number"] != number:
        problem = Problem("number", str(values[0]["number"]), f"{number}, as in its key")
    for line in values[1:]:
        problem = problem or problem_of(line, HISTORY_LINE)
    if problem is not None:
        fault = unreadable(problem, table=table, key=name_of(item), advice=_ADVICE)
        return HistoryPage(number=number, at=items.to_time("1970-01-01T00:00:00Z"), epoch=0, progress=None,
                           unreadable=str(fault))  # fmt: skip
    head = values[0]
    progress = head.get("progress")
    return HistoryPage(
        number=number,
        at=items.to_time(head["at"]),
        epoch=head["epoch"],
        progress=None
        if progress is None
        else ExportProgress(
            swept_id=progress["swept_id"],
            sweep_end=progress["sweep_end"],
            live_at=items.to_time(progress["live_at"]),
        ),
        runs=tuple(map(_run_from_json, values[1:])),
    )


_TASK_TIMES = ("queued_at", "started_at", "ended_at")
_TASK_FIELDS = tuple(field.name for field in fields(HistoryTask))


def _run_to_json(run: HistoryRun) -> dict[str, Any]:
    tasks = [
        [
            items.to_timestamp(value) if name in _TASK_TIMES and value is not None else value
            for name, value in ((name, getattr(task, name)) for name in _TASK_FIELDS)
        ]
        for task in run.tasks
    ]
    found = {"run": run_to_json(run.run), "note": run.note, "tasks": tasks, "part": run.part}
    return {name: value for name, value in found.items() if value}


def _run_from_json(values: Mapping[str, Any]) -> HistoryRun:
    return HistoryRun(
        run=run_from_json(values["run"]),
        note=values.get("note") or "",
        tasks=tuple(map(_task_from_json, values.get("tasks") or ())),
        part=values.get("part") or 0,
    )


def _task_from_json(values: Sequence[Any]) -> HistoryTask:
    # A later version may add values at the end.
    known = dict(zip(_TASK_FIELDS, values, strict=False))
    times = {name: items.to_time(known[name]) for name in _TASK_TIMES if known[name] is not None}
    return HistoryTask(**{**known, **times})


def cursor_to_item(site: str, source: str, cursor: ImportCursor) -> dict[str, Any]:
    """Return a cursor as an item."""
    values = {
        "number": cursor.number,
        "waiting": [[each.number, each.dag_id, each.run_id] for each in cursor.waiting],
        "imported": cursor.imported,
        "kept": list(cursor.kept),
    }
    return {**item_key(_pk(site), _cursor_sk(source)), "body": {"B": pack_lines([json.dumps(values)])}}


def cursor_from_item(item: items.Item) -> ImportCursor:
    """Return a cursor; if it cannot be read, the default: the site imports the pages again, which is idempotent."""
    lines = unpack_lines(item.get("body", {}).get("B"))
    values = lines[0] if isinstance(lines, list) and lines else None
    if problem_of(values, HISTORY_CURSOR) is not None or values is None:
        return ImportCursor()
    waiting = [Waiting(number=number, dag_id=dag_id, run_id=run_id) for number, dag_id, run_id in values["waiting"]]
    return ImportCursor(
        number=values["number"], waiting=tuple(waiting), imported=values["imported"], kept=tuple(values["kept"])
    )
