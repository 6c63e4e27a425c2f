"""The routes in the web server of Airflow 3. Only the first request imports this module."""

# No "from __future__ import annotations": FastAPI reads the annotations of the routes.
from typing import Any
from urllib.parse import urlencode

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_view
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from airflow_provider_mwaa_dr.web.responses import PAGE, Answer, WebPart

_NO_DAG = "mwaa-dr: any DAG"
"""
An id that no DAG can have: only a user who may see all DAGs may see it.

Without an id, the FAB auth manager answers whether the user may see at least one DAG.
"""


def make_app(part: WebPart, *, is_shell_public: bool) -> FastAPI:
    """
    Return the app, which Airflow mounts at ``/mwaa-dr``. Airflow does not check the user for it: each route does.

    :param is_shell_public: whether the page and its scripts, which contain no data, are served without a user.
    """
    app = FastAPI(title="mwaa-dr", openapi_url=None, docs_url=None, redoc_url=None)
    checked = [Depends(requires_access_view(AccessView.WEBSITE))]
    shell = [] if is_shell_public else checked

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        # A browser that opens the page goes to the login, as with the pages of Airflow.
        if error.status_code == 401 and request.url.path.endswith("/mwaa-dr/"):
            return RedirectResponse(f"../api/v2/auth/login?{urlencode({'next': request.url.path})}", status_code=307)
        return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)

    @app.get("/status.json", dependencies=checked)
    def status(user: GetUserDep) -> Response:
        manager = get_auth_manager()

        def readable(dag_ids: set[str]) -> set[str]:
            return manager.filter_authorized_dag_ids(dag_ids=dag_ids, user=user, method="GET")

        sees_all = manager.is_authorized_dag(method="GET", details=DagDetails(id=_NO_DAG), user=user)
        return _response(part.status(readable, sees_all=sees_all))

    @app.get("/strip.json", dependencies=checked)
    def strip() -> Response:
        return _response(part.strip())

    @app.get("/run.json", dependencies=checked)
    def run(user: GetUserDep, dag_id: str, run_id: str) -> Response:
        details = DagDetails(id=dag_id)
        if not get_auth_manager().is_authorized_dag(
            method="GET", access_entity=DagAccessEntity.RUN, details=details, user=user
        ):
            raise HTTPException(403, "Forbidden")
        return _response(part.run(dag_id, run_id))

    @app.get("/", dependencies=shell)
    def page() -> Response:
        return _file(part, PAGE)

    @app.get("/{name}", dependencies=shell)
    def file(name: str) -> Response:
        return _file(part, name)

    return app


def _file(part: WebPart, name: str) -> Response:
    found = part.file(name)
    return JSONResponse({"detail": "Not found"}, status_code=404) if found is None else _response(found)


def _response(answer: Answer) -> Any:
    return Response(answer.body, media_type=answer.content_type, headers=dict(answer.headers))
