"""Two real agents while items of the tables are damaged at random: heartbeats continue, and no run executes twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mwaa_dr.exceptions import DRError
from tests.simulation.airflow import SimulatedDag
from tests.unit.agent.test_becoming_active import HERE, THERE, Pair, Region

STEPS, FLIP = 14, 8
KEYS = [
    f"{kind}#{region}{suffix}"
    for region in (HERE, THERE)
    for kind, suffix in [
        ("AGENT", "#1"), ("AGENT", "#9"), ("SNAPSHOT", ""), ("ENVIRONMENT", ""), ("FENCE", ""), ("INVENTORY", ""),
    ]
]  # fmt: skip
ITEMS = st.sampled_from([*KEYS, "FAILOVER#old", "PAUSED#old"])
ENTRIES = st.tuples(st.sampled_from(["entry"]), st.sampled_from([HERE, THERE]), st.integers(0, 3))
CHECKPOINTS = st.tuples(st.sampled_from(["checkpoint", "restart", "save"]), st.sampled_from([HERE, THERE]), st.just(0))
EVENTS = st.lists(st.tuples(st.integers(0, STEPS - 1), st.one_of(ITEMS, ENTRIES, CHECKPOINTS)), max_size=8)


def happen(pair: Pair, event: str | tuple[str, str, int]) -> None:
    """Damage an item, a log entry or a checkpoint, restart an agent, or let time pass."""
    if isinstance(event, str):
        pair.store.damage(event)
        return
    kind, name, back = event
    region = pair.here if name == HERE else pair.there
    log = pair.runs.log(name, after=0)
    if kind == "entry" and len(log) > back:
        pair.runs.damage_entry(name, log[-1 - back].number)
    elif kind == "checkpoint" and log:
        pair.runs.damage_checkpoint(name)
    elif kind == "restart":
        region.restart()
    elif kind == "save":
        pair.clock.advance(40)


@settings(max_examples=200, deadline=None, print_blob=True)
@given(EVENTS)
def test_whatever_is_damaged_agents_live_and_no_run_is_executed_twice(
    events: list[tuple[int, str | tuple[str, str, int]]],
) -> None:
    """At each step one run starts and the previous run ends, in the active region. A failover happens in the middle."""
    pair = Pair([SimulatedDag("orders", every_s=10)])
    pair.there.turn(2)
    pair.here.turn(2)
    for step in range(STEPS):
        if step == FLIP:
            pair.flip(HERE)
        active = pair.there if step < FLIP else pair.here
        if step < FLIP:
            active.add(step)
            if step:
                active.db.set_state(active.db.rows["orders", f"r{step - 1}"], "success")
        for at, event in events:
            if at == step:
                happen(pair, event)
        beats = {region.name: beat(region) for region in (pair.here, pair.there)}
        pair.clock.advance(5)
        for region in (pair.here, pair.there):
            region.loop.turn()
            assert beat(region) != beats[region.name], (step, region.name)
            error = region.loop._error.value
            assert error is None or error.split(":")[0] in OURS, error
    ended = {key for key, row in pair.there.db.rows.items() if row.state == "success"}
    again = {key for key, row in pair.here.db.rows.items() if row.state in {"queued", "running"}} & ended
    assert not again
    # The interrupted run is resumed, or its agent publishes why it is not.
    status = next(agent for agent in pair.store.agents(HERE) if agent.job == "1")
    resumed = pair.here.db.rows.get(("orders", f"r{FLIP - 1}"))
    assert (resumed is not None and resumed.is_open) or status.waiting or status.unread or status.ledger_error
    if not events:
        assert pair.here.states == {"queued": 1, "success": FLIP - 1}


def beat(region: Region) -> object:
    """Return a value that changes with each heartbeat of the region's agent."""
    return next((agent.at for agent in region.pair.store.agents(region.name) if agent.job == "1"), None)


def names(kind: type[DRError]) -> set[str]:
    """Return the names of an error class and of all its subclasses."""
    return {kind.__name__}.union(*map(names, kind.__subclasses__()))


OURS = names(DRError)
