"""
What histories reach: actions, faults in each phase, and exits of engines; of a sample, also branches of the core.

A case that no history reaches is not tested. Actions and faults are always counted. Branches cost more: one history in
``SAMPLE`` runs with coverage.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TypeVar

from coverage import Coverage
from coverage.parser import PythonParser

import airflow_provider_mwaa_dr
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, stops_of
from tests.simulation.faults import places

T = TypeVar("T")

SAMPLE = 400
PACKAGE = Path(airflow_provider_mwaa_dr.__file__).parent
ENGINE = sorted(str(path.relative_to(PACKAGE)) for path in (PACKAGE / "core" / "failover").glob("*.py"))
OTHER_AGENT = {"fingerprints.py", "inventory.py", "metrics.py", "__init__.py"}
"""Parts of the agent that histories do not have."""
AGENT = sorted(
    str(path.relative_to(PACKAGE)) for path in (PACKAGE / "agent").glob("*.py") if path.name not in OTHER_AGENT
)
BOOKKEEPING = sorted(str(path.relative_to(PACKAGE)) for path in (PACKAGE / "core" / "bookkeeping").glob("*.py"))
FILES = tuple(
    PACKAGE / name
    for name in (
        *BOOKKEEPING, *ENGINE, *AGENT, "core/gate.py", "core/ledger.py", "core/state.py",
    )
)  # fmt: skip
ACTION, EXIT, FAULT, BRANCH = "action", "exit", "fault", "branch"

ACTIONS = (
    *(f"claim, {mode.value}" for mode in Mode),
    # With two regions, a caller can only join or cancel a plan in DRAINING.
    *(f"supersede in {phase.value}, {mode.value}" for phase in (Phase.PROMOTING, Phase.RESUMING) for mode in Mode),
    "cancel", "cancel after the drain", "cancel a forced plan", "cancel while runs are being stopped",
    "cancel goes back to a replaced plan",
    *(f"an engine takes over in {phase.value}" for phase in Phase if phase is not Phase.STEADY),
    *(f"an agent takes over in {phase.value}" for phase in (Phase.PROMOTING, Phase.RESUMING)),
    "an agent resumes", "an agent completes", "an agent completes a cancellation",
    "an engine resumes", "an engine completes", "an engine completes a cancellation",
    "auto turns forced", "graceful turns forced", "stop_running is added", "runs are being stopped", "drained",
    "the set is recorded", "beat", "promote, forced", "promote, graceful", "promote, graceful, after stopping runs",
    "join",
)  # fmt: skip


def known() -> dict[str, Counter[str]]:
    """Return each known case with a count of zero, so that cases that are never reached are printed, too."""
    return {ACTION: Counter(dict.fromkeys(ACTIONS, 0)), FAULT: Counter(dict.fromkeys(places(), 0))}


def place(state: DRState, region: str | None) -> str:
    """Return the place of a fault: the phase, and the role of the region in it."""
    if region is None:
        return state.phase.value
    plan = state.plan
    if plan is None:
        role = "active" if region == state.active_region else "standby"
    else:
        role = "target" if region == plan.target else "source"
    return f"{role}, {state.phase.value}"


def actions(before: DRState, new: DRState, who: str) -> Iterable[str]:
    """Yield what a write of the state does, with the names in ACTIONS."""
    old, plan = before.plan, new.plan
    if new.epoch != before.epoch:
        assert old is not None
        yield "promote, forced" if old.is_forced else "promote, graceful"
        if stops_of(before, before.epoch) and not old.is_forced:
            yield "promote, graceful, after stopping runs"
    elif plan is None:
        ends = " a cancellation" if old is not None and old.is_cancellation else ""
        yield f"{who} completes{ends}"
    elif old is None:
        yield f"claim, {plan.mode.value}"
    elif old.id != plan.id and plan.is_cancellation:
        yield "cancel"
        if old.drained:
            yield "cancel after the drain"
        if old.is_forced:
            yield "cancel a forced plan"
        if stops_of(before, before.epoch):
            yield "cancel while runs are being stopped"
    elif old.id != plan.id and plan.started_at < old.started_at:
        yield "cancel goes back to a replaced plan"
    elif old.id != plan.id:
        yield f"supersede in {before.phase.value}, {plan.mode.value}"
    else:
        yield from _steps(before, new, who)


def _steps(before: DRState, new: DRState, who: str) -> Iterable[str]:
    """Yield what a write within one plan does."""
    old, plan = before.plan, new.plan
    assert old is not None
    assert plan is not None
    if plan.is_halted:
        yield f"halt in {before.phase.value}"
    elif old.owner != plan.owner:
        yield f"{who} takes over in {before.phase.value}"
    elif before.phase is not new.phase:
        yield f"{who} resumes"
    elif old.is_forced is not plan.is_forced:
        yield f"{old.mode.value} turns forced"
    elif before.stops != new.stops:
        yield "runs are being stopped"
    elif old.stop_running is not plan.stop_running:
        yield "stop_running is added"
    elif old.starts_awaited is not plan.starts_awaited:
        yield "awaited runs start" if plan.starts_awaited else "awaited runs are held"
    elif old.drained is not plan.drained:
        yield "drained"
    elif old.set_id != plan.set_id:
        yield "the set is recorded"
    else:
        yield "beat"


# -- branches ------------------------------------------------------------------------------------------------------

Arc = tuple[str, int, int]


@cache
def _parser(path: Path) -> PythonParser:
    parser = PythonParser(filename=str(path))
    parser.parse_source()
    return parser


@cache
def _branches(path: Path) -> frozenset[tuple[int, int]]:
    """Return each exit of a line with several exits. Stubs of protocols never run, and do not count."""
    exits, lines = _parser(path).exit_counts(), _lines(path)
    arcs = _parser(path).arcs()
    return frozenset(
        (line, to) for line, to in arcs if exits.get(line, 0) > 1 and not lines[line - 1].lstrip().startswith("def ")
    )


@cache
def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _name(path: Path, line: int, to: int) -> str:
    text = _lines(path)[line - 1].strip()[:60]
    onward = "the end" if to < 0 else f"{to} {_lines(path)[to - 1].strip()[:50]}"
    return f"{path.relative_to(PACKAGE)}:{line} {text} -> {onward}"


def all_branches() -> Counter[str]:
    """Return each branch of the core with a count of zero."""
    return Counter({_name(path, *arc): 0 for path in FILES for arc in _branches(path)})


def with_branches(call: Callable[[], T]) -> tuple[T, Counter[str]]:
    """Return the result of *call*, and the branches of the core that it took, each once."""
    coverage = Coverage(
        data_file=None, branch=True, config_file=False, include=[str(path) for path in FILES], concurrency="greenlet"
    )
    coverage.start()
    try:
        result = call()
    finally:
        coverage.stop()
    data = coverage.get_data()
    taken: Counter[str] = Counter()
    for path in FILES:
        arcs = _parser(path).translate_arcs(data.arcs(str(path)) or [])
        taken.update(_name(path, *arc) for arc in set(arcs) & _branches(path))
    return result, taken
