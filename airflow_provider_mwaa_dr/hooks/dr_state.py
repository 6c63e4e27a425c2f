"""The hook that DAG authors use to read the state of the DR set."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.aws.clock import SystemClock
from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.display import visible
from airflow_provider_mwaa_dr.core.environments import active_state, environment_names, known_region
from airflow_provider_mwaa_dr.core.identity import Identity, identity_problem
from airflow_provider_mwaa_dr.core.initialization import initialize, plan_initialization
from airflow_provider_mwaa_dr.core.ports import Clock, Environment, Observation, RunsStore, StateStore, Tables
from airflow_provider_mwaa_dr.core.reasons import checked_reason
from airflow_provider_mwaa_dr.core.sites import Site, Sites
from airflow_provider_mwaa_dr.core.state import DRState
from airflow_provider_mwaa_dr.exceptions import AlreadyActiveError, ConfigError, StaleStateError, StateNotFoundError


class DRStateHook(AwsBaseHook):
    """
    Reads the state of the DR set, and changes it on request.

    Settings come from the section ``[dr]`` of Airflow's configuration, or from the environment variables ``DR_*``. Each
    call sends a consistent read to the nearest replica that answers. If no replica answers, the call raises: the hook
    never guesses.

    .. code-block:: python

        if DRStateHook().is_active():
            publish()

    :param aws_conn_id: connection with the credentials; None (default) for the environment's own role, so that a
        failover works although this environment has no copy of the connections. The hook takes no region, timeout or
        certificate from the connection: they belong to the DR set.
    :param dr_config: settings to use instead of Airflow's; for tests.
    :param store: state table to use instead of DynamoDB; for tests, see :mod:`airflow_provider_mwaa_dr.testing`.
    :param make_environment: opens the environment of a site; for tests.
    :param tables: descriptions of the tables to use instead of DynamoDB's; for tests.
    :param clock: the clock to use; for tests.
    """

    hook_name = "MWAA DR state"

    def __init__(
        self,
        aws_conn_id: str | None = None,
        *,
        dr_config: DRConfig | None = None,
        store: StateStore | None = None,
        make_environment: Callable[[Site], Environment] | None = None,
        tables: Tables | None = None,
        clock: Clock | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(aws_conn_id, **kwargs)
        self.clock: Clock = clock or SystemClock()
        self._dr_config = dr_config
        self._given_store = store
        self._make_environment = make_environment
        self._given_tables = tables

    # -- for DAG authors -----------------------------------------------------------------------------------------

    def get_state(self) -> DRState:
        """
        Return the state that the table holds now.

        The state may have unusable values, or name a region that is not registered; see :meth:`active_state`.

        :raises StateNotFoundError: the state item does not exist; run ``mwaa-dr init``.
        :raises StateUnreachableError: no replica answered, so the current state is unknown.
        :raises UnusableStateError: not even the item's version can be parsed.
        :raises ConfigError: ``[dr] state_table`` is not set.
        """
        return self.store.read()

    def active_state(self) -> DRState:
        """
        Return the state that the table holds now, if it names a registered active region. Raises like
        :meth:`get_state`.

        :raises UnusableStateError: a value of the item cannot be used, or its active region is not registered. Every
            region holds its runs then. The message names the value and what to do.
        """
        return active_state(self.store)

    def active_region(self) -> str:
        """Return the region that has the active role. Raises like :meth:`active_state`."""
        return self.active_state().active_region

    def is_active(self, region: str | None = None) -> bool:
        """
        Return whether *region* has the active role.

        During a failover the role moves in one write. Until then the region that is being drained has the role. False
        means that another region has the role. An unknown role raises, like :meth:`active_state`.

        :param region: None for the region of this Airflow.
        :raises ConfigError: *region* is None, and the region of this Airflow is not known.
        """
        region = region or self.own_region
        return self.active_region() == region

    def initialize(self, active_region: str | None = None) -> DRState:
        """
        Write the state item and the registry of environments if they are missing. Idempotent.

        :param active_region: the region that executes DAGs today; None for the region of this Airflow.
        :return: the state after the call.
        :raises RefusedError: another region is active already; nothing was changed.
        """
        names = self.environment_names()
        if active_region is None:
            try:
                self.store.read()
            except StateNotFoundError:
                active_region = self.own_region
        plan = plan_initialization(
            self.store,
            active_region=active_region,
            environments=names,
            lease_s=self.settings.lease_s,
            by=type(self).__name__,
            at=self.clock.now(),
        )
        initialize(self.store, plan)
        return self.store.read()

    def set_active_region(
        self, region: str, *, reason: str, expected_version: int | None = None, by: str | None = None
    ) -> DRState:
        """
        Give the active role to *region* immediately: no drain, no wait for the lease, no DAG is paused or unpaused.

        For recovery by hand only. A failover
        (:class:`~airflow_provider_mwaa_dr.operators.failover.FailoverOperator`) does all these steps. Atomic: one
        conditional write. If *region* is already active, the call is a no-op and returns the state.

        :param expected_version: the version that your decision is based on; None for the current version.
        :raises StaleStateError: the state changed since that version; the error carries the current state. Nothing was
            changed.
        :raises WrongPhaseError: a failover is in progress.
        :raises ConfigError: *region* is not in the DR set, or the reason is empty or longer than 1,000 characters.
        """
        reason = checked_reason(reason)
        known_region(region, self.environment_names())
        state = self.store.read()
        if expected_version is not None and expected_version != state.version:
            raise StaleStateError(expected_version, state)
        try:
            new = transitions.set_active_region(
                state, region, reason=reason, by=by or type(self).__name__, at=self.clock.now()
            )
        except AlreadyActiveError:
            return state
        self.store.write(new, expected_version=state.version)
        self.log.info("%s is active now, epoch %d (previously: %s)", region, new.epoch, visible(state.active_region))
        return new

    # -- for operators and sensors -------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> DRConfig:
        """The section ``[dr]``. A wrong value is logged and replaced by its default, as in the scheduler."""
        if self._dr_config is not None:
            return self._dr_config
        config = conf.load()
        for problem in config.problems:
            self.log.warning("%s", visible(problem))
        return config

    @property
    def own_region(self) -> str:
        """The site of this Airflow. :raises ConfigError: it is not known, or contradicts AWS_REGION."""
        region, sites = self.settings.region, self.settings.sites
        if not region:
            raise ConfigError(
                "This Airflow does not know its site.", option="site", advice="Set [dr] site, or AWS_REGION."
            )
        observed = Observation(state=None, reconciled_epoch=None)
        if not sites.aws_region_of(region) and not sites:
            observed = self.store.observe(region)  # only the registry knows the AWS region of this name
        if problem := identity_problem(Identity.of(self.settings), observed):
            raise ConfigError(f"{problem}.", option="site")
        return region

    @cached_property
    def store(self) -> StateStore:
        """The state table. :raises ConfigError: ``[dr] state_table`` is not set."""
        if self._given_store is not None:
            return self._given_store
        if not self.settings.state_table:
            raise ConfigError("The state table is not named.", option="state_table", advice="Set [dr] state_table.")
        from airflow_provider_mwaa_dr.aws.dynamodb.stores import open_state_store  # noqa: PLC0415

        return open_state_store(self.settings, clock=self.clock, session=self.boto3_session)

    @cached_property
    def runs(self) -> RunsStore | None:
        """The runs table; None if ``[dr] runs_table`` is not set, or if the hook was given a store."""
        if self._given_store is not None:
            return None
        from airflow_provider_mwaa_dr.aws.dynamodb.stores import open_runs_store  # noqa: PLC0415

        return open_runs_store(self.settings, clock=self.clock, session=self.boto3_session)

    def get_conn(self) -> StateStore:
        """Return the state table."""
        return self.store

    @cached_property
    def tables(self) -> Tables:
        """DynamoDB's descriptions of the state table and of the other tables of the DR set."""
        if self._given_tables is not None:
            return self._given_tables
        from airflow_provider_mwaa_dr.aws.dynamodb.tables import DynamoDBTables  # noqa: PLC0415

        return DynamoDBTables(self.settings.replicas, clock=self.clock, session=self.boto3_session)

    def environment_names(self) -> Sites:
        """
        Return the sites of the DR set; as a mapping, the environment's name by site.

        :raises ConfigError: no environment is configured or registered, or two are configured for one site.
        """
        if self.settings.contradiction:
            raise ConfigError(f"{self.settings.contradiction}.", option="environments")
        return environment_names(self.store, self.settings.environments)

    def environment(self, region: str, *, attempt_s: float | None = None) -> Environment:
        """
        Return the environment of *region*.

        :param attempt_s: make only one attempt for each call, of at most about this time; None: repeat calls that get
            no answer.
        :raises ConfigError: the region is not in the DR set.
        """
        sites = self.environment_names()
        site = sites.site(known_region(region, sites))
        if self._make_environment is not None:
            return self._make_environment(site)
        from airflow_provider_mwaa_dr.aws.mwaa.environment import MwaaEnvironment  # noqa: PLC0415

        return MwaaEnvironment(
            site.id,
            site.environment,
            aws_region=site.aws_region,
            clock=self.clock,
            session=self.boto3_session,
            attempt_s=attempt_s,
        )

    def stands_in(self, region: str) -> bool:
        """Return whether this Airflow is the environment of *region*: a region may have other environments, too."""
        if self.settings.region != region:
            return False
        name = os.environ.get("AIRFLOW_ENV_NAME", "")
        return name == self.environment_names().get(region) if name else self.settings.enabled

    @property
    def boto3_session(self) -> Any:
        """A boto3 session of the connection; None to let boto3 find the credentials."""
        return self.get_session() if self.aws_conn_id else None
