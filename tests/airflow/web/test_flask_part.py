"""The routes in the real web server of Airflow 2, with users of the FAB auth manager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.web.site import ACTIVE, STANDBY, Site

pytest.importorskip("airflow.www.app", exc_type=ImportError)

RUN = "/mwaa-dr/run.json?run_id=r1&dag_id="
ROUTES = ("/mwaa-dr/status.json", "/mwaa-dr/strip.json", f"{RUN}open_dag")
FILES = ("/mwaa-dr/", "/mwaa-dr/page.css", "/mwaa-dr/page.js", "/mwaa-dr/strip.js")


def _site() -> Site:
    site = Site(STANDBY)
    site.set.agents[STANDBY].changes = {"waiting": ("open_dag r1: it waits", "secret_dag r2: it waits")}
    site.clock.advance(2)
    site.read(details=True)
    return site


@pytest.fixture(scope="module")
def app(_migrated: None) -> Iterator[Any]:
    """The real app, with the plugin's blueprint and a user of each role."""
    from airflow import plugins_manager
    from airflow.plugins_manager import AirflowPlugin
    from airflow.www.app import create_app

    from airflow_provider_mwaa_dr.web import airflow_versions
    from airflow_provider_mwaa_dr.web.responses import WebPart

    patch = pytest.MonkeyPatch()
    site = _site()
    patch.setattr(airflow_versions, "web_part", lambda note: WebPart(site.reader, site.config, site.clock, note))
    attributes = airflow_versions.plugin_attributes(AirflowPlugin, lambda dag_id, run_id: f"skipped: {dag_id} {run_id}")
    blueprints = [{"name": "mwaa_dr", "blueprint": each} for each in attributes["flask_blueprints"]]
    patch.setattr(plugins_manager, "initialize_web_ui_plugins", lambda: None)
    patch.setattr(plugins_manager, "flask_appbuilder_views", [])
    patch.setattr(plugins_manager, "flask_appbuilder_menu_links", attributes["appbuilder_menu_items"])
    patch.setattr(plugins_manager, "flask_blueprints", blueprints)
    app = create_app(testing=True)
    app.config["WTF_CSRF_ENABLED"] = False
    with app.app_context():
        security = app.appbuilder.sm
        nothing = security.find_role("Nothing") or security.add_role("Nothing")
        one = security.find_role("OneDag") or security.add_role("OneDag")
        for action, resource in (("can_read", "Website"), ("can_read", "DAG:open_dag")):
            permission = security.create_permission(action, resource)
            security.add_permission_to_role(one, permission)
        no_dags = security.find_role("NoDags") or security.add_role("NoDags")
        security.add_permission_to_role(no_dags, security.create_permission("can_read", "Website"))
        roles = {"admin": security.find_role("Admin"), "viewer": security.find_role("Viewer")}
        for name, role in {**roles, "nothing": nothing, "one": one, "nodags": no_dags}.items():
            if security.find_user(name) is None:
                assert security.add_user(name, name, name, f"{name}@example.org", role, password=name)
    yield app
    patch.undo()


_CLIENTS: dict[str | None, Any] = {}
"""By user. Airflow allows five logins in 40 seconds."""


def _client(app: Any, user: str | None) -> Any:
    if user in _CLIENTS:
        return _CLIENTS[user]
    client = _CLIENTS[user] = app.test_client()
    if user is not None:
        answer = client.post("/login/", data={"username": user, "password": user})
        assert answer.status_code == 302
    return client


def test_without_a_user_there_is_no_data_and_the_page_leads_to_the_login(app: Any) -> None:
    """Airflow does not check the routes of plugins by itself."""
    client = _client(app, None)
    for path in (*ROUTES, *FILES[1:]):
        assert client.get(path).status_code == 401, path
    page = client.get("/mwaa-dr/")
    assert page.status_code == 302
    assert "/login/" in page.headers["location"]


@pytest.mark.parametrize("user", ["viewer", "admin"])
def test_a_user_sees_the_page_and_its_data(app: Any, user: str) -> None:
    """A viewer, too: the page changes nothing."""
    client = _client(app, user)
    for path in (*ROUTES, *FILES):
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert client.get("/mwaa-dr/strip.json").json["strip"]["word"] == "STANDBY"
    assert len(client.get("/mwaa-dr/status.json").json["regions"][STANDBY]["waiting"]) == 2


def test_a_user_who_may_not_see_the_website_is_refused(app: Any) -> None:
    """AccessView.WEBSITE is required."""
    client = _client(app, "nothing")
    for path in (*ROUTES, *FILES):
        assert client.get(path).status_code == 403, path


def test_a_run_is_explained_to_users_who_may_see_it(app: Any) -> None:
    """Without the DAG in the request, no one may."""
    found = _client(app, "viewer").get(f"{RUN}open_dag").json
    assert found["note"] == "skipped: open_dag r1"
    assert [other["site"] for other in found["others"]] == [ACTIVE]
    for user in ("one", "nodags"):
        assert _client(app, user).get(f"{RUN}secret_dag").status_code == 403
    assert _client(app, "admin").get(RUN).status_code == 403


def test_lists_have_only_the_dags_of_the_user(app: Any) -> None:
    """A user without any DAG sees the sites, and no run."""
    one = _client(app, "one").get("/mwaa-dr/status.json").json
    assert one["regions"][STANDBY]["waiting"] == ["open_dag r1: it waits"]
    nothing = _client(app, "nodags").get("/mwaa-dr/status.json").json
    assert nothing["regions"][STANDBY]["waiting"] == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_only_get_is_allowed(app: Any, method: str) -> None:
    """The web part changes nothing."""
    client = _client(app, "admin")
    for path in (*ROUTES, *FILES):
        assert client.open(path, method=method).status_code == 405, path


def test_unknown_files_do_not_exist(app: Any) -> None:
    """No path leads out of the folder of static files."""
    client = _client(app, "admin")
    for path in ("/mwaa-dr/reader.py", "/mwaa-dr/..%2Freader.py", "/mwaa-dr/x/y"):
        assert client.get(path).status_code == 404, path


def test_pages_of_airflow_have_the_strip_and_the_entry_of_the_menu(app: Any) -> None:
    """One script tag; the login page and data have none."""
    client = _client(app, "admin")
    page = client.get("/home").get_data(as_text=True)
    assert page.count('<script src="/mwaa-dr/strip.js" defer></script>') == 1
    assert 'href="/mwaa-dr/"' in page
    assert "strip.js" not in client.get("/mwaa-dr/").get_data(as_text=True)
    assert "strip.js" not in client.get("/health").get_data(as_text=True)
    assert "strip.js" not in _client(app, None).get("/login/").get_data(as_text=True)
