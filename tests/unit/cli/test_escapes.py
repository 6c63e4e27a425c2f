"""Terminal escapes in texts that others wrote into the table: every command shows them escaped, and sends none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.ports import IDENTITY_CLAIMS, RECORDS, FailoverRecord, IdentityClaim, Registration
from airflow_provider_mwaa_dr.core.state import Mode, Plan
from tests.unit.cli.conftest import ENVIRON, Result, Shell

EVIL = "\x1b[2J\x1b]0;pwned\x07\x9b2J\x7f\r\n! it is forged\u202e"
SHOWN = r"\x1b[2J\x1b]0;pwned\x07\x9b2J\x7f\r\n! it is forged\u202e"


@pytest.fixture
def evil(mwaa_dr: Shell) -> Shell:
    """A DR set in which every text from others contains escapes."""
    clock, store = mwaa_dr.set.clock, mwaa_dr.store
    plan = Plan(
        id=f"p{EVIL}",
        source="us-east-2",
        target="us-east-1",
        mode=Mode.FORCED,
        reason=f"reason{EVIL}",
        by=f"by{EVIL}",
        owner=f"owner{EVIL}",
        started_at=clock.now(),
    )
    assert store.state is not None
    store.write(transitions.claim(store.state, plan, at=clock.now()), expected_version=store.state.version)
    store.put(RECORDS, FailoverRecord.of(plan, epoch=0))
    store.register(Registration(region="us-east-1", environment=f"environment{EVIL}"))
    store.put(
        IDENTITY_CLAIMS,
        IdentityClaim(
            region="us-east-2",
            environment=f"claim{EVIL}",
            aws_region="us-east-1",
            job="9",
            at=clock.now(),
            beat=1,
            problem=f"problem{EVIL}",
        ),
    )
    for agent in mwaa_dr.set.agents.values():
        agent.changes.update(
            problems=(f"setting{EVIL}",),
            ledger_error=f"ledger{EVIL}",
            waiting=(f"waiting{EVIL}",),
            repeats=(f"repeated{EVIL}",),
            inventory_error=f"inventory{EVIL}",
            history_error=f"history{EVIL}",
            history=(f"copied{EVIL}",),
            host=f"host{EVIL}",
            eventual=f"eventual{EVIL}",
        )
    clock.advance(1)
    return mwaa_dr


def assert_harmless(result: Result) -> None:
    for text in (result.out, result.err):
        assert [character for character in text if not (character.isprintable() or character == "\n")] == []
        assert not [line for line in text.splitlines() if line.startswith("! it is forged")]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("status",), ["p", "reason", "by", "setting", "ledger", "waiting", "repeated", "problem", "eventual"]),
        (("history",), ["reason", "by"]),
        (("check", "--region", "us-east-1"), ["setting"]),
        (("failover", "us-east-1", "--reason", "x", "--dry-run"), ["p"]),
        (("failover", "us-west-2", "--reason", "x", "--yes"), []),
        (("failover", f"region{EVIL}", "--reason", "x", "--yes"), []),
        (("pause", f"region{EVIL}", "--yes"), []),
        ((f"command{EVIL}",), []),
    ],
)
def test_a_command_sends_no_escapes(evil: Shell, words: tuple[str, ...], shown: list[str]) -> None:
    """Texts from the table and from the arguments are printed escaped, on stdout and stderr."""
    result = evil(*words)
    assert_harmless(result)
    assert [text for text in shown if not any(part in result.out for part in (f"{text}{SHOWN}", f"{text}\\x1b["))] == []


def test_a_failover_sends_no_escapes(evil: Shell) -> None:
    """Progress, result and record of a failover that takes over a plan."""
    result = evil("failover", "us-east-1", "--reason", f"mine{EVIL}", "--yes")
    assert result.code == 0
    assert_harmless(result)
    assert_harmless(evil("history"))


@pytest.mark.parametrize("words", [("status",), ("history",)])
def test_json_has_every_character_escaped(evil: Shell, words: tuple[str, ...]) -> None:
    """Scripts get the original text. DEL, which the json module does not escape, is escaped, too."""
    result = evil(*words, "--json")
    assert result.out.rstrip("\n").isprintable()
    assert result.out.isascii()
    assert f"reason{EVIL}" in _texts(result.document)


def _texts(document: object) -> str:
    if isinstance(document, dict):
        return "".join(map(_texts, [*document, *document.values()]))
    return "".join(map(_texts, document)) if isinstance(document, list) else str(document)


def test_an_alarm_is_red_on_a_terminal_and_nothing_else_is(evil: Shell) -> None:
    """Only the command itself sends colours."""
    evil.is_terminal = True
    out = evil("status").out
    assert "\x1b[31m" in out
    plain = out.replace("\x1b[31m", "").replace("\x1b[0m", "")
    assert_harmless(Result(0, plain, ""))


def test_an_environment_name_is_shown(mwaa_dr: Shell) -> None:
    """From DR_ENVIRONMENTS, in a table and in a question."""
    mwaa_dr.environ = {**ENVIRON, "DR_ENVIRONMENTS": "us-east-2=ohio\x1b[2J,us-east-1=virginia"}
    assert_harmless(mwaa_dr("status"))
    assert_harmless(mwaa_dr("init", "--yes"))
    assert_harmless(replace(mwaa_dr("init", "--dry-run"), code=0))
