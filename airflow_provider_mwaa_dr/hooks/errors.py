"""Which errors of this package Airflow should retry."""

from __future__ import annotations

from airflow_provider_mwaa_dr._compat import AirflowException, AirflowFailException
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.exceptions import (
    DRError,
    FailoverError,
    IncompleteError,
    MwaaUnreachableError,
    RefusedError,
    StaleStateError,
    StateUnreachableError,
)

_MAY_PASS = (FailoverError, IncompleteError, MwaaUnreachableError, StaleStateError, StateUnreachableError)


def is_worth_a_retry(error: DRError) -> bool:
    """Return whether the same call may succeed later without a change by a user. A refusal never does."""
    return isinstance(error, _MAY_PASS) and not isinstance(error, RefusedError)


def airflow_error(error: DRError) -> Exception:
    """Return the exception to raise in a task: AirflowException if a retry may help, else AirflowFailException."""
    kind = AirflowException if is_worth_a_retry(error) else AirflowFailException
    translated: Exception = kind(f"{type(error).__name__}: {visible(error)}")
    return translated
