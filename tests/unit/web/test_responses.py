"""What the routes answer, and the static files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import airflow_provider_mwaa_dr.web
from airflow_provider_mwaa_dr.web.responses import PAGE, STRIP_SCRIPT, WebPart
from tests.unit.web.site import ACTIVE, STANDBY, Site

STATIC = Path(airflow_provider_mwaa_dr.web.__file__).parent / "static"


def _part(site: Site) -> WebPart:
    return WebPart(site.reader, site.config, site.clock, lambda _dag, run: f"skipped: {run}" if run == "r1" else "")


def test_the_policy_of_the_page_allows_no_inline_script_and_the_page_has_none() -> None:
    """A reason in the table comes from other writers: it must not become a script of the page."""
    page = _part(Site(STANDBY)).file(PAGE)
    assert page is not None
    policy = page.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self'")
    html = page.body.decode()
    assert all(not body.strip() for body in re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL))
    assert not re.search(r"<style|\sstyle=|\son\w+=", html)
    for name in ("page.js", STRIP_SCRIPT):
        code = (STATIC / name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", code)
        assert '"style"' not in code


def test_the_strip_adds_at_most_5_kb_to_other_pages() -> None:
    """Script, tag and data."""
    site = Site(STANDBY)
    site.read()
    part = _part(site)
    script = part.file(STRIP_SCRIPT)
    assert script is not None
    assert len(script.body) + len(part.strip().body) < 5_000


def test_the_files_have_their_types_and_others_do_not_exist() -> None:
    """No name leads out of the folder."""
    part = _part(Site(STANDBY))
    types = {name: answer.content_type for name in ("page.html", "page.css", "page.js") if (answer := part.file(name))}
    assert types == {
        "page.html": "text/html; charset=utf-8",
        "page.css": "text/css; charset=utf-8",
        "page.js": "text/javascript; charset=utf-8",
    }
    assert part.file("../reader.py") is None
    assert part.file("") is None


def test_status_answers_what_the_reader_knows_for_the_user() -> None:
    """The request for the page makes the reader read the heartbeats, too."""
    site = Site(STANDBY)
    part = _part(site)
    first = json.loads(part.status(lambda ids: ids, sees_all=True).body)
    assert set(first) == {"web"}
    site.reader.turn()
    second = json.loads(part.status(lambda ids: ids, sees_all=True).body)
    assert second["regions"][STANDBY]["role"] == "standby"


def test_a_run_is_explained_with_the_way_to_the_other_site() -> None:
    """The link opens the other site's Airflow through the console; a run without a note has none."""
    part = _part(Site(STANDBY))
    assert json.loads(part.run("d", "r1").body) == {
        "note": "skipped: r1",
        "others": [
            {
                "site": ACTIVE,
                "href": f"https://{ACTIVE}.console.aws.amazon.com/mwaa/home?region={ACTIVE}#environments/ohio/sso",
            }
        ],
    }
    assert json.loads(part.run("d", "r2").body) == {"note": "", "others": []}
