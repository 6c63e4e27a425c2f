"""Calls to an environment's Airflow: with InvokeRestApi if it supports the call, else in a web-token session."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_mwaa_dr.aws.session import (
    MWAA_CONNECT_TIMEOUT_S,
    MWAA_READ_TIMEOUT_S,
    AwsFault,
    access_advice,
    brief,
    code_of,
    errors,
    fault_of,
    mwaa_client,
    retry,
)
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.exceptions import (
    MwaaAccessError,
    MwaaError,
    MwaaRequestError,
    MwaaThrottledError,
    MwaaUnreachableError,
)

if TYPE_CHECKING:
    import boto3
    import requests

log = get_logger(__name__)

MAX_PATH = 64
"""Longest path that InvokeRestApi accepts. botocore does not check it."""
CALLS = 10
CALLS_WINDOW_S = 1.05
"""InvokeRestApi accepts 10 calls a second from all callers together. The window is longer because of network delays."""


class MwaaAirflowApi:
    """
    One environment's control plane and the REST API of its Airflow. Not thread-safe.

    All calls are idempotent. After a timeout, a refused connection, throttling or a server error, a call is repeated
    until *deadline_s* has passed since its first attempt. An attempt without an answer ends after 12 s, a little more
    than the limit of the service. With *attempt_s* a call is one attempt, which ends after about that time.

    All methods raise MwaaAccessError, MwaaUnreachableError and MwaaRequestError.
    """

    def __init__(
        self,
        region: str,
        name: str,
        *,
        clock: Clock,
        session: boto3.session.Session | None,
        deadline_s: float,
        attempt_s: float | None = None,
    ) -> None:
        self._region = region
        self._name = name
        self._clock = clock
        self._boto3_session = session
        self._deadline_s = deadline_s if attempt_s is None else 0.0
        # A connection is tried with each address of the service, and each try may take the connect timeout.
        self._timeouts_s = (
            (MWAA_CONNECT_TIMEOUT_S, MWAA_READ_TIMEOUT_S) if attempt_s is None else (attempt_s / 2, attempt_s)
        )
        self._made: tuple[int, Any] | None = None
        self._version: tuple[int, ...] | None = None
        self._web: tuple[str, requests.Session] | None = None
        self._calls: deque[float] = deque(maxlen=CALLS)

    def describe(self) -> Mapping[str, Any]:
        """Return the answer of GetEnvironment."""
        return retry(self._describe, on=MwaaUnreachableError, clock=self._clock, deadline_s=self._deadline_s)

    @property
    def version(self) -> tuple[int, ...]:
        """Airflow version of the environment, such as (3, 3, 1); read once."""
        if self._version is None:
            text = str(self.describe().get("AirflowVersion", ""))
            parts = text.split(".")
            if not (len(parts) >= 2 and all(part.isdigit() for part in parts)):
                raise MwaaRequestError(
                    f"The Airflow version of {self._where} is {text!r}, which is not a version number.", status=0
                )
            self._version = tuple(int(part) for part in parts)
        return self._version

    def get(self, path: str, *, holds: Collection[str], **query: Any) -> Any:
        """
        Return Airflow's answer to a GET of *path*.

        :param path: without ``/api/vN``.
        :param holds: keys that the answer must have. An answer without them is not from Airflow, and counts as no
            answer.
        """
        return self._request("GET", path, query, None, holds)

    def patch(self, path: str, body: Mapping[str, Any], *, holds: Collection[str] = (), **query: Any) -> Any:
        """Return Airflow's answer to a PATCH. For idempotent changes only."""
        return self._request("PATCH", path, query, body, holds)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return Airflow's answer to a POST. For idempotent requests only, such as a run with an id from the caller."""
        return self._request("POST", path, {}, body, ())

    @property
    def _where(self) -> str:
        return f"{self._name} ({self._region})"

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Mapping[str, Any] | None,
        holds: Collection[str],
    ) -> Any:
        texts = {name: _text(value) for name, value in query.items()}
        fits = len(path) <= MAX_PATH and path == quote(path, safe="/~:+")
        # botocore before 1.35.47, which MWAA's 2.10 images have, does not know InvokeRestApi.
        by_service = fits and hasattr(self._client, "invoke_rest_api")
        attempt = self._by_service if by_service else self._by_web_session

        def ask() -> Any:
            answer = attempt(method, path, texts, body)
            if holds and not (isinstance(answer, Mapping) and answer.keys() >= set(holds)):
                raise MwaaUnreachableError(
                    f"{method} {path} of {self._where}: the answer has no {' and '.join(holds)}: {str(answer)[:90]!r}.",
                    advice="Check the web server's log.",
                )
            return answer

        return retry(ask, on=MwaaUnreachableError, clock=self._clock, deadline_s=self._deadline_s)

    # Calls with InvokeRestApi.

    @property
    def _client(self) -> Any:
        # A forked process must not share a connection with its parent.
        if self._made is None or self._made[0] != os.getpid():
            self._made = (
                os.getpid(),
                mwaa_client(self._region, session=self._boto3_session, timeouts_s=self._timeouts_s),
            )
            self._web = None
        return self._made[1]

    def _describe(self) -> Mapping[str, Any]:
        try:
            environment: Mapping[str, Any] = self._client.get_environment(Name=self._name)["Environment"]
        except errors() as error:
            raise self._error_of(error, "GetEnvironment") from error
        return environment

    def _by_service(self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None) -> Any:
        self._wait_for_turn()
        request: dict[str, Any] = {"Name": self._name, "Method": method, "Path": path}
        if query:
            request["QueryParameters"] = dict(query)
        if body is not None:
            request["Body"] = dict(body)
        try:
            answer = self._client.invoke_rest_api(**request)
        except errors() as error:
            raise self._error_of(error, f"{method} {path}") from error
        return answer.get("RestApiResponse")

    def _wait_for_turn(self) -> None:
        if len(self._calls) == CALLS:
            self._clock.sleep(max(0.0, self._calls[0] + CALLS_WINDOW_S - self._clock.monotonic()))
        self._calls.append(self._clock.monotonic())

    def _error_of(self, error: Exception, doing: str) -> MwaaError:
        """Return the error to raise for an error of the service. Some contain Airflow's own answer."""
        response = getattr(error, "response", None) or {}
        if code_of(error) in {"RestApiClientException", "RestApiServerException"}:
            return self._error_of_status(
                int(response.get("RestApiStatusCode") or 0), response.get("RestApiResponse"), doing
            )
        fault = fault_of(error)
        message = f"{doing} of {self._where}: {brief(error)}."
        if fault is AwsFault.ACCESS:
            return MwaaAccessError(
                message,
                advice=access_advice(
                    error,
                    "Check the credentials and their permissions: airflow:GetEnvironment, airflow:CreateWebLoginToken "
                    "and airflow:InvokeRestApi, the last two on "
                    "arn:aws:airflow:REGION:ACCOUNT:role/ENVIRONMENT/AIRFLOW_ROLE.",
                ),
            )
        if fault is AwsFault.MISSING:
            return MwaaAccessError(message, advice="Check the environment's name and region, and the account.")
        if fault is AwsFault.INVALID:
            status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
            return MwaaRequestError(message, status=status, detail=brief(error))
        kind = MwaaThrottledError if fault is AwsFault.THROTTLED else MwaaUnreachableError
        return kind(message, advice="Check the network, and the environment's status.")

    def _error_of_status(self, status: int, answer: Any, doing: str) -> MwaaError:
        """Return the error to raise for an HTTP status from Airflow."""
        detail = _detail(answer)
        message = f"{doing} of {self._where}: HTTP {status} {detail}".rstrip() + "."
        if status in {401, 403}:
            return MwaaAccessError(
                message,
                advice="Check the Airflow role of the caller: it must be able to edit DAGs and runs (Op or Admin).",
            )
        if status == 429 or status >= 500 or status == 0:
            kind = MwaaThrottledError if status == 429 else MwaaUnreachableError
            return kind(message, advice="Check the environment's status and its web server's log.")
        return MwaaRequestError(message, status=status, detail=detail)

    # Calls in a session with the web server.

    def _by_web_session(self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None) -> Any:
        status, answer = self._send(method, path, query, body)
        if status in {401, 403} or 300 <= status < 400:
            # Sessions last 12 hours, or until MWAA replaces the web server.
            self._web = None
            status, answer = self._send(method, path, query, body)
        if not 200 <= status < 300:
            raise self._error_of_status(401 if 300 <= status < 400 else status, answer, f"{method} {path}")
        return answer

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> tuple[int, Any]:
        """Return status and content of Airflow's answer."""
        url, web = self._web_session()
        base = f"{url}/api/v1" if self.version < (3,) else f"{url}/api/v2"
        response = self._exchange(
            web, method, base + quote(path, safe="/~"), f"{method} {path}", params=dict(query), json=body
        )
        try:
            return response.status_code, response.json()
        except ValueError:
            if response.ok:
                raise MwaaUnreachableError(
                    f"{method} {path} of {self._where}: the answer is not JSON: {response.text[:100]!r}."
                ) from None
            return response.status_code, response.text

    def _web_session(self) -> tuple[str, requests.Session]:
        if self._web is None:
            import requests  # noqa: PLC0415  (needed for long paths and old boto3 only)

            try:
                token = self._client.create_web_login_token(Name=self._name)
            except errors() as error:
                raise self._error_of(error, "CreateWebLoginToken") from error
            # Web servers of an emulated AWS (AWS_ENDPOINT_URL) may have no certificate; those of MWAA always have one.
            scheme = "http" if self._client.meta.endpoint_url.startswith("http://") else "https"
            url = f"{scheme}://{token['WebServerHostname']}"
            web = requests.Session()
            # A password for this host in ~/.netrc replaces the Authorization header, so the token would not be sent.
            # https://requests.readthedocs.io/en/latest/user/authentication/#netrc-authentication
            # The environment's proxies (HTTP_PROXY, ALL_PROXY) are not used either: they may carry credentials, and
            # over http they would see the token.
            web.trust_env = False
            login = "/aws_mwaa/login" if self.version < (3,) else "/pluginsv2/aws_mwaa/login"
            response = self._exchange(web, "POST", url + login, "login", data={"token": token["WebToken"]})
            if response.status_code >= 400 or not response.cookies:
                raise self._error_of_status(
                    response.status_code if response.status_code >= 400 else 401, "no session cookie", "web login"
                )
            if self.version >= (3,) and "_token" in response.cookies:
                # Airflow 3.0 reads the token only from the header; later versions also from the cookie.
                web.headers["Authorization"] = f"Bearer {response.cookies['_token']}"
            log.debug("Opened a web session with %s.", self._where)
            self._web = url, web
        return self._web

    def _exchange(self, web: requests.Session, method: str, url: str, doing: str, **content: Any) -> requests.Response:
        import requests  # noqa: PLC0415

        try:
            return web.request(
                method,
                url,
                timeout=self._timeouts_s,
                allow_redirects=False,
                **content,
            )
        except requests.RequestException as error:
            raise MwaaUnreachableError(
                f"{doing} of {self._where} through its web server: {brief(error)}.",
                advice="Check the network. A private web server can be reached only from inside its VPC. This call "
                "ignores HTTPS_PROXY and the other proxy variables.",
            ) from error


def _text(value: Any) -> str:
    # Query parameters are text. Not every version accepts "True", the text of a Python boolean.
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _detail(answer: Any) -> str:
    """Return Airflow's message from the body of an error, in one line."""
    if isinstance(answer, Mapping):
        answer = answer.get("detail") or answer.get("title") or answer.get("message") or answer
    text = answer if isinstance(answer, str) else json.dumps(answer, default=str)
    return " ".join(text.split())[:500]
