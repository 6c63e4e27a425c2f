"""The report as a page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.core.ports import FailoverOutcome
from airflow_provider_mwaa_dr.sandbox.drill import report_page
from airflow_provider_mwaa_dr.sandbox.drill.report import Report
from tests.unit.sandbox.drill import drill_reports
from tests.unit.sandbox.drill.drill_reports import OHIO, VIRGINIA, at

EVERY = pytest.mark.parametrize("report", [make() for make in drill_reports.ALL.values()], ids=drill_reports.ALL)


class _Tags(HTMLParser):
    """Checks that every element is closed in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """A shape of a drawing; nothing is left open."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@EVERY
def test_the_page_stands_alone_and_is_small(report: Report) -> None:
    """No script, nothing from anywhere else, and thousands of runs fit into what a mail carries."""
    page = report_page.page(report)

    assert not re.search(r"<script|href=|src=|url\(|@import", page)
    assert len(page.encode()) < 100_000
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []


@EVERY
def test_every_move_is_marked_with_its_moments(report: Report) -> None:
    """A failback has them twice, and a second name."""
    page = report_page.page(report)

    for moment in ("claim", "promote", "complete"):
        assert len(re.findall(rf">{moment} \d\d:\d\d:\d\d</text>", page)) == len(report.records)
        assert page.count(f'<i class="moment {moment} ') == len(report.records)
    assert (f">failback to {report.record.source}" in page) == (report.failback is not None)


@EVERY
def test_nothing_is_drawn_beside_the_sheet(report: Report) -> None:
    """All places are percentages between the two ends."""
    page = report_page.page(report)
    places = [float(x) for x in re.findall(r"(?:\bx|x1|x2|cx)=\"([-\d.]+)%", page)]
    places += [float(x) for x in re.findall(r"left:([-\d.]+)%", page)]

    assert places
    assert all(0 <= place <= 100 for place in places)
    assert all(float(width) >= 0 for width in re.findall(r"width[:=]\"?([-\d.]+)%", page))


def test_what_it_quotes_is_escaped() -> None:
    """A DAG may be called anything."""
    odd = replace(drill_reports.broken(), scenario="<b>&", listed=["lost: <i>"])
    lines = [replace(line, dag_id=line.dag_id.replace("drill_long", '"><script>')) for line in odd.lines]
    page = report_page.page(replace(odd, lines=lines))

    assert "<script>" not in page
    assert "<never seen>" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "lost: &lt;i&gt;" in page


def test_the_verdict_comes_first_and_what_was_not_kept_next() -> None:
    """A reader sees the failures first."""
    page = report_page.page(drill_reports.broken())
    words = [">failed<", "2 were lost", "were not kept", "no task executed in a standby", "<h2>Runs in each region"]

    assert [page.index(word) for word in words] == sorted(page.index(word) for word in words)
    assert "were not kept" not in report_page.page(drill_reports.planned())


def test_the_legend_explains_what_is_there_and_nothing_else() -> None:
    """A page without losses does not mention them."""
    calm, bad = report_page.page(drill_reports.planned()), report_page.page(drill_reports.broken())

    for words in (
        "lost: expected, and never executed",
        "executed in a standby",
        "executed twice, without a valid reason",
    ):
        assert f"</svg>{words}</li>" in bad
        assert f"</svg>{words}</li>" not in calm
    assert "forced in the standby: no task executed" in calm


def test_a_lost_region_is_shown_where_it_was_lost() -> None:
    """In its own panel only, until it is back."""
    page = report_page.page(drill_reports.region_loss())
    ohio, virginia = page.split('<section class="region">')[1:3]

    assert f"{OHIO} was killed at 12:00:56, and was restored at 12:01:38." in page
    assert ('<i class="band outage"' in ohio, '<i class="band outage"' in virginia) == (True, False)
    words = [re.findall(r'<span class="word"[^>]*>([^<]+)</span>', panel) for panel in (ohio, virginia)]
    assert words == [["active", "lost: killed", "standby"], ["standby", "active"]]


def test_a_drill_that_was_cut_short_has_a_page_too() -> None:
    """Nothing was forced, nothing executed in the new region, the failover is open and the region still away."""
    found = drill_reports.region_loss()
    cut = replace(
        found,
        passed=False,
        attempts=(),
        lines=[line for line in found.lines if line.region == OHIO],
        record=replace(found.record, finished_at=None, outcome=FailoverOutcome.OPEN, steps=()),
        outages=[replace(found.outages[0], until=None)],
        marks=[(at(63), "failover killed")],
    )
    page = report_page.page(cut)

    assert f"failover to {VIRGINIA}: open" in page
    assert "was not restored" in page
    assert ">failover killed 12:01:03</text>" in page


def test_all_scenarios_have_a_page_that_leads_to_them(tmp_path: Path) -> None:
    """One that could not be carried out says why."""
    outcomes = {"planned": drill_reports.planned(), "zombie": "no <lock>"}
    report_page.write_overview(outcomes, tmp_path)
    page = (tmp_path / "report.html").read_text()

    assert "1 of 2 scenarios passed" in page
    assert 'href="planned/report.html"' in page
    assert "no &lt;lock&gt;" in page
    assert 'verdict fail">failed' in page
