from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.io.foreign_responder import ForeignResponders
from handfast.trust.foreign import read_ca
from handfast.trust.foreign_ocsp import MAX_ANSWER_BYTES
from handfast.trust.standing import Standing, Word
from tests.support.ocsp import LOOPBACK, Saying, Site, answer, delegate, index, nonce_of, openssl, site
from tests.support.partners import partner

ACME = partner("Acme")
LEAF, OTHER = ACME.leaf("alice"), ACME.leaf("bob")
CA = read_ca(ACME.issuing.cert_der)


@pytest.fixture
def there() -> Iterator[Site]:
    with site() as made:
        made.reply = lambda asked: answer(LEAF.cert, ACME.issuing, Saying(nonce=nonce_of(asked)))
        yield made


@pytest.fixture
async def responders() -> AsyncIterator[ForeignResponders]:
    made = ForeignResponders(seconds=0.5)
    yield made
    await made.close()


async def ask(responders: ForeignResponders, url: str, leaf: x509.Certificate = LEAF.cert) -> Standing | Refusal:
    said = await responders.ask(url, CA, leaf.serial_number, datetime.now(UTC))
    return said if isinstance(said, Refusal) else said.standing


async def test_a_responder_is_asked(responders: ForeignResponders, there: Site):
    """With another nonce each time, by a form that every responder knows; and it sets us no cookies."""
    there.headers = {"set-cookie": "a=b"}
    for _ in range(2):
        said = await ask(responders, there.url)
        assert isinstance(said, Standing)
        assert said.word is Word.GOOD
    assert len({nonce_of(asked) for asked in there.asked}) == 2
    assert there.fields[1]["content-type"] == "application/ocsp-request"
    assert "cookie" not in there.fields[1]


async def test_an_answer_to_somebody_else_does_not_count(responders: ForeignResponders, there: Site):
    """Recorded yesterday and played back it has another nonce."""
    there.reply = lambda _: answer(LEAF.cert, ACME.issuing, Saying(nonce=b"x" * 32))
    said = await ask(responders, there.url)
    assert isinstance(said, Refusal)
    assert said.reason is Reason.REVOCATION_OCSP_UNUSABLE


@pytest.mark.parametrize("what", ["slow", "long", "redirected", "busy", "nobody", "no url"])
async def test_who_does_not_answer_is_unavailable(responders: ForeignResponders, there: Site, what: str):
    """Late, without end, elsewhere, or not at all; nobody goes where a redirect points."""
    url = there.url
    match what:
        case "slow":
            there.stall = 2.0
        case "long":
            there.reply = lambda _: b"x" * (MAX_ANSWER_BYTES + 1)
        case "redirected":
            there.status, there.headers = 307, {"location": f"{there.url}/elsewhere"}
        case "busy":
            there.status = 503
        case "nobody":
            url = f"http://{LOOPBACK}:1/"
        case _:
            url = "http://[::1"
    said = await ask(responders, url)
    assert isinstance(said, Refusal)
    assert said.reason is Reason.REVOCATION_OCSP_UNAVAILABLE
    assert len(there.asked) == (0 if what in {"nobody", "no url"} else 1)


async def test_openssl_answers(responders: ForeignResponders, tmp_path: Path):
    """Good, revoked, and of what it never heard of nothing; by a delegate of the CA, and with an end or without one."""
    (tmp_path / "index.txt").write_text(index(("V", LEAF.cert), ("R", OTHER.cert)))
    never = ACME.leaf("eve")
    words = {}
    for more in ((), ("-nmin", "5")):
        with openssl(tmp_path, ACME.issuing, delegate(ACME.issuing), *more) as url:
            for leaf in (LEAF, OTHER, never):
                said = await ask(responders, url, leaf.cert)
                assert isinstance(said, Standing), said
                words[more, leaf.cert.serial_number] = said.word
                assert 299 <= said.until - datetime.now(UTC).timestamp() + 1 <= 301
    assert list(words.values()) == [Word.GOOD, Word.REVOKED, Word.UNKNOWN] * 2
