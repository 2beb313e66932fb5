"""Where an authority comes from, other than from nowhere at the first start: a chosen key, a root that exists, a root far away.

Decides the order of the steps and which files appear, each time as a whole directory by one rename. Refuses to judge
certificates: that is `handfast.trust.ca`.

A root far away never touches this host: `ask` writes a request whose key is made here, or lies in a token, and `install`
takes back what the root's keeper signed. Between the two the key waits in a directory of its own beside the authority's.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused, require
from handfast.base.spiffe import TrustDomain
from handfast.io import authorities, files, key_places, sealed
from handfast.io.authorities import OpenRoot
from handfast.io.authority_graph import graph
from handfast.io.ca_certificates import Wanted
from handfast.io.sealed import Passphrase
from handfast.io.signers import AuthorityKey, KeyKind, public_der
from handfast.trust import ca
from handfast.trust.algorithms import PublicKey
from handfast.trust.facts import facts, fingerprint, issuer_facts, pem, pem_certificates
from handfast.trust.profile import UNREADABLE

REQUEST, SIGNED = "request.pem", "signed"
_CRL = b"-----BEGIN X509 CRL-----"
_NOT_NOW = "let the root revoke an issuing CA when the next one has taken over ('handfast ca status')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an authority is put: the platform's data directory, for which trust domain, and what seals its keys."""

    data: Path
    trust_domain: TrustDomain
    passphrase: Passphrase | None = field(default=None, repr=False)

    @property
    def authority(self) -> Path:
        """The authority's own directory."""
        return self.data / "authority"

    @property
    def requested(self) -> Path:
        """Where a requested issuing CA waits for its certificate."""
        return self.data / authorities.REQUESTED


def generate(place: Place, wanted: Wanted, root_kind: KeyKind, now: datetime) -> None:
    """Make a root and an issuing CA.

    Raises:
        BadInput: there is an authority already, or the token, its key or the place cannot be used.
        Unavailable: another process makes one now, or the token or the disk does not answer.
    """
    with authorities.alone(place.data):
        _refuse_existing(place.authority)
        with authorities.staged(place.authority) as stage:
            root = authorities.make_root(stage, place.trust_domain, now, place.passphrase, root_kind)
            authorities.make_issuing(stage, root, now, place.passphrase, wanted)


def import_root(
    place: Place, wanted: Wanted, root: bytes, key: AuthorityKey, now: datetime, *, keep_key: bool = False
) -> None:
    """Make an issuing CA under a root that exists. ``root`` is its certificate, PEM.

    Its key signs the issuing CA and one empty revocation list, and is written down only where ``keep_key`` asks for it: then a
    rotation can use it.

    Raises:
        BadInput: the key is not the root's, there is an authority already, or a file, token or place cannot be used.
        Refused: the root will not do; says everything that is wrong.
        Unavailable: another process makes one now, or the token or the disk does not answer.
    """
    root_der = _only_certificate(root)
    require(ca.judge_root(root_der, place.trust_domain, now))
    if public_der(key) != ca.public_key_of(root_der):
        raise BadInput("this key is not the root's", key="--key", hint="give the key that belongs to the certificate")
    opened = OpenRoot(root_der, place.trust_domain, key)
    with authorities.alone(place.data):
        _refuse_existing(place.authority)
        with authorities.staged(place.authority) as stage:
            authorities.put_root(stage, opened, now)
            if keep_key:
                sealed.write_key(stage / authorities.ROOT_KEY, key, place.passphrase)
            authorities.make_issuing(stage, opened, now, place.passphrase, wanted)


async def ask(place: Place, wanted: Wanted) -> str:
    """Make a key, or use one in a token, and give a request for an issuing CA (PKCS#10, PEM).

    Raises:
        BadInput: one was requested already, or the token, its key or the place cannot be used.
        Unavailable: another process makes one now, or the token or the disk does not answer.
    """
    with authorities.alone(place.data):
        if place.requested.exists():
            raise BadInput(
                "an issuing CA was requested already",
                file=str(place.requested / REQUEST),
                hint=f"have that one signed, or remove {place.requested} and with it the key",
            )
        with authorities.staged(place.requested) as stage:
            signer = key_places.put(stage, wanted.key, place.passphrase)
            try:
                text = await _request(signer, place.trust_domain, wanted)
            finally:
                key_places.close(signer)
            files.write(stage / REQUEST, text.encode())
    return text


async def _request(signer: key_places.LocalSigner, trust_domain: TrustDomain, wanted: Wanted) -> str:
    public = load_der_public_key(signer.public_key_der)
    assert isinstance(public, PublicKey)
    key_id = x509.SubjectKeyIdentifier.from_public_key(public).digest
    plan = ca.issuing_plan(trust_domain, wanted.constraints)
    tbs = ca.request_tbs(plan, signer.public_key_der, key_id)
    made = ca.request(tbs, signer.public_key_der, await signer.sign(tbs))
    return pem(made, "CERTIFICATE REQUEST")


@dataclass(frozen=True, slots=True)
class Signed:
    """What a root's keeper gave back: the issuing CA and the root (DER), and the root's revocation list (PEM)."""

    issuing_der: bytes
    root_der: bytes
    root_crl: bytes

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


def read_signed(text: bytes, crl: bytes = b"") -> Signed:
    """Read the signed chain: issuing CA and root in any order, and the root's revocation list there or in ``crl`` (all PEM).

    Raises:
        BadInput: these are not two certificates, one of which signed itself, or a list is missing.
    """
    ders = pem_certificates(text.decode("ascii", "replace"))
    roots = [der for der in ders if facts(der).self_issued]
    if len(ders) != 2 or len(roots) != 1:
        raise BadInput(
            f"there are {len(ders)} certificates in it, {len(roots)} of them self-signed: one issuing CA and its root are wanted",
            hint="put the two into one file: cat issuing.pem root.pem > chain.pem; a CA between them is not supported",
        )
    (issuing,) = (der for der in ders if der != roots[0])
    listed = crl or (text[text.index(_CRL) :] if _CRL in text else b"")
    if not listed:
        raise BadInput(
            "the root's revocation list is missing",
            key="--root-crl",
            hint="TLS wants one of every CA in a chain; make it with 'openssl ca -gencrl', due after the issuing CA ends",
        )
    return Signed(issuing, roots[0], listed)


def install(place: Place, signed: Signed, now: datetime, confirmed: str = "") -> bool:
    """Put the requested issuing CA in place: as the first one, or beside the one that issues, for a rotation to use.

    ``confirmed`` is the root's fingerprint (SHA-256, hex, colons do not count), as its keeper says it. A root that is here already
    needs none.

    Returns:
        True where it waits for a rotation (`waits`).

    Raises:
        BadInput: nothing was requested, or a file, key or list cannot be used.
        Refused: the root was not confirmed, or root or issuing CA will not do; says everything that is wrong.
        Unavailable: another process makes one now, or the token or the disk does not answer.
    """
    with authorities.alone(place.data):
        if not (place.requested / REQUEST).exists():
            raise BadInput(
                "no issuing CA was requested here", file=str(place.requested), hint="begin with 'handfast ca csr'"
            )
        require(_judged(place, signed, now))
        listed = _usable_crl(signed, now)
        known = _known_root(place.authority, signed)
        if known is None:
            _refuse_existing(place.authority)
            _confirm(signed, confirmed)
        _put(place.authority / SIGNED if known else place.authority, place, signed, listed)
        if known:
            files.write(known / authorities.ROOT_CRL, listed.encode())
        _forget(place.requested)
    return known is not None


def prepare(place: Place, wanted: Wanted, now: datetime) -> None:
    """Make the next issuing CA under the newest root, whose key is here, with a key and limits of choice; a rotation uses it.

    Raises:
        BadInput: there is no authority, one waits already, the root's key is not here, or a token, key or file cannot be used.
        Unavailable: another process makes one now, or the token or the disk does not answer.
    """
    above = Path([node for node in graph(place.authority) if node.kind == "root"][-1].directory)
    with authorities.alone(place.data):
        if waits(place.authority):
            raise BadInput("an issuing CA waits for a rotation already", file=str(place.authority / SIGNED))
        root = authorities.open_root(above, place.trust_domain, place.passphrase)
        with authorities.staged(place.authority / SIGNED) as stage:
            files.write(stage / authorities.ROOT, pem(root.der).encode())
            authorities.make_issuing(stage, root, now, place.passphrase, wanted)


def waits(authority: Path) -> bool:
    """Tell whether an issuing CA that was made or signed by hand waits beside this authority."""
    return (authority / SIGNED).exists()


def take(authority: Path, stage: Path, root_der: bytes) -> None:
    """Copy the issuing CA that waits into ``stage``, a generation below this root. It goes on waiting until `taken`.

    Raises:
        BadInput: it is another root's, or a file cannot be used.
    """
    if _only_certificate(files.read(authority / SIGNED / authorities.ROOT)) != root_der:
        raise BadInput("the issuing CA that waits is of another root", file=str(authority / SIGNED))
    held = key_places.file_of(authority / SIGNED)
    files.write(stage / authorities.ISSUING, files.read(authority / SIGNED / authorities.ISSUING))
    files.write_secret(stage / held.name, files.read_secret(held))


def taken(authority: Path, generation: Path) -> None:
    """Remove the issuing CA that waits, where it is the one that ``generation`` has."""
    name = authorities.ISSUING
    if waits(authority) and files.read(authority / SIGNED / name) == files.read(generation / name):
        _forget(authority / SIGNED)


def _judged(place: Place, signed: Signed, now: datetime) -> Refusal | None:
    signer, _ = key_places.open_signer(place.requested, place.passphrase)
    key_places.close(signer)
    return ca.judge_root(signed.root_der, place.trust_domain, now) or ca.judge_issuing(
        signed.issuing_der, signed.root_der, signer.public_key_der, place.trust_domain, now
    )


def _confirm(signed: Signed, confirmed: str) -> None:
    said = confirmed.replace(":", "").strip().lower()
    if not hmac.compare_digest(said.encode(), signed.root_fingerprint.encode()):
        evidence = {"root": facts(signed.root_der).subject, "sha256": signed.root_fingerprint}
        raise Refused(Refusal(Reason.AUTHORITY_UNCONFIRMED, evidence))


def _put(directory: Path, place: Place, signed: Signed, listed: str) -> None:
    held = key_places.file_of(place.requested)
    with authorities.staged(directory) as stage:
        files.write(stage / authorities.ROOT, pem(signed.root_der).encode())
        files.write(stage / authorities.ISSUING, pem(signed.issuing_der).encode())
        files.write(stage / authorities.ROOT_CRL, listed.encode())
        files.write_secret(stage / held.name, files.read_secret(held))


def _known_root(authority: Path, signed: Signed) -> Path | None:
    """Give the directory of this root, where it is here already; its list must leave alone those that issue below it."""
    if not (authority / authorities.ISSUING).exists():
        return None
    nodes = graph(authority)
    root = next((one for one in nodes if one.fingerprint == signed.root_fingerprint), None)
    listed = x509.load_pem_x509_crl(signed.root_crl)
    for one in nodes:
        ours = root is not None and one.kind == "issuing" and one.issuer == root.fingerprint
        if ours and listed.get_revoked_certificate_by_serial_number(int(one.serial, 16)) is not None:
            raise BadInput(
                f"this revocation list revokes {one.subject}, which is here", key="--root-crl", hint=_NOT_NOW
            )
    return Path(root.directory) if root else None


def _usable_crl(signed: Signed, now: datetime) -> str:
    """Read the root's list, which nobody will renew here: it has to count for as long as the issuing CA does."""
    try:
        listed, key = (
            x509.load_pem_x509_crl(signed.root_crl),
            x509.load_der_x509_certificate(signed.root_der).public_key(),
        )
        ours = isinstance(key, PublicKey) and listed.is_signature_valid(key)
    except UNREADABLE as error:
        raise BadInput("the root's revocation list cannot be read", key="--root-crl", hint="it is PEM") from error
    issuing = x509.load_der_x509_certificate(signed.issuing_der)
    if not ours or listed.issuer != issuing.issuer:
        raise BadInput("this revocation list is not the root's", key="--root-crl")
    if listed.get_revoked_certificate_by_serial_number(issuing.serial_number) is not None:
        raise BadInput("this revocation list revokes the issuing CA", key="--root-crl")
    _check_due(listed, issuing.not_valid_after_utc, now)
    return pem(listed.public_bytes(Encoding.DER), "X509 CRL")


def _check_due(listed: x509.CertificateRevocationList, wanted: datetime, now: datetime) -> None:
    begin, end = listed.last_update_utc, listed.next_update_utc
    if begin > now or (end is not None and end < wanted):
        raise BadInput(
            f"this revocation list does not count from now until the issuing CA ends at {wanted:%Y-%m-%d}",
            key="--root-crl",
            hint="nobody here can renew it, and with a stale one every client is refused: let the root sign one due later",
        )
    if any(one.critical for one in listed.extensions):
        raise BadInput(
            "this revocation list has a critical extension: it is not one of all certificates", key="--root-crl"
        )


def _forget(directory: Path) -> None:
    """Remove what was requested: its key is in the authority's directory now."""
    with files.explained("removed", directory):
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def _refuse_existing(directory: Path) -> None:
    if directory.is_dir() and any(directory.iterdir()):
        raise BadInput(
            "there is an authority here already",
            file=str(directory),
            hint="choose another data directory with --data; the one that runs is replaced by 'handfast ca rotate'",
        )


def _only_certificate(text: bytes) -> bytes:
    first, *others = pem_certificates(text.decode("ascii", "replace"))
    if others:
        raise BadInput("there is more than one certificate in it", key="--root", hint="give the root alone")
    return first
