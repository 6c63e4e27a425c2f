"""
The routes in the web server of Airflow 3 with users of the FAB auth manager, which MWAA has.

It runs if the FAB provider is installed. The other tests of ``fastapi_part`` replace the auth manager's answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.airflow.web.test_fastapi_part import FILES, ROUTES, RUN, site_with_runs
from tests.unit.web.site import STANDBY

pytest.importorskip("airflow.api_fastapi.app")
pytest.importorskip("airflow.providers.fab.auth_manager.fab_auth_manager")


@pytest.fixture(scope="module")
def users(_migrated: None) -> Iterator[tuple[Any, dict[str, str]]]:
    """The real app of the API server, and a token of a user of each role."""
    from airflow import plugins_manager, settings
    from airflow.api_fastapi.app import create_app, get_auth_manager, purge_cached_app
    from airflow.plugins_manager import AirflowPlugin
    from fastapi.testclient import TestClient

    from airflow_provider_mwaa_dr.web import airflow_versions
    from airflow_provider_mwaa_dr.web.responses import WebPart

    patch = pytest.MonkeyPatch()
    patch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager")
    from airflow.providers.fab.auth_manager.models.db import FABDBManager

    session = settings.Session()
    FABDBManager(session).initdb()
    session.commit()
    site = site_with_runs()
    patch.setattr(airflow_versions, "web_part", lambda note: WebPart(site.reader, site.config, site.clock, note))
    attributes = airflow_versions.plugin_attributes(AirflowPlugin, lambda dag_id, run_id: f"skipped: {dag_id} {run_id}")
    apps = attributes["fastapi_apps"]
    if hasattr(plugins_manager, "get_fastapi_plugins"):
        patch.setattr(plugins_manager, "get_fastapi_plugins", lambda: (apps, []))
    else:
        patch.setattr(plugins_manager, "initialize_fastapi_plugins", lambda: None)
        patch.setattr(plugins_manager, "fastapi_apps", apps)
        patch.setattr(plugins_manager, "fastapi_root_middlewares", [])
    purge_cached_app()
    app = create_app(apps="core")
    manager = get_auth_manager()
    tokens = {}
    with manager.flask_app.app_context():
        security = manager.security_manager
        website = security.create_permission("can_read", "Website")
        one, no_dags, nothing = (security.add_role(name) for name in ("OneDag", "NoDags", "Nothing"))
        for role in (one, no_dags):
            security.add_permission_to_role(role, website)
        security.add_permission_to_role(one, security.create_permission("can_read", "DAG:open_dag"))
        roles = {"admin": security.find_role("Admin"), "viewer": security.find_role("Viewer")}
        for name, role in {**roles, "one": one, "nodags": no_dags, "nothing": nothing}.items():
            user = security.add_user(name, name, name, f"{name}@example.org", role, password=name)
            assert user, name
            tokens[name] = str(manager.generate_jwt(user))
    yield TestClient(app, follow_redirects=False), tokens
    purge_cached_app()
    patch.undo()


def _get(users: tuple[Any, dict[str, str]], path: str, user: str) -> Any:
    client, tokens = users
    return client.get(path, headers={"Authorization": f"Bearer {tokens[user]}"})


@pytest.mark.parametrize("user", ["viewer", "admin"])
def test_a_viewer_and_an_admin_see_everything(users: tuple[Any, dict[str, str]], user: str) -> None:
    """The page changes nothing, so a viewer may see it."""
    for path in (*ROUTES, *FILES):
        assert _get(users, path, user).status_code == 200, path
    assert len(_get(users, "/mwaa-dr/status.json", user).json()["regions"][STANDBY]["waiting"]) == 2


def test_users_see_only_their_dags(users: tuple[Any, dict[str, str]]) -> None:
    """A user without any DAG sees the sites, and no run."""
    one = _get(users, "/mwaa-dr/status.json", "one").json()
    assert one["regions"][STANDBY]["waiting"] == ["open_dag r1: it waits"]
    assert _get(users, "/mwaa-dr/status.json", "nodags").json()["regions"][STANDBY]["waiting"] == []


def test_a_run_is_explained_to_users_who_may_see_it(users: tuple[Any, dict[str, str]]) -> None:
    """The permission for runs of this DAG is needed."""
    assert _get(users, f"{RUN}open_dag", "viewer").json()["note"] == "skipped: open_dag r1"
    for user in ("one", "nodags"):
        assert _get(users, f"{RUN}secret_dag", user).status_code == 403


def test_without_the_website_and_without_a_user_there_is_no_data(users: tuple[Any, dict[str, str]]) -> None:
    """AccessView.WEBSITE is required."""
    for path in ROUTES:
        assert _get(users, path, "nothing").status_code == 403, path
        assert users[0].get(path).status_code == 401, path
