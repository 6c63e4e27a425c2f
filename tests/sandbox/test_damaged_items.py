"""Unreadable items in both tables of two real Airflows stop no failover, and no run is lost."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from tests.sandbox.failovers import CHAIN, fail_over, make_steady, start
from tests.sandbox.harness import Pair, Shape, on
from tests.waiting import wait_until

pytestmark = pytest.mark.sandbox

LEDGERS = [Shape(version=version, name=f"ledger-{version}", ledger=True) for version in ("3.3.1", "2.10.3")]
TRUNCATED = gzip.compress(b'{"number": 1}' * 100)[:20]


def damage(pair: Pair, *, ledger: str) -> list[str]:
    """
    Write one unreadable item of each kind, for each region, and return the keys in the state table.

    :param ledger: the kind of item in the runs table, PICTURE or LOG. If both are unreadable, the region that becomes
        active waits for ``ledger_wait_s``.
    """
    state_table, runs_table = pair.variables["DR_STATE_TABLE"], pair.sandbox.description()["runs_table"]
    number, text = {"N": "7"}, {"S": "garbage"}
    items: dict[str, dict[str, Any]] = {
        "FAILOVER#20260101T000000Z-broken": {"mode": {"S": "swift"}, "from": number, "outcome": {"S": "open"}}
    }
    for region in pair.airflows:
        items |= {
            f"AGENT#{region}#9999": {"beat": text, "version": {"L": []}},
            f"FENCE#{region}": {"at": number},
            f"SNAPSHOT#{region}": {"pages": text, "generation": number},
            f"INVENTORY#{region}": {"taken_at": number, "pages": {"N": "3"}, "generation": text},
        }
        pair.dynamodb.update_item(
            TableName=state_table,
            Key={"state_id": {"S": f"ENVIRONMENT#{region}"}},
            UpdateExpression="ADD agents :job SET account = :account",
            ExpressionAttributeValues={":job": {"SS": ["9999"]}, ":account": {"L": [number]}},
        )
        newest = pair.dynamodb.query(
            TableName=runs_table,
            KeyConditionExpression="pk = :log",
            ExpressionAttributeValues={":log": {"S": f"LOG#{region}"}},
            ScanIndexForward=False,
            Limit=1,
        )["Items"]
        damaged = {
            "PICTURE": [
                {"pk": {"S": f"PICTURE#{region}"}, "sk": {"S": "manifest"}, "pages": {"N": "2"}, "number": text}
            ],
            "LOG": [{**entry, "body": {"B": TRUNCATED}} for entry in newest],
        }
        # A region without a log has no checkpoint either. Its peer would have to wait for one.
        for item in damaged[ledger] if newest else ():
            pair.dynamodb.put_item(TableName=runs_table, Item=item)
    for key, values in items.items():
        pair.dynamodb.put_item(TableName=state_table, Item={"state_id": {"S": key}, **values})
    return sorted(items)


@on(soak=tuple(LEDGERS))
def test_a_damaged_item_of_each_kind_stops_no_failover_and_no_failback(pair: Pair) -> None:
    """
    Heartbeats continue, the items are named, the role moves to the other region and back, and each run executes once.
    """
    make_steady(pair)
    try:
        fail_over_and_back(pair)
    finally:
        pair.delete_items("AGENT#", "FAILOVER#2026", "FENCE#", "INVENTORY#")
        for region in pair.airflows:
            pair.dynamodb.update_item(
                TableName=pair.variables["DR_STATE_TABLE"],
                Key={"state_id": {"S": f"ENVIRONMENT#{region}"}},
                UpdateExpression="REMOVE account",
            )


def fail_over_and_back(pair: Pair) -> None:
    """Damage the items, and move the role to the other region and back."""
    source, target = pair.active, pair.standby
    before = start(source)
    before.wait_until_it_executed()
    before.wait_until_it_is("success")
    keys = damage(pair, ledger="PICTURE")
    beats = {(region, agent.job): agent.beat for region in pair.airflows for agent in pair.table.agents(region)}

    def all_continue() -> bool:
        return all(
            any(agent.beat > beats.get((region, agent.job), agent.beat) for agent in pair.table.agents(region))
            for region in pair.airflows
        )

    wait_until(all_continue, "heartbeats of both regions")
    output = pair.mwaa_dr("status").stdout
    # Agents have already written some items again, so these are no longer damaged.
    assert any(key in output for key in keys), output
    for here, there in ((source, target), (target, source)):
        pair.wait_until_reconciled()
        fail_over(pair, there.name, "--even-if-not-ready")
        run = start(there)
        run.wait_until_it_executed()
        assert run.bodies(here) == []
        damage(pair, ledger="LOG")
    assert before.bodies() == CHAIN
    assert before.bodies(target) == []
