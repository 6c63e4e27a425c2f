"""
Comparing secrets between two regions without anybody being able to guess them.

A digest of a password, and a keyed one whose key lies beside it, can be tried against a list of passwords by whoever
may read the table. So the two agents agree on a key that is in no table (X25519): each publishes half of it, which is
of no use without the other half of either, and that never leaves the memory of a scheduler. A scheduler that starts has
a new half, and the fingerprints of both regions are made anew under the new key.

What a reader of the table learns: that a value changed, when it did, and whether it is the same in both regions.
Whoever may write the table in the place of an agent could learn more; the roles of the environments may do so, each for
its own region.
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
    A key that two regions have and nobody else.

    :param id: the same on both sides; tells nothing of the key.
    """

    id: str
    secret: bytes

    def fingerprint(self, kind: str, name: str, value: str) -> str:
        """Return what is equal on both sides if the value is; two equal values of different names have two."""
        text = json.dumps([kind, name, value]).encode()
        return hmac.new(self.secret, text, hashlib.sha256).hexdigest()[:16]


class KeyPair:
    """One region's half of the keys that it agrees on; new in every scheduler that starts."""

    def __init__(self) -> None:
        # Airflow's own dependency, for its Fernet keys. It costs something to import, and the plugin is everywhere.
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415

        self._private: X25519PrivateKey = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw().hex()

    def agree(self, other: str) -> SharedKey | None:
        """Return the key shared with the region whose public half is *other*; None when that is no such half."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey  # noqa: PLC0415

        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(other)))
        except ValueError:
            return None
        both = json.dumps(sorted((self.public, other))).encode()
        return SharedKey(
            id=hashlib.sha256(both).hexdigest()[:16], secret=hmac.digest(shared, b"mwaa-dr inventory " + both, "sha256")
        )
