"""
Copies of settings: what the active site gives to the standby, and what the standby accepts.

Settings are the variables, connections and pools in a metadata database. This module decides with digests only, and
sees no value. :mod:`airflow_provider_mwaa_dr.agent.settings_carrier` reads, seals, opens and writes the values.

The rule is that of a merge with a common base. Each site remembers a digest of the last value that both sites had. The
standby replaces its own value only if that is still the remembered one. Any other value was changed in the standby,
and stays until a person decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from airflow_provider_mwaa_dr.core.config import Carry

if TYPE_CHECKING:
    from airflow_provider_mwaa_dr.core.inventory import Fingerprints, Inventory

Names = Mapping[str, tuple[str, ...]]
"""Names of settings by kind."""
Key = tuple[str, str]
"""Kind and name of a setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """
    A variable, a connection or a pool of a metadata database. Its values do not appear in its representation.

    :param text: the value as one text, for comparisons; None if this environment's Fernet key cannot decrypt it.
    :param content: what the other site needs to write it, by column; None if it is never copied, because it cannot be
        decrypted or belongs to a team.
    :param is_default: Airflow itself creates the setting with this value, such as the slots of ``default_pool``.
    """

    text: str | None = field(repr=False)
    content: Mapping[str, Any] | None = field(repr=False)
    is_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingWrite:
    """
    A setting that a site writes.

    :param before: the setting that the decision was made for; None if there was none. Another value stays.
    """

    key: Key
    content: Mapping[str, Any] = field(repr=False)
    before: Setting | None = field(repr=False)


def text_of(kind: str, content: Mapping[str, Any]) -> str:
    """Return the value of a setting as one text, without its description. Equal values have equal texts."""
    if kind == "variables":
        return content["val"] or ""
    if kind == "pools":
        return f"{content['slots']} {content['include_deferred']}"
    extra = content["extra"] or ""
    with suppress(ValueError):
        extra = json.dumps(json.loads(extra), sort_keys=True)
    parts = [content[name] for name in ("conn_type", "host", "schema", "login", "port")]
    return json.dumps([*parts, content["password"] or "", extra])


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsOffer:
    """
    Values of the active site that the standby does not have, item ``SETTINGS#source``. Each value is sealed.

    :param epoch: of the state under which *source* was active. No other epoch opens the values.
    :param number: grows with each offer of *source*, so that an earlier offer cannot be repeated.
    :param key_id: identifies the pair of keys; see :class:`~airflow_provider_mwaa_dr.agent.fingerprints.SharedKey`.
    :param ephemeral_key: the public key that was made for this offer.
    :param values: sealed values by kind and name. Empty: nothing has to be copied.
    """

    source: str
    target: str
    epoch: int
    number: int
    sealed_at: datetime
    key_id: str
    ephemeral_key: str
    values: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CarryReport:
    """
    What a site does with settings, as part of its inventory. It contains names and no value.

    :param modes: the values of ``[dr] carry_*`` by kind.
    :param kept: names whose value was changed in this standby; the active site's value does not replace it.
    :param uncarried: names that the agent cannot copy: it cannot decrypt the value, the value belongs to a team, or it
        is too large.
    :param elsewhere: sources of settings that are never copied: a secrets backend, and names of environment variables.
    :param problem: why the agent copies nothing; None if there is no reason.
    """

    modes: Mapping[str, str] = field(default_factory=dict)
    kept: Names = field(default_factory=dict)
    uncarried: Names = field(default_factory=dict)
    elsewhere: tuple[str, ...] = ()
    problem: str | None = None

    def mode(self, kind: str) -> Carry:
        """Return the mode of a kind; unknown modes of later versions count as ``report``."""
        text = self.modes.get(kind)
        return Carry(text) if text in _MODES else Carry.REPORT


_MODES = frozenset(mode.value for mode in Carry)


def report_to_values(report: CarryReport) -> dict[str, Any]:
    """Return a report as a JSON object."""
    return {
        "modes": dict(report.modes),
        "kept": {kind: list(names) for kind, names in report.kept.items()},
        "uncarried": {kind: list(names) for kind, names in report.uncarried.items()},
        "elsewhere": list(report.elsewhere),
        "problem": report.problem,
    }


def report_from_values(values: Mapping[str, Any]) -> CarryReport:
    """Return the report from a JSON object; ignores unknown keys, and missing keys are empty."""
    return CarryReport(
        modes=values.get("modes") or {},
        kept={kind: tuple(names) for kind, names in (values.get("kept") or {}).items()},
        uncarried={kind: tuple(names) for kind, names in (values.get("uncarried") or {}).items()},
        elsewhere=tuple(values.get("elsewhere") or ()),
        problem=values.get("problem"),
    )


def is_accepted(patterns: Collection[str], kind: str, name: str) -> bool:
    """Whether ``[dr] accepted_differences`` says that this setting may differ. Such a setting is never copied."""
    return any(pattern == kind or fnmatchcase(f"{kind}:{name}", pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """
    The settings of this site and those that the last inventory of the peer lists.

    :param common: both have the setting, with equal values.
    :param differing: both have it, and the values differ or one of them cannot be read.
    :param only_here: the peer does not have it.
    :param only_there: this site does not have it.
    """

    common: frozenset[Key]
    differing: frozenset[Key]
    only_here: frozenset[Key]
    only_there: frozenset[Key]


def compare(local: Mapping[str, Mapping[str, str | None]], peer: Inventory, prints: Fingerprints) -> Comparison:
    """
    Return how the settings of both sites differ.

    :param local: fingerprint by kind and name, with the key that both sites agreed on; None if a value is unreadable.
    :param prints: the peer's fingerprints for this site, with the same key.
    """
    here = {(kind, name): print_ for kind, of in local.items() for name, print_ in of.items()}
    there = {(kind, name) for kind in local for name in peer.names.get(kind, ())}
    both = here.keys() & there
    common = {
        (kind, name)
        for kind, name in both
        if here[kind, name] is not None and here[kind, name] == prints.values.get(kind, {}).get(name)
    }
    return Comparison(
        common=frozenset(common),
        differing=frozenset(both - common),
        only_here=frozenset(here.keys() - there),
        only_there=frozenset(there - here.keys()),
    )


def to_offer(found: Comparison, *, own: CarryReport, peer: CarryReport, accepted: Collection[str]) -> list[Key]:
    """
    Return the settings whose values the active site offers, sorted.

    :param found: the comparison of the active site.
    :param own: the report of the active site.
    :param peer: the report of the standby, which lists the values that it keeps.
    """
    kept = {(kind, name) for kind, names in peer.kept.items() for name in names}
    wanted = {key for key in found.only_here if _both(own, peer, key, Carry.ADD)}
    wanted |= {key for key in found.differing if _both(own, peer, key, Carry.MIRROR) and key not in kept}
    return sorted(key for key in wanted if not is_accepted(accepted, *key))


_RANKS = {Carry.REPORT: 0, Carry.ADD: 1, Carry.MIRROR: 2}


def _both(own: CarryReport, peer: CarryReport, key: Key, least: Carry) -> bool:
    return min(_RANKS[own.mode(key[0])], _RANKS[peer.mode(key[0])]) >= _RANKS[least]


class Outcome(Enum):
    """What the standby does with an offered value."""

    WRITE = "write"
    SAME = "same"
    """It has this value."""
    KEEP = "keep"
    """Its own value was changed in the standby."""
    IGNORE = "ignore"
    """The settings of this site do not allow to write it."""


class CommonValues:
    """
    Digests of the last values that both sites had, by kind and name.

    A setting may have two digests while its value is being copied: that of the value before, and that of the new one.
    So a scheduler that stops between two transactions cannot mistake its own copy for a change of a person.

    :ivar applied: the number of the last offer that this site accepted. It accepts no earlier one.
    """

    def __init__(self, digests: Mapping[str, Mapping[str, Collection[str]]] | None = None, applied: int = 0) -> None:
        self._digests = {kind: {name: tuple(of) for name, of in by.items()} for kind, by in (digests or {}).items()}
        self.applied = applied

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CommonValues):
            return NotImplemented
        return self.to_text() == other.to_text()

    __hash__ = None  # type: ignore[assignment]

    def has(self, key: Key, digest: str | None) -> bool:
        """Whether *digest* is that of the last common value."""
        return digest is not None and digest in self._digests.get(key[0], {}).get(key[1], ())

    def settle(self, key: Key, digest: str) -> None:
        """Remember that both sites have the value with *digest*."""
        self._digests.setdefault(key[0], {})[key[1]] = (digest,)

    def expect(self, key: Key, before: str | None, digest: str) -> None:
        """Remember that this site is about to replace the value *before* by the active site's value."""
        self._digests.setdefault(key[0], {})[key[1]] = tuple(dict.fromkeys(each for each in (before, digest) if each))

    def prune(self, existing: Collection[Key]) -> None:
        """Forget the settings that no site has any more."""
        self._digests = {
            kind: {name: of for name, of in by.items() if (kind, name) in existing}
            for kind, by in self._digests.items()
        }

    def to_text(self) -> str:
        """Return the digests as JSON."""
        found = {kind: {name: list(of) for name, of in by.items()} for kind, by in self._digests.items() if by}
        return json.dumps({"digests": found, "applied": self.applied}, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> CommonValues:
        """Return the digests from :meth:`to_text`; none if the text is damaged: nothing is overwritten then."""
        try:
            found = json.loads(text)
            digests = {
                str(kind): {str(name): tuple(map(str, of)) for name, of in by.items()}
                for kind, by in found["digests"].items()
            }
            applied = int(found["applied"])
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return cls()
        return cls(digests, applied)


def decide(
    key: Key,
    *,
    mode: Carry,
    exists: bool,
    local: str | None,
    offered: str,
    is_default: bool,
    common: CommonValues,
    accepted: Collection[str],
) -> Outcome:
    """
    Return what the standby does with an offered value.

    :param mode: of the kind, in the standby.
    :param exists: whether the standby has the setting.
    :param local: digest of the standby's value; None if there is none, or if it cannot be decrypted.
    :param offered: digest of the offered value.
    :param is_default: the standby's value is the one that Airflow itself creates, such as the slots of default_pool.
    """
    if mode is Carry.REPORT or is_accepted(accepted, *key):
        return Outcome.IGNORE
    if not exists:
        return Outcome.WRITE
    if local == offered:
        return Outcome.SAME
    if mode is Carry.ADD:
        return Outcome.IGNORE
    return Outcome.WRITE if is_default or common.has(key, local) else Outcome.KEEP


def kept(
    found: Comparison,
    digests: Callable[[Key], str | None],
    *,
    own: CarryReport,
    is_default: Callable[[Key], bool],
    common: CommonValues,
    accepted: Collection[str],
) -> Names:
    """
    Return the names whose values the standby keeps, although those of the active site differ.

    :param found: the comparison of the standby.
    :param digests: returns the digest of the standby's value.
    """
    return by_kind(
        key
        for key in sorted(found.differing)
        if own.mode(key[0]) is Carry.MIRROR
        and not is_accepted(accepted, *key)
        and not is_default(key)
        and not common.has(key, digests(key))
    )


def by_kind(keys: Iterable[Key]) -> Names:
    """Return names by kind, without kinds that have none."""
    found: dict[str, list[str]] = {}
    for kind, name in keys:
        found.setdefault(kind, []).append(name)
    return {kind: tuple(names) for kind, names in found.items()}
