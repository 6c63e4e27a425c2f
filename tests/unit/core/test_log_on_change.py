"""Messages that are logged when they change."""

from __future__ import annotations

from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange


def test_a_value_is_logged_when_it_changes_and_when_it_ends() -> None:
    """The same value twice is one message, and the value before a change stays known."""
    problem: LogOnChange[str | None] = LogOnChange(None)
    assert not problem.changes_to(None)
    assert [problem.changes_to("no table") for _ in range(3)] == [True, False, False]
    assert problem.changes_to(None)
    assert (problem.value, problem.before) == (None, "no table")


def test_a_forgotten_value_is_logged_again() -> None:
    """After the caller has forgotten a value, its next occurrence is a change."""
    problem: LogOnChange[str | None] = LogOnChange(None)
    problem.changes_to("no table")
    problem.forget(None)
    assert (problem.value, problem.before) == (None, None)
    assert not problem.changes_to(None)
    assert problem.changes_to("no table")
