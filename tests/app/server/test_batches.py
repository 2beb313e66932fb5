"""Many certificates in one request: each as if it had come alone."""

import asyncio
from typing import Any

import msgspec
import pytest
from cryptography import x509

from handfast.app.client import Api
from handfast.app.server.batch_messages import MOST_IN_BATCH, CertificateBatch, CertificateBatchAnswer
from handfast.app.server.certificates import Certificates
from handfast.app.server.messages import ENCODER, CertificateRequest
from handfast.base.refusal import BadInput
from handfast.io.credentials import new_key
from handfast.trust.facts import facts, pem_certificates
from tests.app.sites import DOMAIN, Site, problem, raw

PATH = "/v1/certificates/batches"


def asked(name: str, **more: Any) -> msgspec.Raw:
    return msgspec.Raw(ENCODER.encode(CertificateRequest(name=name, csr=new_key().csr_pem, **more)))


async def batch(api: Api, *requests: msgspec.Raw) -> CertificateBatchAnswer:
    return await api.call("POST", PATH, CertificateBatchAnswer, CertificateBatch(requests=list(requests)))


def codes(answer: CertificateBatchAnswer) -> list[str]:
    """Give what became of each: the name, or the problem's code."""
    return [
        one.problem.code if one.problem else one.certificate.identity.removeprefix(f"spiffe://{DOMAIN}/")
        for one in answer.results
        if one.problem or one.certificate
    ]


async def kinds(site: Site) -> list[tuple[str, str]]:
    """Give the events about workloads, in the order of the ledger: kind, and name or identity."""
    events = (await site.operator.send("GET", "/v1/events")).json()["events"]
    named = [(one["kind"], one.get("name") or one.get("identity", "")) for one in events]
    return [(kind, name) for kind, name in named if "handfast/" not in name and kind.startswith("certificate.")]


async def test_a_batch_is_answered_in_its_order(here: Site):
    """Each certificate is of its own key and names, and with the issuer that it points to it is a chain."""
    keys = [new_key() for _ in range(MOST_IN_BATCH)]
    requests = [
        msgspec.Raw(ENCODER.encode(CertificateRequest(name=f"w{number}", csr=key.csr_pem, dns=[f"w{number}.internal"])))
        for number, key in enumerate(keys)
    ]
    answer = await batch(here.operator, *requests)
    assert codes(answer) == [f"w{number}" for number in range(MOST_IN_BATCH)]
    assert answer.bundle == here.bundle
    assert len(answer.issuers) == 1
    for number, (key, one) in enumerate(zip(keys, answer.results, strict=True)):
        assert one.certificate
        leaf, issuing = map(
            facts, pem_certificates(one.certificate.certificate + answer.issuers[one.certificate.issuer])
        )
        assert (leaf.serial, leaf.dns_sans) == (one.certificate.serial, (f"w{number}.internal",))
        assert leaf.window.not_after == one.certificate.not_after
        csr = x509.load_pem_x509_csr(key.csr_pem.encode())
        held = x509.load_pem_x509_certificate(one.certificate.certificate.encode())
        assert held.public_key() == csr.public_key()
        held.verify_directly_issued_by(x509.load_pem_x509_certificate(answer.issuers[0].encode()))
        assert issuing.is_ca
    assert len({one.certificate.serial for one in answer.results if one.certificate}) == MOST_IN_BATCH


async def test_one_bad_request_fails_alone(here: Site):
    """What is refused, what is malformed and what cannot be read have each their problem; the others their certificate."""
    await here.apply()
    bad_csr = msgspec.Raw(ENCODER.encode(CertificateRequest(name="b", csr="x")))
    answer = await batch(
        here.operator,
        asked("payments"),
        asked("payments", dns=["elsewhere.internal"]),
        bad_csr,
        msgspec.Raw(b'{"name": "c"}'),
        msgspec.Raw(b'{"name": "", "csr": ""}'),
        msgspec.Raw(b"17"),
        asked("handfast/server"),
        asked("../x"),
        asked("payments"),
    )
    refused = [
        "issuance.name-not-allowed",
        "bad-input",
        "bad-input",
        "bad-input",
        "bad-input",
        "entry.reserved-name",
        "bad-input",
    ]
    assert codes(answer) == ["payments", *refused, "payments"]
    assert all(bool(one.certificate) != bool(one.problem) for one in answer.results)
    problems = [one.problem for one in answer.results if one.problem]
    assert "csr" in problems[2].detail
    assert all(one.status >= 400 and one.title and one.type == f"urn:handfast:{one.code}" for one in problems)


async def test_a_batch_leaves_the_traces_of_single_requests(here: Site):
    """Inventory and events are those of the same requests, one by one."""
    await here.apply()
    wanted = ("payments", {}), ("payments", {"ttl_seconds": 7200}), ("free", {})
    for name, more in wanted:
        await raw(here.operator, "POST", "/v1/certificates", bytes(asked(name, **more)))
    alone = await kinds(here)
    await batch(here.operator, *(asked(name, **more) for name, more in wanted))
    assert sorted((await kinds(here))[len(alone) :]) == sorted(alone)
    assert len(alone) == 3


@pytest.mark.parametrize("count", [0, MOST_IN_BATCH + 1])
async def test_a_batch_is_bounded(count: int, here: Site):
    """None, and more than a hundred, are no batch: nothing is issued."""
    with pytest.raises(BadInput):
        await batch(here.operator, *([asked("a")] * count))
    assert not await kinds(here)


async def test_one_request_of_a_batch_is_bounded_as_one_alone(here: Site):
    """A long CSR, or many names, are refused by the same bounds."""
    long_csr = msgspec.Raw(ENCODER.encode(CertificateRequest(name="a", csr="x" * 16385)))
    many = asked("a", dns=[f"d{number}.internal" for number in range(101)])
    single = [problem(await raw(here.operator, "POST", "/v1/certificates", bytes(one))) for one in (long_csr, many)]
    assert single == [(400, "bad-input")] * 2
    assert codes(await batch(here.operator, long_csr, many)) == ["bad-input"] * 2


@pytest.mark.parametrize("deep", [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000])
async def test_a_batch_that_is_nested_deep_is_bad_input(deep: bytes, here: Site):
    """Requests are kept as they are until each is read: no depth of them breaks the reader."""
    response = await raw(here.operator, "POST", PATH, b'{"requests": [' + deep + b"]}")
    assert response.status_code == 400 or response.json()["results"][0]["problem"]["code"] == "bad-input"


async def test_a_fault_is_no_problem_document(here: Site, monkeypatch: pytest.MonkeyPatch):
    """What nobody foresaw fails the request, after all that was begun has come to its end."""
    issue, ended = Certificates.issue, []

    async def faulty(self: Certificates, caller: Any, request: Any, body: CertificateRequest) -> Any:
        if body.name == "odd":
            raise LookupError
        answer = await issue(self, caller, request, body)
        ended.append(body.name)
        return answer

    monkeypatch.setattr(Certificates, "issue", faulty)
    response = await raw(
        here.operator, "POST", PATH, ENCODER.encode({"requests": [asked("odd"), asked("a"), asked("b")]})
    )
    assert response.status_code == 500
    assert sorted(ended) == ["a", "b"]


async def test_batches_that_come_at_once_do_not_mix(here: Site):
    """Each caller gets what it asked for, and no serial is given twice."""
    answers = await asyncio.gather(
        *(batch(here.operator, *(asked(f"{letter}{number}") for number in range(20))) for letter in "abcd")
    )
    assert [codes(one) for one in answers] == [[f"{letter}{number}" for number in range(20)] for letter in "abcd"]
    serials = [one.certificate.serial for answer in answers for one in answer.results if one.certificate]
    assert len(set(serials)) == 80
