"""What the active site offers of its settings, and what the standby accepts."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mwaa_dr.core.carrying import (
    CarryReport,
    CommonValues,
    Comparison,
    Key,
    Outcome,
    Setting,
    SettingWrite,
    compare,
    decide,
    is_accepted,
    kept,
    report_from_values,
    report_to_values,
    text_of,
    to_offer,
)
from airflow_provider_mwaa_dr.core.config import Carry, DRConfig, parse_config
from airflow_provider_mwaa_dr.core.inventory import (
    Fingerprints,
    Inventory,
    contents_from_values,
    contents_to_text,
)

NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)
KEY: Key = ("variables", "bucket")
REPORTS = {mode: CarryReport(modes={"variables": mode.value}) for mode in Carry}


def inventory(names: dict[str, str]) -> tuple[Inventory, Fingerprints]:
    """Return a peer's inventory of variables, and its fingerprints."""
    listed = Inventory(region="there", taken_at=NOW, public_key="p", names={"variables": tuple(names)})
    return listed, Fingerprints(key_id="k", values={"variables": names})


def test_settings_are_compared_by_name_and_fingerprint() -> None:
    """A value that one site cannot read counts as different."""
    local = {"variables": {"same": "1", "other": "2", "unreadable": None, "new": "4"}}
    found = compare(local, *inventory({"same": "1", "other": "x", "unreadable": "3", "old": "5"}))
    assert found.common == {("variables", "same")}
    assert found.differing == {("variables", "other"), ("variables", "unreadable")}
    assert found.only_here == {("variables", "new")}
    assert found.only_there == {("variables", "old")}


FOUND = Comparison(
    common=frozenset(),
    differing=frozenset({("variables", "differs")}),
    only_here=frozenset({("variables", "missing")}),
    only_there=frozenset({("variables", "extra")}),
)


@pytest.mark.parametrize(
    ("own", "peer", "offered"),
    [
        (Carry.REPORT, Carry.MIRROR, []),
        (Carry.MIRROR, Carry.REPORT, []),
        (Carry.ADD, Carry.MIRROR, ["missing"]),
        (Carry.MIRROR, Carry.ADD, ["missing"]),
        (Carry.ADD, Carry.ADD, ["missing"]),
        (Carry.MIRROR, Carry.MIRROR, ["differs", "missing"]),
    ],
)
def test_a_site_offers_what_both_sites_allow(own: Carry, peer: Carry, offered: list[str]) -> None:
    """What only the standby has is never changed."""
    found = to_offer(FOUND, own=REPORTS[own], peer=REPORTS[peer], accepted=())
    assert found == [("variables", name) for name in offered]


def test_neither_kept_nor_accepted_values_are_offered() -> None:
    """The standby keeps a value that was changed there. A declared difference is intended."""
    peer = CarryReport(modes={"variables": "mirror"}, kept={"variables": ("differs",)})
    own = REPORTS[Carry.MIRROR]
    assert to_offer(FOUND, own=own, peer=peer, accepted=()) == [("variables", "missing")]
    assert to_offer(FOUND, own=own, peer=own, accepted=("variables:diff*",)) == [("variables", "missing")]
    assert to_offer(FOUND, own=own, peer=own, accepted=("variables",)) == []
    assert not is_accepted(("variables:a", "connections"), "variables", "b")


def outcome(mode: Carry, local: str | None, common: CommonValues, **values: bool) -> Outcome:
    exists = values.get("exists", local is not None)
    return decide(
        KEY, mode=mode, exists=exists, local=local, offered="new", is_default=values.get("is_default", False),
        common=common, accepted=(),
    )  # fmt: skip


def test_a_missing_value_is_added_in_both_modes() -> None:
    """Also one that was copied before: a person who deletes a value in the standby asks for the active site's value."""
    common = CommonValues({"variables": {"bucket": ["old"]}})
    for mode in (Carry.ADD, Carry.MIRROR):
        assert outcome(mode, None, CommonValues()) is Outcome.WRITE
        assert outcome(mode, None, common) is Outcome.WRITE
    assert outcome(Carry.REPORT, None, common) is Outcome.IGNORE


def test_only_mirror_replaces_a_value_and_only_the_last_common_one() -> None:
    """Any other value was changed in the standby, or cannot be read there."""
    common = CommonValues({"variables": {"bucket": ["old"]}})
    assert outcome(Carry.ADD, "old", common) is Outcome.IGNORE
    assert outcome(Carry.MIRROR, "old", common) is Outcome.WRITE
    assert outcome(Carry.MIRROR, "mine", common) is Outcome.KEEP
    assert outcome(Carry.MIRROR, "old", CommonValues()) is Outcome.KEEP
    assert outcome(Carry.MIRROR, None, common, exists=True) is Outcome.KEEP
    assert outcome(Carry.MIRROR, "new", CommonValues()) is Outcome.SAME


def test_the_pool_that_airflow_creates_is_no_change_of_a_person() -> None:
    """Otherwise the slots of default_pool could never be copied."""
    assert outcome(Carry.MIRROR, "128", CommonValues(), is_default=True) is Outcome.WRITE
    assert outcome(Carry.ADD, "128", CommonValues(), is_default=True) is Outcome.IGNORE


def test_kept_names_are_those_that_mirror_would_replace_otherwise() -> None:
    """A difference that the modes or the settings allow is no finding."""
    found = Comparison(
        common=frozenset(),
        differing=frozenset(("variables", name) for name in ("changed", "copied", "accepted", "default", "unreadable")),
        only_here=frozenset(),
        only_there=frozenset(),
    )
    common = CommonValues({"variables": {"copied": ["copied"], "changed": ["before"]}})

    def names(mode: Carry) -> object:
        return kept(
            found,
            lambda key: None if key[1] == "unreadable" else key[1],
            own=REPORTS[mode],
            is_default=lambda key: key[1] == "default",
            common=common,
            accepted=("variables:accepted",),
        )

    assert names(Carry.MIRROR) == {"variables": ("changed", "unreadable")}
    assert names(Carry.ADD) == names(Carry.REPORT) == {}


def test_common_values_survive_a_restart_and_damage_overwrites_nothing() -> None:
    """They are one text in the metadata database. A damaged text counts as no common value."""
    common = CommonValues()
    common.settle(KEY, "one")
    common.expect(("pools", "etl"), "before", "after")
    common.applied = 7
    again = CommonValues.from_text(common.to_text())
    assert again == common
    assert again.applied == 7
    assert again.has(("pools", "etl"), "before")
    assert again.has(("pools", "etl"), "after")
    assert not again.has(KEY, None)
    for junk in ("", "null", "[]", '{"digests": 1, "applied": 1}', '{"digests": {"a": {"b": 1}}, "applied": 1}'):
        assert CommonValues.from_text(junk) == CommonValues()
    again.prune({KEY})
    assert not again.has(("pools", "etl"), "after")


VALUES = st.sampled_from("abcd")
STEPS = st.lists(
    st.tuples(st.sampled_from(["active", "standby", "copy", "crash", "failover"]), VALUES | st.none()), max_size=30
)


@given(STEPS, st.sampled_from([Carry.ADD, Carry.MIRROR]))
def test_no_value_of_a_person_in_the_standby_is_ever_replaced(steps: list[tuple[str, str | None]], mode: Carry) -> None:
    """
    One setting on two sites, with changes and deletions on both, copies, crashes between two transactions, and changes
    of the role. A copy never replaces a value that the standby got from a person since the sites last had one value.
    A person who sets the last common value again, or a value that was being copied, has changed nothing.
    """
    values: list[str | None] = ["a", "a"]
    commons = [CommonValues(), CommonValues()]
    by_person = [False, False]
    bases: list[set[str | None]] = [{"a"}, {"a"}]
    active = 0
    for step, value in steps:
        standby = 1 - active
        if values[0] is not None and values[0] == values[1]:
            by_person = [False, False]
            bases = [{values[0]}, {values[0]}]
            for common in commons:
                common.settle(KEY, values[0])
        if step == "failover":
            active = standby
        elif step in {"active", "standby"}:
            site = active if step == "active" else standby
            if values[site] != value:
                values[site], by_person[site] = value, value not in bases[site]
        elif values[active] is not None:
            offered, local = values[active], values[standby]
            assert offered is not None
            found = decide(
                KEY, mode=mode, exists=local is not None, local=local, offered=offered, is_default=False,
                common=commons[standby], accepted=(),
            )  # fmt: skip
            if found is Outcome.WRITE:
                assert local is None or (mode is Carry.MIRROR and not by_person[standby])
                commons[standby].expect(KEY, local, offered)
                bases[standby] = {local, offered} - {None}
                if step == "copy":
                    values[standby], by_person[standby] = offered, False


def test_a_value_that_a_person_set_back_counts_as_unchanged() -> None:
    """As in any merge: the standby has the last common value again, so the active site's value replaces it."""
    common = CommonValues()
    common.settle(KEY, "a")
    # A person deleted it in this site and set it again. Meanwhile the other site became active with "b".
    assert outcome(Carry.MIRROR, "a", common) is Outcome.WRITE


def test_texts_do_not_depend_on_the_form_of_a_value() -> None:
    """Nothing and an empty text are one value. The extra of a connection has one spelling, also if it is no JSON."""
    assert text_of("variables", {"val": None}) == text_of("variables", {"val": ""})
    empty = dict.fromkeys(("conn_type", "host", "schema", "login", "port", "password", "extra"))
    assert text_of("connections", empty) == text_of("connections", {**empty, "password": "", "description": "x"})
    one, other, junk = ({**empty, "extra": text} for text in ('{"b": 1, "a": 2}', '{"a": 2,   "b": 1}', "{"))
    assert text_of("connections", one) == text_of("connections", other) != text_of("connections", junk)
    assert text_of("pools", {"slots": 7, "include_deferred": True}) == "7 True"


def test_no_representation_shows_a_value() -> None:
    """An object may be part of a message or of a traceback."""
    setting = Setting(text="tr0ub4dor", content={"val": "tr0ub4dor"})
    assert "tr0ub4dor" not in repr(setting)
    assert "tr0ub4dor" not in repr(SettingWrite(key=KEY, content={"val": "tr0ub4dor"}, before=setting))


def test_a_report_is_part_of_the_inventory_and_only_if_there_is_one() -> None:
    """Without it, the inventory is as before. Unknown modes of later versions count as report."""
    report = CarryReport(
        modes={"variables": "mirror", "pools": "twist"}, kept={"variables": ("a",)}, uncarried={"pools": ("b",)},
        elsewhere=("secrets backend x.Y",), problem="none",
    )  # fmt: skip
    assert report_from_values(report_to_values(report)) == report
    assert report_from_values({}) == CarryReport()
    assert (report.mode("variables"), report.mode("pools")) == (Carry.MIRROR, Carry.REPORT)
    listed = Inventory(region="here", taken_at=NOW, public_key="p")
    assert "settings" not in contents_to_text(listed)
    found = contents_from_values({}, region="here", taken_at=NOW, public_key="p")
    assert found.settings is None


def test_options_say_what_is_copied() -> None:
    """By default nothing is, and then no part of the agent works on settings."""
    assert DRConfig(environments={}).carries == {}
    assert parse_config({}).carries == {}
    found = parse_config({"carry_variables": " Mirror", "carry_pools": "add"})
    assert found.carries == {"variables": Carry.MIRROR, "connections": Carry.REPORT, "pools": Carry.ADD}
    wrong = parse_config({"carry_variables": "all"})
    assert wrong.carries == {}
    assert "allowed are report, add and mirror" in wrong.problems[0]
