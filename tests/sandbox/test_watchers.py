"""
Watchers of assets in both regions that read one queue, with real schedulers and triggerers.

A message is a file in a folder. A watcher takes it by renaming it, with its region in the new name. The task of the run
that the message starts writes it into a file of its region. Each message must be there once.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.sandbox.failovers import fail_over, make_steady
from tests.sandbox.harness import Airflow, Pair, Shape, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

NEWEST = Shape(version="3.3.1", name="ledger-3.3.1", ledger=True)
DAG_ID = "watched_spool"
TRIGGER = '''
"""A watcher that reads a folder, as two regions may read one queue."""

import asyncio
import os
from pathlib import Path

from airflow.triggers.base import BaseEventTrigger, TriggerEvent


class SpoolTrigger(BaseEventTrigger):
    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def serialize(self):
        return "spool_watcher.SpoolTrigger", {"folder": self.folder}

    async def run(self):
        while True:
            for path in sorted(Path(self.folder).glob("*.msg")):
                taken = path.with_suffix(f".taken-{os.environ['AWS_REGION']}")
                try:
                    path.rename(taken)
                except FileNotFoundError:
                    continue
                try:
                    yield TriggerEvent({"message": path.stem})
                except GeneratorExit:  # the triggerer has not accepted the event
                    taken.rename(path)
                    raise
            await asyncio.sleep(0.2)
'''
SOURCE = '''
"""A DAG that messages start."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

from airflow.sdk import DAG, Asset, AssetWatcher, task
from spool_watcher import SpoolTrigger

LINES = Path(__file__).resolve().parent.parent / "messages.jsonl"
QUEUE = Asset("watched_queue", watchers=[AssetWatcher(name="spool", trigger=SpoolTrigger(folder="{folder}"))])


@task
def handle(**context):
    events = [event for some in dict(context["triggering_asset_events"]).values() for event in some]
    messages = [event.extra["payload"]["message"] for event in events]
    descriptor = os.open(LINES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, (json.dumps(dict(run_id=context["dag_run"].run_id, messages=messages)) + "\\n").encode())
    os.close(descriptor)


with DAG("watched_spool", start_date=datetime(2026, 1, 1), schedule=[QUEUE], catchup=False, max_active_runs=4):
    handle()
'''


@dataclass
class Queue:
    """The folder of the messages, and what both regions did with them."""

    pair: Pair
    folder: Path
    sent: list[str] = field(default_factory=list)

    def send(self) -> None:
        name = f"m{len(self.sent):04d}"
        path = self.folder / f"{name}.part"
        path.touch()
        path.rename(self.folder / f"{name}.msg")
        self.sent.append(name)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Send two messages a second, until the block ends."""
        ended = threading.Event()

        def flow() -> None:
            while not ended.wait(0.5):
                self.send()

        thread = threading.Thread(target=flow)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def handled(self, region: Airflow | None = None) -> Counter[str]:
        """Return how often a task handled each message, in one region or in both."""
        lines = []
        for each in [region] if region is not None else self.pair.airflows.values():
            path = each.dags_folder.resolve().parent / "messages.jsonl"
            lines += path.read_text().splitlines() if path.exists() else []
        return Counter(message for line in lines for message in json.loads(line)["messages"])

    def taken_by(self, region: Airflow) -> int:
        return len(list(self.folder.glob(f"*.taken-{region.name}")))

    def wait_until_handled(self) -> None:
        """
        Wait until each message that was sent until now is handled.

        Airflow gives an event to the next run of the consumer if it arrives while an earlier one is queued. So this
        sends a further message from time to time.
        """
        sent, next_at = set(self.sent), time.monotonic() + 5

        def missing() -> set[str]:
            nonlocal next_at
            if time.monotonic() >= next_at:
                next_at += 5
                self.send()
            return sent - self.handled().keys()

        wait_until(lambda: not missing(), lambda: f"{sorted(missing())} are handled", deadline_s=240)


def has_watcher(pair: Pair, region: Airflow) -> bool:
    """Return whether the database of a region has the watcher, as its agent reports it."""
    return any(agent.watchers for agent in pair.table.agents(region.name))


def watched(pair: Pair, folder: Path) -> Queue:
    """Return a queue. Both regions have a watcher of it, and the active region handles its messages."""
    make_steady(pair)
    source, target = pair.active, pair.standby
    queue = Queue(pair, folder)
    for region in (source, target):
        plugins = region.dags_folder.resolve().parent / "plugins"
        (plugins / "spool_watcher.py").write_text(TRIGGER)
        (region.dags_folder.resolve().parent / "messages.jsonl").unlink(missing_ok=True)
        region.deploy("watched_spool.py", SOURCE.replace("{folder}", str(folder)))
    for region in (source, target):
        region.wait_for_dag(DAG_ID)
    source.unpause(DAG_ID)
    # Airflow has no watchers for a paused DAG. So a user unpauses it in the standby.
    target.unpause(DAG_ID)
    wait_until(lambda: all(has_watcher(pair, region) for region in (source, target)), "both regions have the watcher")
    with queue.flowing():
        wait_until(lambda: len(queue.handled(source)) > 20, "the active region handles messages")
    queue.wait_until_handled()
    assert queue.taken_by(target) == 0, "the standby took messages"
    return queue


@on(NEWEST)
def test_each_message_of_a_shared_queue_is_handled_once(pair: Pair, tmp_path: Path) -> None:
    """While messages arrive all the time: in STEADY, during a failover, and during the failback. None in a standby."""
    queue = watched(pair, tmp_path)
    source, target = pair.active, pair.standby
    for region in (target, source):
        before = len(queue.handled(region))
        with queue.flowing():
            fail_over(pair, region.name)
            wait_until(lambda: len(queue.handled(region)) > before + 20, f"{region.name} handles messages")  # noqa: B023
        sent = set(queue.sent)
        with queue.flowing():
            wait_until(lambda: queue.handled(region).keys() - sent, f"{region.name} handles later messages")  # noqa: B023
        queue.wait_until_handled()
        repeated = {message: times for message, times in queue.handled().items() if times > 1}
        assert repeated == {}, f"after the failover to {region.name}"
        other = target if region is source else source
        assert queue.handled(other).keys() <= sent, f"only {region.name} handles messages that are sent afterwards"
    assert set(queue.handled().values()) == {1}
    details = [step["detail"] for record in pair.history() for step in record["steps"] if step["name"] == "drain"]
    assert not any("watchers" in detail for detail in details[:2]), "the drain waited for the triggerers' own reports"


@on(soak=(NEWEST,))
def test_one_airflow_that_is_stopped_and_started_handles_each_message_once(pair: Pair, tmp_path: Path) -> None:
    """Control case: no failover. Scheduler and triggerer are stopped, as in an update, while messages arrive."""
    queue = watched(pair, tmp_path)
    active, standby = pair.active, pair.standby
    with queue.flowing():
        for component in ("triggerer", "scheduler"):
            active.stop(component, grace_s=60)
        sent = len(queue.sent)
        wait_until(lambda: len(queue.sent) > sent + 10, "messages arrive while the components are stopped")
        handled = len(queue.handled())
        active.start_scheduler()
        active.start_triggerer()
        wait_until(lambda: len(queue.handled()) > handled + 20, "the Airflow handles messages again")
    queue.wait_until_handled()
    assert set(queue.handled().values()) == {1}, queue.handled()
    assert queue.taken_by(standby) == 0, "the standby took messages"
