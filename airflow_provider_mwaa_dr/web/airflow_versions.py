"""
Where the versions of Airflow differ: how a plugin adds routes, the strip and the entry of the menu.

This module is imported by every Airflow process. It imports no web framework and opens nothing: the first request does.

- 2.10, 2.11: a Flask blueprint, which also adds the script of the strip to each page.
- 3.0: a FastAPI app, and a middleware that adds the script. The browser keeps its token in its storage and sends no
  cookie with a page: the page is an empty shell, and its script sends the token.
- 3.1 and later: a FastAPI app, an external view, and a React app of the destination ``base`` that is the script.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_mwaa_dr import conf
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.web.script_tag import Message, Receive, ScriptTagMiddleware, Send

log = get_logger(__name__)

ReadNote = Callable[[str, str], str]
"""Returns the provider's note of a run by its DAG id and run id."""
TITLE = "Disaster recovery"
_PREFIX = "/mwaa-dr"
_SKIPS = ("/api/", "/execution/", "/auth/", "/static/", "/ui/", "/pluginsv2/", f"{_PREFIX}/")


def plugin_attributes(plugin: type, note: ReadNote) -> dict[str, list[Any]]:
    """
    Return the attributes with which this Airflow adds the web part to its web server.

    :param plugin: Airflow's base class for plugins, whose attributes differ by version.
    :param note: returns the provider's note of a run, as :class:`~airflow_provider_mwaa_dr.web.responses.WebPart`
        needs it.
    """
    if not hasattr(plugin, "fastapi_apps"):
        return {
            "flask_blueprints": _LazyBlueprints(note),
            "appbuilder_menu_items": [{"name": TITLE, "category": "Admin", "href": f"{_PREFIX}/"}],
        }
    is_shell_public = not hasattr(plugin, "react_apps")
    app = {"name": "mwaa_dr", "app": LazyApp(note, is_shell_public=is_shell_public), "url_prefix": _PREFIX}
    if not hasattr(plugin, "react_apps"):
        middleware = {
            "name": "mwaa_dr",
            "middleware": ScriptTagMiddleware,
            "args": [],
            "kwargs": {"source": f".{_PREFIX}/strip.js", "skips": _SKIPS},
        }
        found: dict[str, list[Any]] = {"fastapi_apps": [app], "fastapi_root_middlewares": [middleware]}
        # With an entry of the menu, Airflow 3.0 needs this provider, and does not start without it. MWAA has it.
        if importlib.util.find_spec("airflow.providers.fab") is not None:
            found["appbuilder_menu_items"] = [{"name": TITLE, "href": f"{_PREFIX}/"}]
        return found
    root = conf.web_root()
    return {
        "fastapi_apps": [app],
        "external_views": [{"name": TITLE, "href": f"{root}{_PREFIX}/", "destination": "nav", "category": "admin"}],
        "react_apps": [{"name": "mwaa_dr_strip", "bundle_url": f"{root}{_PREFIX}/strip.js", "destination": "base"}],
    }


class LazyApp:
    """
    An ASGI app that is built at the first request, so that other processes than web servers import none of it.

    :param is_shell_public: whether the page and its scripts, which contain no data, are served without a user.
    """

    def __init__(self, note: ReadNote, *, is_shell_public: bool) -> None:
        self._note = note
        self._is_shell_public = is_shell_public
        self._app: Any = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if self._app is None:
            try:
                from airflow_provider_mwaa_dr.web import fastapi_part  # noqa: PLC0415  (see the class)

                self._app = fastapi_part.make_app(web_part(self._note), is_shell_public=self._is_shell_public)
            except Exception:
                log.exception("The page %s is not available; mwaa-dr status shows the same.", TITLE)
                self._app = _unavailable
        await self._app(scope, receive, send)


class _LazyBlueprints(list[Any]):
    """The blueprint, made when Airflow's web server asks for it: other processes do not import Flask for it."""

    def __init__(self, note: ReadNote) -> None:
        super().__init__()
        self._note = note

    def __iter__(self) -> Iterator[Any]:
        if not len(self):
            try:
                from airflow_provider_mwaa_dr.web import flask_part  # noqa: PLC0415  (see the class)

                self.append(flask_part.make_blueprint(web_part(self._note)))
            except Exception:
                log.exception("The page %s is not available; mwaa-dr status shows the same.", TITLE)
        return super().__iter__()


def web_part(note: ReadNote) -> Any:
    """Return the web part of this process, with the settings of this Airflow. Sends no request, and starts nothing."""
    from airflow_provider_mwaa_dr.aws.clock import SystemClock  # noqa: PLC0415
    from airflow_provider_mwaa_dr.web.reader import BackgroundReader  # noqa: PLC0415
    from airflow_provider_mwaa_dr.web.responses import WebPart  # noqa: PLC0415

    config, clock = conf.load(), SystemClock()
    reader = BackgroundReader(config, clock, lambda: conf.state_store(config, clock, only_reads=True))
    return WebPart(reader, config, clock, note)


async def _unavailable(_scope: Message, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 503, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Not available; see the log of the web server.\n"})
