"""
Compares secrets of two regions so that a reader of the table cannot guess them.

A reader of the table could try a list of passwords against a digest, also against a keyed digest if the key is in the
table. The two agents therefore agree on a key that is in no table (X25519). Each agent publishes its public key;
:mod:`airflow_provider_mwaa_dr.agent.peer_keys` stores the private key and decides which public keys are accepted.

A reader of the table learns that a value changed, when it changed, and whether it is the same in both regions. A writer
learns the same, unless it replaces a region's public key before the other region has seen it for the first time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


_LASTING = "x25519:"
"""A public key begins with it. Keys of earlier versions do not: they changed whenever a scheduler started."""
_KEY_BYTES = 32
"""The length of a private key: X25519 uses any such bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedKey:
    """
    A key that only two regions have.

    :param id: the same in both regions; it reveals nothing about the key.
    """

    id: str
    secret: bytes

    def fingerprint(self, kind: str, name: str, value: str) -> str:
        """Return a text that is equal in both regions if the value is; equal values of different names differ in it."""
        text = json.dumps([kind, name, value]).encode()
        return hmac.new(self.secret, text, hashlib.sha256).hexdigest()[:16]


class KeyPair:
    """
    One region's private and public key.

    :param private: the private key, as :attr:`private` returns it.
    :ivar private, public: the keys as text.
    :raises ValueError: *private* is no private key.
    """

    def __init__(self, private: str) -> None:
        # Airflow depends on cryptography for its Fernet keys. The import is slow, and every process loads the plugin.
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415

        self.private = private
        self._private: X25519PrivateKey = X25519PrivateKey.from_private_bytes(bytes.fromhex(private))
        self.public = _LASTING + self._private.public_key().public_bytes_raw().hex()

    @classmethod
    def generate(cls) -> KeyPair:
        """Return a new key pair."""
        return cls(secrets.token_hex(_KEY_BYTES))

    def exchange(self, other: str) -> bytes:
        """
        Return the secret of an X25519 exchange with the owner of the public key *other*.

        :raises ValueError: *other* is no public key, or one of an earlier version, which does not last.
        """
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey  # noqa: PLC0415

        if not other.startswith(_LASTING):
            raise ValueError("not a lasting public key")
        public = X25519PublicKey.from_public_bytes(bytes.fromhex(other.removeprefix(_LASTING)))
        return self._private.exchange(public)

    def agree(self, other: str) -> SharedKey | None:
        """
        Return the key shared with the region whose public key is *other*.

        None if *other* is no public key, or one of an earlier version, which does not last.
        """
        try:
            shared = self.exchange(other)
        except ValueError:
            return None
        both = json.dumps(sorted((self.public, other))).encode()
        return SharedKey(
            id=hashlib.sha256(both).hexdigest()[:16], secret=hmac.digest(shared, b"mwaa-dr inventory " + both, "sha256")
        )
