"""
Copies settings from the active site to the standby, as ``[dr] carry_variables`` and its neighbours say.

The agent of the active site compares its settings with the inventory of the standby, and writes the values that the
standby needs into the item ``SETTINGS#site``, sealed for the standby's pinned key. The agent of the standby opens them
in its own process, and writes them under its own Fernet key.

No error of this module contains a value. An error of the database may contain one, so only its type is reported.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from airflow_provider_mwaa_dr.agent.fingerprints import SharedKey
from airflow_provider_mwaa_dr.agent.peer_keys import PeerKeys, SecretStore
from airflow_provider_mwaa_dr.agent.sealing import Envelope, Opener, SealBrokenError, Sealer
from airflow_provider_mwaa_dr.core.carrying import (
    CarryReport,
    CommonValues,
    Comparison,
    Key,
    Names,
    Outcome,
    Setting,
    SettingsOffer,
    SettingWrite,
    by_kind,
    compare,
    decide,
    kept,
    text_of,
    to_offer,
)
from airflow_provider_mwaa_dr.core.config import Carry
from airflow_provider_mwaa_dr.core.display import get_logger
from airflow_provider_mwaa_dr.core.inventory import Fingerprints, Inventory
from airflow_provider_mwaa_dr.core.log_on_change import LogOnChange
from airflow_provider_mwaa_dr.core.ports import INVENTORIES, SETTINGS_OFFERS, Clock, StateStore
from airflow_provider_mwaa_dr.core.state import DRState, Phase
from airflow_provider_mwaa_dr.core.timer import Timer
from airflow_provider_mwaa_dr.exceptions import DRError, StateAccessError, UnreadableItemError

log = get_logger(__name__)

BATCH = 100
"""The most settings that one transaction writes."""
TURN_S = 0.5
"""Time after which a turn starts no further transaction."""
OFFER_BYTES = 4_000_000
"""The most bytes of sealed values in one offer; the rest follows when the standby has these."""
VALUE_BYTES = 1_000_000
"""A larger value is not copied."""
_DIGEST_KEY = "private_key_of_copies"
_SHOWN = 10

Settings = Mapping[str, Mapping[str, Setting]]


class SettingsDb(SecretStore, Protocol):
    """The settings of the metadata database; see :class:`plugins.metadata.settings.MetadataSettingsDb`."""

    def put_secret(self, name: str, value: str) -> None:
        """Store a value, in place of a stored one."""

    def settings(self, names: Mapping[str, Collection[str]] | None = None) -> Settings:
        """Return the settings by kind and name: all, or those with *names* by kind."""

    def write_settings(self, writes: Sequence[SettingWrite]) -> set[Key]:
        """Write settings under this environment's Fernet key; return those that were written."""

    def elsewhere(self) -> tuple[str, ...]:
        """Return the names of the sources of settings besides the database."""


class _NotCopiedError(Exception):
    """Nothing can be copied now. The text says why; an empty text is no problem, because it ends by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    """What both sites agreed on: the key of fingerprints, and the last inventory of the peer with its report."""

    key: SharedKey
    inventory: Inventory
    prints: Fingerprints
    report: CarryReport


@dataclass(frozen=True, slots=True, kw_only=True)
class _Import:
    """An offer that is being written: the settings that are left."""

    offer: SettingsOffer
    opener: Opener
    left: deque[Key]


class SettingsCarrier:
    """
    Copies settings for one region. Not thread-safe; only the leading agent of the region uses it.

    :param peers: the regions in ``[dr] environments``.
    :param modes: what to copy, by kind; at least one is not ``report``.
    :param accepted: ``[dr] accepted_differences``; such settings are never copied.
    :param every_s: seconds between two comparisons.
    """

    def __init__(
        self,
        store: StateStore,
        db: SettingsDb,
        clock: Clock,
        *,
        region: str,
        peers: Collection[str],
        modes: Mapping[str, Carry],
        accepted: Collection[str],
        every_s: float,
    ) -> None:
        self._store = store
        self._db = db
        self._clock = clock
        self._region = region
        self._peer = next(iter(sorted(set(peers) - {region})), "")
        self._modes = {kind: mode for kind, mode in modes.items() if mode is not Carry.REPORT}
        self._own = CarryReport(modes={kind: mode.value for kind, mode in modes.items()})
        self._accepted = tuple(accepted)
        self._keys = PeerKeys(db, store, region=region, peers=peers)
        self._timer = Timer(clock, every_s)
        self._problem: LogOnChange[str | None] = LogOnChange(None)
        self._kept: Names = {}
        self._uncarried: Names = {}
        self._refused: set[Key] = set()
        self._offered: tuple[object, ...] | None = None
        self._withdrawn: int | None = None
        self._import: _Import | None = None
        self._digest_key: SharedKey | None = None
        self._common_name = f"copies_with_{self._peer}"
        self._common_text = ""

    def forget(self) -> None:
        """Forget what this agent has offered and was writing: another agent of the region leads now."""
        self._offered = self._withdrawn = self._import = None

    @property
    def report(self) -> CarryReport:
        """What this region copies, keeps and cannot copy."""
        refused = by_kind(sorted(self._refused))
        uncarried = {kind: (*self._uncarried.get(kind, ()), *refused.get(kind, ())) for kind in self._modes}
        return replace(
            self._own,
            kept=self._kept,
            uncarried={kind: names for kind, names in uncarried.items() if names},
            elsewhere=self._db.elsewhere(),
            problem=self._problem.value,
        )

    @property
    def problem(self) -> str | None:
        """Why this region copies nothing, or which values it keeps; None if neither is so."""
        sentences = [self._problem.value] if self._problem.value is not None else []
        for kind, names in sorted(self._kept.items()):
            sentences.append(f"{kind} that were changed in {self._region} are not replaced: {_some(names)}")
        return "; ".join(sentences) or None

    def try_turn(self, state: DRState) -> bool:
        """
        Offer or accept settings, if it is time for it; never raises, but stores and logs a problem.

        :param state: as this turn read it. The region's runs are reconciled with it.
        :return: whether this turn wrote settings of this region, so that its inventory is out of date.
        """
        has_written, problem = False, None
        if state.phase is not Phase.STEADY or (self._import is None and not self._timer.is_due):
            return False
        try:
            has_written = self._turn(state)
        except _NotCopiedError as error:
            problem = str(error) or None
        except StateAccessError as error:
            problem = (
                f"settings are not copied, because the role of {self._region} may not use the item "
                f"SETTINGS#{self._region}: run mwaa-dr deploy, which updates the policies ({error.message})"
            )
        except DRError as error:
            problem = str(error).splitlines()[0]
        except Exception as error:
            # The text of an error of the database contains the parameters of a statement, which may be values.
            problem = f"settings are not copied, because of a {type(error).__name__} in {self._region}"
        if problem is not None:
            self._import = None
        if self._problem.changes_to(problem) and problem is not None:
            log.warning("%s, epoch %d: %s", self._region, state.epoch, problem)
        return has_written

    def _turn(self, state: DRState) -> bool:
        if state.active_region == self._peer:
            self._offered = None
            if self._import is None or self._import.offer.epoch != state.epoch:
                self._timer.restart()
                self._import = self._take(state)
            return self._write()
        self._import, self._kept, self._refused = None, {}, set()
        if state.active_region == self._region:
            self._timer.restart()
            self._give(state)
        return False

    def _one_sided(self) -> _NotCopiedError:
        return _NotCopiedError(
            f"settings are not copied, because {self._peer} copies none: its [dr] carry_variables, carry_connections "
            "and carry_pools are report, or its version of the provider has no such options"
        )

    # The active site.

    def _give(self, state: DRState) -> None:
        """Write the values that the standby needs, or an empty offer once it has all of them."""
        link = self._link()
        if link is None:
            self._put(state, {})
            raise self._one_sided()
        local = self._settings()
        found = self._compare(local, link)
        self._settle(local, found)
        wanted = to_offer(found, own=self._own, peer=link.report, accepted=self._accepted)
        contents, uncarried, size = {}, [], 0
        for key in wanted:
            content = local[key[0]][key[1]].content
            packed = b"" if content is None else json.dumps(dict(content), sort_keys=True).encode()
            if not packed or len(packed) > VALUE_BYTES:
                uncarried.append(key)
            elif size + len(packed) <= OFFER_BYTES:
                contents[key] = packed
                size += len(packed)
        self._uncarried = by_kind(uncarried)
        digests = [(key, self._print(link, key, local)) for key in contents]
        signature = (state.epoch, link.key.id, *digests)
        if signature != self._offered:
            self._put(state, contents)
            self._offered = signature

    def _put(self, state: DRState, contents: Mapping[Key, bytes]) -> None:
        """Replace this site's offer by one with *contents*, sealed; a no-op if the stored one is empty, too."""
        try:
            stored = self._store.get(SETTINGS_OFFERS, self._region)
        except UnreadableItemError:
            stored = None
        if not contents and (stored is None or not stored.values):
            return
        if stored is not None and stored.epoch > state.epoch:
            raise _NotCopiedError(
                f"settings are not copied, because the item SETTINGS#{self._region} has the later epoch "
                f"{stored.epoch}: if the DR set was initialised again with a lower epoch, delete the item"
            )
        pair = self._keys.pair_with(self._peer)
        if pair is None:
            return  # the key was deleted since this turn read it
        own, other = pair
        number = max(int(self._clock.now().timestamp() * 1000), 0 if stored is None else stored.number + 1)
        envelope = Envelope(source=self._region, target=self._peer, epoch=state.epoch, number=number)
        sealer = Sealer(own, other, envelope)
        shared = own.agree(other)
        values: dict[str, dict[str, bytes]] = {}
        for (kind, name), content in contents.items():
            values.setdefault(kind, {})[name] = sealer.seal(kind, name, content)
        offer = SettingsOffer(
            source=self._region,
            target=self._peer,
            epoch=state.epoch,
            number=number,
            sealed_at=self._clock.now(),
            key_id=shared.id if shared is not None else "none",
            ephemeral_key=sealer.ephemeral_key,
            values=values,
        )
        self._store.put(SETTINGS_OFFERS, offer)
        if contents:
            names = [f"{kind}:{name}" for kind, name in sorted(contents)]
            log.info("%s, epoch %d: offers %s to %s", self._region, state.epoch, _some(names), self._peer)

    # The standby.

    def _take(self, state: DRState) -> _Import | None:
        """Compare the settings, and return the active site's offer if this site may open it."""
        self._withdraw(state)
        link = self._link()
        if link is None:
            self._kept = {}
            raise self._one_sided()
        local = self._settings()
        found = self._compare(local, link)
        common = self._settle(local, found)
        self._kept = kept(
            found,
            lambda key: self._digest(key, local[key[0]][key[1]].text),
            own=self._own,
            is_default=lambda key: local[key[0]][key[1]].is_default,
            common=common,
            accepted=self._accepted,
        )
        try:
            offer = self._store.get(SETTINGS_OFFERS, self._peer)
        except UnreadableItemError:
            offer = None  # the peer's agent writes it again
        self._refused = {key for key in self._refused if offer is not None and key[1] in offer.values.get(key[0], {})}
        return self._opened(offer, state, link, common)

    def _opened(self, offer: SettingsOffer | None, state: DRState, link: _Link, common: CommonValues) -> _Import | None:
        """Return what to write; None for an offer of another epoch, for another site, or under another key."""
        if offer is None or not offer.values or (offer.target, offer.epoch) != (self._region, state.epoch):
            return None
        pair = self._keys.pair_with(self._peer)
        if offer.key_id != link.key.id or pair is None:
            return None
        if offer.number < common.applied:
            raise _NotCopiedError(
                f"the item SETTINGS#{self._peer} is older than the last one that {self._region} has copied, so it is "
                "ignored: find out what wrote it"
            )
        envelope = Envelope(source=offer.source, target=offer.target, epoch=offer.epoch, number=offer.number)
        left = deque(sorted((kind, name) for kind, of in offer.values.items() for name in of if kind in self._modes))
        try:
            opener = Opener(*pair, envelope, offer.ephemeral_key)
            for kind, name in left:
                opener.open(kind, name, offer.values[kind][name])
        except SealBrokenError as error:
            raise self._broken() from error
        return _Import(offer=offer, opener=opener, left=left)

    def _broken(self) -> _NotCopiedError:
        return _NotCopiedError(
            f"the item SETTINGS#{self._peer} was not sealed by the agent of {self._peer} for {self._region}, or was "
            "changed, so nothing of it is written: find out what wrote it"
        )

    def _write(self) -> bool:
        """Write settings of the offer for a limited time. The next turn continues."""
        if self._import is None:
            return False
        offer, opener, left = self._import.offer, self._import.opener, self._import.left
        until, written = self._clock.monotonic() + TURN_S, set()
        while left:
            batch = [left.popleft() for _ in range(min(BATCH, len(left)))]
            written |= self._write_batch(offer, opener, batch)
            if self._clock.monotonic() >= until:
                break
        if not left:
            self._import = None
        if written:
            names = [f"{kind}:{name}" for kind, name in sorted(written)]
            log.info("%s, epoch %d: copied %s from %s", self._region, offer.epoch, _some(names), offer.source)
        return bool(written)

    def _write_batch(self, offer: SettingsOffer, opener: Opener, batch: Sequence[Key]) -> set[Key]:
        local, common = self._settings(batch), self._read_common()
        writes = []
        for key in batch:
            kind, name = key
            content = json.loads(opener.open(kind, name, offer.values[kind][name]))
            offered = self._digest(key, text_of(kind, content))
            before = local.get(kind, {}).get(name)
            digest = None if before is None else self._digest(key, before.text)
            outcome = decide(
                key,
                mode=self._modes[kind],
                exists=before is not None,
                local=digest,
                offered=offered or "",
                is_default=before is not None and before.is_default,
                common=common,
                accepted=self._accepted,
            )
            if outcome is Outcome.WRITE and offered is not None:
                common.expect(key, digest, offered)
                writes.append(SettingWrite(key=key, content=content, before=before))
        common.applied = offer.number
        self._write_common(common)
        written = self._db.write_settings(writes) if writes else set()
        self._refused |= {write.key for write in writes} - written
        self._refused -= written
        return written

    def _withdraw(self, state: DRState) -> None:
        """Remove the values that this site offered in its earlier role, once in each epoch."""
        if self._withdrawn == state.epoch:
            return
        try:
            stored = self._store.get(SETTINGS_OFFERS, self._region)
        except UnreadableItemError:
            stored = None
        if stored is not None and stored.values and stored.epoch <= state.epoch:
            emptied = replace(stored, epoch=state.epoch, number=stored.number + 1, values={})
            self._store.put(SETTINGS_OFFERS, emptied)
        self._withdrawn = state.epoch

    # Both.

    def _link(self) -> _Link | None:
        """
        Return what is needed to compare values with the peer; None if the peer copies nothing.

        :raises _NotCopiedError: the sites have not agreed on a key, or the peer has no inventory with it yet.
        """
        keys, why = self._keys.agree()
        key = keys.get(self._peer)
        if key is None:
            raise _NotCopiedError(f"settings are not copied: {why}" if why else "")
        try:
            inventory = self._store.get(INVENTORIES, self._peer)
        except UnreadableItemError:
            inventory = None  # the peer's agent writes it again
        if inventory is None:
            raise _NotCopiedError
        if inventory.settings is None:
            return None
        prints = inventory.fingerprints.get(self._region)
        if prints is None or prints.key_id != key.id:
            raise _NotCopiedError
        return _Link(key=key, inventory=inventory, prints=prints, report=inventory.settings)

    def _settings(self, keys: Iterable[Key] | None = None) -> Settings:
        """Return the settings of the kinds that are copied: all, or those with *keys*."""
        names = None if keys is None else by_kind(keys)
        return {kind: of for kind, of in self._db.settings(names).items() if kind in self._modes}

    def _compare(self, local: Settings, link: _Link) -> Comparison:
        prints = {kind: {name: self._print(link, (kind, name), local) for name in of} for kind, of in local.items()}
        return compare(prints, link.inventory, link.prints)

    @staticmethod
    def _print(link: _Link, key: Key, local: Settings) -> str | None:
        text = local[key[0]][key[1]].text
        return None if text is None else link.key.fingerprint(*key, text)

    def _digest(self, key: Key, text: str | None) -> str | None:
        """Return the digest of a value that this site remembers; its key is in the metadata database only."""
        if text is None:
            return None
        if self._digest_key is None:
            stored = self._db.secret(_DIGEST_KEY) or self._db.add_secret(_DIGEST_KEY, secrets.token_hex(32))
            self._digest_key = SharedKey(id="", secret=stored.encode())
        return self._digest_key.fingerprint(*key, text)

    def _settle(self, local: Settings, found: Comparison) -> CommonValues:
        """Remember which values both sites have."""
        common = self._read_common()
        for key in found.common:
            digest = self._digest(key, local[key[0]][key[1]].text)
            if digest is not None:
                common.settle(key, digest)
        common.prune(found.common | found.differing | found.only_here | found.only_there)
        self._write_common(common)
        return common

    def _read_common(self) -> CommonValues:
        self._common_text = self._db.secret(self._common_name) or ""
        return CommonValues.from_text(self._common_text)

    def _write_common(self, common: CommonValues) -> None:
        text = common.to_text()
        if text != self._common_text:
            self._db.put_secret(self._common_name, text)
            self._common_text = text


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
