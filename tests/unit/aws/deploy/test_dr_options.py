"""The provider's options in an environment's options."""

from __future__ import annotations

from airflow_provider_mwaa_dr.aws.deploy.dr_options import changes, merge, remove

THEIRS = {"core.parallelism": "64", "dr_other.enabled": "x", "dr.unknown_to_us": "y", "secrets.backend": "s3cret"}
OURS = {"dr.enabled": "true", "dr.state_table_replicas": "us-east-1,us-east-2"}


def test_options_of_others_are_kept() -> None:
    """After merge and remove, all options of others are unchanged."""
    merged = merge(THEIRS, OURS)
    assert merged == {**THEIRS, **OURS}
    assert remove(merged) == THEIRS


def test_an_equal_value_keeps_its_spelling() -> None:
    """MWAA rebuilds the environment for each changed option."""
    there = {"dr.enabled": "True", "dr.state_table_replicas": "us-east-2, us-east-1", "dr.lease_s": "90"}
    assert merge(there, OURS) == there
    assert merge({"dr.enabled": "no"}, OURS)["dr.enabled"] == "true"
    assert merge({"dr.enabled": "perhaps"}, OURS)["dr.enabled"] == "true"


def test_aliases_are_removed_too() -> None:
    """The AWS sample's name for the table's region is an alias of the provider's option."""
    assert remove({"dr.table_region": "us-east-2"}) == {}


def test_changes_show_only_the_options_of_the_provider() -> None:
    """Other options may be secrets."""
    shown = changes({**THEIRS, "dr.enabled": "false", "dr.lease_s": "9"}, {**OURS, "core.parallelism": "1"})
    assert shown == [
        "- dr.enabled=false", "+ dr.enabled=true", "- dr.lease_s=9", "+ dr.state_table_replicas=us-east-1,us-east-2",
    ]  # fmt: skip
