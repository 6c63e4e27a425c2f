"""The routes in the real web server of Airflow 3, with users of Airflow's own auth manager."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.web.site import ACTIVE, STANDBY, Site

fastapi = pytest.importorskip("airflow.api_fastapi.app")

RUN = "/mwaa-dr/run.json?run_id=r1&dag_id="
ROUTES = ("/mwaa-dr/status.json", "/mwaa-dr/strip.json", f"{RUN}open_dag")
FILES = ("/mwaa-dr/", "/mwaa-dr/page.css", "/mwaa-dr/page.js", "/mwaa-dr/strip.js")


class Roles:
    """What the auth manager answers, for the user of the request; every other answer is no."""

    def __init__(self) -> None:
        self.sees_website = True
        self.sees_dags: set[str] | None = None


def site_with_runs() -> Site:
    """Return the web server of a standby that has read two waiting runs."""
    site = Site(STANDBY)
    site.set.agents[STANDBY].changes = {"waiting": ("open_dag r1: it waits", "secret_dag r2: it waits")}
    site.clock.advance(2)
    site.read(details=True)
    return site


@pytest.fixture
def has_cookie() -> bool:
    from airflow.plugins_manager import AirflowPlugin

    return hasattr(AirflowPlugin, "react_apps")


@pytest.fixture
def roles(monkeypatch: pytest.MonkeyPatch) -> Roles:
    return Roles()


@pytest.fixture
def client(database: Any, roles: Roles, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The real app of the API server, with the plugin's app in it, for a user without a token."""
    from airflow import plugins_manager
    from airflow.api_fastapi.app import create_app, purge_cached_app
    from airflow.plugins_manager import AirflowPlugin
    from fastapi.testclient import TestClient

    from airflow_provider_mwaa_dr.web import airflow_versions
    from airflow_provider_mwaa_dr.web.responses import WebPart

    site = site_with_runs()
    monkeypatch.setattr(airflow_versions, "web_part", lambda note: WebPart(site.reader, site.config, site.clock, note))
    attributes = airflow_versions.plugin_attributes(AirflowPlugin, lambda dag_id, run_id: f"skipped: {dag_id} {run_id}")
    apps, middlewares = attributes["fastapi_apps"], attributes.get("fastapi_root_middlewares", [])
    if hasattr(plugins_manager, "get_fastapi_plugins"):
        monkeypatch.setattr(plugins_manager, "get_fastapi_plugins", lambda: (apps, middlewares))
    else:
        monkeypatch.setattr(plugins_manager, "initialize_fastapi_plugins", lambda: None)
        monkeypatch.setattr(plugins_manager, "fastapi_apps", apps)
        monkeypatch.setattr(plugins_manager, "fastapi_root_middlewares", middlewares)
    purge_cached_app()
    yield TestClient(create_app(apps="core"), base_url="http://testserver", follow_redirects=False)
    purge_cached_app()


@pytest.fixture
def token(client: Any, roles: Roles, monkeypatch: pytest.MonkeyPatch) -> str:
    """A token of a user whom the auth manager allows what *roles* says."""
    from airflow.api_fastapi.app import get_auth_manager

    manager = get_auth_manager()

    def may_see_dag(*, method: str, user: Any, details: Any = None, **_: Any) -> bool:
        if roles.sees_dags is None:
            return True
        # Without an id, the FAB auth manager answers whether the user may see at least one DAG.
        return bool(roles.sees_dags) if details is None else details.id in roles.sees_dags

    monkeypatch.setattr(manager, "is_authorized_view", lambda **_: roles.sees_website)
    monkeypatch.setattr(manager, "is_authorized_dag", may_see_dag)
    monkeypatch.setattr(
        manager,
        "filter_authorized_dag_ids",
        lambda *, dag_ids, user, **_: {
            each for each in dag_ids if may_see_dag(method="GET", user=user, details=SimpleNamespace(id=each))
        },
    )
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    return str(manager.generate_jwt(SimpleAuthManagerUser(username="ana", role="viewer")))


def _get(client: Any, path: str, token: str) -> Any:
    return client.get(path, headers={"Authorization": f"Bearer {token}"})


def test_a_run_is_explained_to_users_who_may_see_it(client: Any, roles: Roles, token: str) -> None:
    """The note of the provider, and where the other site is."""
    found = _get(client, f"{RUN}open_dag", token).json()
    assert found["note"] == "skipped: open_dag r1"
    assert [other["site"] for other in found["others"]] == [ACTIVE]
    roles.sees_dags = {"open_dag"}
    assert _get(client, f"{RUN}open_dag", token).status_code == 200
    assert _get(client, f"{RUN}secret_dag", token).status_code == 403
    assert _get(client, "/mwaa-dr/run.json?run_id=r1", token).status_code == 422


def test_without_a_user_there_is_no_data(client: Any, has_cookie: bool) -> None:
    """Airflow does not check the routes of plugins by itself. On 3.0, the shell of the page is public and empty."""
    for path in ROUTES:
        assert client.get(path).status_code == 401, path
        assert _get(client, path, "wrong").status_code in {401, 403}, path
    for path in FILES[1:]:
        assert client.get(path).status_code == (401 if has_cookie else 200), path
    page = client.get("/mwaa-dr/")
    if has_cookie:
        assert page.status_code == 307
        assert page.headers["location"].startswith("../api/v2/auth/login?next=")
        login = client.get(page.headers["location"].removeprefix(".."))
        assert login.status_code == 307
    else:
        assert page.status_code == 200
        assert STANDBY not in page.text


def test_a_user_sees_the_page_and_its_data(client: Any, token: str, has_cookie: bool) -> None:
    """With the token in the header, and from 3.1 on also in the cookie, which a browser sends with the page."""
    for path in (*ROUTES, *FILES):
        answer = _get(client, path, token)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert _get(client, "/mwaa-dr/status.json", token).json()["regions"][STANDBY]["role"] == "standby"
    if has_cookie:
        client.cookies.set("_token", token)
        assert client.get("/mwaa-dr/").status_code == 200
        assert client.get("/mwaa-dr/strip.json").json()["strip"]["word"] == "STANDBY"


def test_a_user_who_may_not_see_the_website_is_refused(client: Any, token: str, roles: Roles, has_cookie: bool) -> None:
    """AccessView.WEBSITE is required."""
    roles.sees_website = False
    for path in (*ROUTES, *(FILES if has_cookie else ())):
        assert _get(client, path, token).status_code == 403, path


def test_lists_have_only_the_dags_of_the_user(client: Any, token: str, roles: Roles) -> None:
    """A user without any DAG sees the sites, and no run."""
    everything = _get(client, "/mwaa-dr/status.json", token).json()
    assert len(everything["regions"][STANDBY]["waiting"]) == 2
    roles.sees_dags = {"open_dag"}
    some = _get(client, "/mwaa-dr/status.json", token).json()
    assert some["regions"][STANDBY]["waiting"] == ["open_dag r1: it waits"]
    roles.sees_dags = set()
    nothing = _get(client, "/mwaa-dr/status.json", token)
    assert nothing.json()["regions"][STANDBY]["waiting"] == []
    assert "_dag" not in json.dumps(nothing.json()["regions"][STANDBY]["waiting"])


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_only_get_is_allowed(client: Any, token: str, method: str) -> None:
    """The web part changes nothing."""
    for path in (*ROUTES, *FILES):
        answer = client.request(method, path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 405, path


def test_unknown_files_do_not_exist(client: Any, token: str) -> None:
    """No path leads out of the folder of static files."""
    for path in ("/mwaa-dr/reader.py", "/mwaa-dr/..%2Freader.py", "/mwaa-dr/x/y"):
        assert _get(client, path, token).status_code == 404, path


def test_other_pages_of_airflow_have_the_strip(client: Any, has_cookie: bool) -> None:
    """On 3.0 by a script tag in Airflow's page; from 3.1 on, Airflow loads it as a React app."""
    page = client.get("/dags", headers={"Accept-Encoding": "identity"})
    tag = '<script src="./mwaa-dr/strip.js" defer></script></head>'
    assert page.status_code == 200
    assert (tag in page.text) is not has_cookie
    assert int(page.headers["content-length"]) == len(page.content)


def test_an_app_that_cannot_be_built_answers_503(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the API server works."""
    from airflow_provider_mwaa_dr.web import airflow_versions

    def fail() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(airflow_versions, "web_part", fail)
    assert client.get("/mwaa-dr/").status_code == 503
    assert client.get("/api/v2/version").status_code == 200
