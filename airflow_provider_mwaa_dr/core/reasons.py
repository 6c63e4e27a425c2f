"""The reason for a change of role: its allowed values."""

from __future__ import annotations

from airflow_provider_mwaa_dr.exceptions import ConfigError

REASON_CHARS = 1000
"""The state item contains a reason up to twice, and an item in DynamoDB may have at most 400 KB."""


def checked_reason(reason: object) -> str:
    """
    Return a reason as it is stored: without leading and trailing white space.

    Each caller checks the reason before any write. With a longer reason, the claim could fit into the state item, but
    not the promotion.

    :raises ConfigError: the reason is empty, is not a text, or has more than :data:`REASON_CHARS` characters.
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
