"""The script tag on the pages of an Airflow that has no place for it."""

from __future__ import annotations

import asyncio
from typing import Any

from airflow_provider_mwaa_dr.web.script_tag import ScriptTagMiddleware, with_script


def _answer(
    content_type: bytes, *parts: bytes, path: str = "/dags", status: int = 200, **more: Any
) -> tuple[Any, bytes]:
    """Return the headers and the body that a browser gets through the middleware."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        length = str(sum(map(len, parts))).encode()
        headers = [(b"content-type", content_type), (b"content-length", length), *more.get("headers", ())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, part in enumerate(parts, 1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    middleware = ScriptTagMiddleware(app, "./s.js", ("/api/",))
    scope = {"type": more.get("type", "http"), "method": more.get("method", "GET"), "path": path}
    asyncio.run(middleware(scope, receive, send))
    return dict(sent[0]["headers"]), b"".join(message["body"] for message in sent[1:])


def test_a_page_gets_the_script_and_its_new_length() -> None:
    """Also if the app sends it in parts."""
    headers, body = _answer(b"text/html; charset=utf-8", b"<html><head></he", b"ad></html>")
    assert body == b'<html><head><script src="./s.js" defer></script></head></html>'
    assert headers[b"content-length"] == str(len(body)).encode()


def test_everything_else_is_passed_on_as_it_is() -> None:
    """Data, errors, compressed pages, other methods and the REST API."""
    page = b"<head></head>"
    assert _answer(b"application/json", page)[1] == page
    assert _answer(b"text/html", page, status=500)[1] == page
    assert _answer(b"text/html", page, headers=[(b"content-encoding", b"gzip")])[1] == page
    assert _answer(b"text/html", page, path="/api/v2/dags")[1] == page
    assert _answer(b"text/html", page, method="POST")[1] == page
    assert _answer(b"text/html", page, type="websocket")[1] == page


def test_a_page_without_a_head_is_unchanged() -> None:
    """There is no safe place for the tag."""
    assert with_script(b"<p>hello</p>", "s.js") == b"<p>hello</p>"
