"""What an agent may publish of the error with which Airflow could not import a file."""

from __future__ import annotations

import re

_FRAME = re.compile(r'\s+File "')
_EXCEPTION = re.compile(
    r"(?:\w+\.)*(?P<type>[A-Z]\w*(?:Error|Exception|Timeout|NotFound|Invalid|Exit))(?::\s+(?P<text>.*))?"
)
"""The line that names the exception. A line of a message must not pass for it: it may be a value."""
_NAMES_ONLY = re.compile(
    "|".join(
        (
            r"No module named '[\w.]+'",
            r"cannot import name '\w+' from '[\w.]+'",
            r"module '[\w.]+' has no attribute '\w+'",
            r"type object '\w+' has no attribute '\w+'",
            r"'\w+' object has no attribute '\w+'",
            r"name '\w+' is not defined",
            r"[\w.<>]+\(\) got an unexpected keyword argument '\w+'",
            r"[\w.<>]+\(\) missing \d+ required (?:keyword-only|positional) arguments?",
            r"Invalid arguments were passed to \w+ \(task_id: [\w.-]+\)",
            r"section/key \[[\w./-]+\] not found in config",
            r"'?Variable [\w.-]+ does not exist'?",
            r"The conn_id `[\w.-]+` isn't defined",
        )
    )
)
"""
Messages of Python and Airflow that contain only names, at the beginning of a message. A list of what is safe, because
any other message may contain a value: an unknown argument of an operator, for example, is shown with its value.
"""
_CHARS = 200


def publishable(stacktrace: str) -> str:
    """
    Return the type of the exception, and its message if Python or Airflow made it from names only.

    The message of any other exception may contain a password, for example as part of a connection's URI.

    :param stacktrace: as Airflow stores it.
    :return: such as ``ModuleNotFoundError: No module named 'airflow.operators.subdag'``, at most 200 characters; empty
        if the text names no exception.
    """
    lines = stacktrace.strip("\n").splitlines()
    frames = [number for number, line in enumerate(lines) if _FRAME.match(line)]
    after = lines[frames[-1] + 1 :] if frames else lines
    last = next((line for line in after if line and not line[0].isspace()), "")
    found = _EXCEPTION.fullmatch(last)
    if found is None:
        return ""
    names = _NAMES_ONLY.match(found["text"] or "")
    return (found["type"] if names is None else f"{found['type']}: {names[0]}")[:_CHARS]
