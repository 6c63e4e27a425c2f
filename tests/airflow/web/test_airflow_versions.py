"""What the plugin adds to the web server of this Airflow, and what it costs the other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

LOAD = """
import json, sys
import airflow.plugins_manager
before = set(sys.modules)
from airflow_provider_mwaa_dr.plugins.mwaa_dr import MwaaDRPlugin as plugin
loaded = sorted(set(sys.modules) - before)
names = ("fastapi_apps", "fastapi_root_middlewares", "external_views", "react_apps", "flask_blueprints",
         "appbuilder_menu_items")
found = {name: [str(each) for each in getattr(plugin, name, [])] for name in names if name != "flask_blueprints"}
print("LOADED", json.dumps([loaded, found, len(plugin.listeners)]))
"""


def _load(code: str = LOAD, **settings: str) -> tuple[set[str], dict[str, Any], int]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DR_", "AIRFLOW__DR"))}
    env |= {"AIRFLOW__DR__ENABLED": "True", **settings}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    loaded, found, listeners = json.loads(line.removeprefix("LOADED"))
    return set(loaded), found, listeners


def test_a_scheduler_or_a_worker_loads_no_web_framework_for_it() -> None:
    """The plugin is imported by every process of Airflow; the routes are made at the first request."""
    loaded, found, _ = _load()
    assert loaded & {"airflow_provider_mwaa_dr.web.script_tag"}
    own = {"reader", "responses", "document", "strip", "fastapi_part", "flask_part"}
    assert not {f"airflow_provider_mwaa_dr.web.{name}" for name in own} & loaded
    assert not [name for name in loaded if name.split(".")[0] in {"fastapi", "flask", "starlette", "boto3"}]
    assert any(found.values()), "this Airflow has no entry for the page"


def test_an_error_in_the_web_part_leaves_the_listener() -> None:
    """Gate and fence matter more than a page."""
    broken = LOAD.replace(
        "before = set",
        "sys.modules['airflow_provider_mwaa_dr.web.airflow_versions'] = None\nbefore = set",
    )
    _, found, listeners = _load(broken)
    assert listeners == 1
    assert not any(found.values())


def test_the_routes_are_below_the_root_of_the_web_server() -> None:
    """Airflow 3.1 and later get URLs with the path of [api] base_url; earlier versions add it themselves."""
    _, found, _ = _load(AIRFLOW__API__BASE_URL="https://example.org/team/")
    if found["react_apps"]:
        assert "'/team/mwaa-dr/strip.js'" in found["react_apps"][0]
        assert "'/team/mwaa-dr/'" in found["external_views"][0]
    else:
        assert "/team" not in json.dumps(found)
