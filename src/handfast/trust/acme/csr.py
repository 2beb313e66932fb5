"""The CSR that finalizes an order (RFC 8555 section 7.4).

Decides that it asks for the order's names exactly, and for nothing else that could be taken for a promise.
"""

from __future__ import annotations

from collections.abc import Collection

from cryptography import x509
from cryptography.x509.oid import NameOID

from handfast.base.refusal import BadInput, Refusal
from handfast.trust.acme.keys import AccountKey
from handfast.trust.acme.problems import AcmeError, Problem, problem_of
from handfast.trust.csr import CsrFacts, read_csr
from handfast.trust.profile import UNREADABLE, Profile


def read_order_csr(der: bytes, names: Collection[str], account: AccountKey, profile: Profile) -> CsrFacts | Problem:
    """Read the CSR (DER), and check its names against the order's and its key against the account's.

    A common name counts as one of its names, so it has to be one of the order's. The account's own key is refused (RFC 8555
    section 11.1): who reads the one from a web server must not get the other.
    """
    try:
        read = read_csr(der, profile)
        asked = _names(x509.load_der_x509_csr(der)) if not isinstance(read, Refusal) else None
    except (BadInput, *UNREADABLE):
        return _bad("the CSR cannot be read; it is base64url of DER")
    if isinstance(read, Refusal):
        return problem_of(read)
    if asked is None or asked != set(names):
        return _bad("the names in the CSR are not exactly those of the order, as DNS names")
    if read.spki == account.spki:
        return _bad("a certificate's key is another one than the account's")
    return read


def _bad(detail: str) -> Problem:
    return Problem(AcmeError.BAD_CSR, detail)


def _names(csr: x509.CertificateSigningRequest) -> set[str] | None:
    """Give the names in lower case; None where there is one that is no DNS name."""
    try:
        alternative = list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        alternative = []
    common = [str(one.value) for one in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not all(isinstance(one, x509.DNSName) for one in alternative):
        return None
    return {name.lower() for name in (*(str(one.value) for one in alternative), *common)}
