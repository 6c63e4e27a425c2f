"""The README says what the package does: options, commands, layout of its house rules."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from airflow_provider_mwaa_dr.cli.application import build_parser
from airflow_provider_mwaa_dr.core.config import OPTIONS
from airflow_provider_mwaa_dr.sandbox import report
from tests.unit.sandbox import drill_reports

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def options_table() -> str:
    """Return the table of options as the README must have it."""
    rows = ["| option | default | allowed | what it does |", "|---|---|---|---|"]
    rows += [
        f"| `{option.name}` | {f'`{option.default}`' if option.default else '-'} | {option.allowed} "
        f"| {option.description} |"
        for option in OPTIONS
    ]
    return "\n".join(rows)


def test_every_option_is_in_the_readme_as_it_is_in_the_code() -> None:
    """One table of options; the README's copy cannot go stale."""
    assert options_table() in README


def test_every_command_of_the_readme_exists_and_every_command_is_in_it() -> None:
    """The table of commands is the help's."""

    def commands(parser: argparse.ArgumentParser, prefix: str) -> set[str]:
        found = set()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    found |= commands(child, f"{prefix} {name}") or {f"{prefix} {name}"}
        return found

    written = set(re.findall(r"`(mwaa-dr (?:sandbox )?[a-z]+)", README.split("## Command line")[1]))
    assert commands(build_parser(with_sandbox=True), "mwaa-dr") == written


def test_the_readme_shows_a_drill_as_it_is_printed() -> None:
    """Whose figures they are is for the README to say; what is counted, and in which order, is the code's."""
    passed = report.text(drill_reports.planned())
    shown = README.split("Drill planned: PASS")[1].split("```")[0]

    def form(text: str) -> list[str]:
        """Return the lines without their numbers."""
        return [re.sub(r"^ *[\d.?]+  |\b\d+\b", "", line).strip() for line in text.splitlines() if line.strip()]

    assert form(shown)[:-1] == form(passed)[1:]
