"""
Whether this Airflow is the environment of the site that it claims.

``[dr] site`` is a setting, which is wrong if it was copied from another environment. MWAA itself sets ``AWS_REGION``
and ``AIRFLOW_ENV_NAME``, and ``mwaa-dr init`` registers the environment of each site. If these contradict the setting,
the environment holds everything, and does not write the site's items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.ports import AgentStatus, Clock, IdentityClaim, Observation
from airflow_provider_mwaa_dr.core.sites import Sites, is_aws_region


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """
    The site that an Airflow claims, and the facts from MWAA.

    :param region: the claimed site of the DR set: ``[dr] site``.
    :param environment: ``AIRFLOW_ENV_NAME``; empty outside MWAA.
    :param aws_region: ``AWS_REGION``; empty if it is not set.
    :param sites: the sites in the settings; none if no environments are set.
    :param contradiction: why the settings name two environments for one site; empty if they do not.
    """

    region: str
    environment: str = ""
    aws_region: str = ""
    sites: Sites = field(default_factory=Sites)
    contradiction: str = ""

    @classmethod
    def of(cls, config: DRConfig) -> Identity:
        """Return the identity of the process with these settings."""
        return cls(
            region=config.region,
            environment=config.environment,
            aws_region=config.aws_region,
            sites=config.sites,
            contradiction=config.contradiction,
        )

    @property
    def place(self) -> tuple[str, str]:
        """Name and AWS region of the environment, from MWAA."""
        return self.environment, self.aws_region

    @property
    def own_site(self) -> str | None:
        """The site in the settings that has this environment and its AWS region; None if there is none."""
        return next((each.id for each in self.sites.all if (each.environment, each.aws_region) == self.place), None)

    @property
    def site_of_claims(self) -> str | None:
        """The site under which claims are stored, if sites have names; None: they are stored under the AWS region."""
        if is_aws_region(self.region) and not self.sites.has_names:
            return None
        return self.own_site or self.region

    @property
    def label(self) -> str:
        """The environment, for messages."""
        return label(self.environment, self.aws_region or self.region)


def label(environment: str, aws_region: str) -> str:
    """Return the name of an environment in messages."""
    return f"{environment or 'an environment without a name'} ({aws_region})"


def needs_rival_watch(identity: Identity, observation: Observation) -> bool:
    """
    Whether only heartbeats can show that another environment claims the same region.

    With a registered name, heartbeats are not necessary. An Airflow without a name (never on MWAA) cannot be compared.
    """
    return bool(identity.environment) and observation.environment is None


def identity_problem(identity: Identity, observation: Observation) -> str | None:
    """
    Return why this Airflow cannot be the environment of the site that it claims; None if there is no contradiction.

    Gate and fence call this with the same kind of observation, so they get the same result.

    :param observation: the observation of the claimed region.
    :return: one sentence without a full stop: the contradiction, and what to do.
    """
    region, name, registered = identity.region, identity.environment, observation.environment
    if identity.contradiction:
        return identity.contradiction
    if problem := _aws_region_problem(identity, observation):
        return problem
    if name and registered:
        if name == registered:
            return None
        return (
            f"{identity.label} counts as {region}, but {registered} is registered as its environment; "
            f"correct [dr] site in {name}, or, if {name} replaces {registered}, run mwaa-dr init with "
            f"DR_ENVIRONMENTS={_pair(identity, name)},..."
        )
    if observation.disputed:
        return (
            f"{' and '.join(observation.disputed)} all count as {region}, and none of them is registered; "
            f"run mwaa-dr init with DR_ENVIRONMENTS={_pair(identity, 'NAME')},... and correct [dr] site in the others"
        )
    return None


def _aws_region_problem(identity: Identity, observation: Observation) -> str | None:
    """Return why the environment and its AWS region cannot be those of the site that it claims."""
    site, sites, aws_region = identity.region, identity.sites, identity.aws_region
    if not site:
        return None  # Gate and fence hold everything for this reason alone.
    if is_aws_region(site) and not sites.has_names:
        if aws_region and aws_region != site:
            return (
                f"{identity.label} counts as {site} by [dr] site, but AWS_REGION is {aws_region}; "
                f"set [dr] site to {aws_region}, or unset it"
            )
        return None
    mine = identity.own_site
    advice = f"set [dr] site to {mine}" if mine else "correct [dr] site, or [dr] environments"
    if sites and site not in sites:
        return (
            f"{identity.label} counts as {site}, but the sites in [dr] environments are {' and '.join(sites)}; {advice}"
        )
    known = {sites.aws_region_of(site), observation.environment_region} - {""}
    if not known:
        return f"the AWS region of the site {site} is unknown; set [dr] environments, or run mwaa-dr init"
    if len(known) > 1:
        return (
            f"the AWS region of the site {site} is {sites.aws_region_of(site)} in [dr] environments, but "
            f"{observation.environment_region} in the registry; correct [dr] environments, or run mwaa-dr init"
        )
    if aws_region and {aws_region} != known:
        return (
            f"{identity.label} counts as {site} by [dr] site, but AWS_REGION is {aws_region}, and the region of "
            f"{site} is {known.pop()}; {advice}"
        )
    if identity.environment and sites and sites[site] != identity.environment:
        return (
            f"{identity.label} counts as {site} by [dr] site, but the environment of {site} in [dr] environments is "
            f"{sites[site]}; {advice}"
        )
    return None


def _pair(identity: Identity, name: str) -> str:
    """Return the pair in DR_ENVIRONMENTS that names *name* as the environment of the claimed site."""
    site, aws_region = identity.region, identity.aws_region or "REGION"
    return f"{site}={name}" if is_aws_region(site) else f"{site}={name}@{aws_region}"


class RivalWatch:
    """
    Watches for other environments whose live agents claim the same region.

    A heartbeat is live for *silence_s* after its last change, on this process's clock. For a heartbeat that existed
    before the first comparison, its own timestamp decides until it changes. So the heartbeats of a deleted environment
    do not make another environment hold.

    :param silence_s: how long a live agent may be silent.
    """

    def __init__(self, identity: Identity, clock: Clock, *, silence_s: float) -> None:
        self._identity = identity
        self._clock = clock
        self._silence_s = silence_s
        self._seen: dict[tuple[str, str, str], tuple[int, float]] = {}
        self._began: float | None = None
        self.has_compared = False
        """Whether it has compared twice. Agents that started together have sent a heartbeat before the second time."""

    def compare(self, heartbeats: Iterable[AgentStatus | IdentityClaim]) -> Sequence[str]:
        """
        Return the labels of the environments that claim the region, including this one; empty if no other one does.

        :param heartbeats: the last heartbeats of the region's agents, and of agents that claim the region.
        """
        now, wall = self._clock.monotonic(), self._clock.now()
        live: set[str] = set()
        for heartbeat in heartbeats:
            if not self._is_rival(heartbeat):
                continue
            key = str(heartbeat.environment), str(heartbeat.aws_region), heartbeat.job
            known = self._seen.get(key)
            if known is None:
                is_live = self._began is not None or (wall - heartbeat.at).total_seconds() <= self._silence_s
                self._seen[key] = heartbeat.beat, now if is_live else float("-inf")
            elif known[0] != heartbeat.beat:
                self._seen[key] = heartbeat.beat, now
            if now - self._seen[key][1] <= self._silence_s:
                live.add(label(key[0], key[1] or heartbeat.region))
        self.has_compared = self._began is not None
        if self._began is None:
            self._began = now
        return sorted({self._identity.label, *live}) if live else ()

    @property
    def is_sure(self) -> bool:
        """Whether it has compared for long enough to be sure that no other environment claims the region."""
        return self._began is not None and self._clock.monotonic() - self._began > self._silence_s

    def _is_rival(self, heartbeat: AgentStatus | IdentityClaim) -> bool:
        """Whether another environment in the AWS region of the claimed region wrote *heartbeat*."""
        name, aws_region = heartbeat.environment, heartbeat.aws_region
        if name is None or aws_region is None or heartbeat.region != self._identity.region:
            return False
        expected = self._identity.sites.aws_region_of(heartbeat.region) or self._identity.aws_region
        if aws_region and aws_region != expected:
            return False  # That environment holds by itself: its AWS_REGION contradicts its setting.
        return (name, aws_region) != self._identity.place


class IdentityClaimWatch:
    """
    Selects the identity claims of live agents.

    :param before: the claims of a first read; a claim whose beat differs in the second read is live.
    """

    def __init__(self, before: Iterable[IdentityClaim]) -> None:
        self._before = {_key(claim): claim.beat for claim in before}

    def live(self, after: Iterable[IdentityClaim], clock: Clock, *, silence_s: float) -> Sequence[IdentityClaim]:
        """Return the claims that changed since the first read, or whose own timestamp is recent."""
        wall = clock.now()
        return [
            claim
            for claim in after
            if self._before.get(_key(claim), claim.beat) != claim.beat
            or abs((wall - claim.at).total_seconds()) <= silence_s
        ]


def _key(claim: IdentityClaim) -> tuple[str, str, str, str]:
    return claim.place, claim.environment, claim.aws_region, claim.job
