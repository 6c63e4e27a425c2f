"""The routes in the web server of Airflow 2. Only a web server imports this module."""

from __future__ import annotations

from typing import Any

from airflow.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.www.auth import has_access_view
from airflow.www.extensions.init_auth_manager import get_auth_manager
from flask import Blueprint, Response, abort, request, url_for

from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.web.responses import PAGE, PREFIX, STRIP_SCRIPT, Answer, WebPart
from airflow_provider_mwaa_dr.web.script_tag import with_script

log = get_logger(__name__)


def make_blueprint(part: WebPart) -> Any:
    """Return the blueprint. Airflow does not check the user for it: each route does."""
    blueprint = Blueprint("mwaa_dr", __name__, url_prefix=PREFIX)

    @blueprint.get("/")
    @has_access_view(AccessView.WEBSITE)
    def page() -> Any:
        return _file(part, PAGE)

    @blueprint.get("/status.json")
    def status() -> Any:
        _check()
        manager = get_auth_manager()

        def readable(dag_ids: set[str]) -> set[str]:
            return manager.filter_permitted_dag_ids(dag_ids=dag_ids, methods=["GET"])

        return _response(part.status(readable, sees_all=manager.is_authorized_dag(method="GET")))

    @blueprint.get("/strip.json")
    def strip() -> Any:
        _check()
        return _response(part.strip())

    @blueprint.get("/run.json")
    def run() -> Any:
        _check()
        dag_id, run_id = request.args.get("dag_id", ""), request.args.get("run_id", "")
        details = DagDetails(id=dag_id)
        may_see = get_auth_manager().is_authorized_dag
        if not dag_id or not may_see(method="GET", access_entity=DagAccessEntity.RUN, details=details):
            abort(403)
        return _response(part.run(dag_id, run_id))

    @blueprint.get("/<name>")
    def file(name: str) -> Any:
        _check()
        return _file(part, name)

    @blueprint.after_app_request
    def add_strip(response: Any) -> Any:
        try:
            return _with_strip(response)
        except Exception:  # a page without the strip is better than no page
            log.debug("The strip could not be added to %s.", request.path, exc_info=True)
            return response

    return blueprint


def _check() -> None:
    """Answer 401 without a user, and 403 for a user who may not see the website."""
    manager = get_auth_manager()
    if not manager.is_authorized_view(access_view=AccessView.WEBSITE):
        abort(403 if manager.is_logged_in() else 401)


def _with_strip(response: Any) -> Any:
    is_page = response.status_code == 200 and response.mimetype == "text/html" and response.is_sequence
    if is_page and request.blueprint != "mwaa_dr" and get_auth_manager().is_logged_in():
        response.set_data(with_script(response.get_data(), url_for("mwaa_dr.file", name=STRIP_SCRIPT)))
    return response


def _file(part: WebPart, name: str) -> Any:
    found = part.file(name)
    return abort(404) if found is None else _response(found)


def _response(answer: Answer) -> Any:
    return Response(answer.body, content_type=answer.content_type, headers=dict(answer.headers))
