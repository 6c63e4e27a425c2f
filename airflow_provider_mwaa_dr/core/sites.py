"""
The sites of a DR set: each is one MWAA environment.

The id of a site is its identity in all items, commands and settings. If a region has one environment of the set, the
region is the id. Sites that share a region have names, such as ``blue`` and ``green``. Calls to AWS use the site's
region, never its id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

PAIRS = "SITE=NAME[@REGION] pairs separated by commas"
"""The form of ``[dr] environments``. The region may be missing if the id is a region."""
EXAMPLES = "us-east-2=NAME,us-east-1=NAME, or blue=NAME@us-east-2,green=NAME@us-east-2"

_ID = re.compile(r"[a-z0-9-]+")
_AWS_REGION = re.compile(r"[a-z]+(-[a-z]+)+-[0-9]+")


def is_aws_region(text: str) -> bool:
    """Return whether *text* has the form of an AWS region, such as ``us-gov-west-1``."""
    return _AWS_REGION.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """
    An environment of the DR set.

    :param id: the identity of the site: its AWS region, or a name that has not the form of a region.
    :param environment: name of the MWAA environment.
    :param aws_region: AWS region of the MWAA environment.
    """

    id: str
    environment: str
    aws_region: str

    @property
    def is_named(self) -> bool:
        """Whether the id is a name, and not the region."""
        return self.id != self.aws_region

    def __str__(self) -> str:
        """The pair in ``[dr] environments``."""
        return f"{self.id}={self.environment}" + (f"@{self.aws_region}" if self.is_named else "")


class Sites(Mapping[str, str]):
    """The sites of a DR set. As a mapping, it is the name of the environment by id of the site, in the given order."""

    def __init__(self, sites: Iterable[Site] = ()) -> None:
        self._sites = {site.id: site for site in sites}

    @classmethod
    def of(cls, names: Mapping[str, str]) -> Sites:
        """Return *names* as sites. In a mapping that is not :class:`Sites`, each id is a region."""
        if isinstance(names, cls):
            return names
        return cls(Site(id=region, environment=name, aws_region=region) for region, name in names.items())

    def __getitem__(self, site: str) -> str:
        return self._sites[site].environment

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._sites == Sites.of(other)._sites

    def __hash__(self) -> int:
        return hash(frozenset(self.all))

    def __repr__(self) -> str:
        return f"Sites({str(self)!r})"

    def __str__(self) -> str:
        """The text of ``[dr] environments``."""
        return ",".join(map(str, self.all))

    @property
    def all(self) -> tuple[Site, ...]:
        """Every site."""
        return tuple(self._sites.values())

    @property
    def aws_regions(self) -> tuple[str, ...]:
        """The AWS regions, sorted, each once."""
        return tuple(sorted({site.aws_region for site in self.all}))

    @property
    def has_names(self) -> bool:
        """Whether the ids are names, and not regions."""
        return any(site.is_named for site in self.all)

    @property
    def share_region(self) -> bool:
        """Whether several sites are in one AWS region."""
        return len(self.aws_regions) < len(self)

    def site(self, site: str) -> Site:
        """Return a site by its id. :raises KeyError: there is no such site."""
        return self._sites[site]

    def aws_region_of(self, site: str) -> str:
        """
        Return the AWS region of a site: the one given, or else the id, if it is a region. Empty if it is unknown.
        """
        if site in self._sites:
            return self._sites[site].aws_region
        return site if is_aws_region(site) else ""

    def sorted(self) -> Sites:
        """Return the sites in the order of their ids."""
        return Sites(sorted(self.all, key=lambda site: site.id))


class SitesError(ValueError):
    """A text that names no usable set of sites."""


class SitesContradictionError(SitesError):
    """A text from which it is unknown which environment is which site, so that every site must hold."""


def parse_site_id(text: str) -> str:
    """Return the id of a site; empty if *text* is. :raises SitesError: it is none, or it has two ids."""
    ids = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if len(ids) > 1:
        raise SitesContradictionError(
            f"names {len(ids)} sites, {' and '.join(ids)}; site and region are two names of one option: set only site"
        )
    for each in ids:
        _require_id(each)
    return "".join(ids)


def parse_sites(text: str) -> Sites:
    """
    Return the sites that a text of ``[dr] environments`` names. A repeated pair means the same.

    :raises SitesError: the sites contradict each other, or are not supported.
    :raises ValueError: the text has not the form :data:`PAIRS`.
    """
    found: dict[str, Site] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        site = parse_site(part)
        known = found.setdefault(site.id, site)
        if known.environment != site.environment:
            raise SitesContradictionError(
                f"names two environments for {site.id}: {known.environment} and {site.environment}; name one"
            )
        if known != site:
            raise SitesContradictionError(
                f"names two regions for {site.id}: {known.aws_region} and {site.aws_region}; name one"
            )
    sites = Sites(found.values())
    _require_different(sites)
    if len(sites) > 2:
        raise SitesError(
            f"names {len(sites)} sites: {', '.join(sites)}; the state has one active site and one possible target, so "
            "name two"
        )
    return sites


def parse_site(part: str) -> Site:
    """
    Return the site that one pair ``SITE=NAME[@REGION]`` names.

    :raises SitesError: id and region do not fit.
    :raises ValueError: the text has not this form.
    """
    site_id, separator, rest = (piece.strip() for piece in part.partition("="))
    name, at, region = (piece.strip() for piece in rest.partition("@"))
    if not (separator and site_id and name) or bool(at) != bool(region):
        raise ValueError(part)
    _require_id(site_id)
    if region and not is_aws_region(region):
        raise SitesContradictionError(
            f"names {region!r} as the region of {site_id}, which is no AWS region; write {site_id}={name}@us-east-2, "
            "with your region"
        )
    if is_aws_region(site_id) and region not in {"", site_id}:
        raise SitesContradictionError(
            f"names {region} as the region of the site {site_id}, which is another region; give the site a name, such "
            f"as blue={name}@{region}"
        )
    if not region and not is_aws_region(site_id):
        raise SitesContradictionError(
            f"names no region for the site {site_id}; write {site_id}={name}@us-east-2, with your region"
        )
    return Site(id=site_id, environment=name, aws_region=region or site_id)


def _require_id(text: str) -> None:
    if _ID.fullmatch(text) is None:
        raise SitesContradictionError(
            f"has {text!r} as the id of a site; an id consists of a-z, 0-9 and '-': choose another one"
        )


def _require_different(sites: Sites) -> None:
    """:raises SitesError: two ids name one environment."""
    owner: dict[tuple[str, str], str] = {}
    for site in sites.all:
        other = owner.setdefault((site.environment, site.aws_region), site.id)
        if other != site.id:
            raise SitesContradictionError(
                f"names the environment {site.environment} ({site.aws_region}) twice, as {other} and as {site.id}; "
                "remove one, or name the other environment"
            )
