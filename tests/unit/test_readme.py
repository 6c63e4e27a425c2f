"""README.md and docs match the package: options, commands, output, and meaning."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

import airflow_provider_mwaa_dr
from airflow_provider_mwaa_dr.aws.dynamodb import contents, items
from airflow_provider_mwaa_dr.cli import application
from airflow_provider_mwaa_dr.cli.application import build_parser
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.bookkeeping import NO_RERUN_TAG
from airflow_provider_mwaa_dr.core.config import CONTROL_TAG, NO_CONF_TAG, OPTIONS
from airflow_provider_mwaa_dr.core.failover import FailoverAction
from airflow_provider_mwaa_dr.core.failover.preview import steps_of
from airflow_provider_mwaa_dr.core.ports import EnvironmentStatus
from airflow_provider_mwaa_dr.core.readiness.checks import NAMES
from airflow_provider_mwaa_dr.core.state import STATE_ID
from airflow_provider_mwaa_dr.get_provider_info import get_provider_info
from airflow_provider_mwaa_dr.sandbox.drill import report, scenario
from airflow_provider_mwaa_dr.sandbox.runtime import airflow_environment
from docs import generate
from tests.documents import DOCS, README, ROOT, blocks, everything, page, pages
from tests.exploration.breaks import BREAKS
from tests.exploration.silence_breaks import SILENCE_BREAKS
from tests.simulation.family_rules import FAMILY_RULES
from tests.simulation.halt_rules import HALT_RULES
from tests.simulation.rules import RULES
from tests.simulation.watcher_rules import WATCHER_RULES
from tests.unit.cli.conftest import ENVIRON, Shell
from tests.unit.sandbox.drill import drill_reports

PACKAGE = Path(airflow_provider_mwaa_dr.__file__).parent
A, B = "us-east-2", "us-east-1"


def test_no_generated_part_is_stale() -> None:
    """Options, arguments and fields of items are the same in the documents as in the code."""
    stale = [str(path) for path, old, new in generate.pages() if old != new]
    assert not stale, "run python -m docs.generate"


def test_every_option_is_documented_as_it_is_in_the_code() -> None:
    """The code has the one table of options. The copy in the documents must be equal."""
    rows = page("reference/options")
    for option in OPTIONS:
        default = f"`{option.default}`" if option.default else "-"
        assert f"| `{option.name}` | {default} | {option.allowed} | {option.description} |" in rows


def test_every_documented_command_exists_and_every_command_is_documented() -> None:
    """The documents list exactly the commands of the help."""

    def commands(parser: argparse.ArgumentParser, prefix: str) -> set[str]:
        found = set()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, child in action.choices.items():
                    found |= commands(child, f"{prefix} {name}") or {f"{prefix} {name}"}
        return found

    written = set(re.findall(r"`(mwaa-dr (?:sandbox )?[a-z]+)", page("reference/command-line")))
    assert commands(build_parser(with_sandbox=True), "mwaa-dr") == written


def test_every_option_of_a_command_is_in_its_section() -> None:
    """
    Each section lists exactly the options of its command. Options that all commands have are in a table of their own.
    """

    def options(words: list[str]) -> set[str]:
        parser: argparse.ArgumentParser = build_parser(with_sandbox=True)
        for word in words:
            (choices,) = (a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
            parser = choices[word]
        return {each for action in parser._actions for each in action.option_strings if each.startswith("--")}

    sections = re.split(r"^### `mwaa-dr (.*)`$", page("reference/command-line"), flags=re.MULTILINE)[1:]
    assert len(sections) > 20
    for name, section in zip(sections[::2], sections[1::2], strict=True):
        first = "".join(re.findall(r"^\| (`.*?`) \| ", section, flags=re.MULTILINE))
        named = set(re.findall(r"(?<![\w-])--[a-z-]+", first))
        named |= set(re.findall(r"`(--[a-z-]+)`", section.split("\nAlso: ")[1]))
        assert named | {"--help"} == options(name.split()), name


def test_the_tutorial_shows_a_drill_as_it_is_printed() -> None:
    """The figures are those of one run. The lines and their order come from the code."""
    passed = report.text(drill_reports.planned())
    shown = page("tutorial/first-drill").split("Drill planned: PASS")[1].split("```")[0]

    def form(text: str) -> list[str]:
        """Return the lines without their numbers."""
        return [re.sub(r"^ *[\d.?]+  |\b\d+\b", "", line).strip() for line in text.splitlines() if line.strip()]

    assert form(shown)[:-1] == form(passed)[1:]


def commands_shown() -> Iterator[list[str]]:
    """Yield the words of each ``mwaa-dr`` call in a shell block, and of each complete call in a sentence."""
    for block in blocks(everything(), "bash"):
        for line in re.split(r"&&|\n", block.replace("\\\n", " ")):
            if "mwaa-dr " in line.split("#")[0] and not line.lstrip().startswith(("aws", "export", "pip")):
                words = shlex.split(re.sub(r'eval "\$\((.*)\)"', r"\1", line).split(">")[0], comments=True)
                yield words[words.index("mwaa-dr") + 1 :]
    for text in re.findall(r"`mwaa-dr ([^`\[\]]+)`", everything()):
        if len(text.split()) > 2:
            yield shlex.split(text)


def test_every_command_in_the_documents_is_accepted() -> None:
    """The parser accepts the words and options of each command in the documents."""
    shown = list(commands_shown())
    assert len(shown) > 25
    for words in shown:
        args = build_parser(with_sandbox=True).parse_args(words)
        assert callable(args.handler), words


def test_every_variable_of_the_command_line_is_an_option() -> None:
    """The command line would ignore a ``DR_`` name that is no option, without an error."""
    known = {f"DR_{name.upper()}" for option in OPTIONS for name in (option.name, *option.aliases)}
    shown = set(re.findall(r"\bDR_[A-Z_]+[A-Z]\b", everything()))
    assert shown
    assert shown <= known


def texts() -> Iterator[str]:
    """Yield the text constants of the package, cut where a value is filled in."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_symptom_is_in_the_words_of_the_code() -> None:
    """
    Users search the documents for a message that they see. ``…`` and values that the code fills in may be anything.
    """
    text_of_the_code = "\n".join(texts())
    rows = re.findall(r"^\| (.*?) \| ", page("reference/messages"), flags=re.MULTILINE)
    symptoms = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    assert len(symptoms) > 50
    values = (STATE_ID, NO_RERUN_TAG, EnvironmentStatus.UPDATING.value)
    filled_in = "|".join(map(re.escape, ("…", *values, "[mwaa-dr] ", "held: ")))
    for symptom in symptoms:
        for part in re.split(filled_in, symptom):
            words = part.strip(" :,.()")
            assert words in text_of_the_code, symptom


def shape(line: str) -> str:
    """Return a line without its numbers, its plan id and its extra spaces."""
    line = re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{6}", "PLAN", line)
    return " ".join(re.sub(r"\d+(\.\d+)?", "#", line).split())


def assert_shown_is_printed(name: str, printed: str) -> None:
    """Each line of the output on the runbook's page was printed, in this order. ``(...)`` may be anything."""
    lines = [
        shape(line) for block in blocks(page(f"runbooks/{name}"), "text") for line in block.splitlines() if line.strip()
    ]
    assert lines
    real = [shape(line) for line in printed.splitlines()]
    for line in lines:
        pattern = re.escape(line).replace(re.escape("(...)"), r"\(.*\)")
        place = next((number for number, each in enumerate(real) if re.fullmatch(pattern, each)), None)
        assert place is not None, f"{line}\nis not printed; this is:\n" + "\n".join(real)
        real = real[place + 1 :]


def test_the_steps_of_the_drill_are_those_of_the_runbook() -> None:
    """Only the figures differ. Another test compares the runbook with the output of the engine."""
    shown = blocks(page("tutorial/first-drill"), "text")[0]
    drilled = re.findall(r"    ([a-z]+) done after [\d.]+ s: (.*)", shown)
    (printed,) = blocks(page("runbooks/planned-failover"), "text")
    expected = re.findall(r"  ok  ([a-z]+) +[\d.]+ s  (.*)", printed)
    assert [(name, shape(detail)) for name, detail in drilled] == [(name, shape(detail)) for name, detail in expected]


@pytest.fixture
def pair() -> Shell:
    """The DR set of the examples in the documents: two schedulers in each region, a ledger, and the test DAG."""
    shell = Shell()
    shell.environ = ENVIRON | {"DR_ENVIRONMENTS": f"{A}=etl-primary,{B}=etl-secondary"}
    for region in (A, B):
        shell.environment(region).add_dag("dr_test_dag", is_paused=region != A)
        shell.set.agents[region].jobs = ("1", "2")
        lag_s = 1.0 if region == A else None
        shell.set.agents[region].changes = {"fence_ok": True, "has_ledger": True, "ledger_lag_s": lag_s}

    def publish_the_final_entry() -> None:
        shell.set.clock.after(1, publish_the_final_entry)
        plan = shell.set.state.plan
        shell.set.agents[A].changes["final_plan_id"] = plan.id if plan is not None and plan.drained else None

    publish_the_final_entry()
    shell.set.clock.advance(5)
    return shell


def lose(pair: Shell) -> None:
    """Let the active region fail completely."""
    pair.set.agents[A].alive = False
    pair.set.agents[A].changes = {"fence_ok": None, "has_ledger": True}
    pair.environment(A).unreachable = True
    pair.set.clock.advance(45)


def test_a_planned_failover_prints_what_the_runbook_shows(pair: Shell) -> None:
    """The output of each step, up to the last line."""
    pair.environment(A).add_run("dag_00", "manual__long", seconds=25)
    done = pair("failover", B, "--reason", "Maintenance in Ohio", "--yes")
    assert_shown_is_printed("planned-failover", done.err + done.out)


def test_a_lost_region_looks_as_the_runbook_shows(pair: Shell) -> None:
    """The status before the failover, and the output of the failover."""
    pair.set.agents[A].changes["fence_ok"] = None
    pair.set.clock.advance(2)
    lose(pair)
    before = pair("status")
    done = pair("failover", B, "--reason", "Ohio is gone", "--yes")
    assert_shown_is_printed("lost-region", before.out + done.err + done.out)


def test_a_returning_region_looks_as_the_runbook_shows(pair: Shell) -> None:
    """The status while the region still closes its runs, and after it has closed them."""
    assert pair("failover", B, "--reason", "Ohio is gone", "--yes").code == 0
    pair.set.agents[A].changes = {"reconciled_epoch": 0, "unclosed_runs": 14}
    pair.set.clock.advance(2)
    first = pair("status").out
    pair.set.agents[A].changes = {"closed": 7}
    pair.set.clock.advance(2)
    assert_shown_is_printed("returning-region", first + pair("status").out)


def test_a_half_done_failover_looks_as_the_runbook_shows(pair: Shell) -> None:
    """The owner of the plan is silent. The status names both commands that end the plan."""
    state, at = pair.set.state, pair.set.clock.now()
    plan = transitions.Plan(
        id="20260101T000001Z-abc123", source=A, target=B, mode=transitions.Mode.AUTO, reason="Ohio is gone",
        by="ana@laptop", owner="gone", started_at=at,
    )  # fmt: skip
    pair.store.write(transitions.claim(state, plan, at=at), expected_version=state.version)
    pair.set.clock.advance(120)
    assert_shown_is_printed("half-done-failover", pair("status").out)
    assert pair("failover", A, "--reason", "Giving up", "--yes").code == 0


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_the_arithmetic_of_the_costs_is_right() -> None:
    """Every product, both sums, and the values that follow from them."""
    rows = re.findall(r"^\| (.*?) \|(.*?)\| ([\d,.]+) \|$", page("explanation/costs"), flags=re.MULTILINE)
    assert len(rows) > 10
    sums, total = [], 0.0
    for what, arithmetic, result in rows:
        if what.startswith("**"):
            assert number(result) == total, what
            sums.append(result)
            total = 0.0
            continue
        value = eval(arithmetic.strip().replace(",", "").replace("×", "*"))
        assert round(value, 2) == number(result), what
        total += number(result)
    priced = {what: arithmetic.strip() for what, arithmetic, _ in rows}
    assert priced["reads"].startswith(sums[0])
    assert priced["writes, two replicas"].startswith(sums[1])


# Form of the pages.


def headings(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST create them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_page_and_a_heading(path: Path) -> None:
    """The test checks relative links only. The reference of the API exists only after Sphinx has built it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target) or target.startswith("/reference/api/"):
            continue
        name, _, anchor = target.partition("#")
        leads_to = (path.parent / name).resolve() if name else path
        assert leads_to.exists(), target
        assert not anchor or anchor in headings(leads_to), target


RUNBOOKS = sorted(path for path in (DOCS / "runbooks").glob("*.md") if path.stem != "index")


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_every_runbook_has_the_same_form_and_fits_on_one_sheet(path: Path) -> None:
    """When, RTO and RPO, what to check, the command, when it is complete, and how to reverse it."""
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)", text, flags=re.MULTILINE) == ["Check first", "Run", "Complete when", "Reverse"]
    for word in ("**When**", "**RTO**", "**RPO**"):
        assert word in text
    assert len(text.splitlines()) <= 100
    assert path.stem in page("runbooks/index")


def test_every_check_is_documented() -> None:
    """The tables of the reference name exactly the checks of the code."""
    named = {
        name
        for row in re.findall(r"^\| (`.*?) \|", page("reference/checks"), flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert named == {*NAMES, "accepted"}


def test_every_exit_code_is_documented() -> None:
    """The table lists the exit codes in the order of their numbers."""
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", page("reference/exit-codes"), flags=re.MULTILINE)]
    assert codes == [
        application.DONE, application.FAILED, application.WRONG_USAGE, application.REFUSED, application.INTERRUPTED,
    ]  # fmt: skip


def test_every_tag_is_documented() -> None:
    """The table lists all tags."""
    tags = re.findall(r"^\| `(dr:.*?)` \|", page("reference/tags"), flags=re.MULTILINE)
    assert tags == [CONTROL_TAG, NO_RERUN_TAG, NO_CONF_TAG]


def test_every_scenario_of_the_drill_is_in_the_tutorial() -> None:
    """The tutorial lists the scenarios in the order of the help."""
    rows = re.findall(r"^\| `([a-z-]+)` \|", page("tutorial/first-drill"), flags=re.MULTILINE)
    assert rows == list(scenario.SCENARIOS)


def test_every_kind_of_item_is_documented() -> None:
    """The page lists every kind of item, and each field of the state item."""
    text = page("reference/table-items")
    keys = re.findall(r"^\| `([A-Z]+)#\w+(?:#job)?` \|", text, flags=re.MULTILINE)
    assert keys == list(contents.ITEM_SCHEMAS)
    state = transitions.initial(A, lease_s=60, by="test", at=datetime.now(timezone.utc))
    fields = items.from_item(items.state_to_item(state, write_token="t"))
    rows = "".join(re.findall(r"^\| (`.*?) \|", text.split("### Other items")[0], flags=re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows)) >= set(fields) - {items.KEY}


def test_every_public_class_is_in_the_reference() -> None:
    """The reference names each class of the modules that the provider declares to Airflow, with its module."""
    text = page("reference/operators")
    declared = [part for kind in ("hooks", "operators", "sensors") for part in get_provider_info()[kind]]
    for module in (each for part in declared for each in part["python-modules"]):
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        classes = [node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
        public = [name for name in classes if not name.startswith("_")]
        assert public
        for name in public:
            assert f"| `{name}` | `{module}` |" in text


def test_the_readme_imports_every_public_class_and_names_methods_of_the_hook() -> None:
    """Like the reference, it becomes stale with each new class."""
    section = README.read_text(encoding="utf-8").split("## For DAG authors")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    imported = {
        (node.module, name.name)
        for node in ast.parse(block).body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    declared = [part for kind in ("hooks", "operators", "sensors") for part in get_provider_info()[kind]]
    defined = {
        (module, node.name)
        for part in declared
        for module in part["python-modules"]
        for node in ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    }
    assert imported == defined
    methods = re.findall(r"`(?:DRStateHook\(\)\.)?(\w+)\(\)`", section)
    reference = page("reference/operators")
    assert methods == ["is_active", "active_region", "active_state", "get_state"]
    assert [name for name in methods if f"| `{name}(" not in reference] == []


def test_every_rule_that_a_test_takes_out_guards_an_invariant() -> None:
    """The page on the protocol names exactly the rules that the simulation and the exploration disable."""
    rows = re.findall(r"^\| .*? \| (`with.*?) \|$", page("explanation/protocol"), flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(with\w+)`", row)}
    rules = (*RULES, *FAMILY_RULES, *WATCHER_RULES, *HALT_RULES, *BREAKS, *SILENCE_BREAKS)
    assert named == {rule.__name__ for rule in rules}


def test_every_step_of_a_failover_is_in_the_protocol() -> None:
    """The page lists the steps in their order."""
    section = page("explanation/protocol").split("## Steps of a failover")[1].split("\n## ")[0]
    steps = re.findall(r"^\| ([a-z]+) \|", section, flags=re.MULTILINE)
    assert steps[0] == "step"
    assert tuple(steps[1:]) == steps_of(FailoverAction.CLAIM, transitions.Mode.GRACEFUL)


def test_the_readme_is_short_and_begins_its_limits_with_the_most_important_one() -> None:
    """It has at most 150 lines. The first limit is that the provider was never run in a real AWS account."""
    readme = README.read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    limits = readme.split("## What it does not do")[1]
    assert limits.strip().startswith("- It was never run in a real AWS account.")


def test_the_support_table_is_what_is_tested() -> None:
    """Airflow versions are those of the sandbox, which the Makefile's matrix uses; Python versions the package's."""
    readme = README.read_text(encoding="utf-8")
    (airflow,) = re.findall(r"^\| Airflow .*? \| ([\d., ]+);", readme, flags=re.MULTILINE)
    (python,) = re.findall(r"^\| Python \| ([\d., ]+) \|", readme, flags=re.MULTILINE)
    assert airflow.split(", ")[::-1] == list(airflow_environment.versions())
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert python.split(", ") == re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
