"""The sites of a DR set, and the text that names them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mwaa_dr.core.config import DRConfig, parse_config
from airflow_provider_mwaa_dr.core.sites import Site, Sites, is_aws_region, parse_sites

BLUE_GREEN = "blue=etl-v2@us-east-2,green=etl-v3@us-east-2"
REGIONS = "us-east-2=etl,us-east-1=etl-dr"


def config(**raw: str) -> DRConfig:
    """Return the settings with these options."""
    return parse_config({"state_table": "t", **raw})


def test_two_sites_of_one_region() -> None:
    """The id is the identity, and calls to AWS use the region after the @."""
    sites = parse_sites(BLUE_GREEN)
    assert dict(sites) == {"blue": "etl-v2", "green": "etl-v3"}
    assert (sites.aws_regions, sites.share_region, sites.has_names) == (("us-east-2",), True, True)
    assert sites.aws_region_of("green") == "us-east-2"
    assert sites.aws_region_of("red") == ""
    assert str(sites) == BLUE_GREEN


def test_the_id_of_a_site_is_its_region_by_default() -> None:
    """A set of two regions has the ids that it always had."""
    sites = parse_sites(REGIONS)
    assert sites == {"us-east-2": "etl", "us-east-1": "etl-dr"}
    assert (sites.aws_regions, sites.share_region, sites.has_names) == (("us-east-1", "us-east-2"), False, False)
    assert str(sites) == REGIONS
    assert str(parse_sites("us-east-2=etl@us-east-2")) == "us-east-2=etl"
    assert sites.aws_region_of("eu-west-1") == "eu-west-1"


@pytest.mark.parametrize("region", ["us-east-1", "us-gov-west-1", "ap-northeast-3", "us-iso-east-1", "mx-central-1"])
def test_regions_of_all_partitions_are_regions(region: str) -> None:
    """The form decides, because AWS adds regions."""
    assert is_aws_region(region)


@pytest.mark.parametrize("text", ["blue", "blue-2", "us-east", "us-east-1a", "", "1-us-east", "a#b", "us-east-1\n"])
def test_other_texts_are_no_regions(text: str) -> None:
    """They need a region after the @."""
    assert not is_aws_region(text)


CONTRADICTIONS = {
    "two-environments": ("blue=a@us-east-2,blue=b@us-east-2", ("blue", "a and b", "name one")),
    "two-regions": ("blue=a@us-east-2,blue=a@us-east-1", ("blue", "us-east-2 and us-east-1", "name one")),
    "two-ids": ("blue=a@us-east-2,green=a@us-east-2", ("a (us-east-2)", "blue", "green", "remove one")),
    "a-region-and-a-name": ("us-east-2=a,blue=a@us-east-2", ("a (us-east-2)", "us-east-2 and as blue", "remove one")),
    "no-region": ("blue=a,green=b@us-east-2", ("no region", "blue=a@")),
    "bad-region": ("blue=a@ohio,green=b@us-east-2", ("'ohio'", "blue", "no AWS region")),
    "another-region": ("us-east-1=a@us-east-2", ("us-east-1", "us-east-2", "give the site a name")),
    "capital": ("Blue=a@us-east-2", ("'Blue'", "a-z, 0-9 and '-'")),
    "separator-of-keys": ("bl#ue=a@us-east-2", ("'bl#ue'", "a-z, 0-9 and '-'")),
}


@pytest.mark.parametrize(("text", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_sites_that_contradict_each_other_hold_everything(text: str, words: tuple[str, ...]) -> None:
    """The message names the values, and says what to do. No default replaces them."""
    found = config(environments=text)
    assert [word for word in words if word not in found.contradiction] == []
    assert found.problems == (f"{found.contradiction}.",)
    assert found.environments == {}


def test_a_set_of_three_is_refused_with_its_reason() -> None:
    """The state has one active site and one possible target. The agents continue with the registry."""
    found = config(environments="us-east-1=a,us-east-2=b,us-west-2=c")
    (problem,) = found.problems
    assert "names 3 sites: us-east-1, us-east-2, us-west-2" in problem
    assert "one active site and one possible target" in problem
    assert (found.contradiction, found.environments) == ("", {})


@pytest.mark.parametrize("text", ["us-east-2", "blue=a@", "=a", "blue=", "blue=@us-east-2"])
def test_a_text_without_the_form_of_pairs_shows_the_form(text: str) -> None:
    """A user reads one line and knows what to change."""
    found = config(environments=text)
    assert "allowed are SITE=NAME[@REGION] pairs" in found.problems[0]
    assert found.contradiction == ""


def test_site_and_its_alias_region() -> None:
    """Both names are the same option. If they differ, it is unknown which environment this is."""
    assert config(site="blue").region == config(region="blue").region == config(site="blue", region=" blue ").region
    found = config(site="blue", region="us-east-2")
    assert found.region == ""
    assert "[dr] site = 'blue,us-east-2' names 2 sites, blue and us-east-2" in found.contradiction
    assert "set only site" in found.contradiction


def test_the_nearest_copy_is_that_of_the_sites_region() -> None:
    """The name of a site is no region of a table."""
    found = config(
        site="green", environments="blue=a@us-east-1,green=b@us-east-2", state_table_replicas="us-east-1,us-east-2"
    )
    assert (found.own_aws_region, found.replicas) == ("us-east-2", ("us-east-2", "us-east-1"))
    alone = config(site="green", environments=BLUE_GREEN)
    assert alone.replicas == ("us-east-2",)


def test_names_need_a_table_with_strong_consistency() -> None:
    """With eventual consistency, each copy of the table belongs to a region."""
    raw = {"table_consistency": "eventual", "state_table_replicas": "us-east-1,us-east-2"}
    found = config(environments="blue=a@us-east-1,green=b@us-east-2", **raw)
    assert "blue and green have names" in found.contradiction
    assert config(environments=REGIONS, **raw).contradiction == ""


SITES = st.builds(
    Site,
    id=st.from_regex(r"[a-z0-9-]{1,9}", fullmatch=True).filter(lambda text: not is_aws_region(text)),
    environment=st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,9}", fullmatch=True),
    aws_region=st.sampled_from(["us-east-1", "us-gov-east-1", "eu-west-3"]),
)


@given(st.lists(SITES, max_size=2, unique_by=(lambda site: site.id, lambda site: (site.environment, site.aws_region))))
def test_the_text_of_sites_names_the_same_sites(sites: list[Site]) -> None:
    """mwaa-dr deploy writes this text into the options of both environments."""
    assert parse_sites(str(Sites(sites))) == Sites(sites)


def test_equal_sites_have_equal_regions() -> None:
    """A mapping of names is equal only if its ids are the regions."""
    assert parse_sites(REGIONS) == dict(parse_sites(REGIONS))
    assert parse_sites(BLUE_GREEN) != dict(parse_sites(BLUE_GREEN))
    assert parse_sites(BLUE_GREEN) != parse_sites("blue=etl-v2@us-east-1,green=etl-v3@us-east-2")
    assert (parse_sites(BLUE_GREEN) == BLUE_GREEN) is False
    assert parse_sites(BLUE_GREEN).site("blue").is_named


def test_sites_can_be_pickled() -> None:
    """Settings travel between processes."""
    sites = parse_sites(BLUE_GREEN)
    assert pickle.loads(pickle.dumps(sites)) == sites
