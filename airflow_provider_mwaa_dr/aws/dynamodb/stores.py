"""Open the stores of a DR set from its settings. Only the first request imports boto3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mwaa_dr.aws.dynamodb.history_store import DynamoDBHistoryStore
from airflow_provider_mwaa_dr.aws.dynamodb.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.aws.dynamodb.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core.eventual import EventualStateStore

if TYPE_CHECKING:
    import boto3

    from airflow_provider_mwaa_dr.core.config import DRConfig
    from airflow_provider_mwaa_dr.core.history.store import HistoryStore
    from airflow_provider_mwaa_dr.core.ports import Clock, RunsStore, StateStore

_SPARE_S = 600.0
"""If two writers use different replicas, the last writer wins after some seconds. Its pages must still exist then."""


def open_state_store(
    config: DRConfig, *, clock: Clock, session: boto3.session.Session | None = None, only_reads: bool = False
) -> StateStore:
    """
    Return the store of the DR set's state. Sends no request.

    :param only_reads: no read writes anything; see :class:`EventualStateStore`.
    """
    mode = config.eventual_mode
    if mode is None:
        return DynamoDBStateStore(config.state_table, replicas=config.replicas, clock=clock, session=session)
    copies = {
        region: DynamoDBStateStore(
            config.state_table, replicas=(region,), clock=clock, session=session, spare_s=_SPARE_S
        )
        for region in config.replicas
    }
    return EventualStateStore(copies, mode=mode, clock=clock, only_reads=only_reads)


def open_runs_store(
    config: DRConfig, *, clock: Clock, session: boto3.session.Session | None = None
) -> RunsStore | None:
    """Return the store of the ledger; None if no runs table is set."""
    if not config.runs_table:
        return None
    is_eventual = config.eventual_mode is not None
    # If a region wrote to two replicas, an entry could replace another entry with the same number.
    own = config.region if is_eventual and config.region in config.replicas else None
    return DynamoDBRunsStore(
        config.runs_table, config.replicas, clock=clock, session=session, own_region=own, is_eventual=is_eventual
    )


def open_history_store(
    config: DRConfig, *, clock: Clock, session: boto3.session.Session | None = None
) -> HistoryStore | None:
    """Return the store of the history; None if it is off, or if no runs table is set."""
    if not config.runs_table or not config.history_days:
        return None
    own = config.region if config.eventual_mode is not None and config.region in config.replicas else None
    return DynamoDBHistoryStore(
        config.runs_table, config.replicas, days=config.history_days, clock=clock, session=session, own_region=own
    )
