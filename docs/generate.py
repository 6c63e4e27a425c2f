"""
Write the generated parts of the reference: ``python -m docs.generate``; ``--check`` only says what is stale.

A part stands between two comments in its page, so that the repository shows it as well as the built pages. The tests
check that no part is stale.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from airflow_provider_mwaa_dr.aws.dynamodb import contents
from airflow_provider_mwaa_dr.cli.application import build_parser
from airflow_provider_mwaa_dr.core import state
from airflow_provider_mwaa_dr.core.config import OPTIONS
from airflow_provider_mwaa_dr.core.readiness.checks import ADVISORY_CHECKS, check_accepted
from airflow_provider_mwaa_dr.core.readiness.refusals import REFUSALS
from airflow_provider_mwaa_dr.core.state import DRState, Mode, Phase, Plan
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, WrongPhaseError

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs"
_PART = re.compile(r"(<!-- generated: (.+?) -->\n).*?(\n<!-- end of generated -->)", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join((lines[0], "|---" * len(head) + "|", *lines[1:]))


def code(text: str) -> str:
    """Return *text* as code; a dash for none."""
    return f"`{text}`" if text else "-"


def cell(text: str) -> str:
    """Return *text* for a cell of a table: on one line."""
    return " ".join(text.split()).replace("|", "\\|")


# Options.


def options() -> str:
    """Return the table of the options in ``[dr]``."""
    rows = ((code(each.name), code(each.default), each.allowed, each.description) for each in OPTIONS)
    return table(("option", "default", "allowed", "what it does"), rows)


# Commands.


def commands() -> str:
    """Return a section for each command, with its arguments."""
    return "\n\n".join(_commands(build_parser(with_sandbox=True), "mwaa-dr"))


def _commands(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        for word, child in action.choices.items():
            below = list(_commands(child, f"{name} {word}"))
            yield from below or [_command(child, f"{name} {word}")]


COMMON = ("--help", "--table", "--table-region", "--json", "--debug", "--dry-run", "--yes", "--home")
"""Arguments of many commands; the page says once what they do."""


def _command(parser: argparse.ArgumentParser, name: str) -> str:
    summary = cell(parser.description or "")
    parts = [f"### `{name}`", f"{summary[:1].upper()}{summary[1:]}."]
    shared = [word for word in COMMON if word != "--help" and word in parser._option_string_actions]
    rows = [
        (", ".join(f"`{each}`" for each in _spelled(action)), cell((action.help or "-") % _filled(action)))
        for action in parser._actions
        if not set(action.option_strings) & set(COMMON)
    ]
    if rows:
        parts.append(table(("argument", "meaning"), rows))
    parts.append(f"Also: {', '.join(map(code, shared))}.")
    return "\n\n".join(parts)


def _spelled(action: argparse.Action) -> Iterator[str]:
    value = action.metavar if isinstance(action.metavar, str) else ""
    if not value and action.choices:
        value = "|".join(map(str, action.choices)).replace("|", "\\|")
    for word in action.option_strings or [""]:
        yield f"{word} {value}".strip() if action.nargs != 0 else word


def _filled(action: argparse.Action) -> Mapping[str, object]:
    return {"default": action.default, "prog": "mwaa-dr"}


# Checks.


def refusals() -> str:
    """Return the table of the checks that refuse a failover."""
    return table(("check", "fails or warns when"), ((code(each.name), cell(each.fails_when)) for each in REFUSALS))


def checks(module: str) -> str:
    """Return the table of the other checks that are defined in a module of core/readiness: their docstrings."""
    rows = (
        (code(name), cell(inspect.getdoc(check) or "").replace("``", "`"))
        for name, check in (*ADVISORY_CHECKS.items(), ("accepted", check_accepted))
        if check.__module__.endswith(f".{module}")
    )
    return table(("check", "examines"), rows)


# Items of the tables.


def items() -> str:
    """Return a table of fields for each kind of item of the state table; the state item has a table of its own."""
    parts = []
    for name, kind in contents.KINDS.items():
        parts += [f"### `{name}#…`", _fields(kind.schema), f"If it cannot be read: {cell(kind.advice)}"]
    return "\n\n".join(parts)


def runs() -> str:
    """Return a table of fields for each kind of item of the runs table, and for a run within them."""
    return "\n\n".join(
        part
        for title, schema in (
            ("### An entry: `LOG#region`", contents.ENTRY),
            ("### A run in an entry", contents.RUN),
            ("### A checkpoint: `PICTURE#region`", contents.CHECKPOINT),
        )
        for part in (title, _fields(schema))
    )


def _fields(schema: contents.Schema) -> str:
    rows = ((code(name), rule.allowed, "yes" if rule.is_required else "no") for name, rule in schema.items())
    return table(("field", "allowed", "required"), rows)


# The protocol.

A, B = "A", "B"
AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def plan_to(target: str) -> Plan:
    """Return a new plan; claim and supersede fill in its source."""
    return Plan(id="p", source="", target=target, mode=Mode.AUTO, reason="r", by="b", owner="o", started_at=AT)


def reachable() -> Iterator[DRState]:
    """Yield a state of each phase, with each kind of plan that makes a difference."""
    steady = state.initial(A, lease_s=60, by="b", at=AT)
    draining = state.claim(steady, plan_to(B), at=AT)
    promoting = state.promote(draining, at=AT)
    resuming = state.resume(promoting, at=AT)
    yield from (steady, draining, promoting, resuming)
    yield state.turn_forced(draining, at=AT)
    yield state.supersede(promoting, plan_to(A), at=AT)
    yield state.supersede(resuming, plan_to(A), at=AT)
    yield state.recover(replace(steady, active_region="misspelled"), plan_to(B), lease_s=60, at=AT)


TRANSITIONS: Mapping[str, tuple[Callable[[DRState], DRState], str, str]] = {
    "claim": (
        lambda row: state.claim(row, plan_to(B), at=AT),
        "the engine of a caller",
        "writes the plan of a failover",
    ),
    "record_set": (
        lambda row: state.record_set(row, "set", at=AT),
        "the engine that owns the plan",
        "names the recorded set of DAGs in the plan",
    ),
    "turn_forced": (
        lambda row: state.turn_forced(row, at=AT),
        "the engine that owns the plan",
        "continues without a source that does not answer",
    ),
    "announce": (
        lambda row: state.announce(row, "stopped", had_ended=False, at=AT),
        "the engine that owns the plan",
        "names the runs that it is going to stop",
    ),
    "drained": (
        lambda row: state.drained(row, at=AT),
        "the engine that owns the plan",
        "states that no run is in flight in the source; the fence holds from then on",
    ),
    "promote": (
        lambda row: state.promote(row, at=AT),
        "the engine that owns the plan",
        "makes the target the active region; the epoch grows by 1",
    ),
    "resume": (
        lambda row: state.resume(row, at=AT),
        "the engine that owns the plan, or the target's agent",
        "lets the target execute: all its schedulers know the epoch",
    ),
    "complete": (
        lambda row: state.complete(row, not_unpaused_set_id=None, at=AT),
        "the engine that owns the plan, or the target's agent",
        "ends the plan",
    ),
    "cancel": (
        lambda row: state.cancel(row, plan_id="c", by="b", owner="o", reason="r", at=AT),
        "the engine of a caller that names the active region, or the owner after a drain that is too long",
        "gives the plan up before its promotion; goes back to the promoted plan that it had superseded",
    ),
    "supersede": (
        lambda row: state.supersede(row, plan_to(A if row.active_region == B else B), at=AT),
        "the engine of a caller that names another region",
        "replaces the open plan, and keeps its recorded set",
    ),
    "recover": (
        lambda row: state.recover(row, plan_to(B), lease_s=60, at=AT),
        "the engine of a caller, if the state gives no region a role",
        "recovers such a state, with a forced plan",
    ),
    "take_over": (
        lambda row: state.take_over(row, owner="o2", at=AT),
        "an engine that follows, or the target's agent after the promotion",
        "becomes the owner of a plan whose owner is silent",
    ),
    "beat": (
        lambda row: state.beat(row, at=AT),
        "the engine that owns the plan",
        "shows that the owner is alive",
    ),
    "harden": (
        lambda row: state.harden(row, stops=True, forces=False, at=AT),
        "the engine of a caller that joins",
        "adds `--stop-running` or `--mode forced` to the open plan",
    ),
    "set_active_region": (
        lambda row: state.set_active_region(row, B, reason="r", by="b", at=AT),
        "`DRStateHook.set_active_region`",
        "moves the role without drain, lease or recorded set; for recovery by hand",
    ),
}
"""Each function of core/state.py that returns the next state: how to call it, who does, and what it does."""


def moves() -> Mapping[str, Sequence[tuple[Phase, Phase]]]:
    """Return from which phase to which each transition leads: what the functions do, and not what a text says."""
    found: dict[str, list[tuple[Phase, Phase]]] = {name: [] for name in TRANSITIONS}
    for name, (change, _, _) in TRANSITIONS.items():
        for row in reachable():
            with suppress(AlreadyActiveError, WrongPhaseError):
                found[name].append((row.phase, change(row).phase))
    order = list(Phase)
    return {name: sorted(set(each), key=lambda move: tuple(map(order.index, move))) for name, each in found.items()}


def transitions() -> str:
    """Return the table of transitions."""
    rows = []
    for name, each in moves().items():
        _, actor, meaning = TRANSITIONS[name]
        stays = [old.value for old, new in each if old is new]
        leads = [f"{old.value} → {new.value}" for old, new in each if old is not new]
        if stays:
            leads.append(f"stays in {', '.join(stays)}")
        rows.append((code(name), "; ".join(leads), actor, meaning))
    return table(("transition", "phases", "written by", "what it does"), rows)


def diagram() -> str:
    """Return the phases as a Mermaid diagram; transitions that change no phase are only in the table."""
    labels: dict[tuple[Phase, Phase], list[str]] = {}
    for name, each in moves().items():
        for move in each:
            # A transition that recovers a broken state, or keeps the phase, would hide the way of a failover.
            if move[0] is not move[1] and name != "recover":
                labels.setdefault(move, []).append(name)
    lines = ["[*] --> STEADY: init"]
    lines += [f"{old.value} --> {new.value}: {', '.join(names)}" for (old, new), names in labels.items()]
    return "\n".join(("```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```"))


PARTS: Mapping[str, Callable[[], str]] = {
    "options": options,
    "commands": commands,
    "refusals": refusals,
    "checks of tables": partial(checks, "tables"),
    "checks of environments": partial(checks, "environments"),
    "checks of dags": partial(checks, "dags"),
    "check of differences": partial(checks, "checks"),
    "items": items,
    "runs": runs,
    "transitions": transitions,
    "diagram": diagram,
}


def generated(text: str) -> str:
    """Return a page with its generated parts as they must be."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n{part[3]}", text)


def pages() -> Iterator[tuple[Path, str, str]]:
    """Yield each page that has generated parts, as it is and as it must be."""
    for path in sorted(PAGES.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if _PART.search(text):
            yield path, text, generated(text)


def main() -> int:
    """Write or check the pages; return the exit code."""
    is_check = "--check" in sys.argv[1:]
    stale = [(path, new) for path, old, new in pages() if old != new]
    for path, new in stale:
        print(f"{path.relative_to(ROOT)} {'is stale' if is_check else 'was written'}")
        if not is_check:
            path.write_text(new, encoding="utf-8")
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
