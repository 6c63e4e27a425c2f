"""Plan for state table, runs table and policies: the existing resources, and those that the stack has to create."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from airflow_provider_mwaa_dr.aws.deploy.customer_keys import CustomerKeys, customer_keys
from airflow_provider_mwaa_dr.aws.deploy.deployment_step import DeploymentStep, DeploySpec
from airflow_provider_mwaa_dr.aws.deploy.existing_tables import (
    RUNS_KEY,
    STATE_KEY,
    ExistingTable,
    find_table,
    limits,
    require_usable,
)
from airflow_provider_mwaa_dr.aws.deploy.stack import Stack, StackDescription
from airflow_provider_mwaa_dr.aws.deploy.template import template
from airflow_provider_mwaa_dr.aws.mwaa.control_plane import DeployedEnvironment
from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.region_sets import table_model
from airflow_provider_mwaa_dr.core.sites import Sites
from airflow_provider_mwaa_dr.exceptions import RefusedError


class TablePlan:
    """
    The tables and the stack of a DR set. The constructor reads them and changes nothing.

    :param sites: the two sites.
    :param standby: the standby site, whose region is the better place for a new stack; None: unknown.
    :raises RefusedError: an existing stack or table cannot be used, and a user has to decide.
    """

    def __init__(self, aws: Aws, sites: Sites, spec: DeploySpec, *, standby: str | None) -> None:
        self._spec = spec
        home = spec.home or (sites.aws_region_of(standby) if standby else "") or sites.all[0].aws_region
        self._regions = tuple(sorted(sites.aws_regions, key=lambda region: region != home))
        self.stack, self._existing = self._find_stack(aws)
        # The stack's region comes first.
        self._regions = tuple(sorted(sites.aws_regions, key=lambda region: region != self.stack.region))
        self._sites = sorted(sites.sorted().all, key=lambda site: site.aws_region != self.stack.region)
        self._owned: Mapping[str, str] = {}
        if self._existing is not None and not self._existing.is_empty:
            self._owned = self._existing.parameters
        self._is_busy = self._existing is not None and self._existing.is_busy
        self.state = self._describe(aws, spec.state_table, STATE_KEY, "state table", "CreateStateTable")
        self.runs = self._describe(aws, spec.runs_table, RUNS_KEY, "runs table", "CreateRunsTable")
        self._keys = {
            table.name: customer_keys(aws, table.keys) for table in (self.state, self.runs) if table is not None
        }
        if sites.has_names and self.state_is_eventual:
            raise RefusedError(
                f"The state table {spec.state_table} is, or would be, eventually consistent in "
                f"{' and '.join(self.state_regions)}, and the sites {' and '.join(sites)} have names. "
                "Nothing was changed.",
                advice="Use the regions as ids in DR_ENVIRONMENTS, or a table with strong consistency.",
            )

    @property
    def state_regions(self) -> tuple[str, ...]:
        """Regions of the state table's replicas; if the stack has yet to create the table, its future replicas."""
        return self._regions if self.state is None or self._is_busy else self.state.regions

    @property
    def state_is_eventual(self) -> bool:
        """Whether the state table is, or will be, eventually consistent."""
        if self.state is None or (self._is_busy and self._owns("CreateStateTable")):
            return len(self._regions) > 1 and not self._witness()
        return self.state.consistency is TableConsistency.EVENTUAL

    @property
    def has_state_table(self) -> bool:
        """Whether the state table exists and can be read now."""
        return self.state is not None and self.state.status != "CREATING"

    def steps(self, environments: Mapping[str, DeployedEnvironment]) -> Iterator[DeploymentStep]:
        """Yield a step for each existing table, and a step for the stack."""
        creates = []
        for name, purpose, parameter, found in (
            (self._spec.state_table, "state table", "CreateStateTable", self.state),
            (self._spec.runs_table, "runs table", "CreateRunsTable", self.runs),
        ):
            if found is None:
                creates.append((name, purpose))
                continue
            verb = "exists" if self._owns(parameter) else "adopted"
            keys = self._keys.get(name, CustomerKeys())
            account = environments[self._sites[0].id].account
            yield DeploymentStep(
                name=purpose,
                detail=f"{verb}: {name}, {found.model}",
                lines=(
                    *limits(found, self._regions, purpose),
                    *keys.lines(account=account, with_policies=self._spec.with_policies),
                ),
            )
        if not (creates or self._spec.with_policies or self._existing):
            return
        body, parameters, existing = template(), self._parameters(environments), self._existing
        before = self._owned
        is_same = existing is not None and existing.body == body and before == {**before, **parameters}
        if is_same and not self._is_busy:
            yield DeploymentStep(name="stack", detail=f"exists: {self.stack}")
            return
        lines = [*self._new_tables(creates, parameters["WitnessRegion"])]
        if not before:
            lines += self._new_policies(environments)
        else:
            lines += [
                f"{name}: {before.get(name, '(not set)')} -> {value}"
                for name, value in sorted(parameters.items())
                if before.get(name) != value
            ]
            if existing is not None and existing.body != body:
                lines.append("the template of this version replaces the existing template")

        def act() -> str:
            done = self.stack.ensure(body, parameters)
            made = "; ".join(f"{purpose} {name}" for name, purpose in creates)
            return f"{done}: {self.stack}" + (f"; {made}" if made else "")

        verb = "wait for, and if necessary update," if self._is_busy else "update" if before else "create"
        yield DeploymentStep(name="stack", detail=f"{verb} the {self.stack}", lines=tuple(lines), act=act)

    def _find_stack(self, aws: Aws) -> tuple[Stack, StackDescription | None]:
        stacks = [Stack(aws, region, self._spec.stack) for region in self._regions]
        for stack in stacks:
            existing = stack.describe()
            if existing is None:
                continue
            stack.require_usable(existing)
            for parameter, name in (("StateTable", self._spec.state_table), ("RunsTable", self._spec.runs_table)):
                found = name if existing.is_empty else existing.parameters.get(parameter)
                if found != name:
                    raise RefusedError(
                        f"The {stack} belongs to {f'the table {found}' if found else 'another application'}, not to "
                        f"{name}. Nothing was changed.",
                        advice="Give that table, or another stack (--stack).",
                    )
            return stack, existing
        return stacks[0], None

    def _describe(self, aws: Aws, name: str, key: Sequence[str], purpose: str, parameter: str) -> ExistingTable | None:
        found = find_table(aws, name, self._regions)
        if self._is_busy:
            return found
        if found is not None:
            require_usable(found, key, purpose)
        elif self._owns(parameter):
            raise RefusedError(
                f"The {self.stack} created the {purpose} {name}, which does not exist any longer. Nothing was changed.",
                advice="Delete the stack (its other table is kept), then run the same command again.",
            )
        return found

    def _owns(self, parameter: str) -> bool:
        return self._owned.get(parameter) == "true"

    def _witness(self) -> str:
        # The consistency of a table is fixed when it is created.
        if self._owns("CreateStateTable"):
            return self._owned.get("WitnessRegion", "")
        return table_model(*self._regions).witness if len(self._regions) > 1 else ""

    def _parameters(self, environments: Mapping[str, DeployedEnvironment]) -> dict[str, str]:
        here, there = self._sites
        named = {name: site.id for name, site in (("SiteHere", here), ("SiteThere", there)) if site.is_named}
        return {
            "StateTable": self._spec.state_table,
            "RunsTable": self._spec.runs_table,
            "CreateStateTable": _text(self.state is None or self._owns("CreateStateTable")),
            "CreateRunsTable": _text(self.runs is None or self._owns("CreateRunsTable")),
            "OtherRegion": there.aws_region,
            "WitnessRegion": self._witness(),
            "DeletionProtection": "true",
            **named,
            "EnvironmentHere": here.environment,
            "EnvironmentThere": there.environment,
            "CreatePolicies": _text(self._spec.with_policies),
            "AgentsMayFinish": _text(self._spec.agents_may_finish),
            "AgentsMayWriteBack": _text(self._spec.agents_may_write_back),
            **{name: arn for name, arn in self._notified if arn or name in self._owned},
            "RoleHere": environments[here.id].role,
            "RoleThere": environments[there.id].role,
            "TableKeys": ",".join(sorted({arn for keys in self._keys.values() for arn in keys.arns})),
        }

    @property
    def _notified(self) -> tuple[tuple[str, str], ...]:
        """The parameters for notifications."""
        spec = self._spec
        return ("NotificationTopic", spec.notification_topic), ("NotificationBus", spec.notification_bus)

    def _new_tables(self, creates: Sequence[tuple[str, str]], witness: str) -> Iterator[str]:
        for name, purpose in creates:
            if len(self._regions) == 1:
                yield f"+ {purpose} {name} in {self._regions[0]}, without replicas: both sites are in this region"
                continue
            where = f"+ {purpose} {name}: replicas in {' and '.join(self._regions)}"
            if purpose == "runs table":
                yield f"{where}, eventually consistent; this is sufficient, because each item has one writer"
            elif witness:
                yield f"{where}, strongly consistent, witness {witness}"
            else:
                yield f"{where}, eventually consistent"
                yield f"  WARNING: {table_model(*self._regions).reason}."
                yield "  A region that is cut off continues to use its own replica; see docs/explanation/dynamodb.md."
                yield "  For mwaa-dr itself, and for a control environment, set DR_TABLE_CONSISTENCY=eventual."
        if creates:
            yield "  with point-in-time recovery, deletion protection, and encryption with the AWS managed key"

    def _new_policies(self, environments: Mapping[str, DeployedEnvironment]) -> Iterator[str]:
        if not self._spec.with_policies:
            yield "no policies: grant the execution roles their permissions first, or their regions hold every run"
            return
        for environment in environments.values():
            role, site = environment.role, environment.site.id
            yield f"+ policy, attached to {role}: read state and ledger, write the items of {site}"
        if self._spec.agents_may_finish:
            yield "+ policy, attached to both roles: end a plan, to finish a failover whose caller stopped"
        where = " and ".join(arn for _, arn in self._notified if arn)
        yield "+ policy, attached to both roles: send notifications of failovers" + (f" to {where}" if where else "")
        if self._spec.agents_may_write_back:
            yield "+ policy, attached to both roles: write the whole state item, to write back an overwritten epoch"
            yield "  WARNING: DAG code of both environments can then move the active role."
        if any(keys.arns for keys in self._keys.values()):
            yield "+ policy, attached to both roles: use the KMS keys of the tables; attach it to all other users, too"
        yield "+ policies, not attached, for the control environment: move the active role; call the REST API"


def _text(value: bool) -> str:
    return "true" if value else "false"
