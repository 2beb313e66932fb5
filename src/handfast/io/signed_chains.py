"""A root far away, which never touches this host: what it is asked to sign, and what comes back.

Decides what has to come back, and where it is put, each time as a whole directory by one rename. Refuses to judge certificates:
that is `handfast.trust.ca` and `handfast.trust.delegation`.

`ask` writes requests whose keys are made here, or lie in a token, and `install` takes back what the root's keeper signed: the first
authority, or one that waits for a rotation, below a root that is known here or below a new one. Between the two steps the keys
wait in a directory of their own beside the authority's.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused, require
from handfast.base.spiffe import TrustDomain
from handfast.io import authority_files, files, key_places
from handfast.io.authority_files import alone, staged
from handfast.io.authority_graph import graph
from handfast.io.authority_sources import Place, refuse_existing, refuse_waiting
from handfast.io.ca_certificates import Wanted
from handfast.io.next_authority import SIGNED, forget
from handfast.io.signers import KeyKind
from handfast.trust import ca, ca_bytes
from handfast.trust.delegation import ResponderPlan, is_responder, judge_responder
from handfast.trust.facts import facts, fingerprint, issuer_facts, load, pem, pem_certificates
from handfast.trust.profile import UNREADABLE

REQUEST, RESPONDER_REQUEST = "request.pem", "ocsp-request.pem"
MAX_BETWEEN = 4
NOT_NOW = "let the root revoke an issuing CA when the next one has taken over ('handfast ca status')"


async def ask(place: Place, wanted: Wanted) -> str:
    """Make a key, or use one in a token, and give a request for an issuing CA (PKCS#10, PEM).

    A second request, for who answers OCSP about the issuing CA, is written beside it (`Place.requested`).

    Raises:
        BadInput: one was requested already, or the token, its key or the place cannot be used.
        Unavailable: another process makes one now, or the token or the disk does not answer.
    """
    plan = ca.issuing_plan(place.trust_domain, wanted.constraints, wanted.site)
    with alone(place.data):
        if place.requested.exists():
            raise BadInput(
                "an issuing CA was requested already",
                file=str(place.requested / REQUEST),
                hint=f"have that one signed, or remove {place.requested} and with it the key",
            )
        with staged(place.requested) as stage:
            text = await _request(key_places.put(stage, wanted.key, place.passphrase), plan)
            answering = key_places.put(stage, KeyKind.P256, place.passphrase, key_places.RESPONDER)
            asked = await _request(answering, ResponderPlan(place.trust_domain))
            files.write(stage / RESPONDER_REQUEST, asked.encode())
            files.write(stage / REQUEST, text.encode())
    return text


async def _request(signer: key_places.LocalSigner, plan: ca_bytes.Plan) -> str:
    public = signer.public_key_der
    try:
        tbs = ca_bytes.request_tbs(plan, public)
        return pem(ca_bytes.request(tbs, public, await signer.sign(tbs)), "CERTIFICATE REQUEST")
    finally:
        key_places.close(signer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a root's keeper gave back: issuing CA and root, the CAs between them from below, and who answers OCSP (all DER).

    ``responder_der`` is empty where nobody shall; ``lists`` are the revocation lists, as they came (PEM).
    """

    issuing_der: bytes
    root_der: bytes
    between: tuple[bytes, ...]
    responder_der: bytes
    lists: tuple[bytes, ...]

    @property
    def trust_domain(self) -> TrustDomain:
        """The one that the issuing CA is of.

        Raises:
            BadInput: it names none, or is none.
        """
        return issuer_facts(self.issuing_der).trust_domain

    @property
    def root_fingerprint(self) -> str:
        """The SHA-256 of the root, lower case hex."""
        return fingerprint(self.root_der)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """From the issuing CA up to the root (DER)."""
        return (self.issuing_der, *self.between, self.root_der)


def read_signed(text: bytes, crl: bytes = b"") -> Signed:
    """Read the signed chain: issuing CA, what is between, root and responder in any order, and lists there or in ``crl`` (all PEM).

    Raises:
        BadInput: these certificates are not one chain that ends in one that signed itself, or no list is there.
    """
    ders = list(dict.fromkeys(pem_certificates(text.decode("ascii", "replace"))))
    responders = [der for der in ders if is_responder(der)]
    chain = _ordered([der for der in ders if der not in responders])
    if chain is None or len(responders) > 1 or len(chain) - 2 > MAX_BETWEEN:
        raise BadInput(
            f"the {len(ders)} certificates in it are no chain: one issuing CA and its root are wanted, with all CAs between them",
            hint="put them into one file: cat issuing.pem between.pem root.pem > chain.pem",
        )
    lists = tuple(authority_files.split_lists(text) + authority_files.split_lists(crl))
    if not lists:
        raise BadInput(
            "the root's revocation list is missing",
            key="--root-crl",
            hint="TLS wants one of every CA in a chain; make it with 'openssl ca -gencrl', due after the issuing CA ends",
        )
    responder = responders[0] if responders else b""
    return Signed(
        issuing_der=chain[0], root_der=chain[-1], between=tuple(chain[1:-1]), responder_der=responder, lists=lists
    )


def _ordered(cas: list[bytes]) -> list[bytes] | None:
    """Put CAs into one chain by their names, issuing CA first; None where they are not one. Who signed what is judged later."""
    seen = {der: facts(der) for der in cas}
    by_name = {one.subject: der for der, one in seen.items()}
    named = {one.issuer for one in seen.values() if not one.self_issued}
    ends = [der for der, one in seen.items() if one.subject not in named]
    if len(cas) < 2 or len(by_name) != len(cas) or len(ends) != 1:
        return None
    chain = ends
    while not seen[chain[-1]].self_issued:
        upper = by_name.get(seen[chain[-1]].issuer)
        if upper is None or upper in chain:
            return None
        chain.append(upper)
    return chain if len(chain) == len(cas) else None


def install(place: Place, signed: Signed, now: datetime, confirmed: str = "") -> bool:
    """Put the requested issuing CA in place: as the first one, or beside the one that issues, for a rotation to use.

    ``confirmed`` is the root's fingerprint (SHA-256, hex, colons do not count), as its keeper says it. A root that is here already
    needs none.

    Returns:
        True where it waits for a rotation.

    Raises:
        BadInput: nothing was requested, one waits already, or a file, key or list cannot be used.
        Refused: the root was not confirmed, or root, issuing CA or responder will not do; says everything that is wrong.
        Unavailable: another process makes one now, or the token or the disk does not answer.
    """
    with alone(place.data):
        if not (place.requested / REQUEST).exists():
            raise BadInput(
                "no issuing CA was requested here", file=str(place.requested), hint="begin with 'handfast ca csr'"
            )
        require(_judged(place, signed, now))
        lists = list(_usable_lists(signed, now))
        later = (place.authority / authority_files.ISSUING).exists()
        known = _known_root(place, signed, lists) if later else None
        if known is None:
            _confirm(signed, confirmed)
        if later:
            refuse_waiting(place.authority)
        else:
            refuse_existing(place.authority)
        _put(place.authority / SIGNED if later else place.authority, place, signed, lists)
        if known:
            files.write(known / authority_files.ROOT_CRL, lists[-1].encode())
        forget(place.requested)
    return later


def _judged(place: Place, signed: Signed, now: datetime) -> Refusal | None:
    signer, _ = key_places.open_signer(place.requested, place.passphrase)
    key_places.close(signer)
    root, key, domain = signed.root_der, signer.public_key_der, place.trust_domain
    unfit = ca.judge_root(root, domain, now) or ca.judge_issuing(
        signed.issuing_der, root, key, domain, now, signed.between
    )
    return unfit or (_judged_responder(place, signed, now) if signed.responder_der else None)


def _judged_responder(place: Place, signed: Signed, now: datetime) -> Refusal | None:
    answering, _ = key_places.open_signer(place.requested, place.passphrase, key_places.RESPONDER)
    return judge_responder(signed.responder_der, signed.issuing_der, signed.chain[1], answering.public_key_der, now)


def _confirm(signed: Signed, confirmed: str) -> None:
    said = confirmed.replace(":", "").strip().lower()
    if not hmac.compare_digest(said.encode(), signed.root_fingerprint.encode()):
        evidence = {"root": facts(signed.root_der).subject, "sha256": signed.root_fingerprint}
        raise Refused(Refusal(Reason.AUTHORITY_UNCONFIRMED, evidence))


def _put(directory: Path, place: Place, signed: Signed, lists: list[str]) -> None:
    texts = {
        authority_files.ROOT: pem(signed.root_der),
        authority_files.ISSUING: pem(signed.issuing_der),
        authority_files.ROOT_CRL: lists[-1],
        authority_files.BETWEEN: "".join(map(pem, signed.between)),
        authority_files.BETWEEN_CRLS: "".join(lists[:-1]),
        authority_files.RESPONDER: pem(signed.responder_der) if signed.responder_der else "",
    }
    kept = [key_places.ISSUING, *([key_places.RESPONDER] if signed.responder_der else [])]
    with staged(directory) as stage:
        for name, text in texts.items():
            if text:
                files.write(stage / name, text.encode())
        for held in (key_places.file_of(place.requested, name) for name in kept):
            files.write_secret(stage / held.name, files.read_secret(held))


def _known_root(place: Place, signed: Signed, lists: list[str]) -> Path | None:
    """Give the directory of this root, where it is here already; its list must leave alone those that issue below it.

    Raises:
        BadInput: it does not, or is older than the one here, or those that are here are of another trust domain.
    """
    ours = issuer_facts(authority_files.read_certificate(place.authority / authority_files.ISSUING)).trust_domain
    if ours != place.trust_domain:
        raise BadInput(f"the authority here is of {ours}, not of {place.trust_domain}", file=str(place.authority))
    nodes = graph(place.authority)
    root = next((one for one in nodes if one.fingerprint == signed.root_fingerprint), None)
    revoked = {f"{one.serial_number:x}" for text in lists for one in x509.load_pem_x509_crl(text.encode())}
    retired = {one.directory for one in nodes if one.kind == "issuing" and one.key_place == "missing"}
    for one in nodes:
        if root and one.kind != "root" and one.directory not in retired and one.serial.lstrip("0") in revoked:
            raise BadInput(f"this revocation list revokes {one.subject}, which is here", key="--root-crl", hint=NOT_NOW)
    if root is None:
        return None
    held = Path(root.directory) / authority_files.ROOT_CRL
    if held.exists():
        known = x509.load_pem_x509_crl(authority_files.root_crl(held, signed.root_der).encode())
        refuse_older(x509.load_pem_x509_crl(lists[-1].encode()), known.last_update_utc, key="--root-crl")
    return Path(root.directory)


# Revocation lists


def refuse_older(new: x509.CertificateRevocationList, known: datetime, *, key: str = "") -> None:
    """Refuse a list that is older than the newest one here, of ``known``: what was revoked since would be good again.

    Raises:
        BadInput: it is.
    """
    if new.last_update_utc < known:
        raise BadInput(
            f"this revocation list is of {new.last_update_utc:%Y-%m-%d %H:%M}, and older than the one that is here",
            key=key,
            hint=f"have its keeper sign a new one; here is that of {known:%Y-%m-%d %H:%M}",
        )


def _usable_lists(signed: Signed, now: datetime) -> Iterator[str]:
    """Give one list of each CA above the issuing one, from below (PEM): nobody here can renew it, so it has to count for as long.

    Raises:
        BadInput: one is missing, cannot be read, is another's, revokes the CA below it, or ends too early.
    """
    read = [read_list(text) for text in signed.lists]
    ends = load(signed.issuing_der).not_valid_after_utc
    for below, upper in pairwise(signed.chain):
        of = [one for one in read if authority_files.is_list_of(one, upper)]
        if not of:
            raise _missing(upper, signed)
        listed = max(of, key=lambda one: one.last_update_utc)
        if listed.get_revoked_certificate_by_serial_number(load(below).serial_number) is not None:
            whom = "the issuing CA" if below == signed.issuing_der else facts(below).subject
            raise BadInput(f"this revocation list revokes {whom}", key="--root-crl")
        check_due(listed, ends, now)
        yield pem(listed.public_bytes(Encoding.DER), "X509 CRL")


def _missing(upper: bytes, signed: Signed) -> BadInput:
    if upper == signed.root_der:
        return BadInput("this revocation list is not the root's", key="--root-crl")
    return BadInput(
        f"the revocation list of {facts(upper).subject} is missing, which stands between root and issuing CA",
        key="--root-crl",
        hint="TLS wants one of every CA in a chain: without it each client would be refused at the first revocation",
    )


def read_list(text: bytes) -> x509.CertificateRevocationList:
    """Read a revocation list (PEM), and judge nothing.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        return x509.load_pem_x509_crl(text)
    except UNREADABLE as error:
        raise BadInput("the root's revocation list cannot be read", key="--root-crl", hint="it is PEM") from error


def check_due(listed: x509.CertificateRevocationList, wanted: datetime, now: datetime) -> None:
    """Check that a list speaks of all certificates, and counts from ``now`` until ``wanted``, when the last issuing CA below it ends.

    Raises:
        BadInput: it does not.
    """
    begin, end = listed.last_update_utc, listed.next_update_utc
    if begin > now or (end is not None and end < wanted):
        raise BadInput(
            f"this revocation list does not count from now until the issuing CA ends at {wanted:%Y-%m-%d}",
            key="--root-crl",
            hint="nobody here can renew it, and with a stale one every client is refused: let its CA sign one due later",
        )
    if any(one.critical for one in listed.extensions):
        raise BadInput(
            "this revocation list has a critical extension: it is not one of all certificates", key="--root-crl"
        )
