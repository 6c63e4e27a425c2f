"""The fault table: its syntax, the requests that it applies to, and how it is stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_mwaa_dr.exceptions import ConfigError
from airflow_provider_mwaa_dr.sandbox.cloud import faults
from airflow_provider_mwaa_dr.sandbox.cloud.faults import FaultKind, InjectedFault

HERE, THERE = "us-east-2", "us-east-1"


def kind_met(table: faults.Table, service: str, caller: str, target: str | None) -> FaultKind | None:
    fault = faults.match(table, service=service, caller=caller, target=target)
    return fault.fault if fault else None


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("refuse", (FaultKind.REFUSE, None)),
        ("blackhole", (FaultKind.BLACKHOLE, None)),
        ("throttle", (FaultKind.THROTTLE, None)),
        ("error", (FaultKind.ERROR, None)),
        (" DELAY:2.5 ", (FaultKind.DELAY, 2.5)),
        ("none", None),
    ],
)
def test_faults_are_read_as_people_write_them(text: str, parsed: tuple[FaultKind, float | None] | None) -> None:
    """Each word of the command line has one meaning; case and blanks do not matter."""
    assert faults.parse_fault(text) == parsed


@pytest.mark.parametrize("text", ["", "delay", "delay:", "delay:soon", "delay:-1", "delay:nan", "refuse:3", "none:1"])
def test_a_wrong_fault_is_answered_with_the_allowed_ones(text: str) -> None:
    """The error names what was written and what would have been right."""
    with pytest.raises(ConfigError, match="Allowed are refuse, blackhole, delay:SECONDS") as caught:
        faults.parse_fault(text)
    assert repr(text) in str(caught.value)


def test_a_fault_without_direction_cuts_a_region_off_both_ways() -> None:
    """What the region sends and what others send to it both fail; others among themselves go on."""
    table = faults.add((), region=HERE, service="all", fault=FaultKind.BLACKHOLE)
    assert kind_met(table, "dynamodb", HERE, THERE) is FaultKind.BLACKHOLE
    assert kind_met(table, "mwaa", "control", HERE) is FaultKind.BLACKHOLE
    assert kind_met(table, "sts", HERE, None) is FaultKind.BLACKHOLE
    assert kind_met(table, "dynamodb", "control", THERE) is None


def test_a_direction_limits_a_fault_to_one_pair() -> None:
    """--from is one caller towards the region, --to is the region towards one target; one service only."""
    table = faults.add((), region=HERE, service="dynamodb", fault=FaultKind.REFUSE, from_caller="control")
    assert kind_met(table, "dynamodb", "control", HERE) is FaultKind.REFUSE
    assert kind_met(table, "mwaa", "control", HERE) is None
    assert kind_met(table, "dynamodb", THERE, HERE) is None
    table = faults.add((), region=HERE, service="dynamodb", fault=FaultKind.REFUSE, to_target=THERE)
    assert kind_met(table, "dynamodb", HERE, THERE) is FaultKind.REFUSE
    assert kind_met(table, "dynamodb", HERE, HERE) is None
    with pytest.raises(ConfigError, match="Use one of the two options"):
        faults.add((), region=HERE, service="all", fault=FaultKind.REFUSE, from_caller=THERE, to_target=THERE)


def test_the_strongest_of_several_faults_counts() -> None:
    """A killed region stays dark whatever else was set before or after."""
    table = faults.add((), region=HERE, service="all", fault=FaultKind.BLACKHOLE)
    table = faults.add(table, region=HERE, service="dynamodb", fault=FaultKind.DELAY, seconds=1)
    assert kind_met(table, "dynamodb", HERE, HERE) is FaultKind.BLACKHOLE
    assert kind_met(tuple(reversed(table)), "dynamodb", HERE, HERE) is FaultKind.BLACKHOLE


def test_setting_a_fault_again_replaces_it() -> None:
    """The latest word on a service and direction stands; there is never a pile of them."""
    table = faults.add((), region=HERE, service="mwaa", fault=FaultKind.BLACKHOLE)
    table = faults.add(table, region=HERE, service="mwaa", fault=FaultKind.DELAY, seconds=2)
    assert [(fault.fault, fault.seconds) for fault in table] == [(FaultKind.DELAY, 2), (FaultKind.DELAY, 2)]


def test_none_lifts_what_it_names_and_nothing_else() -> None:
    """A service leaves the faults of the others, a direction those of the other direction; all lifts the lot."""
    killed = faults.add((), region=HERE, service="all", fault=FaultKind.BLACKHOLE)
    cut = faults.add(killed, region=HERE, service="dynamodb", fault=FaultKind.REFUSE, from_caller="control")
    other = faults.add(cut, region=THERE, service="sqs", fault=FaultKind.ERROR)
    assert faults.remove(other, region=HERE, service="mwaa") == other
    assert faults.remove(cut, region=HERE, service="dynamodb") == killed
    assert faults.remove(cut, region=HERE, from_caller="control") == killed
    assert {fault.service for fault in faults.remove(other, region=HERE)} == {"sqs"}


def test_the_table_survives_its_file(tmp_path: Path) -> None:
    """What was saved is loaded again, no file is no fault, and nothing else is left lying about."""
    path = tmp_path / "aws" / "faults.json"
    assert faults.load(path) == ()
    table = faults.change(
        path, lambda old: faults.add(old, region=HERE, service="all", fault=FaultKind.DELAY, seconds=0.5)
    )
    assert (
        faults.load(path)
        == table
        == (
            InjectedFault(service="all", fault=FaultKind.DELAY, seconds=0.5, caller=HERE),
            InjectedFault(service="all", fault=FaultKind.DELAY, seconds=0.5, target=HERE),
        )
    )
    assert faults.change(path, lambda old: faults.remove(old, region=HERE)) == ()
    assert sorted(child.name for child in path.parent.iterdir()) == ["faults.json", "faults.json.lock"]


@pytest.mark.parametrize("text", ["", "{", "3", "[3]", '[{"service": "all"}]', '[{"service": "all", "fault": "x"}]'])
def test_a_broken_table_is_named(tmp_path: Path, text: str) -> None:
    """The error names the broken file and the next step."""
    path = tmp_path / "faults.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not a valid fault table") as caught:
        faults.load(path)
    assert str(path) in str(caught.value)


def test_a_fault_may_be_of_one_table() -> None:
    """The ledger refuses while the state table answers."""
    table = faults.add((), region=HERE, service="dynamodb/runs", fault=FaultKind.EXPIRED)
    of = {"service": "dynamodb", "caller": HERE, "target": THERE}
    assert faults.match(table, **of, dynamodb_table="runs") == table[0]
    assert faults.match(table, **of, dynamodb_table="state") is None
    assert faults.match(table, **of) is None


def test_a_killed_site_takes_its_calls_and_its_mwaa_and_nothing_else_of_the_region() -> None:
    """The tables of the region serve the other site."""
    table = faults.add((), region="blue", service=faults.ALL_SERVICES, fault=FaultKind.BLACKHOLE)

    def is_met(service: str, caller: str, site: str | None = None) -> bool:
        return faults.match(table, service=service, caller=caller, target=HERE, site=site) is not None

    assert is_met("dynamodb", "blue")
    assert is_met("mwaa", "blue", "green")
    assert is_met("mwaa", "green", "blue")
    assert is_met("mwaa", "control", "blue")
    assert not is_met("dynamodb", "green")
    assert not is_met("mwaa", "control", "green")
    of_region = faults.add((), region=HERE, service="mwaa", fault=FaultKind.DENY)
    for site in ("blue", "green"):
        assert faults.match(of_region, service="mwaa", caller="control", target=HERE, site=site) is not None
