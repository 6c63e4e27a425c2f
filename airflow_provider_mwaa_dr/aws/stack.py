"""A CloudFormation stack: looked at, made what it should be, and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_mwaa_dr.aws.service import Aws, tags
from airflow_provider_mwaa_dr.aws.template import as_parameters
from airflow_provider_mwaa_dr.exceptions import AwsError, DeploymentError, RefusedError

POLL_S = 5.0
ENDS_S = 30 * 60.0
"""A global table takes minutes, its deletion more of them."""

_DONE = {
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
}
_NEVER_WAS = {"ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS"}
"""Nothing is in such a stack; it has to be deleted before another of its name can be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSight:
    """What CloudFormation says of a stack."""

    status: str
    why: str
    parameters: Mapping[str, str]
    body: str

    @property
    def is_busy(self) -> bool:
        """Whether something is going on in it."""
        return self.status.endswith("_IN_PROGRESS") and self.status not in _NEVER_WAS

    @property
    def is_empty(self) -> bool:
        """Whether it was never made."""
        return self.status in _NEVER_WAS


class Stack:
    """
    The stack *name* in *region*. Everything may be said twice.

    :raises AwsError: from every method, when CloudFormation refuses or cannot be reached.
    """

    def __init__(self, aws: Aws, region: str, name: str) -> None:
        self.region = region
        self.name = name
        self._clock = aws.clock
        self._cloudformation = aws("cloudformation", region)

    def __str__(self) -> str:
        return f"stack {self.name} in {self.region}"

    def describe(self) -> StackSight | None:
        """Return what is there; None when there is no such stack."""
        found = self._describe()
        if found is None:
            return None
        body = self._cloudformation.call_idempotent("get_template", StackName=self.name).get("TemplateBody", "")
        return StackSight(
            status=found["StackStatus"],
            why=found.get("StackStatusReason", ""),
            parameters={row["ParameterKey"]: row["ParameterValue"] for row in found.get("Parameters", ())},
            body=body if isinstance(body, str) else "",
        )

    def wait_until_idle(self) -> StackSight | None:
        """Return what is there once nothing is going on. :raises DeploymentError: something goes on for too long."""
        until = self._clock.monotonic() + ENDS_S
        while (sight := self.describe()) is not None and sight.is_busy:
            if self._clock.monotonic() >= until:
                raise DeploymentError(
                    f"The {self} is {sight.status} for more than {ENDS_S / 60:g} minutes.",
                    advice=f"Look at its events in the console of {self.region}; then say the same again.",
                )
            self._clock.sleep(POLL_S)
        return sight

    def ensure(self, body: str, parameters: Mapping[str, str]) -> str:
        """
        Make it what it should be, wait for it, and return a word for what was done.

        :raises DeploymentError: it ended otherwise; says which resource failed, and why.
        """
        sight = self.wait_until_idle()
        if sight is not None and sight.is_empty:
            self._delete()
            sight = self.wait_until_idle()
        request: dict[str, Any] = {
            "StackName": self.name,
            "TemplateBody": body,
            "Parameters": as_parameters(parameters),
            "Capabilities": ["CAPABILITY_IAM"],
            "Tags": tags({"application": "mwaa-dr"}),
        }
        if sight is None:
            self._cloudformation.call_once("create_stack", **request)
            self._require(self.wait_until_idle(), "CREATE_COMPLETE")
            return "created"
        self.require_usable(sight)
        if sight.body == body and sight.parameters == {**sight.parameters, **parameters}:
            return "unchanged"
        try:
            self._cloudformation.call_once("update_stack", **request)
        except AwsError as error:
            if "No updates are to be performed" not in error.message:
                raise
            return "unchanged"
        self._require(self.wait_until_idle(), "UPDATE_COMPLETE")
        return "updated"

    def delete(self) -> None:
        """Delete it, if it is there, and wait until it is gone. Tables that it retains stay."""
        if self.wait_until_idle() is None:
            return
        self._delete()
        self._require(self.wait_until_idle(), None)

    def require_usable(self, sight: StackSight) -> None:
        """Raise unless it can be updated. :raises RefusedError: a person has to look at it first."""
        if sight.status not in _DONE and not sight.is_busy and not sight.is_empty:
            raise RefusedError(
                f"The {self} is {sight.status}: {sight.why or 'no reason is given'}.",
                advice="CloudFormation takes no update in this state: look at the stack's events, repair or delete it "
                "(its tables stay), and say the same again.",
            )

    def _describe(self) -> Any:
        try:
            found = self._cloudformation.call_idempotent("describe_stacks", StackName=self.name)["Stacks"]
        except AwsError as error:
            if error.code == "ValidationError" and "does not exist" in error.message:
                return None
            raise
        return next((stack for stack in found if stack["StackStatus"] != "DELETE_COMPLETE"), None)

    def _delete(self) -> None:
        self._cloudformation.call_once("delete_stack", StackName=self.name)

    def _require(self, sight: StackSight | None, status: str | None) -> None:
        if (sight.status if sight else None) == status:
            return
        raise DeploymentError(
            f"The {self} is {sight.status if sight else 'gone'} instead of {status or 'gone'}: {self._why(sight)}.",
            advice="Correct what it names, and say the same again; what was done stays.",
        )

    def _why(self, sight: StackSight | None) -> str:
        if sight is None:
            return "somebody deleted it meanwhile"
        events = self._cloudformation.pages("describe_stack_events", "StackEvents", StackName=self.name)
        failed = [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
            for event in reversed(events)
            if event.get("ResourceStatus", "").endswith("_FAILED")
        ]
        return "; ".join(failed[:3]) or sight.why or "no reason is given"
