"""Adds the script of the strip to the pages of an Airflow that has no place for it. Imports no web framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_END_OF_HEAD = b"</head>"


def with_script(html: bytes, source: str) -> bytes:
    """Return the page with a script tag for *source*; unchanged if it has no head."""
    return html.replace(_END_OF_HEAD, f'<script src="{source}" defer></script>'.encode() + _END_OF_HEAD, 1)


class ScriptTagMiddleware:
    """
    An ASGI middleware that adds the script to pages in HTML, and passes everything else on as it is.

    :param source: the URL of the script, relative to the base of the page.
    :param skips: paths that never have pages of the user interface, by their beginning.
    """

    def __init__(self, app: App, source: str, skips: tuple[str, ...]) -> None:
        self._app = app
        self._source = source
        self._skips = skips

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"].startswith(self._skips):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        parts: list[bytes] = []

        async def send_changed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_page(message):
                start = message
            elif start is None or message["type"] != "http.response.body":
                await send(message)
            else:
                parts.append(message.get("body", b""))
                if message.get("more_body", False):
                    return
                body = with_script(b"".join(parts), self._source)
                headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
                await send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
                await send({"type": "http.response.body", "body": body})

        await self._app(scope, receive, send_changed)


def _is_page(start: Message) -> bool:
    """Whether this is the start of a page in HTML that is not compressed."""
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    is_html = headers.get(b"content-type", b"").startswith(b"text/html")
    return start["status"] == 200 and is_html and b"content-encoding" not in headers
