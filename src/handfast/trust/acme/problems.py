"""How ACME says "no": the error types of RFC 8555 section 6.7, as a value with its words.

Decides type and HTTP status. ACME's clients act on these types (a `badNonce` is tried again), so they are told in ACME's own
vocabulary; what the platform remembers of a failure is told in `handfast.base.reasons`, by the table at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal

URN = "urn:ietf:params:acme:error:"
LONGEST_DETAIL = 400


class AcmeError(StrEnum):
    """The registered types that are used here (RFC 8555 section 9.7.3; RFC 9773; the profiles draft)."""

    ACCOUNT_DOES_NOT_EXIST = "accountDoesNotExist"
    ALREADY_REPLACED = "alreadyReplaced"
    ALREADY_REVOKED = "alreadyRevoked"
    BAD_CSR = "badCSR"
    BAD_NONCE = "badNonce"
    BAD_PUBLIC_KEY = "badPublicKey"
    BAD_REVOCATION_REASON = "badRevocationReason"
    BAD_SIGNATURE_ALGORITHM = "badSignatureAlgorithm"
    CONNECTION = "connection"
    DNS = "dns"
    EXTERNAL_ACCOUNT_REQUIRED = "externalAccountRequired"
    INCORRECT_RESPONSE = "incorrectResponse"
    INVALID_CONTACT = "invalidContact"
    INVALID_PROFILE = "invalidProfile"
    MALFORMED = "malformed"
    ORDER_NOT_READY = "orderNotReady"
    RATE_LIMITED = "rateLimited"
    REJECTED_IDENTIFIER = "rejectedIdentifier"
    SERVER_INTERNAL = "serverInternal"
    TLS = "tls"
    UNAUTHORIZED = "unauthorized"
    UNSUPPORTED_CONTACT = "unsupportedContact"
    UNSUPPORTED_IDENTIFIER = "unsupportedIdentifier"

    @property
    def urn(self) -> str:
        """The type as a problem document has it."""
        return f"{URN}{self.value}"


_STATUS = {
    AcmeError.ALREADY_REPLACED: 409,
    AcmeError.EXTERNAL_ACCOUNT_REQUIRED: 403,
    AcmeError.ORDER_NOT_READY: 403,
    AcmeError.RATE_LIMITED: 429,
    AcmeError.REJECTED_IDENTIFIER: 403,
    AcmeError.SERVER_INTERNAL: 500,
    AcmeError.UNAUTHORIZED: 403,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One "no". ``identifier`` is the DNS name that it is about, ``status`` an HTTP status where the type's own does not fit."""

    error: AcmeError
    detail: str
    identifier: str = ""
    status: int = 0

    @property
    def http_status(self) -> int:
        """The HTTP status that goes with it."""
        return self.status or _STATUS.get(self.error, 400)


_BY_REASON = {
    Reason.ACME_NAME_NOT_FOUND: AcmeError.DNS,
    Reason.ACME_ADDRESS_NOT_ALLOWED: AcmeError.REJECTED_IDENTIFIER,
    Reason.ACME_UNREACHABLE: AcmeError.CONNECTION,
    Reason.ACME_WRONG_ANSWER: AcmeError.INCORRECT_RESPONSE,
    Reason.ACME_TLS: AcmeError.TLS,
    Reason.ISSUANCE_KEY_NOT_ALLOWED: AcmeError.BAD_CSR,
    Reason.ISSUANCE_BAD_PROOF: AcmeError.BAD_CSR,
    Reason.ISSUANCE_NAME_NOT_ALLOWED: AcmeError.REJECTED_IDENTIFIER,
    Reason.ENTRY_RESERVED: AcmeError.REJECTED_IDENTIFIER,
    Reason.ISSUANCE_MISMATCH: AcmeError.SERVER_INTERNAL,
    Reason.ISSUANCE_LINT: AcmeError.SERVER_INTERNAL,
    Reason.ISSUANCE_ISSUER_ENDS: AcmeError.SERVER_INTERNAL,
    Reason.ISSUANCE_NO_STATUS: AcmeError.SERVER_INTERNAL,
}


def problem_of(refusal: Refusal, identifier: str = "") -> Problem:
    """Say a refusal of the platform in ACME's words."""
    seen = ", ".join(f"{name} {value}" for name, value in refusal.evidence.items())
    detail = f"{refusal.reason.summary} ({seen})" if seen else refusal.reason.summary
    return Problem(_BY_REASON.get(refusal.reason, AcmeError.UNAUTHORIZED), detail[:LONGEST_DETAIL], identifier)
