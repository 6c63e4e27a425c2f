"""
The keys of a region: its own key pair, and the public keys of its peers.

The key pair is made once for each metadata database, and its private half is stored there, under Airflow's Fernet key.
So a peer can remember the public key that it saw first, and refuse another one. Only the metadata database says which
key is accepted: who may write the state table, and nothing else, can neither add a peer nor replace the key of one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from airflow_provider_mwaa_dr.agent.fingerprints import KeyPair, SharedKey
from airflow_provider_mwaa_dr.core.ports import StateStore
from airflow_provider_mwaa_dr.exceptions import ConfigError, UnreadableItemError


class SecretStore(Protocol):
    """Values of the provider in the metadata database, encrypted as Airflow encrypts its variables."""

    def secret(self, name: str) -> str | None:
        """Return a value; None if there is none. :raises ConfigError: it cannot be decrypted."""

    def add_secret(self, name: str, value: str) -> str:
        """Store a value unless there is one, and return the stored one. Two schedulers get the same value."""

    def variable(self, name: str) -> str:
        """Return the name of the Airflow variable with this value, for messages."""


class PeerKeys:
    """
    The key pair of *region*, and a key for each peer that the region accepts.

    :param peers: the regions in ``[dr] environments``. No other region gets a key, whatever the state table contains.
    """

    def __init__(self, secrets: SecretStore, store: StateStore, *, region: str, peers: Collection[str]) -> None:
        self._secrets = secrets
        self._store = store
        self._region = region
        self._peers = sorted(set(peers) - {region})
        self._own: KeyPair | None = None

    @property
    def public(self) -> str:
        """The region's public key. :raises ConfigError: the stored private key cannot be used."""
        return self._key_pair().public

    def agree(self) -> tuple[dict[str, SharedKey], str | None]:
        """
        Return the key that is shared with each peer, by region, and why one is missing although its peer has a key.

        A peer that has not published a public key yet is missing without a reason.
        """
        if not self._peers:
            return {}, (
                "values are not compared, because [dr] environments names no other region: set it to the environments "
                "of the DR set in both regions"
            )
        keys, reasons = {}, []
        for peer in self._peers:
            try:
                public = self._store.inventory_key(peer)
            except UnreadableItemError:
                continue  # the agent of *peer* writes it again
            key = self._key_pair().agree(public) if public is not None else None
            if public is None or key is None:
                continue
            name = self._pinned(peer)
            if self._secrets.add_secret(name, public) == public:
                keys[peer] = key
                continue
            reasons.append(
                f"{peer} has another public key than before, so no values are compared with it: if it has a new "
                f"metadata database, delete the Airflow variable {self._secrets.variable(name)} in {self._region}; if "
                f"not, find out what wrote the item INVENTORY#{peer}"
            )
        return keys, "; ".join(reasons) or None

    def pair_with(self, peer: str) -> tuple[KeyPair, str] | None:
        """Return the region's own key pair, and the public key of *peer* that it accepted; None if it has none."""
        public = self._secrets.secret(self._pinned(peer))
        return None if public is None else (self._key_pair(), public)

    def _pinned(self, peer: str) -> str:
        return f"key_of_{peer}_for_{self._region}"

    def _key_pair(self) -> KeyPair:
        if self._own is None:
            name = f"private_key_of_{self._region}"
            stored = self._secrets.secret(name) or self._secrets.add_secret(name, KeyPair.generate().private)
            try:
                self._own = KeyPair(stored)
            except ValueError as error:
                raise ConfigError(
                    f"The Airflow variable {self._secrets.variable(name)} has no private key.",
                    advice="Delete it: the agent makes a new key pair, and the other region has to accept it.",
                ) from error
        return self._own
