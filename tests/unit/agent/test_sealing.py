"""Values that are sealed for the agent of one other site."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mwaa_dr.agent.fingerprints import KeyPair
from airflow_provider_mwaa_dr.agent.sealing import Envelope, Opener, SealBrokenError, Sealer

ACTIVE, STANDBY, EVIL = KeyPair.generate(), KeyPair.generate(), KeyPair.generate()
ENVELOPE = Envelope(source="blue", target="green", epoch=5, number=17)
SECRET = b"tr0ub4dor"


@settings(max_examples=30)
@given(st.binary(max_size=300))
def test_the_other_site_opens_what_was_sealed(value: bytes) -> None:
    """Any bytes, also none, and those that end with the padding."""
    sealer = Sealer(ACTIVE, STANDBY.public, ENVELOPE)
    opener = Opener(STANDBY, ACTIVE.public, ENVELOPE, sealer.ephemeral_key)
    for each in (value, value + b"\x01", value + b"\x00\x00"):
        assert opener.open("variables", "a", sealer.seal("variables", "a", each)) == each


def test_a_sealed_value_shows_neither_the_value_nor_its_exact_length() -> None:
    """Two seals of one value differ, and so do the keys of two offers."""
    sealer = Sealer(ACTIVE, STANDBY.public, ENVELOPE)
    one, other = sealer.seal("variables", "a", SECRET), sealer.seal("variables", "a", SECRET)
    assert one != other
    assert SECRET not in one
    assert len(sealer.seal("variables", "a", b"short")) == len(one)
    assert Sealer(ACTIVE, STANDBY.public, ENVELOPE).ephemeral_key != sealer.ephemeral_key


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope(source="red", target="green", epoch=5, number=17),
        Envelope(source="blue", target="red", epoch=5, number=17),
        Envelope(source="blue", target="green", epoch=6, number=17),
        Envelope(source="blue", target="green", epoch=5, number=18),
    ],
)
def test_a_value_opens_only_in_its_own_offer(envelope: Envelope) -> None:
    """A writer of the table cannot give it to another epoch, offer or site."""
    sealer = Sealer(ACTIVE, STANDBY.public, ENVELOPE)
    sealed = sealer.seal("variables", "a", SECRET)
    with pytest.raises(SealBrokenError):
        Opener(STANDBY, ACTIVE.public, envelope, sealer.ephemeral_key).open("variables", "a", sealed)


def test_a_value_opens_only_under_its_own_kind_and_name() -> None:
    """A writer of the table cannot exchange two values."""
    sealer = Sealer(ACTIVE, STANDBY.public, ENVELOPE)
    sealed = sealer.seal("variables", "a", SECRET)
    opener = Opener(STANDBY, ACTIVE.public, ENVELOPE, sealer.ephemeral_key)
    for kind, name in (("variables", "b"), ("connections", "a")):
        with pytest.raises(SealBrokenError):
            opener.open(kind, name, sealed)


def test_only_the_pinned_sites_can_seal_and_open() -> None:
    """A writer of the table knows both public keys. It can neither open a value nor make one that is accepted."""
    sealer = Sealer(ACTIVE, STANDBY.public, ENVELOPE)
    sealed = sealer.seal("variables", "a", SECRET)
    for own, other in ((EVIL, ACTIVE), (EVIL, STANDBY), (STANDBY, EVIL), (ACTIVE, STANDBY)):
        with pytest.raises(SealBrokenError):
            Opener(own, other.public, ENVELOPE, sealer.ephemeral_key).open("variables", "a", sealed)
    pretender = KeyPair(EVIL.private)
    pretender.public = ACTIVE.public
    for forger in (EVIL, pretender):
        forged = Sealer(forger, STANDBY.public, ENVELOPE)
        opener = Opener(STANDBY, ACTIVE.public, ENVELOPE, forged.ephemeral_key)
        with pytest.raises(SealBrokenError):
            opener.open("variables", "a", forged.seal("variables", "a", SECRET))


def test_no_changed_byte_is_accepted_and_no_error_shows_a_value() -> None:
    """Each byte of the sealed value is protected; a truncated one and an invalid key are refused, too."""
    sealer = Sealer(ACTIVE, STANDBY.public, ENVELOPE)
    sealed = sealer.seal("variables", "a", SECRET)
    opener = Opener(STANDBY, ACTIVE.public, ENVELOPE, sealer.ephemeral_key)
    changed = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
    for junk in (*changed, b"", sealed[:5], sealed[:12], sealed[:-1], sealed + b"\x00"):
        with pytest.raises(SealBrokenError) as raised:
            opener.open("variables", "a", junk)
        assert SECRET.decode() not in str(raised.value)
    for junk_key in ("", "x25519:", "x25519:zz", f"x25519:{'00' * 32}"):
        with pytest.raises(SealBrokenError):
            Opener(STANDBY, ACTIVE.public, ENVELOPE, junk_key)
