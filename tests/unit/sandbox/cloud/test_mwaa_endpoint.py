"""An update of a bare environment lasts as long as its Airflow takes to be rebuilt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from airflow_provider_mwaa_dr.sandbox.cloud.mwaa_endpoint import Answer, Environment, MwaaEndpoint, Rebuilding, Request

REGION = "us-east-1"
CHANGES = {"AirflowConfigurationOptions": {"dr.enabled": "true"}}


class Service:
    """The endpoint of one environment, and the rebuilds that it requested."""

    def __init__(self, *, is_bare: bool = True) -> None:
        self.environment = Environment(
            region=REGION, name="etl", airflow_url="http://127.0.0.1:9", airflow_version="3.3.1", authorization="none",
            described={"AirflowConfigurationOptions": {"core.parallelism": "8"}}, is_bare=is_bare,
        )  # fmt: skip
        self.asked: list[Mapping[str, Any]] = []
        self.outcome: str | None = None
        self.endpoint = MwaaEndpoint(
            environment=lambda region: self.environment if region == REGION else None,
            web_port=lambda *_: None,
            clock=lambda: 0.0,
            rebuild=self._rebuild,
        )

    def _rebuild(self, environment: Environment, changes: Mapping[str, Any]) -> Rebuilding:
        assert environment is self.environment
        self.asked.append(changes)
        return lambda: self.outcome

    def send(self, method: str, document: object = None) -> Answer:
        """Return the answer to a call of the control plane."""
        return self.endpoint.answer(
            Request(
                caller="control", region=REGION, method=method, path="/environments/etl", headers={},
                body=b"" if document is None else json.dumps(document).encode(),
            )
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Return what GetEnvironment says."""
        found: dict[str, Any] = json.loads(self.send("GET").body)["Environment"]
        return found


@pytest.fixture
def service() -> Service:
    """A bare environment."""
    return Service()


def test_an_update_rebuilds_and_says_so_until_that_is_done(service: Service) -> None:
    """UPDATING with the old options, no other update meanwhile, then AVAILABLE with the new ones."""
    assert service.send("PATCH", CHANGES).status == 200
    assert service.asked == [CHANGES]
    for _ in range(2):
        during = service.describe()
        assert (during["Status"], during["LastUpdate"]["Status"]) == ("UPDATING", "PENDING")
        assert during["AirflowConfigurationOptions"] == {"core.parallelism": "8"}
    assert service.send("PATCH", CHANGES).status == 400
    assert len(service.asked) == 1

    service.outcome = ""
    after = service.describe()
    assert (after["Status"], after["LastUpdate"]["Status"]) == ("AVAILABLE", "SUCCESS")
    assert after["AirflowConfigurationOptions"] == {"dr.enabled": "true"}


def test_what_could_not_be_rebuilt_is_an_update_that_failed(service: Service) -> None:
    """UPDATE_FAILED with the reason and what was before; another update may follow."""
    service.send("PATCH", CHANGES)
    service.outcome = "the scheduler ended while starting"
    failed = service.describe()
    assert (failed["Status"], failed["LastUpdate"]["Status"]) == ("UPDATE_FAILED", "FAILED")
    assert failed["LastUpdate"]["Error"]["ErrorMessage"] == "the scheduler ended while starting"
    assert failed["AirflowConfigurationOptions"] == {"core.parallelism": "8"}

    service.outcome = None
    assert service.send("PATCH", CHANGES).status == 200
    assert service.describe()["Status"] == "UPDATING"
    service.outcome = ""
    assert service.describe()["Status"] == "AVAILABLE"


def test_an_update_that_is_refused_rebuilds_nothing(service: Service) -> None:
    """What names a file without its version never begins."""
    assert service.send("PATCH", {"RequirementsS3Path": "requirements.txt"}).status == 400
    assert service.asked == []
    assert service.describe()["Status"] == "AVAILABLE"


def test_an_environment_that_is_not_bare_is_only_described_anew() -> None:
    """Nothing is rebuilt where the sandbox sets everything itself."""
    service = Service(is_bare=False)
    service.send("PATCH", CHANGES)
    assert service.asked == []
    assert service.describe()["AirflowConfigurationOptions"] == {"dr.enabled": "true"}


def test_two_environments_in_one_region_are_told_apart_by_their_names() -> None:
    """Each has its own memory of updates. A site is no region: a request is for a region."""
    sites = {
        site: Environment(
            region=REGION, name=f"etl-{site}", airflow_url="http://127.0.0.1:9", airflow_version="3.3.1",
            authorization="none", name_of_site=site,
        )
        for site in ("blue", "green")
    }  # fmt: skip
    endpoint = MwaaEndpoint(
        environment=sites.get, in_region=lambda region: list(sites.values()) if region == REGION else [],
        web_port=lambda _, site: {"blue": 1, "green": 2}[site], clock=lambda: 0.0, update_s=lambda: 60.0,
    )  # fmt: skip

    def send(method: str, path: str, region: str = REGION) -> Answer:
        body = json.dumps(CHANGES).encode() if method == "PATCH" else b""
        return endpoint.answer(
            Request(caller="control", region=region, method=method, path=path, headers={}, body=body)
        )

    assert json.loads(send("GET", "/environments").body) == {"Environments": ["etl-blue", "etl-green"]}
    assert send("PATCH", "/environments/etl-blue").status == 200
    found = [json.loads(send("GET", f"/environments/etl-{site}").body)["Environment"] for site in ("blue", "green")]
    assert [each["Status"] for each in found] == ["UPDATING", "AVAILABLE"]
    assert [each["WebserverUrl"] for each in found] == ["127.0.0.1:1", "127.0.0.1:2"]
    assert send("GET", "/environments/etl-blue", region="blue").status == 404
