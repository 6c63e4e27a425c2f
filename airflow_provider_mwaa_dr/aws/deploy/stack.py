"""A CloudFormation stack: describe it, create or update it, delete it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_mwaa_dr.aws.deploy.template import as_parameters
from airflow_provider_mwaa_dr.aws.service import Aws, tags
from airflow_provider_mwaa_dr.exceptions import AwsError, DeploymentError, RefusedError

POLL_S = 5.0
ENDS_S = 30 * 60.0
"""Timeout. The creation of a global table takes minutes, and its deletion takes longer."""

_DONE = {
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
}
_NEVER_WAS = {"ROLLBACK_COMPLETE", "REVIEW_IN_PROGRESS"}
"""Such a stack has no resources. It must be deleted before a stack of the same name can be created."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackDescription:
    """A stack as CloudFormation describes it."""

    status: str
    why: str
    parameters: Mapping[str, str]
    body: str

    @property
    def is_busy(self) -> bool:
        """Whether CloudFormation is changing the stack."""
        return self.status.endswith("_IN_PROGRESS") and self.status not in _NEVER_WAS

    @property
    def is_empty(self) -> bool:
        """Whether the stack has no resources, because its creation failed or never began."""
        return self.status in _NEVER_WAS


class Stack:
    """
    The stack *name* in *region*. All methods are idempotent.

    :raises AwsError: from every method, if CloudFormation refuses a call or does not answer.
    """

    def __init__(self, aws: Aws, region: str, name: str) -> None:
        self.region = region
        self.name = name
        self._clock = aws.clock
        self._cloudformation = aws("cloudformation", region)

    def __str__(self) -> str:
        return f"stack {self.name} in {self.region}"

    def describe(self) -> StackDescription | None:
        """Return the stack; None if it does not exist."""
        found = self._describe()
        if found is None:
            return None
        body = self._cloudformation.call_idempotent("get_template", StackName=self.name).get("TemplateBody", "")
        return StackDescription(
            status=found["StackStatus"],
            why=found.get("StackStatusReason", ""),
            parameters={row["ParameterKey"]: row["ParameterValue"] for row in found.get("Parameters", ())},
            body=body if isinstance(body, str) else "",
        )

    def wait_until_idle(self) -> StackDescription | None:
        """Wait until CloudFormation has finished, and return the stack. :raises DeploymentError: it timed out."""
        until = self._clock.monotonic() + ENDS_S
        while (existing := self.describe()) is not None and existing.is_busy:
            if self._clock.monotonic() >= until:
                raise DeploymentError(
                    f"The {self} has been {existing.status} for more than {ENDS_S / 60:g} minutes.",
                    advice=f"Check its events in the CloudFormation console of {self.region}. Then run the same "
                    "command again.",
                )
            self._clock.sleep(POLL_S)
        return existing

    def ensure(self, body: str, parameters: Mapping[str, str]) -> str:
        """
        Create or update the stack, wait, and return ``created``, ``updated`` or ``unchanged``.

        :raises DeploymentError: creation or update failed. The message names the failed resources and the reasons.
        """
        existing = self.wait_until_idle()
        if existing is not None and existing.is_empty:
            self._delete()
            existing = self.wait_until_idle()
        request: dict[str, Any] = {
            "StackName": self.name,
            "TemplateBody": body,
            "Parameters": as_parameters(parameters),
            "Capabilities": ["CAPABILITY_IAM"],
            "Tags": tags({"application": "mwaa-dr"}),
        }
        if existing is None:
            self._cloudformation.call_once("create_stack", **request)
            self._require(self.wait_until_idle(), "CREATE_COMPLETE")
            return "created"
        self.require_usable(existing)
        if existing.body == body and existing.parameters == {**existing.parameters, **parameters}:
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
        """Delete the stack if it exists, and wait until it is deleted. Tables that the template retains are kept."""
        if self.wait_until_idle() is None:
            return
        self._delete()
        self._require(self.wait_until_idle(), None)

    def require_usable(self, existing: StackDescription) -> None:
        """Raise unless the stack can be updated. :raises RefusedError: a user has to repair it first."""
        if existing.status not in _DONE and not existing.is_busy and not existing.is_empty:
            raise RefusedError(
                f"The {self} is {existing.status}: {existing.why or 'CloudFormation gives no reason'}.",
                advice="CloudFormation accepts no update in this status. Check the stack's events, repair or delete it "
                "(its tables are kept), and run the same command again.",
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

    def _require(self, existing: StackDescription | None, status: str | None) -> None:
        if (existing.status if existing else None) == status:
            return
        raise DeploymentError(
            f"The {self} is {existing.status if existing else 'deleted'} instead of {status or 'deleted'}: "
            f"{self._why(existing)}.",
            advice="Correct the cause, then run the same command again. Completed steps are kept.",
        )

    def _why(self, existing: StackDescription | None) -> str:
        if existing is None:
            return "another caller deleted it"
        events = self._cloudformation.pages("describe_stack_events", "StackEvents", StackName=self.name)
        failed = [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}"
            for event in reversed(events)
            if event.get("ResourceStatus", "").endswith("_FAILED")
        ]
        return "; ".join(failed[:3]) or existing.why or "CloudFormation gives no reason"
