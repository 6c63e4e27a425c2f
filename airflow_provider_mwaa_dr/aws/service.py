"""Calls to one AWS service in one region, for deployments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_mwaa_dr.aws.session import (
    AwsFault,
    access_advice,
    brief,
    code_of,
    deployment_client,
    errors,
    fault_of,
    retry,
)
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.exceptions import AwsAccessError, AwsError, AwsMissingError, AwsUnreachableError

if TYPE_CHECKING:
    import boto3

T = TypeVar("T")

ANSWER_S = 60.0
"""How long an idempotent call is repeated while there is no answer."""

_PREFIX = {"mwaa": "airflow"}


class AwsService:
    """
    Calls to one service. The client is created at the first call. Not thread-safe.

    All methods raise AwsAccessError, AwsMissingError, AwsUnreachableError and AwsError.

    :param service: boto3's name of the service.
    """

    def __init__(
        self, service: str, region: str, *, clock: Clock, session: boto3.session.Session | None = None
    ) -> None:
        self.region = region
        self._service = service
        self._clock = clock
        self._session = session
        self._client: Any = None

    def call_idempotent(self, operation: str, **request: Any) -> Any:
        """Return the answer to an idempotent call; it is repeated for up to a minute."""
        call = partial(self.call_once, operation, **request)
        return retry(call, on=AwsUnreachableError, clock=self._clock, deadline_s=ANSWER_S)

    def call_once(self, operation: str, **request: Any) -> Any:
        """Return the answer to a call. It is never repeated."""
        return self._translated(operation, lambda client: getattr(client, operation)(**request))

    def read_body(self, operation: str, **request: Any) -> tuple[Any, bytes]:
        """Return the answer to a call, and its complete ``Body``; the call is repeated for up to a minute."""

        def read(client: Any) -> tuple[Any, bytes]:
            answer = getattr(client, operation)(**request)
            return answer, answer["Body"].read()

        call = partial(self._translated, operation, read)
        return retry(call, on=AwsUnreachableError, clock=self._clock, deadline_s=ANSWER_S)

    def pages(self, operation: str, member: str, **request: Any) -> list[Any]:
        """Return the elements of *member* from all pages of an answer."""

        def read(client: Any) -> list[Any]:
            pages = client.get_paginator(operation).paginate(**request)
            return [item for page in pages for item in page.get(member, ())]

        call = partial(self._translated, operation, read)
        return retry(call, on=AwsUnreachableError, clock=self._clock, deadline_s=ANSWER_S)

    def _translated(self, operation: str, call: Callable[[Any], T]) -> T:
        if self._client is None:
            self._client = deployment_client(self._service, self.region, session=self._session)
        try:
            return call(self._client)
        except errors() as error:
            raise self._error_of(error, operation) from error

    def _error_of(self, error: Exception, operation: str) -> AwsError:
        name = "".join(word.capitalize() for word in operation.split("_"))
        message = f"{name} in {self.region}: {brief(error)}."
        code, fault = code_of(error), fault_of(error)
        if fault is AwsFault.ACCESS:
            action = f"{_PREFIX.get(self._service, self._service)}:{name}"
            return AwsAccessError(
                message,
                code=code,
                advice=access_advice(
                    error,
                    f"Check the credentials and their permission {action}. mwaa-dr deploy --print-policies prints all "
                    "permissions that a deployment needs.",
                ),
            )
        if fault is AwsFault.MISSING:
            return AwsMissingError(message, code=code, advice="Check the name, the region and the account.")
        if fault in {AwsFault.UNSENT, AwsFault.LOST, AwsFault.THROTTLED}:
            return AwsUnreachableError(message, code=code, advice="Check the network, then run the same command again.")
        return AwsError(message, code=code, advice="Correct the cause that AWS names, then run the same command again.")


class Aws:
    """
    All services in all regions. Each service object is created once.

    :param session: a boto3 session with credentials; None for boto3's own search.
    """

    def __init__(self, clock: Clock, session: boto3.session.Session | None = None) -> None:
        self.clock = clock
        self._session = session
        self._services: dict[tuple[str, str], AwsService] = {}

    def __call__(self, service: str, region: str) -> AwsService:
        """Return *service* in *region*."""
        key = (service, region)
        if key not in self._services:
            self._services[key] = AwsService(service, region, clock=self.clock, session=self._session)
        return self._services[key]


def tags(pairs: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags in the format of most AWS services."""
    return [{"Key": key, "Value": value} for key, value in pairs.items()]
