"""A new root that is elsewhere, for a platform that runs."""

from __future__ import annotations

import pytest

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from handfast.base.spiffe import TrustDomain
from handfast.io.authority_sources import Place, generate
from handfast.io.ca_certificates import DEFAULT
from handfast.io.generations import Generations
from handfast.io.next_authority import waits
from handfast.io.signed_chains import install
from handfast.io.signers import KeyKind
from handfast.trust import rotation
from handfast.trust.rotation import Step, Verb
from tests.io.authority_parts import (
    DOMAIN,
    now,
    opened,
    openssl_needed,
    signed,
)
from tests.support.offline_root import OfflineRoot


def begun(generations: Generations) -> tuple[rotation.Generation, ...]:
    """Begin the rotation of the root."""
    rows = rotation.begin(generations.rows, now(), root=True)
    assert isinstance(rows, tuple)
    generations.check_root(2)
    return rows


@openssl_needed
async def test_a_new_root_that_is_elsewhere_waits_for_a_rotation(place: Place, root: OfflineRoot):
    """It is confirmed by its fingerprint; nothing of what issues is touched; a rotation of the root takes both, and can do so twice."""
    generate(place, DEFAULT, KeyKind.P256, now())
    before = {path.name: path.read_bytes() for path in place.authority.iterdir()}
    back = await signed(place, root)
    with pytest.raises(Refused) as caught:
        install(place, back, now())
    assert caught.value.refusal.reason is Reason.AUTHORITY_UNCONFIRMED
    assert install(place, back, now(), root.fingerprint) is True
    assert {path.name: path.read_bytes() for path in place.authority.iterdir() if path.is_file()} == before

    generations = Generations(place.authority, DOMAIN, None)
    generations.settle(generations.first(now()))
    rows = begun(generations)
    made = generations.make(rows[-1], rows, now())
    assert not waits(place.authority)
    assert generations.make(rows[-1], rows, now()) == made
    generations.settle(rotation.taken(made, Step(Verb.PUBLISH, 2), now()))
    assert generations.roots == (opened(place).root_der, back.root_der)
    assert generations.delivered[1].issuing_der == back.issuing_der
    assert len(generations.root_crls()) == 2
    assert not (place.authority / "generations" / "0002" / "root-key.pem").exists()
    generations.settle(rotation.taken(generations.rows, Step(Verb.BACK, 2), now()))
    assert generations.current.root_der == opened(place).root_der


@openssl_needed
async def test_a_rotation_of_the_issuing_ca_does_not_take_a_new_root(place: Place, root: OfflineRoot):
    """Nobody would trust it yet: it is said before anything is begun, with what to do."""
    generate(place, DEFAULT, KeyKind.P256, now())
    install(place, await signed(place, root), now(), root.fingerprint)
    generations = Generations(place.authority, DOMAIN, None)
    generations.settle(generations.first(now()))
    with pytest.raises(BadInput, match="of another root") as caught:
        generations.check_root(1)
    assert "rotate --root" in caught.value.hint
    assert waits(place.authority)


@openssl_needed
async def test_one_waits_at_a_time(place: Place, root: OfflineRoot):
    """A second one would take the first one's place, and its key."""
    generate(place, DEFAULT, KeyKind.P256, now())
    install(place, await signed(place, root), now(), root.fingerprint)
    again = await signed(place, root)
    with pytest.raises(BadInput, match="waits for a rotation already"):
        install(place, again, now(), root.fingerprint)
    assert place.requested.exists()


@openssl_needed
async def test_an_authority_of_another_trust_domain_is_not_followed(place: Place, root: OfflineRoot):
    """Whoever mixes up two data directories is told at once, not by a server that does not start."""
    generate(place, DEFAULT, KeyKind.P256, now())
    other = Place(data=place.data, trust_domain=TrustDomain("example.com"))
    with pytest.raises(BadInput, match=r"is of example\.org"):
        install(other, await signed(other, root), now(), root.fingerprint)
