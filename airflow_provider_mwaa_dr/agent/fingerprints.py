"""
Compares secrets of two regions so that a reader of the table cannot guess them.

A reader of the table could try a list of passwords against a digest, also against a keyed digest if the key is in the
table. The two agents therefore agree on a key that is in no table (X25519). Each agent publishes its public key, and
its private key never leaves the memory of the scheduler. A scheduler that starts has a new key pair, and both regions
then compute their fingerprints again with the new shared key.

A reader of the table learns that a value changed, when it changed, and whether it is the same in both regions. A writer
that replaces an agent's items could learn more. Only the environments' roles have this right, each for its own region.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


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
    """One region's private and public key; each scheduler that starts makes new ones."""

    def __init__(self) -> None:
        # Airflow depends on cryptography for its Fernet keys. The import is slow, and every process loads the plugin.
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415

        self._private: X25519PrivateKey = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw().hex()

    def agree(self, other: str) -> SharedKey | None:
        """Return the key shared with the region whose public key is *other*; None if *other* is not a public key."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey  # noqa: PLC0415

        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(other)))
        except ValueError:
            return None
        both = json.dumps(sorted((self.public, other))).encode()
        return SharedKey(
            id=hashlib.sha256(both).hexdigest()[:16], secret=hmac.digest(shared, b"mwaa-dr inventory " + both, "sha256")
        )
