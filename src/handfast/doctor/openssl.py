"""From OpenSSL's report of a failed handshake to a reason, for servers that speak TLS with Python's own library.

Decides by the verification code where the client's certificate was refused (``X509_V_ERR_*`` of OpenSSL 3), and else by the
reason's name. Whatever is new here is `HANDSHAKE_UNRECOGNISED`, never silent.
"""

from __future__ import annotations

from collections.abc import Sequence

from handfast.base.reasons import Reason
from handfast.trust.chain import explain_chain

_VERIFY: dict[int, Reason] = {
    3: Reason.REVOCATION_NO_CRL,
    9: Reason.CERT_NOT_YET_VALID,
    10: Reason.CERT_EXPIRED,
    12: Reason.REVOCATION_CRL_EXPIRED,
    18: Reason.CERT_SELF_SIGNED,
    19: Reason.CHAIN_UNKNOWN_AUTHORITY,
    20: Reason.CHAIN_UNKNOWN_AUTHORITY,
    21: Reason.CHAIN_UNKNOWN_AUTHORITY,
    23: Reason.REVOKED,
    24: Reason.CHAIN_ISSUER_NOT_A_CA,
    25: Reason.CHAIN_PATH_LENGTH,
    26: Reason.CERT_WRONG_EKU,
    34: Reason.CERT_CRITICAL_EXTENSION,
    47: Reason.CHAIN_NAME_CONSTRAINT,
    66: Reason.CERT_WEAK_KEY,
    67: Reason.CERT_WEAK_KEY,
    68: Reason.CERT_WEAK_SIGNATURE,
    79: Reason.CHAIN_ISSUER_NOT_A_CA,
}

_REASONS: dict[str, Reason] = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Reason.CLIENT_NO_CERTIFICATE,
    "CLOSED_BY_PEER": Reason.HANDSHAKE_CLOSED,
    "RESET_BY_PEER": Reason.HANDSHAKE_RESET,
    "TIMEOUT": Reason.HANDSHAKE_TIMEOUT,
    "UNSUPPORTED_PROTOCOL": Reason.TLS_VERSION,
    "WRONG_SSL_VERSION": Reason.TLS_VERSION,
    "NO_SHARED_CIPHER": Reason.TLS_NO_SHARED_CIPHER,
    "NO_SUITABLE_KEY_SHARE": Reason.TLS_NO_SHARED_GROUP,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": Reason.TLS_NO_SHARED_CIPHER,
    "HTTP_REQUEST": Reason.TLS_PLAINTEXT,
    "HTTPS_PROXY_REQUEST": Reason.TLS_PLAINTEXT,
    "WRONG_VERSION_NUMBER": Reason.TLS_NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": Reason.TLS_NOT_TLS,
    "RECORD_LAYER_FAILURE": Reason.TLS_NOT_TLS,
    "TLSV1_ALERT_UNKNOWN_CA": Reason.CLIENT_REJECTED_US,
    "SSLV3_ALERT_BAD_CERTIFICATE": Reason.CLIENT_REJECTED_US,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": Reason.CLIENT_REJECTED_US,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": Reason.CLIENT_REJECTED_US,
}

_UNKNOWN_ISSUER = frozenset({19, 20, 21})


def recognise_openssl(
    reason_text: str, verify_code: int, offered: Sequence[bytes] = (), known_cas: Sequence[bytes] = ()
) -> Reason:
    """Give the reason for what OpenSSL reports.

    ``offered`` is the chain that the client sent (DER, leaf first), ``known_cas`` the CA certificates known here: by them a
    missing intermediate is told from an unknown authority.
    """
    if verify_code in _UNKNOWN_ISSUER and offered:
        return explain_chain(offered[0], sent_others=len(offered) - 1, known=known_cas)
    if verify_code:
        return _VERIFY.get(verify_code, Reason.HANDSHAKE_UNRECOGNISED)
    return _REASONS.get(reason_text.upper().replace(" ", "_"), Reason.HANDSHAKE_UNRECOGNISED)
