"""The data of the page, and what a user may see of it."""

from __future__ import annotations

import json
from dataclasses import replace

from airflow_provider_mwaa_dr.core import state as transitions
from airflow_provider_mwaa_dr.core.ports import RECORDS, UNPUBLISHED_EVENTS, StepRecord, Unpublished
from airflow_provider_mwaa_dr.core.state import Stage
from airflow_provider_mwaa_dr.web.document import SHOWN_RUNS, for_user, page_document, strip_document
from tests.unit.web.site import ACTIVE, STANDBY, Site


def _page(site: Site) -> dict[str, object]:
    site.clock.advance(2)
    return page_document(site.read(details=True), site.config, site.clock)


def test_before_the_first_read_there_is_only_the_key_web() -> None:
    """The page says that the state is not read yet."""
    site = Site(ACTIVE)
    document = page_document(site.reader.know(), site.config, site.clock)
    assert set(document) == {"web"}
    assert document["web"]["age_s"] is None
    assert for_user(document, lambda ids: ids, sees_all=False) == document
    assert strip_document(site.reader.know(), site.config, site.clock) == {"strip": None, "age_s": None}


def test_the_document_is_that_of_status_and_the_age_of_the_read() -> None:
    """Scripts read the same keys as from mwaa-dr status --json."""
    site = Site(STANDBY)
    document = _page(site)
    assert set(document) == {
        "active_region", "epoch", "version", "phase", "plan", "failover_count", "last_updated", "problems", "regions",
        "unreadable", "web",
    }  # fmt: skip
    web = document["web"]
    assert isinstance(web, dict)
    assert web["active"] == {"site": ACTIVE, "since": None, "by": "init", "reason": None}
    site.clock.advance(3)
    later = page_document(site.reader.know(), site.config, site.clock)["web"]
    assert later["age_s"] == web["age_s"] + 3
    assert web["strip"]["word"] == "STANDBY"
    assert strip_document(site.reader.know(), site.config, site.clock)["strip"] == later["strip"]
    json.dumps(document)


def test_the_active_site_is_named_with_the_caller_of_the_failover_that_promoted_it() -> None:
    """A later failover that was given up does not count."""
    site = Site(ACTIVE)
    site.fail_over()
    site.cancelled()
    web = _page(site)["web"]
    assert isinstance(web, dict)
    assert web["active"] == {"site": STANDBY, "since": "2026-01-01T00:00:02Z", "by": "ana", "reason": "flood"}
    assert {record["by"] for record in web["history"]} == {"ana", "eve"}


def test_an_open_plan_has_its_steps_its_owner_and_both_ways_to_continue() -> None:
    """The engineer on call sees what runs, and the commands."""
    site = Site(ACTIVE)
    site.claim()
    record = site.set.store.find_all(RECORDS)[0]
    site.set.store.put(RECORDS, replace(record, steps=(StepRecord(name="drain", seconds=2, detail="of dag_01"),)))
    web = _page(site)["web"]
    assert isinstance(web, dict)
    assert web["plan"]["steps"] == [{"name": "drain", "seconds": 2, "detail": "of dag_01"}]
    assert web["plan"]["ways"] == [
        {"what": "Follow or resume it", "to": STANDBY, "command": f"mwaa-dr failover {STANDBY} --reason TEXT"},
        {"what": "Cancel it", "to": ACTIVE, "command": f"mwaa-dr failover {ACTIVE} --reason TEXT"},
    ]
    assert not web["plan"]["is_silent"]
    site.clock.advance(100)
    web = _page(site)["web"]
    assert isinstance(web, dict)
    assert web["plan"]["is_silent"]


def test_a_halted_plan_and_a_cancellation() -> None:
    """A halted plan is continued; a cancellation has no way back."""
    site = Site(ACTIVE)
    state = site.write(transitions.halt(site.claim(hold=Stage.DRAINED), at=site.clock.now()))
    web = _page(site)["web"]
    assert isinstance(web, dict)
    assert (web["plan"]["is_halted"], web["plan"]["is_silent"]) == (True, False)
    assert web["plan"]["ways"][0]["what"] == "Continue it"
    site.write(replace(state, plan=site.plan(target=ACTIVE), phase=transitions.Phase.RESUMING, version=99))
    web = _page(site)["web"]
    assert isinstance(web, dict)
    assert [way["to"] for way in web["plan"]["ways"]] == [ACTIVE]


def test_a_user_sees_only_the_dags_that_they_may_see() -> None:
    """Lists are filtered, and texts that may name other DAGs are left out."""
    site = Site(ACTIVE)
    site.claim()
    record = site.set.store.find_all(RECORDS)[0]
    secret = ("open_dag r1", "secret_dag r2")
    steps = (StepRecord(name="drain", seconds=2, detail="secret_dag"),)
    site.set.store.put(
        RECORDS, replace(record, steps=steps, not_unpaused=("open_dag", "secret_dag"), ended_in_standby=secret)
    )
    site.set.store.put(
        UNPUBLISHED_EVENTS,
        Unpublished(
            id="u", region=ACTIVE, epoch=0, begun_epoch=0, at=site.clock.now(), why="refused", first_id=1, runs=secret
        ),
    )
    site.set.agents[ACTIVE].changes = {
        "waiting": ("open_dag r1: it waits", "secret_dag r2: it waits", "and 3 more"),
        "repeats": ("open_dag r1 requests secret_dag again",),
        "exempt": ("open_dag", "secret_dag"),
    }
    document = _page(site)
    assert "secret_dag" in json.dumps(for_user(document, lambda ids: ids, sees_all=True))
    shown = for_user(document, lambda ids: ids & {"open_dag"}, sees_all=False)
    assert "secret_dag" not in json.dumps(shown)
    region = shown["regions"][ACTIVE]
    assert region["waiting"] == ["open_dag r1: it waits", "and 3 more"]
    assert region["repeats"] == ["open_dag r1"]
    assert region["unpublished"]["runs"] == ["open_dag r1"]
    assert shown["web"]["history"][0]["not_unpaused"] == ["open_dag"]
    nothing = for_user(document, lambda ids: set(), sees_all=False)
    assert "open_dag" not in json.dumps(nothing)


def test_long_lists_are_shortened() -> None:
    """A page with 10,000 DAGs stays small."""
    site = Site(ACTIVE)
    site.set.agents[ACTIVE].changes = {"exempt": tuple(f"dag_{number}" for number in range(1_000))}
    shown = for_user(_page(site), lambda ids: ids, sees_all=False)
    exempt = shown["regions"][ACTIVE]["exempt"]
    assert (len(exempt), exempt[-1]) == (SHOWN_RUNS + 1, f"and {1_000 - SHOWN_RUNS} more")
    assert len(json.dumps(shown)) < 20_000


def test_control_characters_are_visible() -> None:
    """A reason comes from a table that others write."""
    site = Site(ACTIVE)
    site.claim(reason="\x1b[2Jflood")
    assert "\\x1b[2Jflood" in str(_page(site)["plan"])
