"""
The page and the strip in a real browser (Chromium), with the states of a DR set in memory.

They run where ``chromium`` is installed. ``MWAA_DR_TEST_AXE=FILE`` names the script ``axe.min.js`` of the npm package
axe-core; with it, the tests also search for violations of accessibility rules, in light and dark, wide and narrow.
``MWAA_DR_TEST_SCREENSHOTS=FOLDER`` keeps a picture of each page.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_mwaa_dr.exceptions import DRError
from airflow_provider_mwaa_dr.web.document import SHOWN_RUNS
from airflow_provider_mwaa_dr.web.responses import PAGE, WebPart
from tests.unit.web.site import ACTIVE, STANDBY, Site

BROWSER = shutil.which("chromium")
AXE = os.environ.get("MWAA_DR_TEST_AXE")
SCREENSHOTS = os.environ.get("MWAA_DR_TEST_SCREENSHOTS")
DARK, LIGHT = "0", "1"
"""Values of Blink's setting ``preferredColorScheme``."""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium")

CHECK = """
"use strict";
(async () => {
  const isDrawn = () => document.querySelector("main section, #mwaa-dr-strip");
  for (let tries = 0; !isDrawn() && tries < 100; tries++) await new Promise((done) => setTimeout(done, 50));
  const result = { drawn: Boolean(isDrawn()), entries: document.querySelectorAll("li").length, violations: null };
  if (globalThis.axe) {
    const found = await axe.run(document, { resultTypes: ["violations"] });
    result.violations = found.violations.map((each) => `${each.id}: ${each.nodes.map((node) => node.html).join(" ")}`);
    result.passes = found.passes.length;
  }
  const place = document.createElement("pre");
  place.id = "result";
  place.hidden = true;
  place.textContent = JSON.stringify(result);
  document.body.append(place);
})();
"""
HOST = """<!doctype html><html lang="en"><head><title>DAGs</title><script src="/{name}/mwaa-dr/strip.js" defer></script>
<script src="/axe.js" defer></script><script src="/check.js" defer></script></head>
<body><main><h1>DAGs</h1><p>A page of Airflow.</p></main></body></html>"""


def a_standby() -> Site:
    """Return a standby, after a failover, with runs that wait."""
    site = Site(ACTIVE)
    site.cancelled()
    site.fail_over()
    site.set.agents[STANDBY].changes = {"waiting": ("orders r1: it was interrupted", "billing r2: it was interrupted")}
    return site


def an_active_site() -> Site:
    """Return a site that has always been active."""
    return Site(ACTIVE)


def a_failover() -> Site:
    """Return the target during a failover."""
    site = Site(STANDBY)
    site.claim()
    return site


def an_unread_state() -> Site:
    """Return a site whose table cannot be read."""

    def refuse() -> Any:
        raise DRError("The state table does not answer.")

    return Site(STANDBY, open_store=refuse)


def many_dags() -> Site:
    """Return a set with 10,000 DAGs, of which each has a run that waits."""
    site = a_standby()
    site.set.agents[STANDBY].changes = {"waiting": tuple(f"dag_{each} r1: it waits" for each in range(10_000))}
    return site


SITES: Mapping[str, Callable[[], Site]] = {
    "standby": a_standby,
    "active": an_active_site,
    "failover": a_failover,
    "unread": an_unread_state,
    "many": many_dags,
}


def read_part(make: Callable[[], Site]) -> WebPart:
    """Return the web part of a site whose background thread has read once."""
    site = make()
    site.clock.advance(2)
    site.read(details=True)
    return WebPart(site.reader, site.config, site.clock, lambda dag_id, run_id: f"skipped: {dag_id} {run_id}")


class Handler(BaseHTTPRequestHandler):
    """Serves ``/STATE/mwaa-dr/...`` as Airflow does, ``/STATE/dags/...`` as a page of Airflow, and the check."""

    parts: Mapping[str, WebPart] = {}

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        name, _, path = url.path.strip("/").partition("/")
        if name == "check.js":
            return self._send(CHECK.encode(), "text/javascript", {})
        if name == "axe.js":
            return self._send(Path(AXE).read_bytes() if AXE else b"", "text/javascript", {})
        if not path.startswith("mwaa-dr"):
            return self._send(HOST.format(name=name).encode(), "text/html", {})
        part, file = self.parts[name], path.removeprefix("mwaa-dr").strip("/")
        if file == "run.json":
            words = parse_qs(url.query)
            found = part.run(words["dag_id"][0], words["run_id"][0])
        elif file == "status.json":
            found = part.status(lambda ids: ids, sees_all=True)
        elif file == "strip.json":
            found = part.strip()
        else:
            answer = part.file(file or PAGE)
            assert answer is not None, file
            found = answer
        body = found.body
        if not file:
            scripts = b'<script src="/axe.js" defer></script><script src="/check.js" defer></script></body>'
            body = body.replace(b"</body>", scripts)
        return self._send(body, found.content_type, found.headers)

    def _send(self, body: bytes, content_type: str, headers: Mapping[str, str]) -> None:
        self.send_response(200)
        for key, value in {**headers, "Content-Type": content_type, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """
    What the browser shows.

    :param text: the page as text.
    :param result: what the check found.
    """

    text: str
    result: Mapping[str, Any]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a web server with all states."""
    Handler.parts = {name: read_part(make) for name, make in SITES.items()}
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def opened(url: str, tmp_path: Path, *, width: int = 1440, scheme: str = LIGHT) -> Seen:
    """Open a page in Chromium."""
    assert BROWSER is not None
    words = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},1200", f"--blink-settings=preferredColorScheme={scheme}",
        "--virtual-time-budget=8000",
    ]  # fmt: skip
    if SCREENSHOTS:
        name = "-".join(urlsplit(url).path.strip("/").split("/")[:2])
        picture = Path(SCREENSHOTS) / f"{name}-{width}-{'dark' if scheme == DARK else 'light'}.png"
        subprocess.run([*words, f"--screenshot={picture}", url], check=True, capture_output=True, timeout=120)
    done = subprocess.run([*words, "--dump-dom", url], check=True, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="result"[^>]*>(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stdout[-2000:] + done.stderr[-2000:]
    text = html.unescape(re.sub(r"<[^>]+>", " ", done.stdout[: found.start()]))
    return Seen(text=" ".join(text.split()), result=json.loads(html.unescape(found[1])))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("standby", ["Active site", f"{STANDBY} is active.", "STANDBY", "orders r1: it was interrupted"]),
        ("active", ["Active site", f"{ACTIVE} is active.", "Open failover None."]),
        ("failover", ["Open failover", "flood", "dr_failover to"]),
        ("unread", ["Unknown: the state has not been read.", "The state table does not answer."]),
    ],
)
def test_the_page_shows_the_state(address: str, tmp_path: Path, name: str, words: list[str]) -> None:
    """In words, and before any request to AWS."""
    seen = opened(f"{address}/{name}/mwaa-dr/", tmp_path)
    assert seen.result["drawn"]
    for each in words:
        assert each in seen.text, f"{each!r} is not in: {seen.text}"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("standby/home", ["STANDBY - ", f"{STANDBY} has been active since"]),
        ("standby/dags/orders/runs/manual__1", ["This run: skipped: orders manual__1.", f"Airflow of {STANDBY}"]),
        ("active/dags/orders/grid?dag_run_id=manual__1", ["This run: skipped: orders manual__1."]),
        ("failover/home", ["FAILOVER"]),
    ],
)
def test_the_strip_on_a_page_of_airflow(address: str, tmp_path: Path, path: str, words: list[str]) -> None:
    """On the page of a run, of Airflow 3 and of Airflow 2, it also says what the provider did with the run."""
    seen = opened(f"{address}/{path}", tmp_path)
    for each in words:
        assert each in seen.text, f"{each!r} is not in: {seen.text}"


def test_an_active_site_has_no_strip_on_other_pages(address: str, tmp_path: Path) -> None:
    """The control of the test before."""
    seen = opened(f"{address}/active/home", tmp_path)
    assert not seen.result["drawn"]
    assert "Disaster recovery" not in seen.text


def test_a_page_of_10000_dags_is_short(address: str, tmp_path: Path) -> None:
    """A list has a maximum, and says how many entries are left out."""
    seen = opened(f"{address}/many/mwaa-dr/", tmp_path)
    assert f"and {10_000 - SHOWN_RUNS} more" in seen.text
    assert seen.result["entries"] < 100


@pytest.mark.skipif(AXE is None, reason="needs MWAA_DR_TEST_AXE")
@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("path", [*(f"{name}/mwaa-dr/" for name in SITES), "standby/home", "failover/home"])
def test_nothing_violates_a_rule_of_accessibility(
    address: str, tmp_path: Path, path: str, width: int, scheme: str
) -> None:
    """With the rules of axe-core."""
    seen = opened(f"{address}/{path}", tmp_path, width=width, scheme=scheme)
    assert seen.result["passes"] > 5
    assert seen.result["violations"] == []
