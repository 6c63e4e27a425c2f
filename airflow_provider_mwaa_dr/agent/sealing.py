"""
Seals values for the agent of one other site.

The construction is that of HPKE in its mode Auth (RFC 9180, section 4.1): two X25519 exchanges, the recipient's pinned
key with a key that is made for this offer, and with the sender's own key. HKDF-SHA256 derives a key of AES-256-GCM from
both. Only the recipient can open a value, and only the sender can have sealed it: a writer of the table can do neither.

Source, target, epoch, number of the offer, kind and name are associated data. So a value cannot be opened under another
name, in another epoch, or as part of another offer.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from airflow_provider_mwaa_dr.agent.fingerprints import KeyPair

_INFO = b"mwaa-dr settings 1 "
_NONCE_BYTES = 12
_BLOCK = 64
"""A value is padded to a multiple of so many bytes, because the length of a sealed value can be read."""
_PAD = b"\x00"


class SealBrokenError(ValueError):
    """A value was not sealed by the expected site for this site, or it was changed. Has no part of the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """The associated data that all values of one offer have in common."""

    source: str
    target: str
    epoch: int
    number: int

    def of(self, kind: str, name: str) -> bytes:
        """Return the associated data of one value."""
        return json.dumps([self.source, self.target, self.epoch, self.number, kind, name]).encode()


class Sealer:
    """
    Seals the values of one offer.

    :param own: the key pair of the sender.
    :param other: the pinned public key of the recipient.
    :ivar ephemeral_key: the public key that the recipient needs.
    :raises ValueError: *other* is no public key.
    """

    def __init__(self, own: KeyPair, other: str, envelope: Envelope) -> None:
        once = KeyPair.generate()
        self.ephemeral_key = once.public
        self._envelope = envelope
        self._key = _derive(once.exchange(other) + own.exchange(other), own.public, other, once.public)

    def seal(self, kind: str, name: str, value: bytes) -> bytes:
        """Return a value as only the recipient can open it."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._key).encrypt(nonce, _padded(value), self._envelope.of(kind, name))


class Opener:
    """
    Opens the values of one offer.

    :param own: the key pair of the recipient.
    :param other: the pinned public key of the sender.
    :param ephemeral_key: the public key in the offer.
    :raises SealBrokenError: *ephemeral_key* is no public key.
    """

    def __init__(self, own: KeyPair, other: str, envelope: Envelope, ephemeral_key: str) -> None:
        try:
            secret = own.exchange(ephemeral_key) + own.exchange(other)
        except ValueError as error:
            raise SealBrokenError("not a public key") from error
        self._envelope = envelope
        self._key = _derive(secret, other, own.public, ephemeral_key)

    def open(self, kind: str, name: str, sealed: bytes) -> bytes:
        """Return a value. :raises SealBrokenError: it was not sealed for this, or it was changed."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return _without_padding(AESGCM(self._key).decrypt(nonce, text, self._envelope.of(kind, name)))
        except (InvalidTag, ValueError) as error:
            raise SealBrokenError("not sealed for this") from error


def _derive(secret: bytes, sender: str, recipient: str, ephemeral: str) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    info = _INFO + json.dumps([sender, recipient, ephemeral]).encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


def _padded(value: bytes) -> bytes:
    return value + b"\x01" + _PAD * (-(len(value) + 1) % _BLOCK)


def _without_padding(padded: bytes) -> bytes:
    value = padded.rstrip(_PAD)
    if not value.endswith(b"\x01"):
        raise ValueError("no padding")
    return value[:-1]
