"""What we sign, in the eyes of another reader of the rules: pkilint, RFC 5280 and RFC 6960.

A finding that stands is either a fault of ours, to be mended, or one that we accept for a reason that is written here.
"""

import secrets
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as other_ocsp
from pkilint import loader, pkix
from pkilint.pkix import certificate, crl, extension, name, ocsp
from pkilint.validation import ValidationFindingSeverity, Validator

from handfast.base.refusal import require
from handfast.base.windows import Window
from handfast.io.authorities import Authority, create_authority
from handfast.io.authority_files import read_certificate
from handfast.io.ca_certificates import Wanted
from handfast.trust import leaf, revocation
from handfast.trust.addresses import StatusSite
from handfast.trust.csr import read_csr
from handfast.trust.lint import compare, lint
from handfast.trust.ocsp import (
    CertificateStatus,
    Good,
    RevokedAt,
    Unknown,
    assemble_response,
    parse_request,
    plan_response,
    tbs_response,
)
from handfast.trust.plan import LeafRequest, plan, serial_from
from handfast.trust.profile import LEAF, MUST_STAPLE, RESPONDER, Profile
from handfast.trust.revocation import CrlOutline, RevocationReason, Revoked, crl_plan
from tests.support.clock import START, FakeClock
from tests.trust.material import DOMAIN, csr_der, private_key

NOW = START
SITE = StatusSite("http://status.example.org:7481", shards=2)

ACCEPTED = {
    (
        "pkix.invalid_uri_syntax",
        "spiffe://",
    ): "pkilint knows no scheme but those of the web; SPIFFE-ID section 2 makes this one",
    (
        "pkix.invalid_domain_name_syntax",
        "*.",
    ): "RFC 5280 section 4.2.1.6 leaves wildcards open; RFC 6125 section 6.4.3 is what TLS goes by",
}
"""By code of the finding and beginning of the value that it is about: why it stays."""


class Document(NamedTuple):
    """Something that we sign: what kind it is, and its DER."""

    kind: str
    der: bytes


def at_once(signing: Coroutine[Any, Any, bytes]) -> bytes:
    """Finish what does not wait, without an event loop, which would want a socket."""
    try:
        signing.send(None)
    except StopIteration as done:
        return bytes(done.value)
    raise AssertionError("a key in this process does not wait")


class Signed:
    """One of each kind of document, by a fresh authority."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority: Authority = create_authority(directory, DOMAIN, FakeClock(), None, Wanted(site=SITE))

    def everything(self) -> dict[str, Document]:
        made = self.authority
        return {
            "root": Document("root", made.root_der),
            "issuing": Document("issuing", made.issuing_der),
            "CA responder": Document("responder", read_certificate(self.directory / "ocsp.pem")),
            **{f"leaf, {key}": Document("leaf", self.leaf(key)) for key in ("p256", "p384", "ed25519", "rsa2048")},
            "leaf, DNS names": Document("leaf", self.leaf(dns=("a.internal", "*.b.internal"))),
            "leaf, long name": Document("leaf", self.leaf(identity=f"team/{'x' * 200}")),
            "leaf, status": Document("leaf", self.leaf(status=SITE)),
            "leaf, must staple": Document("leaf", self.leaf(status=SITE, profile=MUST_STAPLE)),
            "responder": Document("responder", self.leaf(profile=RESPONDER, identity="handfast/ocsp")),
            **{f"CRL, {kind}": Document("crl", der) for kind, der in self.lists()},
            "CRL, root": Document("crl", self.root_crl()),
            **{f"OCSP, {kind}": Document("ocsp", der) for kind, der in self.answers()},
        }

    def signed(self, tbs: bytes) -> bytes:
        return leaf.assemble(tbs, at_once(self.authority.signer.sign(tbs)))

    def leaf(
        self,
        key: str = "p256",
        *,
        identity: str = "payments",
        dns: tuple[str, ...] = (),
        status: StatusSite | None = None,
        profile: Profile = LEAF,
    ) -> bytes:
        csr = require(read_csr(csr_der(private_key(key)), profile))
        asked = LeafRequest(
            identity=DOMAIN.id(identity), csr=csr, dns=dns, ttl=timedelta(days=1), reserved=True, profile=profile
        )
        serial = serial_from(secrets.token_bytes(20))
        planned = plan(asked, self.authority.issuer_facts, workload=None, now=NOW, serial=serial, status=status)
        linted = require(lint(leaf.tbs(require(planned)), require(planned)))
        der = self.signed(linted.tbs)
        assert compare(der, linted) is None
        return der

    def lists(self) -> Iterator[tuple[str, bytes]]:
        issuer = self.authority.issuer_facts
        revoked = [
            Revoked(
                serial=f"{number + 1:040x}", fingerprint="", at=NOW, reason=reason, not_after=NOW + timedelta(days=1)
            )
            for number, reason in enumerate(RevocationReason)
        ]
        for kind, entries in (("empty", []), ("every reason", revoked)):
            yield kind, self.signed(revocation.tbs(crl_plan(entries, issuer, number=7, now=NOW)))
        window = Window(NOW, NOW + timedelta(days=1))
        place, changes = SITE.crl(issuer.key_id, 1), SITE.delta(issuer.key_id, 1)
        entry = revocation.entry("01", int(NOW.timestamp()), RevocationReason.SUPERSEDED)
        for kind, outline in (
            ("one of several", CrlOutline(issuer=issuer, number=7, window=window, places=(place,), freshest=changes)),
            ("changes", CrlOutline(issuer=issuer, number=8, window=window, places=(place,), base=7)),
        ):
            before, after = revocation.around(outline, len(entry))
            yield kind, self.signed(before + entry + after)

    def root_crl(self) -> bytes:
        return x509.load_pem_x509_crl(self.authority.root_crl_pem.encode()).public_bytes(Encoding.DER)

    def answers(self) -> Iterator[tuple[str, bytes]]:
        statuses: dict[str, CertificateStatus] = {
            "good": Good(),
            "revoked": RevokedAt(NOW, RevocationReason.KEY_COMPROMISE),
            "revoked, unspecified": RevokedAt(NOW, RevocationReason.UNSPECIFIED),
            "unknown": Unknown(),
        }
        responder = self.leaf(profile=RESPONDER, identity="handfast/ocsp")
        of = x509.load_der_x509_certificate(self.leaf())
        issuer = x509.load_der_x509_certificate(self.authority.issuing_der)
        builder = other_ocsp.OCSPRequestBuilder().add_certificate(of, issuer, hashes.SHA1())
        request = builder.add_extension(x509.OCSPNonce(bytes(16)), critical=False).build()
        asked = parse_request(request.public_bytes(Encoding.DER))
        key = x509.SubjectKeyIdentifier.from_public_key(x509.load_der_x509_certificate(responder).public_key()).digest
        for kind, status in statuses.items():
            planned = plan_response(asked, [status], responder=key, now=NOW, until=NOW + timedelta(days=1))
            tbs = tbs_response(planned)
            signature = at_once(self.authority.signer.sign(tbs))
            yield kind, assemble_response(tbs, self.authority.issuer_facts.algorithm.identifier, signature, responder)


# pkilint


def _certificates() -> Validator:
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


def _decoders() -> list[Validator]:
    return [
        pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
        pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
    ]


def _lists() -> Validator:
    return crl.create_pkix_crl_validator_container(
        _decoders(),
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )


def _answers() -> Validator:
    return ocsp.create_pkix_ocsp_response_validator_container([ocsp.create_response_decoder(), *_decoders()], [])


READERS: dict[str, tuple[Callable[[], loader.DocumentLoader], Callable[[], Validator]]] = {
    "crl": (loader.RFC5280CertificateListDocumentLoader, _lists),
    "ocsp": (loader.RFC6960OCSPResponseDocumentLoader, _answers),
}
CERTIFICATE = (loader.RFC5280CertificateDocumentLoader, _certificates)


def findings(document: Document) -> set[tuple[str, str]]:
    """Give what pkilint has to say, down to notices: code, and the value that it is about."""
    load, rules = READERS.get(document.kind, CERTIFICATE)
    root = load().load_der_document(document.der).root
    return {
        (found.finding.code, str(result.node.pdu))
        for result in rules().validate(root)
        for found in result.finding_descriptions
        if found.finding.severity <= ValidationFindingSeverity.NOTICE
    }


def accepting(finding: tuple[str, str]) -> tuple[str, str] | None:
    """Give the entry that accepts a finding."""
    code, value = finding
    return next((entry for entry in ACCEPTED if entry[0] == code and value.startswith(entry[1])), None)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    """Give one of each that is signed here."""
    return Signed(tmp_path_factory.mktemp("signed") / "authority").everything()


def test_nothing_is_found_but_what_is_accepted(everything: dict[str, Document]):
    """Certificates, revocation lists and OCSP answers keep the rules; and each exception that is written here is needed."""
    found = {title: findings(document) for title, document in everything.items()}
    left = {title: open_ for title, seen in found.items() if (open_ := {one for one in seen if not accepting(one)})}
    assert left == {}
    assert {accepting(one) for seen in found.values() for one in seen} == set(ACCEPTED)


@pytest.mark.parametrize(
    ("title", "whole", "damaged"),
    [
        ("leaf, p256", "0603551d13", "0603551d12"),  # basicConstraints becomes issuerAltName
        ("CRL, every reason", "0603551d14", "0603551d15"),  # the list's number becomes a reason
        ("OCSP, revoked", "0a0100a0", "0a0104a0"),  # a success becomes the status that no answer has
    ],
)
def test_the_reader_is_not_blind(everything: dict[str, Document], title: str, whole: str, damaged: str):
    """A fault in any kind of document is found."""
    kind, der = everything[title]
    assert bytes.fromhex(whole) in der
    worse = Document(kind, der.replace(bytes.fromhex(whole), bytes.fromhex(damaged)))
    assert {one for one in findings(worse) if not accepting(one)}
