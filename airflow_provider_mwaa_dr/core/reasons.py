"""The reason of a change of role: what a caller may give."""

from __future__ import annotations

from airflow_provider_mwaa_dr.exceptions import ConfigError

REASON_CHARS = 1000
"""The state item keeps a reason in up to two places, and an item of DynamoDB has 400 KB for all that it holds."""


def checked_reason(reason: object) -> str:
    """
    Return a reason as it is stored: without the white space around it.

    Every way in calls this before anything is written: with a long reason a claim would fit into the state item, and
    the promotion that follows would not.

    :raises ConfigError: it is empty, no text, or longer than :data:`REASON_CHARS` characters.
    """
    advice = "Give the reason in a sentence or two; the state item and the failover record store it."
    if reason is not None and not isinstance(reason, str):
        raise ConfigError(f"The reason is of type {type(reason).__name__}, not a text.", option="reason", advice=advice)
    text = (reason or "").strip()
    if not text:
        raise ConfigError("The reason is empty.", option="reason", advice=advice)
    if len(text) > REASON_CHARS:
        raise ConfigError(
            f"The reason has {len(text):,} characters; at most {REASON_CHARS:,} are allowed.",
            option="reason",
            advice=advice,
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"The reason {text!a} is not valid UTF-8.",
            option="reason",
            advice="Check the terminal's encoding, or use plain letters.",
        ) from error
    return text
