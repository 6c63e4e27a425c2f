"""Unreadable items in both tables of two real Airflows under load stop no failover, and no run is lost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.sandbox.failovers import CHAIN, fail_over, start
from tests.sandbox.harness import Pair, Shape, on
from tests.sandbox.intervals import (
    assert_none_executed_again,
    times_executed,
    under_load,
    wait_until_nothing_is_missing,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

# Sandboxes of their own: what is damaged in a ledger stays there.
DAMAGED = tuple(Shape(version=version, name=f"items-{version}", ledger=True) for version in ("3.3.1", "2.10.3"))
IN_THE_LEDGER = ("checkpoint", "checkpoint: page", "log: truncated", "log: no body", "log: status")
"""
What is damaged in the runs table for each failover, there and back in turn.

Damaged checkpoints come first. A checkpoint replaces an entry of the log that cannot be read. If it cannot be read
either, the region that takes over waits for ledger_wait_s.
"""
DEAD_JOB = "9999"
Item = Mapping[str, Any]
NUMBER, TEXT = {"N": "7"}, {"S": "garbage"}
AT = {"S": "2026-01-01T00:00:00.000000Z"}


def items_of_state_table(regions: list[str]) -> dict[str, Item]:
    """Return unreadable items by key: one of each kind, for most kinds in each region."""
    first, second = regions
    found: dict[str, Item] = {
        "FAILOVER#20260101T000000Z-broken": {"mode": {"S": "swift"}, "from": NUMBER, "outcome": {"S": "open"}},
        "PAUSED#20260101T000000Z-broken": {"region": NUMBER, "pages": TEXT},
        # The page of the first snapshot does not exist. The second snapshot is no manifest.
        f"SNAPSHOT#{first}": {
            "id": {"S": first}, "region": {"S": first}, "recorded_at": AT,
            "pages": {"N": "1"}, "generation": {"S": "gone"},
        },
        f"SNAPSHOT#{second}": {"pages": TEXT, "generation": NUMBER},
    }  # fmt: skip
    for region in regions:
        found |= {
            f"AGENT#{region}#{DEAD_JOB}": {"beat": TEXT, "version": {"L": []}},
            f"FENCE#{region}": {"at": NUMBER},
            f"INVENTORY#{region}": {"taken_at": NUMBER, "pages": {"N": "3"}, "generation": TEXT},
            f"UNPUBLISHED#{region}": {"id": NUMBER, "runs": TEXT},
        }
    return found


def damaged_log(kind: str, newest: Item) -> Item:
    """Return the newest entry of a log, damaged."""
    packed = newest["body"]["B"]
    if kind == "log: no body":
        return {name: value for name, value in newest.items() if name != "body"}
    if kind == "log: truncated":
        return {**newest, "body": {"B": packed[:20]}}
    entry = json.loads(gzip.decompress(packed))
    # Another run: with a changed status, a run that the test counts would wait.
    unknown = {"dag_id": "fo_chain", "run_id": "unknown", "run_type": "manual", "status": "frozen", "epoch": 0}
    entry["runs"] = [*entry.get("runs", []), unknown]
    return {**newest, "body": {"B": gzip.compress(json.dumps(entry).encode())}}


def damage_ledger(pair: Pair, kind: str, region: str) -> None:
    """Damage the newest entry of a region's log, or its checkpoint."""
    runs_table = pair.sandbox.description()["runs_table"]

    def newest(pk: str, below: str) -> Item | None:
        items = pair.dynamodb.query(
            TableName=runs_table,
            KeyConditionExpression="pk = :pk AND sk <= :below",
            ExpressionAttributeValues={":pk": {"S": pk}, ":below": {"S": below}},
            ScanIndexForward=False,
            Limit=1,
        )["Items"]
        return items[0] if items else None

    if (entry := newest(f"LOG#{region}", "~")) is None:
        return  # a region without a log has no checkpoint either
    manifest = newest(f"PICTURE#{region}", "manifest")
    if kind == "checkpoint: page" and manifest is not None and "pages" in manifest:
        item: Item = {**manifest, "pages": {"N": str(int(manifest["pages"]["N"]) + 1)}}
    elif kind.startswith("checkpoint"):
        item = {"pk": {"S": f"PICTURE#{region}"}, "sk": {"S": "manifest"}, "pages": {"N": "2"}, "number": TEXT}
    else:
        item = damaged_log(kind, entry)
    pair.dynamodb.put_item(TableName=runs_table, Item=item)


def damage(pair: Pair, kind: str) -> list[str]:
    """
    Damage an item of each kind, for each region; return the keys of those in the state table.

    :param kind: which item of the runs table, and how.
    """
    state_table = pair.variables["DR_STATE_TABLE"]
    items = items_of_state_table(list(pair.airflows))
    for region in pair.airflows:
        pair.dynamodb.update_item(
            TableName=state_table,
            Key={"state_id": {"S": f"ENVIRONMENT#{region}"}},
            UpdateExpression="ADD agents :job SET account = :account",
            ExpressionAttributeValues={":job": {"SS": [DEAD_JOB]}, ":account": {"L": [NUMBER]}},
        )
        damage_ledger(pair, kind, region)
    for key, values in items.items():
        pair.dynamodb.put_item(TableName=state_table, Item={"state_id": {"S": key}, **values})
    return sorted(items)


def wait_for_heartbeats(pair: Pair) -> None:
    """Return once the agents of both regions have sent a heartbeat from now on."""
    beats = {(region, agent.job): agent.beat for region in pair.airflows for agent in pair.table.agents(region)}

    def all_go_on() -> bool:
        return all(
            any(agent.beat > beats.get((region, agent.job), agent.beat) for agent in pair.table.agents(region))
            for region in pair.airflows
        )

    wait_until(all_go_on, "heartbeats of both regions")


@on(soak=DAMAGED)
def test_a_damaged_item_of_each_kind_stops_no_failover_and_no_failback(pair: Pair) -> None:
    """Heartbeats come, the items are named, the role moves there and back, and each run executes once."""
    under_load(pair)
    try:
        fail_over_and_back(pair)
    finally:
        pair.delete_items("AGENT#", "FAILOVER#2026", "PAUSED#2026", "FENCE#", "INVENTORY#", "UNPUBLISHED#")
        for region in pair.airflows:
            pair.dynamodb.update_item(
                TableName=pair.variables["DR_STATE_TABLE"],
                Key={"state_id": {"S": f"ENVIRONMENT#{region}"}},
                UpdateExpression="REMOVE account",
            )


def fail_over_and_back(pair: Pair) -> None:
    """Damage the items, and move the role to the other region, for each kind of damage in the ledger."""
    executed = times_executed(pair)
    for kind in IN_THE_LEDGER:
        source, target = pair.active, pair.standby
        pair.wait_until_reconciled()
        before = start(source)
        before.wait_until_it_executed()
        keys = damage(pair, kind)
        wait_for_heartbeats(pair)
        said = pair.mwaa_dr("status").stdout
        # An agent may have written some of the items again, so not all of them are still damaged.
        assert any(key in said for key in keys), said
        fail_over(pair, target.name, "--even-if-not-ready")
        after = start(target)
        after.wait_until_it_executed()
        assert after.bodies(source) == before.bodies(target) == []
        assert before.bodies() == CHAIN
        wait_until_nothing_is_missing(pair, target)
    assert_none_executed_again(pair, executed)
