"""Requests to a DynamoDB table with replicas in several regions: to the nearest replica first, then to the others."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_mwaa_dr.aws.dynamodb.signed_client import open_signed_client
from airflow_provider_mwaa_dr.aws.session import (
    DYNAMODB_TIMEOUT_S,
    AwsFault,
    access_advice,
    brief,
    code_of,
    dynamodb_client,
    errors,
    fault_of,
    unknown_region_advice,
)
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.exceptions import (
    StateAccessError,
    StateError,
    StateUnreachableError,
    TableNotFoundError,
)

if TYPE_CHECKING:
    import boto3

T = TypeVar("T")

AVOID_S = 15.0
"""How long a replica that failed is tried last."""
BACKOFF_S = (0.1, 0.3)
"""Waits before another pass over the replicas, if a replica throttled the request or reported a write conflict."""

_IS_ABOUT_THE_KEY = re.compile(r"\bkey element|\bMissing the key\b|\bmismatch for key\b|\bconditions on the keys\b")
"""Messages of DynamoDB if the table has another key than the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a request to one replica failed."""

    fault: AwsFault
    error: Exception


class Replicas:
    """
    The replicas of one table. Thread-safe.

    One attempt takes at most about a second. A replica that failed is tried last for ``AVOID_S``. botocore or boto3 is
    imported, and clients are created, at the first request, one client for each process and region. So a forked process
    shares no connection, and there is no lock that it could inherit.

    :param regions: regions of the replicas, nearest first.
    :param session: a boto3 session with credentials; None: boto3 searches for credentials itself.
    :param timeout_s: timeout of one attempt at one replica.
    :param rights: DynamoDB actions that the caller needs, for the advice of errors.
    :param key: the table's key, for the advice of errors.
    :param setting: the setting with the table's name, for the advice of errors.
    """

    def __init__(
        self,
        table: str,
        regions: Sequence[str],
        *,
        clock: Clock,
        session: boto3.session.Session | None = None,
        timeout_s: float = DYNAMODB_TIMEOUT_S,
        rights: str,
        key: str,
        setting: str,
    ) -> None:
        self._table = table
        self._regions = tuple(regions)
        self._clock = clock
        self._session = session
        self._timeout_s = timeout_s
        self._rights, self._key, self._setting = rights, key, setting
        self._clients: dict[tuple[int, str], Any] = {}
        self._failed_at: dict[str, float] = {}

    def ask(self, call: Callable[[Any], T], doing: str) -> T:
        """
        Return the result of *call* from the first replica that answers. For idempotent calls only.

        :raises StateError: no replica answered. The message has the error of each replica.
        """
        for wait_s in (*BACKOFF_S, None):
            failures: dict[str, Failure] = {}
            for region in self.order():
                answer = self.attempt(region, call)
                if not isinstance(answer, Failure):
                    return answer
                failures[region] = answer
            self.pause_or_raise(wait_s, failures, doing)
        raise AssertionError("the last wait is None, and raises")

    def get(self, key: Mapping[str, Any], doing: str) -> Mapping[str, Any] | None:
        """Return an item, with a consistent read; None if it does not exist."""
        answer = self.ask(lambda client: client.get_item(TableName=self._table, Key=key, ConsistentRead=True), doing)
        item: Mapping[str, Any] | None = answer.get("Item")
        return item

    def put(self, item: Mapping[str, Any], doing: str) -> None:
        """Write an item without a condition."""
        self.ask(lambda client: client.put_item(TableName=self._table, Item=item), doing)

    def delete(self, key: Mapping[str, Any], doing: str) -> None:
        """Delete an item, if it exists."""
        self.ask(lambda client: client.delete_item(TableName=self._table, Key=key), doing)

    def ask_on_condition(self, call: Callable[[Any], object], doing: str) -> bool:
        """Make a conditional call; return False if its condition failed."""

        def attempt(client: Any) -> bool:
            try:
                call(client)
            except errors() as error:
                if fault_of(error) is AwsFault.CONDITION:
                    return False
                raise
            return True

        return self.ask(attempt, doing)

    def put_if(
        self, call: Callable[[Any], object], doing: str, *, is_mine: Callable[[Mapping[str, Any]], bool]
    ) -> bool:
        """
        Make a conditional put, and repeat it if its answer is lost; return whether the item is stored now.

        :param call: the put, with ``ReturnValuesOnConditionCheckFailure``.
        :param is_mine: whether the stored item equals the item of *call*, so an earlier attempt has written it.
        """

        def attempt(client: Any) -> bool:
            try:
                call(client)
            except errors() as error:
                if fault_of(error) is not AwsFault.CONDITION:
                    raise
                found = getattr(error, "response", {}).get("Item")
                return found is not None and is_mine(found)
            return True

        return self.ask(attempt, doing)

    def attempt(self, region: str, call: Callable[[Any], T]) -> T | Failure:
        """Make one request to one replica. If it fails, remember to try that replica last."""
        try:
            answer = call(self._client(region))
        except errors() as error:
            fault = fault_of(error)
            if fault not in {AwsFault.CONDITION, AwsFault.CONFLICT}:
                self._failed_at[region] = self._clock.monotonic()
            return Failure(fault=fault, error=error)
        self._failed_at.pop(region, None)
        return answer

    def _client(self, region: str) -> Any:
        # Two threads may both create a client at first. Both clients work, and one of them is kept.
        key = (os.getpid(), region)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = self._open_client(region)
        return client

    def _open_client(self, region: str) -> Any:
        signed = None if self._session is not None else open_signed_client(region, timeout_s=self._timeout_s)
        return signed or dynamodb_client(region, session=self._session, timeout_s=self._timeout_s)

    def order(self) -> list[str]:
        """Return the regions of the replicas, nearest first; those that failed within ``AVOID_S`` come last."""
        now = self._clock.monotonic()
        return sorted(self._regions, key=lambda region: now < self._failed_at.get(region, -AVOID_S) + AVOID_S)

    def pause_or_raise(self, wait_s: float | None, failures: Mapping[str, Failure], doing: str) -> None:
        """
        Wait if a replica throttled the call or reported a write conflict, because only then a retry helps; else raise.
        """
        kinds = {failure.fault for failure in failures.values()}
        if wait_s is not None and kinds & {AwsFault.THROTTLED, AwsFault.CONFLICT}:
            self._clock.sleep(wait_s)
            return
        if not failures:
            raise StateUnreachableError(
                f"Could not {doing}: the region of table {self._table} is not set.",
                advice="Set [dr] state_table_region, or AWS_REGION.",
            )
        why = "; ".join(
            f"{region}: {failure.fault.value}: {brief(failure.error)}" for region, failure in failures.items()
        )
        message = f"Could not {doing}: table {self._table}, {why}."
        cause = next(iter(failures.values())).error
        if kinds & {AwsFault.UNSENT, AwsFault.LOST, AwsFault.THROTTLED, AwsFault.CONFLICT}:
            # An unknown region has no endpoint, so no connection can be made.
            wrong = unknown_region_advice(failures) if kinds == {AwsFault.UNSENT} else ""
            raise StateUnreachableError(
                message, advice=wrong or "Check the network and the table's status in these regions, then try again."
            ) from cause
        if AwsFault.ACCESS in kinds:
            refused = next(failure.error for failure in failures.values() if failure.fault is AwsFault.ACCESS)
            raise StateAccessError(
                message,
                advice=access_advice(
                    refused, f"Check the credentials and their permissions on this table: dynamodb:{self._rights}."
                ),
            ) from refused
        if AwsFault.MISSING in kinds:
            raise TableNotFoundError(
                message,
                advice=f"Create the tables with mwaa-dr deploy, or correct {self._setting} and state_table_region.",
            ) from cause
        raise StateError(message, advice=self._advice_on_refusal(cause)) from cause

    def _advice_on_refusal(self, error: Exception) -> str:
        """Return the advice for a request that AWS did not accept, from the error's code and message."""
        code, words = code_of(error), str(error)
        if not code:
            return "The request was not sent. Check AWS_REGION, and the boto3 configuration of this machine."
        if code == "ValidationException" and _IS_ABOUT_THE_KEY.search(words):
            return f"Check that the key of table {self._table} is {self._key}."
        if code == "ValidationException":
            return "The provider sent a request that DynamoDB does not allow. Report this message as a bug."
        return (
            f"DynamoDB refused the request with {code}. See 'Error handling with DynamoDB' in the AWS documentation, "
            "and correct the cause."
        )
