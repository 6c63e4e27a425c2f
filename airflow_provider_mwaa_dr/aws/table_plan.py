"""State table, runs table and policies: what there is, and what the stack has to make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from airflow_provider_mwaa_dr.aws.control_plane import DeployedEnvironment
from airflow_provider_mwaa_dr.aws.deployment_step import DeploymentStep, DeploySpec
from airflow_provider_mwaa_dr.aws.existing_tables import (
    RUNS_KEY,
    STATE_KEY,
    TableSight,
    limits,
    look_at_table,
    require_usable,
)
from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.aws.stack import Stack, StackSight
from airflow_provider_mwaa_dr.aws.template import template
from airflow_provider_mwaa_dr.core.config import TableConsistency
from airflow_provider_mwaa_dr.core.region_sets import table_model
from airflow_provider_mwaa_dr.exceptions import RefusedError


class TablePlan:
    """
    Looks at stack and tables when it is made; nothing is changed.

    :param regions: of the environments.
    :param standby: which of them is not active, and so the better place for a new stack; None: not known yet.
    :raises RefusedError: something is in the way that a person has to look at.
    """

    def __init__(self, aws: Aws, regions: Sequence[str], spec: DeploySpec, *, standby: str | None) -> None:
        self._spec = spec
        home = spec.home or standby or regions[0]
        self._regions = tuple(sorted(regions, key=lambda region: region != home))
        self.stack, self._sight = self._find_stack(aws)
        # Its other region comes second.
        self._regions = tuple(sorted(regions, key=lambda region: region != self.stack.region))
        self._owned: Mapping[str, str] = {}
        if self._sight is not None and not self._sight.is_empty:
            self._owned = self._sight.parameters
        self._is_busy = self._sight is not None and self._sight.is_busy
        self.state = self._describe(aws, spec.state_table, STATE_KEY, "state table", "CreateStateTable")
        self.runs = self._describe(aws, spec.runs_table, RUNS_KEY, "runs table", "CreateRunsTable")

    @property
    def state_regions(self) -> tuple[str, ...]:
        """Regions of the state table's copies, as they are or as they are going to be."""
        return self._regions if self.state is None or self._is_busy else self.state.regions

    @property
    def state_is_eventual(self) -> bool:
        """Whether the copies of the state table follow each other later, as they are or as they are going to be."""
        if self.state is None or (self._is_busy and self._owns("CreateStateTable")):
            return not self._witness()
        return self.state.consistency is TableConsistency.EVENTUAL

    @property
    def has_state_table(self) -> bool:
        """Whether the state table can be read now; one that is being created cannot."""
        return self.state is not None and self.state.status != "CREATING"

    def steps(self, environments: Mapping[str, DeployedEnvironment]) -> Iterator[DeploymentStep]:
        """Yield what there is, and what the stack has to make."""
        creates = []
        for name, purpose, parameter, found in (
            (self._spec.state_table, "state table", "CreateStateTable", self.state),
            (self._spec.runs_table, "runs table", "CreateRunsTable", self.runs),
        ):
            if found is None:
                creates.append((name, purpose))
                continue
            verb = "there" if self._owns(parameter) else "adopted"
            yield DeploymentStep(
                name=purpose,
                detail=f"{verb}: {name}, {found.model}",
                lines=tuple(limits(found, self._regions, purpose)),
            )
        if not (creates or self._spec.with_policies or self._sight):
            return
        body, parameters, sight = template(), self._parameters(environments), self._sight
        before = self._owned
        is_same = sight is not None and sight.body == body and before == {**before, **parameters}
        if is_same and not self._is_busy:
            yield DeploymentStep(name="stack", detail=f"there: {self.stack}")
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
            if sight is not None and sight.body != body:
                lines.append("this version's template takes the place of the one that is there")

        def act() -> str:
            done = self.stack.ensure(body, parameters)
            made = "; ".join(f"{purpose} {name}" for name, purpose in creates)
            return f"{done}: {self.stack}" + (f"; {made}" if made else "")

        verb = "wait for, and if needed update," if self._is_busy else "update" if before else "create"
        yield DeploymentStep(name="stack", detail=f"{verb} the {self.stack}", lines=tuple(lines), act=act)

    def _find_stack(self, aws: Aws) -> tuple[Stack, StackSight | None]:
        stacks = [Stack(aws, region, self._spec.stack) for region in self._regions]
        for stack in stacks:
            sight = stack.describe()
            if sight is None:
                continue
            stack.require_usable(sight)
            for parameter, name in (("StateTable", self._spec.state_table), ("RunsTable", self._spec.runs_table)):
                found = name if sight.is_empty else sight.parameters.get(parameter)
                if found != name:
                    raise RefusedError(
                        f"The {stack} is that of {f'the table {found}' if found else 'something else'}, not of {name}. "
                        "Nothing was changed.",
                        advice="Name that table, or another stack (--stack).",
                    )
            return stack, sight
        return stacks[0], None

    def _describe(self, aws: Aws, name: str, key: Sequence[str], purpose: str, parameter: str) -> TableSight | None:
        found = look_at_table(aws, name, self._regions)
        if self._is_busy:
            return found
        if found is not None:
            require_usable(found, key, purpose)
        elif self._owns(parameter):
            raise RefusedError(
                f"The {self.stack} made the {purpose} {name}, and it is gone. Nothing was changed.",
                advice="Delete the stack (what else it made stays), then say the same again.",
            )
        return found

    def _owns(self, parameter: str) -> bool:
        return self._owned.get(parameter) == "true"

    def _witness(self) -> str:
        # How a table is kept is settled when it is created.
        if self._owns("CreateStateTable"):
            return self._owned.get("WitnessRegion", "")
        return table_model(*self._regions).witness

    def _parameters(self, environments: Mapping[str, DeployedEnvironment]) -> dict[str, str]:
        here, there = self._regions
        return {
            "StateTable": self._spec.state_table,
            "RunsTable": self._spec.runs_table,
            "CreateStateTable": _text(self.state is None or self._owns("CreateStateTable")),
            "CreateRunsTable": _text(self.runs is None or self._owns("CreateRunsTable")),
            "OtherRegion": there,
            "WitnessRegion": self._witness(),
            "DeletionProtection": "true",
            "EnvironmentHere": environments[here].name,
            "EnvironmentThere": environments[there].name,
            "CreatePolicies": _text(self._spec.with_policies),
            "AgentsMayFinish": _text(self._spec.agents_may_finish),
            "RoleHere": environments[here].role,
            "RoleThere": environments[there].role,
        }

    def _new_tables(self, creates: Sequence[tuple[str, str]], witness: str) -> Iterator[str]:
        for name, purpose in creates:
            where = f"+ {purpose} {name}: copies in {' and '.join(self._regions)}"
            if purpose == "runs table":
                yield f"{where}, eventually consistent, which suits it: each item has one writer"
            elif witness:
                yield f"{where}, strongly consistent, witness {witness}"
            else:
                yield f"{where}, eventually consistent"
                yield f"  WARNING: {table_model(*self._regions).reason}."
                yield "  A region that is cut off continues to use its own replica; see docs/explanation/dynamodb.md."
                yield "  For mwaa-dr itself, and for a control environment, set DR_TABLE_CONSISTENCY=eventual."
        if creates:
            yield "  with point-in-time recovery, deletion protection, encryption by the AWS managed key"

    def _new_policies(self, environments: Mapping[str, DeployedEnvironment]) -> Iterator[str]:
        if not self._spec.with_policies:
            yield "no policies: give the execution roles their rights first, or their regions hold everything"
            return
        for environment in environments.values():
            role, region = environment.role, environment.region
            yield f"+ policy, attached to {role}: read state and ledger, write those of {region}"
        if self._spec.agents_may_finish:
            yield "+ policy, attached to both roles: write the state item, to finish a failover whose caller is gone"
        yield "+ policies, attached to nobody, for the control environment: flip the state; drive the REST API"


def _text(value: bool) -> str:
    return "true" if value else "false"
