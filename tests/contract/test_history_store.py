"""The contract of the history in the runs table, in memory and in DynamoDB."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import boto3
import pytest

from airflow_provider_mwaa_dr.aws.dynamodb import history_store
from airflow_provider_mwaa_dr.aws.dynamodb.history_store import DynamoDBHistoryStore
from airflow_provider_mwaa_dr.core.history.pages import (
    PART_TASKS,
    ExportProgress,
    HistoryPage,
    HistoryRun,
    HistoryTask,
    ImportCursor,
    Waiting,
    paged,
)
from airflow_provider_mwaa_dr.core.ledger import LedgerRun, RunStatus
from airflow_provider_mwaa_dr.exceptions import StaleLedgerError
from airflow_provider_mwaa_dr.testing import InMemoryHistoryStore, ManualClock
from tests.contract.aws_server import HOME

SITE = "us-east-2"
AT = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
TASK = HistoryTask(
    task_id="extract", map_index=3, state="success", tries=2, max_tries=4, queued_at=AT, started_at=AT,
    ended_at=AT + timedelta(seconds=3), operator="BashOperator", pool="default_pool", host="10.0.0.1",
)  # fmt: skip
RUN = HistoryRun(
    run=LedgerRun(
        dag_id="orders", run_id="scheduled__1", run_type="scheduled", status=RunStatus.FAILED, epoch=0, logical_date=AT,
        data_interval_start=AT, data_interval_end=AT, run_after=AT, conf='{"a": "\\u00e4"}', started_at=AT, ended_at=AT,
    ),
    note="see ticket \u00e4",
    tasks=(TASK, HistoryTask(task_id="load", map_index=-1, state=None)),
)  # fmt: skip
PROGRESS = ExportProgress(swept_id=3, sweep_end=7, live_at=AT)


def page(number: int, *runs: HistoryRun) -> HistoryPage:
    return HistoryPage(number=number, at=AT, epoch=3, progress=PROGRESS, runs=runs)


@pytest.fixture(params=["memory", "dynamodb", "dynamodb, own copy"])
def peer(request: pytest.FixtureRequest, clock: ManualClock, session: boto3.session.Session) -> Any:
    """Return a function that makes stores for one table, each like the store of another process."""
    if request.param == "memory":
        return InMemoryHistoryStore().peer
    name = request.getfixturevalue("runs_table")
    own = SITE if request.param.endswith("own copy") else None
    return lambda: DynamoDBHistoryStore(
        name, ("us-east-2", "us-east-1"), days=30, clock=clock, session=session, timeout_s=20, own_region=own
    )


def test_pages_are_read_back_as_written(peer: Any) -> None:
    """In order, after the reader's cursor, only those of the given site, and without the cursors of the site."""
    writer, reader = peer(), peer()
    assert list(reader.pages(SITE, after=0)) == []
    assert reader.last_page(SITE) is None
    assert reader.page(SITE, 2) is None
    pages = [page(1, RUN, replace(RUN, part=1)), page(2), page(1_700_000_000_000, replace(RUN, note="", tasks=()))]
    for each in pages:
        writer.append_page(SITE, each)
    writer.append_page("us-east-1", page(1))
    writer.save_cursor(SITE, "us-east-1", ImportCursor(number=9))
    assert list(reader.pages(SITE, after=0)) == pages
    assert list(reader.pages(SITE, after=1)) == pages[1:]
    assert list(reader.pages(SITE, after=1_700_000_000_000)) == []
    assert reader.page(SITE, 2) == pages[1]
    assert reader.last_page(SITE) == pages[2]


def test_a_reader_gets_all_pages_in_several_answers(peer: Any) -> None:
    """As long as there are pages, an answer has at least one."""
    writer, reader = peer(), peer()
    for number in range(1, 46):
        writer.append_page(SITE, page(number))
    read: list[int] = []
    while found := reader.pages(SITE, after=read[-1] if read else 0):
        read += [each.number for each in found]
    assert read == list(range(1, 46))


def test_a_page_is_never_written_again(peer: Any) -> None:
    """The same page may be written twice, because an answer may be lost. Another page needs another number."""
    one, other = peer(), peer()
    one.append_page(SITE, page(1, RUN))
    one.append_page(SITE, page(1, RUN))
    with pytest.raises(StaleLedgerError):
        other.append_page(SITE, page(1))
    assert list(other.pages(SITE, after=0)) == [page(1, RUN)]


def test_a_cursor_is_read_back_as_written(peer: Any) -> None:
    """Each site has one cursor for each other site."""
    writer, reader = peer(), peer()
    assert reader.cursor(SITE, "us-east-1") == ImportCursor()
    cursor = ImportCursor(
        number=7, waiting=(Waiting(number=2, dag_id="a", run_id="r \u00e4"),), imported=12, kept=("a r: why",)
    )
    for each in (ImportCursor(number=1), cursor):
        writer.save_cursor(SITE, "us-east-1", each)
    assert reader.cursor(SITE, "us-east-1") == cursor
    assert reader.cursor(SITE, "eu-west-1") == ImportCursor()
    assert reader.cursor("us-east-1", SITE) == ImportCursor()


def test_a_run_with_very_many_tasks_fits_several_pages(peer: Any) -> None:
    """Each page fits an item, although its task ids are as long as Airflow allows."""
    long_ids = tuple(
        replace(TASK, task_id=f"{index:08x}{'x' * 242}", host=f"{index * 7919:040x}")
        for index in range(5 * PART_TASKS + 1)
    )
    writer, runs = peer(), []
    for number, content in enumerate(paged([replace(RUN, tasks=long_ids)]), start=1):
        writer.append_page(SITE, page(number, *content))
    while found := peer().pages(SITE, after=runs[-1][0] if runs else 0):
        runs += [(each.number, run) for each in found for run in each.runs]
    assert [run.part for _, run in runs] == list(range(6))
    assert tuple(task for _, run in runs for task in run.tasks) == long_ids


@pytest.mark.parametrize(
    "body", [b"no gzip", history_store.pack_lines(["{}"]), history_store.pack_lines(['{"number": 5}', "[]"])]
)
def test_a_page_that_cannot_be_read_has_its_number_and_no_runs(
    runs_table: str, clock: ManualClock, session: boto3.session.Session, body: bytes
) -> None:
    """The pages after it are read."""
    store = DynamoDBHistoryStore(runs_table, ("us-east-2",), days=30, clock=clock, session=session, timeout_s=20)
    client = session.client("dynamodb", region_name=HOME)
    key = {"pk": {"S": f"HISTORY#{SITE}"}, "sk": {"S": f"{1:015}"}}
    client.put_item(TableName=runs_table, Item={**key, "body": {"B": body}})
    client.close()
    store.append_page(SITE, page(2, RUN))
    damaged, read = store.pages(SITE, after=0)
    assert (damaged.number, damaged.runs, read) == (1, (), page(2, RUN))
    assert f"HISTORY#{SITE} {1:015}" in (damaged.unreadable or "")


def test_a_page_expires_some_days_after_its_last_run_is_too_old() -> None:
    """A page of old runs is young itself: it is there for a week at least."""
    old = replace(RUN, run=replace(RUN.run, ended_at=AT - timedelta(days=29)))
    for run, days in ((RUN, 37), (old, 8), (replace(RUN, run=replace(RUN.run, ended_at=AT - timedelta(days=99))), 7)):
        item = history_store.page_to_item(SITE, page(1, run), days=30)
        assert int(item["expires_at"]["N"]) == int((AT + timedelta(days=days)).timestamp())
