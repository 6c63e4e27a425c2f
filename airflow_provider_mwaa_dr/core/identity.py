"""
Whether this Airflow is the environment of the region that it counts as.

``[dr] region`` is a setting, and a copied setting is wrong. MWAA itself sets ``AWS_REGION`` and ``AIRFLOW_ENV_NAME``;
``mwaa-dr init`` registers the name of each region's environment. Where these contradict the setting, the environment
holds everything, and writes nothing that belongs to the region.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_mwaa_dr.core.config import DRConfig
from airflow_provider_mwaa_dr.core.ports import AgentStatus, Claim, Clock, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """
    What an Airflow claims to be, and what MWAA says that it is.

    :param region: the region of the DR set that it counts as: ``[dr] region``.
    :param environment: ``AIRFLOW_ENV_NAME``; empty outside MWAA.
    :param aws_region: ``AWS_REGION``; empty where it is not set.
    :param contradiction: settings that name two environments for one region; empty when none do.
    """

    region: str
    environment: str = ""
    aws_region: str = ""
    contradiction: str = ""

    @classmethod
    def of(cls, config: DRConfig) -> Identity:
        """Return the identity of the process that has *config*."""
        return cls(
            region=config.region,
            environment=config.environment,
            aws_region=config.aws_region,
            contradiction=config.contradiction,
        )

    @property
    def label(self) -> str:
        """The environment, for people."""
        return label(self.environment, self.aws_region or self.region)


def label(environment: str, aws_region: str) -> str:
    """Return what to call an environment in a message."""
    return f"{environment or 'an environment without a name'} ({aws_region})"


def aws_region_of(region: str) -> str:
    """Return the AWS region that *region*, an id of the DR set, stands for."""
    return region


def needs_witness(identity: Identity, observation: Observation) -> bool:
    """
    Whether only heartbeats can show that another environment claims the same region.

    A registered name decides without them. An Airflow without a name, which MWAA does not have, cannot be compared.
    """
    return bool(identity.environment) and observation.environment is None


def identity_problem(identity: Identity, observation: Observation) -> str | None:
    """
    Return why this Airflow cannot be the environment of the region that it claims; None when nothing contradicts it.

    Gate and fence call this with the same read, so they come to the same answer.

    :param observation: the read of the claimed region.
    :return: one sentence without a full stop: what contradicts what, and what to do.
    """
    region, name, registered = identity.region, identity.environment, observation.environment
    if identity.contradiction:
        return identity.contradiction
    if identity.aws_region and identity.aws_region != aws_region_of(region):
        return (
            f"{identity.label} counts as {region} by [dr] region, but AWS_REGION is {identity.aws_region}; "
            f"set [dr] region to {identity.aws_region}, or unset it"
        )
    if name and registered:
        if name == registered:
            return None
        return (
            f"{identity.label} counts as {region}, but {registered} is registered as its environment; "
            f"correct [dr] region in {name}, or, if {name} replaces {registered}, run mwaa-dr init with "
            f"DR_ENVIRONMENTS={region}={name},..."
        )
    if observation.disputed:
        return (
            f"{' and '.join(observation.disputed)} all count as {region}, and none of them is registered; "
            f"run mwaa-dr init with DR_ENVIRONMENTS={region}=NAME,... and correct [dr] region in the others"
        )
    return None


class Witness:
    """
    Finds other environments whose live agents claim the same region.

    A heartbeat counts as live for *silence_s* after it last changed, on this clock. One that was stored before the
    first comparison counts by its own timestamp until it changes, so that an environment that is gone holds no other.

    :param silence_s: how long a live agent may be silent.
    """

    def __init__(self, identity: Identity, clock: Clock, *, silence_s: float) -> None:
        self._identity = identity
        self._clock = clock
        self._silence_s = silence_s
        self._seen: dict[tuple[str, str, str], tuple[int, float]] = {}
        self._began: float | None = None
        self.has_compared = False
        """Whether it has compared twice: agents that started at the same time have sent a heartbeat by then."""

    def compare(self, heartbeats: Iterable[AgentStatus | Claim]) -> Sequence[str]:
        """
        Return the labels of the environments that dispute the region, this one among them; empty when it is alone.

        :param heartbeats: the last ones of the region's agents, and of those that claim it.
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
        """Whether it has compared for long enough to decide that this environment is alone."""
        return self._began is not None and self._clock.monotonic() - self._began > self._silence_s

    def _is_rival(self, heartbeat: AgentStatus | Claim) -> bool:
        """Whether another environment wrote *heartbeat*, and in the AWS region that the claimed region stands for."""
        name, aws_region = heartbeat.environment, heartbeat.aws_region
        if name is None or aws_region is None or heartbeat.region != self._identity.region:
            return False
        if aws_region and aws_region != aws_region_of(heartbeat.region):
            return False  # That environment knows by itself that it is the wrong one.
        return (name, aws_region) != (self._identity.environment, self._identity.aws_region)


class ClaimWatch:
    """
    Tells the claims of live agents from those of dead ones.

    :param before: the claims of a first look; one whose beat is another by the second look is live.
    """

    def __init__(self, before: Iterable[Claim]) -> None:
        self._before = {_key(claim): claim.beat for claim in before}

    def live(self, after: Iterable[Claim], clock: Clock, *, silence_s: float) -> Sequence[Claim]:
        """Return those that changed since the first look, or are young by their own timestamp."""
        wall = clock.now()
        return [
            claim
            for claim in after
            if self._before.get(_key(claim), claim.beat) != claim.beat
            or abs((wall - claim.at).total_seconds()) <= silence_s
        ]


def _key(claim: Claim) -> tuple[str, str, str, str]:
    return claim.place, claim.environment, claim.aws_region, claim.job
