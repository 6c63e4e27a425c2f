"""What an agent publishes of an import error: names, and no value."""

from __future__ import annotations

import traceback

import pytest

from airflow_provider_mwaa_dr.core.import_errors import publishable

SECRET = "tr0ub4dor"
INVALID = "Invalid arguments were passed to Work (task_id: a.b). Invalid arguments were:\n**kwargs: "


class AirflowException(Exception):
    """Like Airflow's."""


def _raise(error: BaseException) -> str:
    try:
        raise error
    except type(error):
        return traceback.format_exc()


def _run(code: str) -> str:
    try:
        exec(code, {"SECRET": SECRET})
    except Exception:
        return traceback.format_exc()
    raise AssertionError(code)


@pytest.mark.parametrize(
    ("code", "published"),
    [
        ("import airflow_no.operators", "ModuleNotFoundError: No module named 'airflow_no'"),
        ("from json import subdag", "ImportError: cannot import name 'subdag' from 'json'"),
        ("import json; json.subdag", "AttributeError: module 'json' has no attribute 'subdag'"),
        ("''.execution_date", "AttributeError: 'str' object has no attribute 'execution_date'"),
        ("provide_context", "NameError: name 'provide_context' is not defined"),
        (
            "def dag(): pass\ndag(schedule_interval=SECRET)",
            "TypeError: dag() got an unexpected keyword argument 'schedule_interval'",
        ),
        ("def dag(a): pass\ndag()", "TypeError: dag() missing 1 required positional argument"),
        ("raise KeyError('Variable bucket does not exist')", "KeyError: 'Variable bucket does not exist'"),
        ("x = = 1", "SyntaxError"),
        ("{}[SECRET]", "KeyError"),
        ("int(SECRET)", "ValueError"),
        ("raise RuntimeError(f'postgres://me:{SECRET}@db')", "RuntimeError"),
        (f"raise TypeError({INVALID!r} + SECRET)", "TypeError: Invalid arguments were passed to Work (task_id: a.b)"),
    ],
)
def test_a_message_is_published_only_if_it_has_names_and_no_values(code: str, published: str) -> None:
    """Tracebacks of real errors; the message of any other exception may contain what the file read."""
    found = publishable(_run(code))
    assert found == published
    assert SECRET not in found


@pytest.mark.parametrize("message", [f"first\n{SECRET}", f"first\nPassword: {SECRET}", f"\nMyError: {SECRET}"])
def test_a_line_of_a_message_does_not_pass_for_the_name_of_an_exception(message: str) -> None:
    """A multi-line message may end with a value. Only the line after the last frame names the exception."""
    assert publishable(_raise(AirflowException(message))) == "AirflowException"
    assert publishable(message) in {"", "MyError"}


def test_an_error_without_a_traceback_and_a_long_one() -> None:
    """Airflow stores some errors as a single line. The published text is short."""
    assert publishable("") == ""
    assert publishable("a text without an exception") == ""
    assert publishable("airflow.exceptions.AirflowDagDuplicatedIdException: x") == "AirflowDagDuplicatedIdException"
    assert len(publishable(f"ModuleNotFoundError: No module named '{'x' * 500}'")) == 200
