"""Our options among those of an environment."""

from __future__ import annotations

from airflow_provider_mwaa_dr.aws.dr_options import changes, merge, remove

THEIRS = {"core.parallelism": "64", "dr_other.enabled": "x", "dr.unknown_to_us": "y", "secrets.backend": "s3cret"}
OURS = {"dr.enabled": "true", "dr.state_table_replicas": "us-east-1,us-east-2"}


def test_nobody_elses_option_is_dropped() -> None:
    """In, and out again, all of theirs are as they were."""
    merged = merge(THEIRS, OURS)
    assert merged == {**THEIRS, **OURS}
    assert remove(merged) == THEIRS


def test_what_means_the_same_keeps_its_spelling() -> None:
    """A change of an option rebuilds the environment."""
    there = {"dr.enabled": "True", "dr.state_table_replicas": "us-east-2, us-east-1", "dr.lease_s": "90"}
    assert merge(there, OURS) == there
    assert merge({"dr.enabled": "no"}, OURS)["dr.enabled"] == "true"
    assert merge({"dr.enabled": "perhaps"}, OURS)["dr.enabled"] == "true"


def test_aliases_go_too() -> None:
    """The AWS sample's name of the table's region is one of ours."""
    assert remove({"dr.table_region": "us-east-2"}) == {}


def test_changes_show_ours_only() -> None:
    """Values of other options may be secrets."""
    shown = changes({**THEIRS, "dr.enabled": "false", "dr.lease_s": "9"}, {**OURS, "core.parallelism": "1"})
    assert shown == [
        "- dr.enabled=false", "+ dr.enabled=true", "- dr.lease_s=9", "+ dr.state_table_replicas=us-east-1,us-east-2",
    ]  # fmt: skip
