"""Where an authority comes from, other than from nowhere at the first start: a chosen key, a root that exists, the next one by hand.

Decides the order of the steps and which files appear, each time as a whole directory by one rename. Refuses to judge
certificates: that is `handfast.trust.ca`. A root far away is another module's (`handfast.io.signed_chains`).
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from handfast.base.refusal import BadInput, require
from handfast.base.spiffe import TrustDomain
from handfast.io import authority_files, files, key_places, roots, sealed
from handfast.io.authority_files import AUTHORITY, alone, read_certificate, staged
from handfast.io.authority_graph import graph, places_of
from handfast.io.ca_certificates import Wanted
from handfast.io.next_authority import SIGNED, waits
from handfast.io.pkcs11 import open_token
from handfast.io.roots import OpenRoot
from handfast.io.sealed import Passphrase
from handfast.io.signers import AuthorityKey, KeyKind, KeySigner
from handfast.io.token_uri import TokenUri
from handfast.trust import ca
from handfast.trust.facts import facts, pem, pem_certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an authority is put: the platform's data directory, for which trust domain, and what seals its keys."""

    data: Path
    trust_domain: TrustDomain
    passphrase: Passphrase | None = field(default=None, repr=False)

    @property
    def authority(self) -> Path:
        """The authority's own directory."""
        return self.data / AUTHORITY

    @property
    def requested(self) -> Path:
        """Where a requested issuing CA waits for its certificate."""
        return self.data / authority_files.REQUESTED


def generate(place: Place, wanted: Wanted, root_key: KeyKind | TokenUri, now: datetime) -> None:
    """Make a root and an issuing CA. ``root_key`` is the kind of a key that is made, or one in a token.

    Raises:
        BadInput: there is an authority already, or a token, its key or the place cannot be used.
        Unavailable: another process makes one now, or a token or the disk does not answer.
    """
    with alone(place.data):
        refuse_existing(place.authority)
        with staged(place.authority) as stage:
            _make(stage, place, wanted, root_key, now)


def _make(stage: Path, place: Place, wanted: Wanted, root_key: KeyKind | TokenUri, now: datetime) -> None:
    with closing(roots.make_root(stage, place.trust_domain, now, place.passphrase, root_key)) as root:
        roots.make_issuing(stage, root, now, place.passphrase, wanted)


def import_root(
    place: Place, wanted: Wanted, root: bytes, key: AuthorityKey | TokenUri, now: datetime, *, keep_key: bool = False
) -> None:
    """Make an issuing CA under a root that exists. ``root`` is its certificate, PEM; its key is given, or lies in a token.

    It signs the issuing CA, who answers OCSP for it, and one empty revocation list, and is written down (or where it lies, for one in
    a token) only where ``keep_key`` asks for it: then a rotation can use it.

    Raises:
        BadInput: the key is not the root's, there is an authority already, or a file, token or place cannot be used.
        Refused: the root will not do; says everything that is wrong.
        Unavailable: another process makes one now, or a token or the disk does not answer.
    """
    root_der = _only_certificate(root)
    require(ca.judge_root(root_der, place.trust_domain, now))
    signer = open_token(key) if isinstance(key, TokenUri) else KeySigner(key)
    with closing(OpenRoot(root_der, place.trust_domain, signer)) as opened:
        if signer.public_key_der != ca.public_key_of(root_der):
            raise BadInput(
                "this key is not the root's", key="--key", hint="give the key that belongs to the certificate"
            )
        with alone(place.data):
            refuse_existing(place.authority)
            with staged(place.authority) as stage:
                roots.put_root(stage, opened, now)
                if keep_key:
                    _keep(stage, key, place.passphrase)
                roots.make_issuing(stage, opened, now, place.passphrase, wanted)


def _keep(stage: Path, key: AuthorityKey | TokenUri, passphrase: Passphrase | None) -> None:
    if isinstance(key, TokenUri):
        key_places.note(stage, key, key_places.ROOT)
    else:
        sealed.write_key(stage / authority_files.ROOT_KEY, key, passphrase)


def prepare(place: Place, wanted: Wanted, now: datetime, new_root: KeyKind | TokenUri | None = None) -> None:
    """Make the next issuing CA with a key and limits of choice; a rotation uses it.

    It is made under the newest root, whose key is here or in its token; or with ``new_root`` under a root with a new key of that kind,
    or with that key in a token.

    Raises:
        BadInput: there is no authority, one waits already, the root's key is not here, a key is in use already, or a token, key or
            file cannot be used.
        Unavailable: another process makes one now, or a token or the disk does not answer.
    """
    nodes = graph(place.authority)
    above = Path([node for node in nodes if node.kind == "root"][-1].directory)
    with alone(place.data):
        refuse_waiting(place.authority)
        with staged(place.authority / SIGNED) as stage:
            if new_root is None:
                with closing(roots.open_root(above, place.trust_domain, place.passphrase)) as root:
                    files.write(stage / authority_files.ROOT, pem(root.der).encode())
                    roots.make_issuing(stage, root, now, place.passphrase, wanted)
            else:
                _make(stage, place, wanted, new_root, now)
            _refuse_used_keys(place.authority, stage, new=new_root is not None)


def refuse_waiting(authority: Path) -> None:
    """Refuse to put one more issuing CA where one waits for a rotation already.

    Raises:
        BadInput: one does.
    """
    if waits(authority):
        raise BadInput(
            "an issuing CA waits for a rotation already",
            file=str(authority / SIGNED),
            hint="let 'handfast ca rotate' take it, or remove this directory, and with it the key",
        )


def _refuse_used_keys(authority: Path, stage: Path, *, new: bool) -> None:
    """Two CAs of one name and key cannot be told apart. Only a key in a token can be named twice."""
    places = places_of(authority)
    for name in (authority_files.ISSUING, *([authority_files.ROOT] if new else [])):
        made = facts(read_certificate(stage / name)).ski
        if any(facts(read_certificate(place / name)).ski == made for place in places if (place / name).exists()):
            raise BadInput("this key is in use here already", key=name, hint="make a new one in the token")


def refuse_existing(directory: Path) -> None:
    """Refuse to make an authority where there is one.

    Raises:
        BadInput: there is something in the directory.
    """
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
