"""The page on costs in the docs has the number of DynamoDB units that the agents really use."""

from __future__ import annotations

import re
from pathlib import Path

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.plugins.fence import Fence
from tests.benchmarks.costs import ACTIVE, DRSet, item_bytes, units
from tests.contract.aws_server import AwsServer
from tests.documents import page

COSTS = page("explanation/costs")
HOUR_S, MINUTE_S = 3600, 60


def documented(what: str) -> int:
    """Return the units of *what* in an hour, according to the page."""
    (row,) = re.findall(rf"^\| {re.escape(what)}[^|]*\|[^|]*\| ([\d,]+) \|", COSTS, flags=re.MULTILINE)
    return int(row.replace(",", ""))


def test_a_minute_of_two_regions_costs_what_the_page_says(table: str, runs_table: str, aws: AwsServer) -> None:
    """Reads, heartbeats, entries and queries. ``make bench ONLY=costs`` also counts what an agent does rarely."""
    dr_set = DRSet(table, runs_table, run_s=75)
    dr_set.live(2 * MINUTE_S)
    dr_set.meter.reset()
    dr_set.live(MINUTE_S)
    asked = dr_set.meter.requests
    an_hour = HOUR_S // MINUTE_S

    looks, before_telling, watched = 4 * 60, 12, 2
    observed = 2 * 4 * 12
    early = asked["state BatchGetItem"] - (looks + before_telling + watched + observed)
    # The minute has eight or nine ends. Two turns follow some of them, and some share a turn.
    assert abs(2 * early * an_hour - documented("a turn that the end of a run starts")) <= 2 * 4 * an_hour
    assert documented("silence of all regions") == an_hour * 3 * observed
    assert documented("reads of the state") == an_hour * 2 * looks
    assert documented("a second read before an agent publishes") == an_hour * 2 * before_telling
    assert asked["state PutItem"] * an_hour == documented("heartbeats")
    assert abs(asked["runs PutItem"] * an_hour - documented("entries of the ledger")) <= 3 * an_hour
    assert abs(asked["runs Query"] * an_hour - documented("reading the other region's ledger")) <= 4 * an_hour
    assert asked["state Scan"] == 2
    assert dr_set.meter.units["state written"] == asked["state PutItem"], "a heartbeat is one unit"
    assert dr_set.meter.units["runs written"] == asked["runs PutItem"], "an entry is one unit"


def test_a_worker_reads_two_units_however_many_of_its_tasks_begin(
    table: str, runs_table: str, aws: AwsServer, tmp_path: Path
) -> None:
    """It reads state and environment once in ``fence_file_s``, and once an hour it records its fence."""
    dr_set = DRSet(table, runs_table)
    dr_set.live(MINUTE_S)
    dr_set.meter.reset()
    config = DRConfig(enabled=True, region=ACTIVE, state_table="s", environments={})
    for _ in range(3):
        fence = Fence(config=config, clock=dr_set.clock, home=tmp_path, open_store=dr_set.store)
        assert fence.decide(exempt=False).action.value == "run"
    assert dr_set.meter.units == {"state read": 2, "state written": 1}
    dr_set.clock.advance(config.fence_file_s + 1)
    assert fence.decide(exempt=False).action.value == "run"
    assert dr_set.meter.units == {"state read": 4, "state written": 1}


def test_units_are_counted_as_dynamodb_bills_them() -> None:
    """By the rules of DynamoDB's developer guide: sizes are rounded up to whole units."""
    item = {"id": {"S": "é"}, "n": {"N": "1234"}, "b": {"B": b"123"}, "l": {"L": [{"S": "ab"}]}, "t": {"BOOL": True}}
    assert item_bytes(item) == (2 + 2) + (1 + 3) + (1 + 3) + (1 + 3 + 1 + 2) + (1 + 1)
    assert [units(size, 1024) for size in (0, 1, 1024, 1025)] == [1, 1, 1, 2]
