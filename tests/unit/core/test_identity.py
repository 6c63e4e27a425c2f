"""Whether an Airflow is the environment of the region that it claims."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from airflow_provider_mwaa_dr.core.identity import Identity, IdentityClaimWatch, RivalWatch, identity_problem
from airflow_provider_mwaa_dr.core.ports import AgentStatus, IdentityClaim, Observation
from airflow_provider_mwaa_dr.core.sites import Sites, parse_sites
from airflow_provider_mwaa_dr.testing import ManualClock

HERE, THERE = "us-east-1", "us-east-2"
MINE = Identity(region=THERE, environment="one", aws_region=THERE)
NAMED = Observation(state=None, reconciled_epoch=None, environment="one")
NAMELESS = Observation(state=None, reconciled_epoch=None)


def heartbeat(clock: ManualClock, environment: str | None, *, beat: int = 1, **changes: object) -> AgentStatus:
    status = AgentStatus(
        region=THERE,
        job="1",
        host="h",
        at=clock.now(),
        beat=beat,
        version=1,
        epoch=0,
        provider_version="0",
        airflow_version="3",
        environment=environment,
        aws_region=None if environment is None else THERE,
    )
    return replace(status, **changes)  # type: ignore[arg-type]


def claim(clock: ManualClock, *, beat: int = 1) -> IdentityClaim:
    return IdentityClaim(
        region=THERE, environment="two", aws_region=HERE, job="1", at=clock.now(), beat=beat, problem="not registered"
    )


@pytest.mark.parametrize(
    ("identity", "observation", "named"),
    [
        pytest.param(MINE, NAMED, None, id="registered-name"),
        pytest.param(MINE, NAMELESS, None, id="nothing-registered"),
        pytest.param(Identity(region=THERE), NAMED, None, id="laptop"),
        pytest.param(replace(MINE, environment=""), NAMED, None, id="no-name"),
        pytest.param(replace(MINE, aws_region=""), NAMED, None, id="no-aws-region"),
        pytest.param(replace(MINE, aws_region=HERE), NAMED, ["one", HERE, THERE, "[dr] site"], id="copied-region"),
        pytest.param(replace(MINE, environment="two"), NAMED, ["two", "one", THERE, "mwaa-dr init"], id="other-name"),
        pytest.param(MINE, replace(NAMELESS, disputed=("one", "two")), ["one and two", THERE], id="dispute"),
        pytest.param(MINE, replace(NAMED, disputed=("one", "two")), None, id="a-name-decides-a-dispute"),
        pytest.param(
            Identity(region=THERE),
            replace(NAMELESS, disputed=("one", "two")),
            ["one", "two"],
            id="dispute-seen-by-laptop",
        ),
        pytest.param(replace(MINE, contradiction="names two"), NAMED, ["names two"], id="contradiction"),
    ],
)
def test_which_environment_may_be_the_region(
    identity: Identity, observation: Observation, named: list[str] | None
) -> None:
    """
    AWS_REGION and the registered name count more than ``[dr] site``. The problem names the values that contradict.
    """
    problem = identity_problem(identity, observation)
    if named is None:
        assert problem is None
    else:
        assert problem is not None
        assert [text for text in named if text not in problem] == []


BLUE_GREEN = parse_sites("blue=etl-v2@us-east-2,green=etl-v3@us-east-2")
BLUE = Identity(region="blue", environment="etl-v2", aws_region=THERE, sites=BLUE_GREEN)
REGISTERED = Observation(state=None, reconciled_epoch=None, environment="etl-v2", environment_region=THERE)


@pytest.mark.parametrize(
    ("identity", "observation", "named"),
    [
        pytest.param(BLUE, REGISTERED, None, id="registered"),
        pytest.param(BLUE, NAMELESS, None, id="nothing-registered"),
        pytest.param(replace(BLUE, sites=Sites()), REGISTERED, None, id="only-the-registry"),
        pytest.param(replace(BLUE, environment="", aws_region=""), REGISTERED, None, id="laptop"),
        pytest.param(replace(BLUE, sites=Sites()), NAMELESS, ["blue is unknown", "mwaa-dr init"], id="unknown-region"),
        pytest.param(replace(BLUE, aws_region=HERE), REGISTERED, ["blue", HERE, THERE], id="other-region"),
        pytest.param(
            replace(BLUE, aws_region=HERE, sites=Sites()), REGISTERED, [HERE, THERE], id="other-region-registered"
        ),
        pytest.param(replace(BLUE, region="green"), NAMELESS, ["green", "etl-v3", "to blue"], id="copied-site"),
        pytest.param(replace(BLUE, region="red"), NAMELESS, ["red", "blue and green", "to blue"], id="not-in-the-set"),
        pytest.param(replace(BLUE, region=THERE), NAMELESS, [THERE, "blue and green", "to blue"], id="site-not-set"),
        pytest.param(
            replace(BLUE, region="red", environment="other"), NAMELESS, ["red", "correct [dr] site"], id="stranger"
        ),
        pytest.param(
            BLUE, replace(REGISTERED, environment="old"), ["etl-v2", "old", "blue=etl-v2@us-east-2"], id="replaced"
        ),
        pytest.param(
            BLUE, replace(REGISTERED, environment_region=HERE), [THERE, HERE, "registry"], id="registry-differs"
        ),
    ],
)
def test_which_environment_may_be_a_named_site(
    identity: Identity, observation: Observation, named: list[str] | None
) -> None:
    """AIRFLOW_ENV_NAME and AWS_REGION have to be those of the site, in the settings and in the registry."""
    problem = identity_problem(identity, observation)
    if named is None:
        assert problem is None
    else:
        assert problem is not None
        assert [text for text in named if text not in problem] == []


def test_a_region_may_be_the_id_of_one_of_two_sites_in_it() -> None:
    """An existing set keeps its id, and gets a new environment in the same region beside it."""
    sites = parse_sites("us-east-2=etl,green=etl-v3@us-east-2")
    old = Identity(region=THERE, environment="etl", aws_region=THERE, sites=sites)
    assert identity_problem(old, NAMELESS) is None
    new = replace(old, environment="etl-v3")
    assert "set [dr] site to green" in str(identity_problem(new, NAMELESS))
    assert identity_problem(replace(new, region="green"), NAMELESS) is None


def test_a_site_that_is_unknown_is_no_problem_of_the_identity() -> None:
    """Gate and fence have their own message for it, and hold everything."""
    assert identity_problem(replace(BLUE, region=""), NAMELESS) is None


def test_an_environment_of_another_region_is_no_rival_of_a_named_site() -> None:
    """It holds by itself, because its AWS_REGION contradicts its setting. One in the same region is a rival."""
    clock = ManualClock()
    mine = replace(BLUE, sites=Sites())
    for identity in (BLUE, mine):
        rivals = RivalWatch(identity, clock, silence_s=15)
        assert rivals.compare([heartbeat(clock, "two", region="blue", aws_region=HERE)]) == ()
        assert rivals.compare([heartbeat(clock, "two", region="blue")]) == [f"etl-v2 ({THERE})", f"two ({THERE})"]


def test_two_live_environments_dispute_a_region() -> None:
    """If the heartbeat of another environment changes, both environments are named as parties of the dispute."""
    clock = ManualClock()
    rivals = RivalWatch(MINE, clock, silence_s=15)
    old = heartbeat(clock, "two", at=clock.now() - timedelta(hours=1))
    assert rivals.compare([old, heartbeat(clock, "one", job="2")]) == ()
    clock.advance(5)
    assert rivals.compare([replace(old, beat=2)]) == [f"one ({THERE})", f"two ({THERE})"]
    clock.advance(16)
    assert rivals.compare([replace(old, beat=2)]) == ()
    assert rivals.is_sure


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": None, "aws_region": None},
        {"environment": "one"},
        {"environment": "two", "aws_region": HERE},
        {"environment": "two", "region": HERE},
        {"environment": "two", "at": ManualClock().now() - timedelta(hours=1)},
    ],
    ids=["an older provider", "my own", "one that runs in another AWS region", "another region's", "one that is gone"],
)
def test_which_heartbeats_do_not_dispute_a_region(changes: dict[str, object]) -> None:
    """Only a live agent of another environment in the same AWS region disputes a region."""
    clock = ManualClock()
    rivals = RivalWatch(MINE, clock, silence_s=15)
    assert rivals.compare([replace(heartbeat(clock, "one"), **changes)]) == ()  # type: ignore[arg-type]


def test_a_heartbeat_that_appears_is_live_whatever_its_clock_says() -> None:
    """The clock of the other machine may be wrong. An item that did not exist before was written since."""
    clock = ManualClock()
    rivals = RivalWatch(MINE, clock, silence_s=15)
    assert rivals.compare([]) == ()
    assert not rivals.has_compared
    clock.advance(5)
    assert rivals.compare([heartbeat(clock, "two", at=clock.now() - timedelta(days=1))])
    assert rivals.has_compared


def test_claims_of_dead_agents_are_recognized() -> None:
    """A claim counts while its beat changes, or while its own timestamp is recent."""
    clock = ManualClock()
    old = claim(clock)
    clock.advance(100)
    assert IdentityClaimWatch([old]).live([old], clock, silence_s=15) == []
    assert IdentityClaimWatch([old]).live([replace(old, beat=2)], clock, silence_s=15) == [replace(old, beat=2)]
    assert IdentityClaimWatch([]).live([claim(clock)], clock, silence_s=15) == [claim(clock)]
