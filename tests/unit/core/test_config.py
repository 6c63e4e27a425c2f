"""The table of settings."""

from __future__ import annotations

from dataclasses import fields

import pytest

from airflow_provider_mwaa_dr.core.config import (
    OPTIONS,
    DRConfig,
    Eventual,
    OnUnreachable,
    environment_texts,
    parse_config,
)


def test_every_option_is_a_setting_and_the_other_way_round() -> None:
    """The table and DRConfig have the same options, except for one that has no effect."""
    assert {option.field for option in OPTIONS} - {"state_source"} == {field.name for field in fields(DRConfig)} - {
        "problems",
        "contradiction",
        "environment",
        "aws_region",
    }


def test_nothing_set_is_disabled_and_without_complaint() -> None:
    """An Airflow without any option of the provider has no problem."""
    config = parse_config({})
    assert not config.enabled
    assert config.problems == ()


def test_the_four_options_of_the_aws_sample_are_enough() -> None:
    """The configuration in the AWS sample's document is complete."""
    config = parse_config(
        {"enabled": "true", "state_table": "t", "state_source": "dynamodb", "state_table_region": "us-east-2"}
    )
    assert (config.enabled, config.state_table, config.replicas) == (True, "t", ("us-east-2",))
    assert config.problems == ()


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_default_and_example_is_understood(option: object) -> None:
    """The table does not contradict itself."""
    option.parse(option.default)  # type: ignore[attr-defined]
    option.parse(option.example)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("enabled", "ture"),
        ("lease_s", "one minute"),
        ("lease_s", "0"),
        ("on_unreachable", "panic"),
        ("state_source", "ssm"),
        ("environments", "us-east-2"),
        ("fence", "maybe"),
        ("notification_topic", "my-topic"),
        ("notification_topic", "arn:aws:sqs:us-east-1:123456789012:queue"),
        ("table_consistency", "single region"),  # describes a table, and is no value of the option
    ],
)
def test_a_wrong_value_is_named_with_its_allowed_values(name: str, text: str) -> None:
    """A user reads one line and knows what to change."""
    (problem, *_) = parse_config({"state_table": "t", name: text}).problems
    assert f"[dr] {name} = {text!r}" in problem or "'us-east-2'" in problem
    assert "allowed are" in problem


def test_the_variables_of_the_process_name_every_option_and_the_region_of_mwaa() -> None:
    """DR_REGION is more precise than AWS_REGION, which MWAA sets. An empty variable counts as missing."""
    environ = {"DR_STATE_TABLE": "t", "DR_FENCE": " ", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "eu-west-1"}
    texts = environment_texts(environ)
    assert set(texts) == {option.name for option in OPTIONS}
    assert (texts["state_table"], texts["fence"], texts["site"]) == ("t", None, "us-east-1")
    assert environment_texts({**environ, "DR_REGION": "us-west-2"})["site"] == "us-west-2"
    assert environment_texts({**environ, "DR_SITE": "blue"})["site"] == "blue"
    assert environment_texts({"AWS_DEFAULT_REGION": "eu-west-1"})["site"] == "eu-west-1"


def test_a_misspelt_enabled_counts_as_enabled() -> None:
    """A standby that executes everything would be the worse mistake."""
    assert parse_config({"enabled": "ture"}).enabled


def test_a_wrong_value_leaves_the_default() -> None:
    """One wrong option does not change the others."""
    config = parse_config({"lease_s": "x", "on_unreachable": "RUN"})
    assert config.lease_s == 60
    assert config.on_unreachable is OnUnreachable.RUN


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"enabled": "true"}, "state_table is not set"),
        ({"refresh_s": "40"}, "refresh_s = 40 is more than half of lease_s = 60"),
        ({"fence_file_s": "10", "lease_s": "10", "refresh_s": "1"}, "fence_file_s = 10 is not shorter"),
    ],
)
def test_settings_that_contradict_each_other_are_named(raw: dict[str, str], words: str) -> None:
    """Each setting is checked alone, and against the others."""
    assert any(words in problem for problem in parse_config(raw).problems)


def test_the_nearest_replica_comes_first() -> None:
    """The own region comes first, then each other region once."""
    config = parse_config(
        {"region": "us-east-1", "state_table_region": "us-east-2", "state_table_replicas": "us-east-2, us-east-1"}
    )
    assert config.replicas == ("us-east-1", "us-east-2")


def test_a_table_with_eventual_consistency_needs_a_copy_in_each_region_of_the_set() -> None:
    """A region without a copy of its own could not read the state."""
    raw = {"state_table": "t", "table_consistency": "eventual", "environments": "us-east-2=a,us-east-1=b"}
    found = parse_config({**raw, "state_table_replicas": "us-east-2,us-east-1"})
    assert (found.eventual_mode, found.problems) == (Eventual.AVAILABLE, ())
    assert parse_config({**raw, "eventual": "safe"}).eventual_mode is Eventual.SAFE
    assert "no copy in us-east-1" in parse_config({**raw, "state_table_region": "us-east-2"}).problems[0]
    alone = parse_config({"state_table": "t", "table_consistency": "eventual", "state_table_region": "us-east-2"})
    assert "no copy but one" in alone.problems[0]
    assert parse_config({**raw, "table_consistency": "strong"}).eventual_mode is None


@pytest.mark.parametrize("text", ["us-east-2=one,us-east-2=two", "us-east-2=one, us-east-1=x , us-east-2 = two"])
def test_two_environments_for_one_region_are_refused_and_both_named(text: str) -> None:
    """Neither the first nor the last environment wins, and no default replaces them."""
    config = parse_config({"state_table": "t", "environments": text})
    (problem,) = config.problems
    assert "names two environments for us-east-2: one and two" in problem
    assert config.contradiction in problem
    assert config.contradiction
    assert config.environments == {}


@pytest.mark.parametrize("text", ["us-east-2=one,us-east-1=one", "us-east-2=one,us-east-2 = one"])
def test_one_name_in_two_regions_and_a_repeated_pair_are_no_contradiction(text: str) -> None:
    """MWAA names are unique only within a region. A repeated pair means the same."""
    config = parse_config({"state_table": "t", "environments": text})
    assert (config.problems, config.contradiction, config.environments["us-east-2"]) == ((), "", "one")
