"""The strip on every page."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.state import Stage
from airflow_provider_mwaa_dr.web.strip import UNREAD_S, Strip, moment, strip_of
from tests.unit.web.site import ACTIVE, STANDBY, Site


def _strip(site: Site) -> Strip | None:
    return strip_of(site.read(), site.config, site.clock)


def test_an_active_site_has_no_strip() -> None:
    """A strip that is always there is not read."""
    assert _strip(Site(ACTIVE)) is None


def test_a_standby_says_that_nothing_starts_which_site_is_active_and_why() -> None:
    """The sentence of the page on which users wonder why their run was skipped."""
    site = Site(ACTIVE)
    site.fail_over()
    assert _strip(site) == Strip(
        word="STANDBY",
        text=f"{ACTIVE}. Nothing starts here; {STANDBY} has been active since 00:00 UTC (ana: flood).",
        is_alarm=False,
    )


def test_times_of_other_days_have_a_date() -> None:
    """After a day, a time alone would be wrong."""
    now = datetime(2026, 3, 4, 10, 24, tzinfo=timezone.utc)
    assert moment(now - timedelta(hours=2), now) == "08:24 UTC"
    assert moment(now - timedelta(days=1), now) == "2026-03-03 10:24 UTC"
    assert moment(now + timedelta(minutes=1), now) == "2026-03-04 10:25 UTC"


def test_a_standby_before_the_first_failover() -> None:
    """No failover has made the other site active."""
    found = _strip(Site(STANDBY))
    assert found is not None
    assert found.text == f"{STANDBY}. Nothing starts here; {ACTIVE} is active."


def test_both_sites_show_an_open_failover() -> None:
    """During a failover, no site is simply active."""
    for name in (ACTIVE, STANDBY):
        site = Site(name)
        site.claim()
        assert _strip(site) == Strip(
            word="FAILOVER",
            text=f"{name}. {ACTIVE} to {STANDBY}: {ACTIVE} starts no new run, and its runs in progress finish "
            "(ana: flood).",
            is_alarm=False,
        )


def test_a_halted_failover_is_an_alarm() -> None:
    """It waits for a user."""
    site = Site(ACTIVE)
    state = site.claim(hold=Stage.DRAINED)
    site.write(transitions.halt(state, at=site.clock.now()))
    found = _strip(site)
    assert found is not None
    assert (found.word, found.is_alarm) == ("FAILOVER HALTED", True)
    assert f"{ACTIVE} starts nothing, and {STANDBY} is not active yet" in found.text


def test_a_site_that_holds_says_why() -> None:
    """For example because it has not reconciled its open runs, or because the active site is not registered."""
    site = Site(ACTIVE)
    site.set.agents[ACTIVE].alive = False
    site.write(replace(site.set.state, epoch=7, version=site.set.state.version + 1))
    found = _strip(site)
    assert found is not None
    assert (found.word, found.is_alarm) == ("HELD", True)
    assert "has not yet reconciled its open runs with epoch 7" in found.text
    site.set.store.put_regions(ACTIVE, [STANDBY])
    site.write(replace(site.set.state, active_region="mars", version=site.set.state.version + 1))
    found = _strip(site)
    assert found is not None
    assert "which is not registered" in found.text


def test_a_state_that_cannot_be_read_is_unknown() -> None:
    """An old read does not say which site is active; a site that was active has a strip then."""
    site = Site(ACTIVE)
    assert strip_of(site.reader.know(), site.config, site.clock) is None
    site.set.store.unreachable = True
    found = _strip(site)
    assert found is not None
    assert (found.word, found.is_alarm) == ("UNKNOWN", True)
    site.set.store.unreachable = False
    assert _strip(site) is None
    site.set.store.unreachable = True
    site.clock.advance(UNREAD_S)
    assert _strip(site) is None
    site.clock.advance(1)
    found = _strip(site)
    assert found is not None
    assert found.text.startswith(f"{ACTIVE}. The state has not been read since 00:00 UTC: ")
    known = replace(site.reader.know(), error=None)
    stuck = strip_of(known, site.config, site.clock)
    assert stuck is not None
    assert stuck.text.endswith("the last read has not ended")
