"""The stores of a DR set, as its settings describe the tables. Importing this imports no boto3; a request does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mwaa_dr.aws.runs_store import DynamoDBRunsStore
from airflow_provider_mwaa_dr.aws.state_store import DynamoDBStateStore
from airflow_provider_mwaa_dr.core.eventual import EventualStateStore

if TYPE_CHECKING:
    import boto3

    from airflow_provider_mwaa_dr.core.config import DRConfig
    from airflow_provider_mwaa_dr.core.ports import Clock, RunsStore, StateStore

_SPARE_S = 600.0
"""Of two writers that use different copies the last one wins, seconds later; its pages must be there then."""


def open_state_store(config: DRConfig, *, clock: Clock, session: boto3.session.Session | None = None) -> StateStore:
    """Return the store of the set's state; no request is sent yet."""
    mode = config.eventual_mode
    if mode is None:
        return DynamoDBStateStore(config.state_table, replicas=config.replicas, clock=clock, session=session)
    copies = {
        region: DynamoDBStateStore(
            config.state_table, replicas=(region,), clock=clock, session=session, spare_s=_SPARE_S
        )
        for region in config.replicas
    }
    return EventualStateStore(copies, mode=mode, clock=clock)


def open_runs_store(
    config: DRConfig, *, clock: Clock, session: boto3.session.Session | None = None
) -> RunsStore | None:
    """Return the store of the ledger; None where no runs table is set."""
    if not config.runs_table:
        return None
    # With two copies written, an entry would take the place of another one that has its number.
    own = config.region if config.eventual_mode is not None and config.region in config.replicas else None
    return DynamoDBRunsStore(config.runs_table, config.replicas, clock=clock, session=session, own_region=own)
