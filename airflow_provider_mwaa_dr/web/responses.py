"""What each route answers, without a web framework."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.ports import Clock
from airflow_provider_mwaa_dr.web.document import Readable, for_user, page_document, run_document, strip_document
from airflow_provider_mwaa_dr.web.reader import BackgroundReader

PREFIX = "/mwaa-dr"
PAGE = "page.html"
STRIP_SCRIPT = "strip.js"
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
_STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP response with status 200."""

    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=lambda: _HEADERS)


class WebPart:
    """
    The answers of all routes. None of them changes anything or waits for AWS.

    :param note: returns the provider's note of a run by its DAG id and run id, from Airflow's database; empty if it has
        none.
    """

    def __init__(
        self, reader: BackgroundReader, config: DRConfig, clock: Clock, note: Callable[[str, str], str]
    ) -> None:
        self._reader = reader
        self._note = note
        self._config = config
        self._clock = clock
        self._files = {
            path.name: Answer(body=path.read_bytes(), content_type=f"{_TYPES[path.suffix]}; charset=utf-8")
            for path in _STATIC.iterdir()
            if path.suffix in _TYPES
        }

    def file(self, name: str) -> Answer | None:
        """Return a static file; None if there is no such file."""
        return self._files.get(name)

    def status(self, readable: Readable, *, sees_all: bool) -> Answer:
        """
        Return the data of the page.

        :param readable: returns which of these DAGs the user may see.
        :param sees_all: whether the user may see all DAGs.
        """
        document = page_document(self._reader.know(details=True), self._config, self._clock)
        return _json(for_user(document, readable, sees_all=sees_all))

    def strip(self) -> Answer:
        """Return the data of the strip."""
        return _json(strip_document(self._reader.know(), self._config, self._clock))

    def run(self, dag_id: str, run_id: str) -> Answer:
        """Return what the provider did with a run. The caller has checked that the user may see it."""
        return _json(run_document(self._note(dag_id, run_id), self._config))


def _json(document: Mapping[str, Any]) -> Answer:
    return Answer(body=json.dumps(document).encode(), content_type="application/json")
