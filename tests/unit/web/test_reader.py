"""The background reader of a web server."""

from __future__ import annotations

import subprocess
import sys

from airflow_provider_mwaa_dr.exceptions import StateUnreachableError
from airflow_provider_mwaa_dr.web.reader import HISTORY_S, WANTED_S
from tests.unit.web.site import ACTIVE, STANDBY, Site


def test_a_request_sends_nothing() -> None:
    """A page must not wait for AWS: know() returns what the thread has read."""

    def refuse() -> None:
        raise AssertionError("a request opened the state table")

    site = Site(ACTIVE, open_store=refuse)  # type: ignore[arg-type]
    assert site.reader.know(details=True).observation is None


def test_heartbeats_and_history_are_read_only_while_a_user_looks_at_the_page() -> None:
    """The strip needs one read of the state; everything else costs more reads."""
    site = Site(STANDBY)
    assert site.read().details is None
    known = site.read(details=True)
    assert known.details is not None
    assert known.details.document["regions"][ACTIVE]["role"] == "active"
    assert known.details.names == {ACTIVE: "ohio", STANDBY: "virginia"}
    site.clock.advance(WANTED_S + 1)
    assert site.read().details is known.details


def test_the_history_is_read_again_only_after_a_change_or_a_minute() -> None:
    """It reads the whole table."""
    site = Site(STANDBY)
    site.cancelled()
    first = site.read(details=True).details
    assert first is not None
    assert [record.by for record in first.records] == ["eve"]
    again = site.read(details=True).details
    assert again is not None
    assert again.records is first.records
    site.clock.advance(HISTORY_S + 1)
    later = site.read(details=True).details
    assert later is not None
    assert later.records is not first.records
    site.claim()
    changed = site.read(details=True).details
    assert changed is not None
    assert [record.by for record in changed.records] == ["ana", "eve"]


def test_an_error_is_shown_with_the_time_of_the_first_failure_and_keeps_the_last_read() -> None:
    """Users see since when the state has not been read."""
    site = Site(ACTIVE)
    good = site.read()
    site.set.store.unreachable = True
    since = site.clock.now()
    site.read()
    site.clock.advance(60)
    bad = site.read()
    assert (bad.observation, bad.read_at) == (good.observation, good.read_at)
    assert bad.failing_since == since
    assert bad.error
    site.set.store.unreachable = False
    healed = site.read()
    assert (healed.error, healed.failing_since) == (None, None)


def test_a_table_that_cannot_be_opened_is_an_error_and_the_next_turn_tries_again() -> None:
    """Without boto3, or with a wrong setting, the thread continues."""
    answers = [ImportError("no boto3"), StateUnreachableError("no replica answered")]

    def fail() -> None:
        raise answers.pop(0)

    site = Site(ACTIVE, open_store=fail)  # type: ignore[arg-type]
    assert site.read().error == "ImportError: no boto3"
    assert site.read().error == "no replica answered"


FORKED = """
import os, sys, time
from tests.unit.web.site import ACTIVE, Site
from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.web.reader import BackgroundReader

site = Site(ACTIVE)
reader = BackgroundReader(site.config, site.clock, lambda: site.set.store)
child = os.fork()
deadline = time.monotonic() + 20
while reader.know().observation is None:
    if time.monotonic() > deadline:
        os._exit(1)
    time.sleep(0.01)
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


def test_each_process_of_a_web_server_reads_for_itself() -> None:
    """A thread does not survive a fork, so the first request in a process starts one."""
    assert subprocess.run([sys.executable, "-c", FORKED], check=False).returncode == 0


def test_a_process_has_one_thread() -> None:
    """Requests in parallel start one reader, and a request that wants the page wakes it."""
    code = FORKED.replace("child = os.fork()", "child = 0") .replace(
        "os._exit(0)",
        "import threading\n[reader.know(details=True) for _ in range(9)]\n"
        "os._exit(sum(thread.name == 'mwaa-dr-web' for thread in threading.enumerate()) - 1)",
    )  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
