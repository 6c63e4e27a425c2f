"""Which texts are allowed as a reason."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_provider_mwaa_dr.core.failover import FailoverRequest
from airflow_provider_mwaa_dr.core.reasons import REASON_CHARS, checked_reason
from airflow_provider_mwaa_dr.core.state import initial, set_active_region
from airflow_provider_mwaa_dr.exceptions import ConfigError

STATE = initial("us-east-2", lease_s=60, by="t", at=datetime(2026, 1, 1, tzinfo=timezone.utc))


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (None, "is empty"),
        (7, "is of type int, not a text"),
        ("x" * (REASON_CHARS + 1), "has 1,001 characters; at most 1,000"),
        ("\udcff", "not valid UTF-8"),
    ],
)
def test_a_bad_reason_is_refused_wherever_it_enters(reason: str, said: str) -> None:
    """Both the engine's request and ``set_active_region`` refuse it. The error names the value and what is allowed."""
    with pytest.raises(ConfigError, match=said):
        checked_reason(reason)
    with pytest.raises(ConfigError, match=said):
        FailoverRequest(target="us-east-1", reason=reason, by="t")
    with pytest.raises(ConfigError, match=said):
        set_active_region(STATE, "us-east-1", reason=reason, by="t", at=STATE.last_updated)


def test_white_space_around_a_reason_is_dropped() -> None:
    """White space does not count for the length, and is not recorded."""
    assert checked_reason(f"  {'x' * REASON_CHARS}\n") == "x" * REASON_CHARS
    assert FailoverRequest(target="us-east-1", reason=" drill ", by="t").reason == "drill"
