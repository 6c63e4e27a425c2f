"""
Deployment of the provider to two environments, and its removal, as a list of steps.

Planning reads the existing resources and changes nothing. The caller then carries out the steps in order. After an
interruption, the next plan has only the remaining steps: each step checks whether its result exists already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

from airflow_provider_mwaa_dr.aws.deploy.alarm_plan import AlarmPlan
from airflow_provider_mwaa_dr.aws.deploy.deployment_step import DeploymentStep, DeploySpec, Say, Try
from airflow_provider_mwaa_dr.aws.deploy.environment_plan import EnvironmentPlan
from airflow_provider_mwaa_dr.aws.deploy.stack import Stack
from airflow_provider_mwaa_dr.aws.deploy.standby_proof import StandbyProof
from airflow_provider_mwaa_dr.aws.deploy.table_plan import TablePlan
from airflow_provider_mwaa_dr.aws.deploy.template import template
from airflow_provider_mwaa_dr.aws.mwaa.control_plane import ControlPlane, DeployedEnvironment, require_usable
from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.environments import known_region
from airflow_provider_mwaa_dr.core.initialization import Initialization, initialize, plan_initialization
from airflow_provider_mwaa_dr.core.ports import Environment, StateStore
from airflow_provider_mwaa_dr.core.sites import PAIRS, Site, Sites
from airflow_provider_mwaa_dr.exceptions import ConfigError, RefusedError, StateError, StateNotFoundError


class Deployment:
    """
    A deployment to two environments.

    :param environments: the sites, exactly two.
    :param make_store: opens the state table, given its name, its regions, and whether it is eventually consistent. It
        sends no request.
    :param make_environment: opens Airflow of a site. It sends no request.
    :param try_requirements: tries a changed requirements.txt before anything is changed.
    :param say: called with a progress message during long waits.
    :raises ConfigError: there are not exactly two environments.
    """

    def __init__(
        self,
        aws: Aws,
        environments: Mapping[str, str],
        *,
        make_store: Callable[[str, Sequence[str], bool], StateStore],
        make_environment: Callable[[Site], Environment],
        try_requirements: Try,
        say: Say,
    ) -> None:
        if len(environments) != 2:
            raise ConfigError(
                f"{len(environments)} environments are named; a deployment needs exactly two.",
                option="environments",
                advice=f"Set DR_ENVIRONMENTS to two {PAIRS}.",
            )
        self._aws = aws
        self._environments = Sites.of(environments).sorted()
        self._make_store = make_store
        self._make_environment = make_environment
        self._try_requirements = try_requirements
        self._say = say
        self._planes = {site.id: ControlPlane(aws, site) for site in self._environments.all}

    def describe(self, *, wait: bool = False) -> dict[str, DeployedEnvironment]:
        """
        Return the descriptions of both environments.

        :param wait: wait for an update that is in progress.
        """
        return {
            region: plane.wait_until_idle(self._say) if wait else plane.describe()
            for region, plane in self._planes.items()
        }

    def plan(self, spec: DeploySpec, environments: Mapping[str, DeployedEnvironment]) -> list[DeploymentStep]:
        """
        Return the steps that deploy the provider. Changes nothing.

        :param environments: what :meth:`describe` returned.
        :raises RefusedError: an existing resource prevents the deployment, and a user has to decide.
        :raises ConfigError: the active region is unknown.
        """
        _check(environments, spec)
        environment_plans = self._environment_plans(environments)
        standby = next((region for region in environments if region != spec.active), None) if spec.active else None
        tables = TablePlan(self._aws, self._environments, spec, standby=standby)
        store = self._make_store(spec.state_table, tables.state_regions, tables.state_is_eventual)
        state = self._state_step(spec, store, environments, is_there=tables.has_state_table)
        active = spec.active or store.read().active_region
        order = sorted(environments, key=lambda region: region == active)
        options = {
            region: _options(spec, tables, environment, self._environments)
            for region, environment in environments.items()
        }
        lease_s = _lease_s(spec, store if tables.has_state_table else None) if spec.with_alarms else 0.0
        changes = {region: list(environment_plans[region].deploy_steps(spec, options[region])) for region in order}
        steps = [*_environment_steps(environments), *tables.steps(environments), state]
        for region in order:
            steps += changes[region]
            # The active environment changes only after the standby has shown that the same change works.
            is_first = region != active and not spec.both_at_once and any(step.changes for step in changes[active])
            if is_first:
                proof = StandbyProof(
                    store,
                    self._make_environment(self._environments.site(region)),
                    self._planes[region],
                    self._aws.clock,
                    version=spec.requirement.version,
                    limit_s=spec.proof_s,
                    say=self._say,
                )
                steps += [environment_plans[region].wait(), proof.step()]
        waits = order if spec.both_at_once else [active]
        return [
            *steps,
            *(environment_plans[region].wait() for region in waits if spec.wait),
            *(
                AlarmPlan(self._aws, environments[region], spec).deploy_step(spec, lease_s=lease_s)
                for region in order
                if spec.with_alarms
            ),
        ]

    def withdraw(
        self, spec: DeploySpec, environments: Mapping[str, DeployedEnvironment], *, delete_data: bool
    ) -> list[DeploymentStep]:
        """
        Return the steps that remove the provider. Changes nothing.

        The stack is deleted last, when neither environment has options of the provider. Until then the plugins need the
        permissions that the stack grants; without them they hold every run.

        :param delete_data: also delete the tables that the stack created.
        :raises RefusedError: an existing resource prevents the removal, and a user has to decide.
        """
        environment_plans = self._environment_plans(environments)
        active = self._active_or_none(spec)
        # The standby's fence is removed last.
        order = sorted(environments, key=lambda region: region != active)
        steps = _environment_steps(environments)
        # Alarms first: they would report the removal as a failure.
        steps += [step for region in order for step in AlarmPlan(self._aws, environments[region], spec).removal_steps()]
        changes = [step for region in order for step in environment_plans[region].removal_steps(spec)]
        steps += changes
        if spec.wait:
            steps += [environment_plans[region].wait() for region in order]
        is_clean = all(plan.is_clean for plan in environment_plans.values())
        steps.append(self._stack_out(spec, now=is_clean or spec.wait, delete_data=delete_data))
        return steps

    def _environment_plans(self, environments: Mapping[str, DeployedEnvironment]) -> dict[str, EnvironmentPlan]:
        for environment in environments.values():
            require_usable(environment)
        return {
            region: EnvironmentPlan(
                self._aws,
                environment,
                self._planes[region],
                say=self._say,
                try_requirements=self._try_requirements,
            )
            for region, environment in environments.items()
        }

    def _state_step(
        self, spec: DeploySpec, store: StateStore, environments: Mapping[str, DeployedEnvironment], *, is_there: bool
    ) -> DeploymentStep:
        accounts = {region: environment.account for region, environment in environments.items()}

        def plan() -> Initialization:
            return plan_initialization(
                store,
                active_region=spec.active,
                environments=self._environments,
                accounts=accounts,
                lease_s=spec.lease_s,
                by=spec.by,
                at=self._aws.clock.now(),
            )

        def act() -> str:
            missing = plan()
            initialize(store, missing)
            return f"written: {missing.state.active_region} is active, epoch {missing.state.epoch}"

        if spec.active is not None:
            known_region(spec.active, self._environments)
        if not is_there:
            if spec.active is None:
                raise ConfigError(
                    "The state table does not exist yet, and no active region was given.",
                    option="active_region",
                    advice=f"Give the region that is active now: --active {' or --active '.join(self._environments)}.",
                )
            lines = [f"+ state item: {spec.active} is active, epoch 0, lease {spec.lease_s:g} s"]
            lines += [f"+ registry: {region} is {name}" for region, name in self._environments.items()]
            return DeploymentStep(
                name="state", detail="write the first state and the registry", lines=tuple(lines), act=act
            )
        missing = plan()
        active = f"{missing.state.active_region} is active, epoch {missing.state.epoch}"
        if not missing.changes_something:
            return DeploymentStep(name="state", detail=f"exists: {active}")
        lines = [f"+ state item: {active}, lease {missing.state.lease_s:g} s"] if missing.is_new else []
        lines += [f"+ registry: {found.region} is {found.environment}" for found in missing.registrations]
        what = "the first state" if missing.is_new else "the registry"
        return DeploymentStep(name="state", detail=f"write {what}: {active}", lines=tuple(lines), act=act)

    def _active_or_none(self, spec: DeploySpec) -> str | None:
        try:
            # Only the order of the regions depends on it, so any replica is good enough.
            return self._make_store(spec.state_table, self._environments.aws_regions, False).read().active_region
        except StateError:
            return spec.active

    def _stack_out(self, spec: DeploySpec, *, now: bool, delete_data: bool) -> DeploymentStep:
        stacks = [Stack(self._aws, region, spec.stack) for region in self._environments.aws_regions]
        found = next(((stack, existing) for stack in stacks if (existing := stack.describe()) is not None), None)
        if found is None:
            return DeploymentStep(name="stack", detail=f"no stack {spec.stack} exists; existing tables are kept")
        stack, existing = found
        made = [
            existing.parameters.get(name, "")
            for name, parameter in (("StateTable", "CreateStateTable"), ("RunsTable", "CreateRunsTable"))
            if existing.parameters.get(parameter) == "true"
        ]
        stay = f"its tables are kept: {', '.join(made)}" if made else "it has no tables"
        if not now:
            return DeploymentStep(
                name="stack",
                detail=f"{stack} is kept for now: the plugins need its permissions until both environments are "
                "updated. Run the same command again then, or now with --wait",
            )

        def act() -> str:
            if delete_data:
                stack.ensure(template(keep_tables=False), {**existing.parameters, "DeletionProtection": "false"})
            stack.delete()
            return f"deleted: {stack}; " + (f"deleted tables: {', '.join(made)}" if delete_data and made else stay)

        lines = [f"- {stack}, and its policies"]
        lines += [f"- table {name}, WITH ALL DATA" for name in made] if delete_data else [f"  {stay}"]
        return DeploymentStep(name="stack", detail=f"delete the {stack}", lines=tuple(lines), act=act)


def _environment_steps(environments: Mapping[str, DeployedEnvironment]) -> list[DeploymentStep]:
    versions = {environment.airflow_version for environment in environments.values()}
    steps = []
    for environment in environments.values():
        what = (
            f"{environment.status}, Airflow {environment.airflow_version}, account {environment.account}, "
            f"bucket {environment.bucket}"
        )
        lines = [f"its last update failed: {environment.failure}"] if environment.failure else []
        lines += _log_lines(environment)
        if len(versions) > 1 and environment is list(environments.values())[-1]:
            lines.append(
                "WARNING: the environments run different versions of Airflow; a DAG may work in only one of them"
            )
        steps.append(
            DeploymentStep(
                name=f"environment {environment.site.id}", detail=f"{environment.name}: {what}", lines=tuple(lines)
            )
        )
    return steps


def _log_lines(environment: DeployedEnvironment) -> list[str]:
    """Return what the logs of an environment will not show. The line of the plugin's start has the level WARNING."""
    level = environment.logs.get("SchedulerLogs")
    if level in {"INFO", "DEBUG", "WARNING"}:
        return []
    what = "off" if level is None else f"at the level {level}"
    line = "DR State Plugin: Current region"
    return [f"its scheduler log is {what}, and will not have the line '{line} ...': use mwaa-dr status instead"]


def _check(environments: Mapping[str, DeployedEnvironment], spec: DeploySpec) -> None:
    """
    :raises RefusedError: the environments are in different accounts, one is in another DR set, or two in one region
        share a role or files.
    """
    accounts = {environment.account for environment in environments.values()}
    if len(accounts) != 1:
        raise RefusedError(
            f"The environments are in different accounts, {' and '.join(sorted(accounts))}. Nothing was changed.",
            advice="A state table serves one account. Use two environments of the same account.",
        )
    for environment in environments.values():
        other = environment.options.get("dr.state_table")
        if other and other != spec.state_table:
            raise RefusedError(
                f"{environment} is in the DR set of the state table {other}, not of {spec.state_table}. "
                "Nothing was changed.",
                advice=f"Give that table (--table {other}), or remove the provider from the environment first: "
                "mwaa-dr undeploy.",
            )

    _check_apart(*environments.values())


def _check_apart(one: DeployedEnvironment, other: DeployedEnvironment) -> None:
    """:raises RefusedError: two environments in one region have the same execution role, or the same files in S3."""
    if one.region != other.region:
        return
    if one.role_arn == other.role_arn:
        raise RefusedError(
            f"{one.name} and {other.name} have the same execution role, {one.role}, so that code in one of them may "
            f"write the items of both sites, {one.site.id} and {other.site.id}. Nothing was changed.",
            advice="Give one of the environments its own execution role.",
        )
    if one.bucket != other.bucket:
        return
    shared = [
        f"{what} {key}"
        for what, key, same in (
            ("the DAGs folder", one.dags, other.dags),
            ("the requirements", one.requirements, other.requirements),
            ("the plugins", one.plugins, other.plugins),
        )
        if key is not None and key == same
    ]
    if shared:
        raise RefusedError(
            f"{one.name} and {other.name} share {' and '.join(shared)} in the bucket {one.bucket}: a change for one of "
            "them also changes the other. Nothing was changed.",
            advice="Give one of the environments a bucket of its own, or other keys in this one.",
        )


def _lease_s(spec: DeploySpec, store: StateStore | None) -> float:
    """
    Return the lease of the state item, or of *spec* if there is no state item yet.

    :param store: None: the state table does not exist yet.
    """
    with contextlib.suppress(StateNotFoundError):
        if store is not None:
            return store.read().lease_s
    return spec.lease_s


def _options(
    spec: DeploySpec, tables: TablePlan, environment: DeployedEnvironment, environments: Sites
) -> dict[str, str]:
    regions = tables.state_regions
    # Any replica can come first. To keep the current one saves an update of the environment.
    first = environment.options.get("dr.state_table_region", "")
    options = {
        "dr.enabled": "true",
        "dr.state_table": spec.state_table,
        "dr.state_table_region": first if first in regions else regions[0],
        "dr.runs_table": spec.runs_table,
        "dr.environments": str(environments),
    }
    if environment.site.is_named:
        options["dr.site"] = environment.site.id
    if spec.with_alarms:
        options["dr.cloudwatch_metrics"] = "true"
    if spec.notification_topic:
        options["dr.notification_topic"] = spec.notification_topic
    if spec.notification_bus:
        options["dr.notification_bus"] = spec.notification_bus
    if len(regions) > 1:
        options["dr.state_table_replicas"] = ",".join(regions)
    if tables.state_is_eventual:
        options["dr.table_consistency"] = TableConsistency.EVENTUAL.value
    return options
