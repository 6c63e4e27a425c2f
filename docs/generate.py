"""
Write the generated parts of the reference: ``python -m docs.generate``; ``--check`` only says what is stale.

A part stands between two comments in its page, so that the repository shows it as well as the built pages. The tests
check that no part is stale.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from airflow_provider_mwaa_dr.aws.dynamodb import contents
from airflow_provider_mwaa_dr.cli.application import build_parser
from airflow_provider_mwaa_dr.core.config import OPTIONS
from airflow_provider_mwaa_dr.core.readiness.checks import ADVISORY_CHECKS, check_accepted
from airflow_provider_mwaa_dr.core.readiness.refusals import REFUSALS
from airflow_provider_mwaa_dr.core.state import TRANSITIONS, Phase, Transition

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


COMMON = ("--help", "--table", "--table-region", "--profile", "--json", "--debug", "--dry-run", "--yes", "--home")
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


# The hook.


def hook_methods() -> str:
    """Return the table of the public methods of ``DRStateHook``, from its source: it needs Airflow to be imported."""
    source = (ROOT / "airflow_provider_mwaa_dr" / "hooks" / "dr_state.py").read_text(encoding="utf-8")
    (hook,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "DRStateHook")
    rows = []
    for method in hook.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
            arguments = ast.unparse(method.args).removeprefix("self").removeprefix(", ")
            name = method.name if method.decorator_list else f"{method.name}({arguments})"
            first = (ast.get_docstring(method) or "").split("\n\n")[0]
            text = re.sub(r":\w+:`[~.]*([^`]*)`", r"`\1`", first.split(":raises")[0].split(":param")[0])
            returns = ast.unparse(method.returns) if method.returns is not None else ""
            rows.append((code(cell(name)), code(cell(returns)), cell(text).replace("``", "`")))
    return table(("method or attribute", "type", "what it returns or does"), rows)


# Items of the tables.


def items() -> str:
    """Return a table of fields for each kind of item of the state table; the state item has a table of its own."""
    parts = []
    for name, item in contents.ITEM_SCHEMAS.items():
        parts += [f"### `{name}#…`", _fields(item.schema), f"If it cannot be read: {cell(item.advice)}"]
    return "\n\n".join(parts)


def runs() -> str:
    """Return a table of fields for each kind of item of the runs table, and for a run within them."""
    return "\n\n".join(
        part
        for title, schema in (
            ("### An entry: `LOG#region`", contents.ENTRY),
            ("### A run in an entry", contents.RUN),
            ("### A checkpoint: `PICTURE#region`", contents.CHECKPOINT),
            ("### A page of the history: `HISTORY#site`, by number: the first line", contents.HISTORY_PAGE),
            ("### Each other line of the page: a run, or a part of it", contents.HISTORY_LINE),
            ("### A cursor: `HISTORY#site`, `cursor#source`", contents.HISTORY_CURSOR),
        )
        for part in (title, _fields(schema))
    )


def _fields(schema: contents.Schema) -> str:
    rows = ((code(name), rule.allowed, "yes" if rule.is_required else "no") for name, rule in schema.items())
    return table(("field", "allowed", "required"), rows)


# The protocol.


def _moves(transition: Transition) -> Iterator[tuple[Phase, Phase]]:
    for old, targets in transition.moves.items():
        for new in targets:
            yield old, new


def transitions() -> str:
    """Return the table of transitions."""
    rows = []
    for name, each in TRANSITIONS.items():
        moves = list(_moves(each))
        stays = [old.value for old, new in moves if old is new]
        leads = [f"{old.value} → {new.value}" for old, new in moves if old is not new]
        if stays:
            leads.append(f"stays in {', '.join(stays)}")
        rows.append((code(name), "; ".join(leads), each.by, each.meaning))
    return table(("transition", "phases", "written by", "what it does"), rows)


def diagram() -> str:
    """Return the phases as a Mermaid diagram; transitions that change no phase are only in the table."""
    labels: dict[tuple[Phase, Phase], list[str]] = {}
    for name, each in TRANSITIONS.items():
        for move in _moves(each):
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
    "checks of upgrade": partial(checks, "upgrade"),
    "check of differences": partial(checks, "checks"),
    "hook methods": hook_methods,
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
