"""One vocabulary of "no".

Failed handshakes, denied requests, refused issuance, Envoy's rejections and the doctor's findings all speak it. A reason's
code is stable: logs carry it, metrics count it, clients see it. Summary and hint are for people, and may be reworded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """Who has to do something about it."""

    CLIENT = "client"
    SERVER = "server"
    MIDDLE = "middle"
    CLOCK = "clock"


class Reason(StrEnum):
    """Every refusal's code. Its summary, side and hint are in `EXPLANATIONS`."""

    CLIENT_NO_CERTIFICATE = "client.no-certificate"
    CLIENT_REJECTED_US = "client.rejected-server-certificate"
    CLIENT_ALERT_UNREADABLE = "client.alert-unreadable"
    CLIENT_ALERT = "client.alert"
    CLIENT_KEY_MISMATCH = "client.key-mismatch"

    CERT_EXPIRED = "cert.expired"
    CERT_NOT_YET_VALID = "cert.not-yet-valid"
    CERT_WRONG_EKU = "cert.eku-without-client-auth"
    CERT_NO_EKU = "cert.no-eku"
    CERT_KEY_USAGE = "cert.key-usage-without-signature"
    CERT_IS_CA = "cert.ca-used-as-leaf"
    CERT_SELF_SIGNED = "cert.self-signed"
    CERT_WEAK_KEY = "cert.weak-key"
    CERT_WEAK_SIGNATURE = "cert.weak-signature"
    CERT_UNSUPPORTED_KEY = "cert.unsupported-key"
    CERT_CRITICAL_EXTENSION = "cert.unknown-critical-extension"
    CERT_UNREADABLE = "cert.unreadable"

    CHAIN_UNKNOWN_AUTHORITY = "chain.unknown-authority"
    CHAIN_MISSING_INTERMEDIATE = "chain.missing-intermediate"
    CHAIN_SAME_NAME_OTHER_KEY = "chain.same-name-other-key"
    CHAIN_ISSUER_EXPIRED = "chain.issuer-expired"
    CHAIN_ISSUER_NOT_YET_VALID = "chain.issuer-not-yet-valid"
    CHAIN_ISSUER_WRONG_EKU = "chain.issuer-eku-without-client-auth"
    CHAIN_ISSUER_NOT_A_CA = "chain.issuer-not-a-ca"
    CHAIN_PATH_LENGTH = "chain.path-length"
    CHAIN_NAME_CONSTRAINT = "chain.name-constraint"
    CHAIN_PIN_MISMATCH = "chain.pin-mismatch"

    REVOKED = "revocation.revoked"
    REVOKED_ISSUER = "revocation.issuer-revoked"
    REVOCATION_NO_CRL = "revocation.no-crl-for-issuer"
    REVOCATION_CRL_EXPIRED = "revocation.crl-expired"
    REVOCATION_CRL_NOT_YET_VALID = "revocation.crl-not-yet-valid"
    REVOCATION_CRL_UNUSABLE = "revocation.crl-unusable"

    IDENTITY_NO_URI_SAN = "identity.no-uri-san"
    IDENTITY_SEVERAL_URI_SANS = "identity.several-uri-sans"
    IDENTITY_NOT_SPIFFE = "identity.not-a-spiffe-id"
    IDENTITY_FOREIGN_DOMAIN = "identity.foreign-trust-domain"
    IDENTITY_SAN_NOT_ALLOWED = "identity.san-not-allowed"
    REVOCATION_CRL_UNAVAILABLE = "revocation.crl-unavailable"
    REVOCATION_STATUS_UNKNOWN = "revocation.status-unknown"
    REVOCATION_OCSP_UNAVAILABLE = "revocation.ocsp-unavailable"
    REVOCATION_OCSP_UNUSABLE = "revocation.ocsp-unusable"
    IDENTITY_NO_MAPPING = "identity.no-mapping"
    IDENTITY_NAME_UNUSABLE = "identity.name-unusable"

    TLS_VERSION = "tls.version"
    TLS_NO_SHARED_CIPHER = "tls.no-shared-cipher"
    TLS_NO_SHARED_GROUP = "tls.no-shared-group"
    TLS_PLAINTEXT = "tls.plaintext-on-tls-port"
    TLS_NOT_TLS = "tls.not-tls"
    TLS_UNKNOWN_NAME = "tls.unknown-server-name"
    HANDSHAKE_CLOSED = "handshake.closed-by-peer"
    HANDSHAKE_RESET = "handshake.reset-by-peer"
    HANDSHAKE_TIMEOUT = "handshake.timeout"
    HANDSHAKE_UNRECOGNISED = "handshake.unrecognised"

    POLICY_NO_MATCH = "policy.no-match"
    POLICY_DENIED = "policy.denied"
    REQUEST_NO_ROUTE = "request.no-route"
    REQUEST_MISDIRECTED = "request.misdirected"
    REQUEST_REJECTED = "request.rejected"
    UPSTREAM_UNAVAILABLE = "upstream.unavailable"
    GATEWAY_FAULT = "gateway.fault"

    ENTRY_NO_MATCH = "entry.no-match"
    ENTRY_RESERVED = "entry.reserved-name"
    AGENT_RESERVED = "agent.reserved-name"
    AGENT_NAME_TAKEN = "agent.name-taken"
    AGENT_REVOKED = "agent.certificate-revoked"
    AGENT_EXPIRED = "agent.certificate-expired"
    AGENT_FORGOTTEN = "agent.forgotten"
    ISSUANCE_KEY_NOT_ALLOWED = "issuance.key-not-allowed"
    ISSUANCE_BAD_PROOF = "issuance.bad-proof-of-possession"
    ISSUANCE_KEY_COMPROMISED = "issuance.key-compromised"
    ISSUANCE_NAME_NOT_ALLOWED = "issuance.name-not-allowed"
    ISSUANCE_TOO_LONG = "issuance.too-long"
    ISSUANCE_ISSUER_ENDS = "issuance.issuer-ends-first"
    ISSUANCE_CUT_SHORT = "issuance.cut-short"
    ISSUANCE_NAME_CONSTRAINT = "issuance.name-constraint"
    ISSUANCE_NO_STATUS = "issuance.no-status"
    ISSUANCE_LINT = "issuance.lint"
    ISSUANCE_MISMATCH = "issuance.signed-differs-from-planned"
    AUTHORITY_UNFIT = "authority.unfit"
    AUTHORITY_UNCONFIRMED = "authority.unconfirmed-root"

    CALLER_UNKNOWN = "caller.unknown"
    CALLER_NOT_ALLOWED = "caller.not-allowed"
    TOKEN_NOT_VALID = "token.not-valid"  # noqa: S105 - a code, not a secret
    NOT_FOUND = "not-found"
    ALREADY_REVOKED = "revocation.already-revoked"
    AUDIT_BROKEN = "audit.broken"

    ACME_NAME_NOT_FOUND = "acme.name-not-found"
    ACME_ADDRESS_NOT_ALLOWED = "acme.address-not-allowed"
    ACME_UNREACHABLE = "acme.unreachable"
    ACME_TLS = "acme.tls"
    ACME_WRONG_ANSWER = "acme.wrong-answer"

    ROTATION_UNDER_WAY = "rotation.under-way"
    ROTATION_NONE = "rotation.none"
    ROTATION_NO_WAY_BACK = "rotation.no-way-back"
    ROTATION_STRANDS = "rotation.would-strand"
    ROTATION_ROOT_ENDS = "rotation.root-ends"
    ROTATION_STUCK = "rotation.stuck"

    ENVOY_REJECTED = "envoy.rejected"
    ENVOY_DIED = "envoy.died"
    SNAPSHOT_STALE = "agent.snapshot-stale"
    SNAPSHOT_BAD = "agent.snapshot-bad"
    RENEWAL_FAILED = "agent.renewal-failed"
    STAPLE_UNUSABLE = "staple.unusable"
    STAPLE_FAILED = "staple.failed"
    STAPLE_ENDED = "staple.ended"

    @property
    def summary(self) -> str:
        """What it is, in a clause."""
        return EXPLANATIONS[self].summary

    @property
    def side(self) -> Side:
        """Who has to act."""
        return EXPLANATIONS[self].side

    @property
    def hint(self) -> str:
        """What to do."""
        return EXPLANATIONS[self].hint

    @property
    def further(self) -> str:
        """The hint for who reads the explanation already; empty where it says to ask for that."""
        return "" if "'handfast explain" in self.hint else self.hint


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a person needs to know of a reason: what it is, who has to act, what to do."""

    summary: str
    side: Side
    hint: str


def _table() -> dict[Reason, Explanation]:
    client, server, middle, clock = Side.CLIENT, Side.SERVER, Side.MIDDLE, Side.CLOCK
    rows: list[tuple[Reason, Side, str, str]] = [
        (Reason.CLIENT_NO_CERTIFICATE, client, "the client sent no certificate",
         "give the client its certificate and key (curl --cert, --key); a client that has one sends none when its key type is not among those the server asks for"),
        (Reason.CLIENT_REJECTED_US, server, "the client refused the server's certificate",
         "give the client the CA certificate of this trust domain (curl --cacert), and let it use a name that the host serves"),
        (Reason.CLIENT_ALERT_UNREADABLE, server, "the client broke off, most likely because it refused the server's certificate",
         "OpenSSL clients send this alert in a form the server cannot read; look at the client's own message, and give it the CA certificate of this trust domain"),
        (Reason.CLIENT_ALERT, client, "the client broke off the handshake with an alert",
         "the alert's name is in the record; look at the client's own message"),
        (Reason.CLIENT_KEY_MISMATCH, client, "the client did not prove that it holds the certificate's key",
         "give the client the key that belongs to its certificate; both must be of the same issuance"),
        (Reason.CERT_EXPIRED, client, "the client's certificate has expired",
         "renew it (handfast cert issue); if its dates look right, compare the clocks of both hosts"),
        (Reason.CERT_NOT_YET_VALID, clock, "the client's certificate is not valid yet",
         "compare the clocks of the two hosts and of the one that issued it"),
        (Reason.CERT_WRONG_EKU, client, "the client's certificate is not for client authentication",
         "issue one whose extended key usage has clientAuth; certificates of public CAs often have serverAuth alone"),
        (Reason.CERT_NO_EKU, client, "the client's certificate names no extended key usage",
         "issue one whose extended key usage has clientAuth; a certificate good for anything is not accepted here"),
        (Reason.CERT_KEY_USAGE, client, "the key usage of the client's certificate does not allow signatures",
         "issue one whose key usage has digitalSignature: in TLS the client proves its key by signing"),
        (Reason.CERT_IS_CA, client, "the client used a CA certificate as its own",
         "issue a leaf certificate (basicConstraints cA=FALSE) from that CA and use it"),
        (Reason.CERT_SELF_SIGNED, client, "the client's certificate is self-signed",
         "issue one from an authority that this host trusts (handfast cert issue)"),
        (Reason.CERT_WEAK_KEY, client, "the client's key is too weak",
         "use ECDSA P-256 or P-384, Ed25519, or RSA with 2048 bits or more"),
        (Reason.CERT_WEAK_SIGNATURE, client, "the client's certificate is signed with a weak algorithm",
         "issue it anew with SHA-256 or better"),
        (Reason.CERT_UNSUPPORTED_KEY, client, "the client's key is of a kind that TLS cannot use here",
         "use ECDSA P-256 or P-384, Ed25519, or RSA with 2048 bits or more"),
        (Reason.CERT_CRITICAL_EXTENSION, client, "the client's certificate has a critical extension that nobody here understands",
         "issue it without that extension, or not critical"),
        (Reason.CERT_UNREADABLE, client, "the client's certificate cannot be read",
         "look at it with 'handfast cert show FILE'; it may be damaged or not DER"),
        (Reason.CHAIN_UNKNOWN_AUTHORITY, client, "the client's certificate comes from an authority that this host does not trust",
         "use a certificate of this trust domain, or add the client's authority to the host's clients.trust"),
        (Reason.CHAIN_MISSING_INTERMEDIATE, client, "the client did not send the intermediate certificate",
         "let the client send its whole chain: the file with leaf and intermediate (cert.pem as Handfast writes it), not the leaf alone"),
        (Reason.CHAIN_SAME_NAME_OTHER_KEY, client, "the issuer has the name of an authority known here, but another key",
         "the certificate is of an older or of another installation with the same name: issue a new one from this one"),
        (Reason.CHAIN_ISSUER_EXPIRED, server, "a CA certificate in the client's chain has expired",
         "renew the issuing authority and the certificates below it"),
        (Reason.CHAIN_ISSUER_NOT_YET_VALID, clock, "a CA certificate in the client's chain is not valid yet",
         "compare the clocks of this host and of the one that made the authority"),
        (Reason.CHAIN_ISSUER_WRONG_EKU, client, "a CA in the client's chain may not issue for client authentication",
         "issue the leaf from a CA whose extended key usage has clientAuth, or is absent"),
        (Reason.CHAIN_ISSUER_NOT_A_CA, client, "a certificate in the client's chain was used as a CA and is none",
         "look at the chain with 'handfast cert show FILE': each issuer needs basicConstraints cA=TRUE"),
        (Reason.CHAIN_PATH_LENGTH, client, "the client's chain is longer than a CA in it allows",
         "issue the leaf from a CA higher up, or raise that CA's path length"),
        (Reason.CHAIN_NAME_CONSTRAINT, client, "a CA in the client's chain may not issue for this name",
         "issue from an authority whose name constraints permit the name"),
        (Reason.CHAIN_PIN_MISMATCH, client, "the client's key is not the pinned one",
         "use the certificate that the host pins, or change the pin"),
        (Reason.REVOKED, client, "the client's certificate is revoked",
         "if that was meant, nothing is to be done; else issue a new one (handfast cert issue)"),
        (Reason.REVOKED_ISSUER, client, "a CA certificate in the client's chain is revoked",
         "issue the client a certificate from an authority that still counts"),
        (Reason.REVOCATION_NO_CRL, server, "there is no revocation list for an authority in the client's chain",
         "give the gateway a CRL of every CA in that chain; for Handfast's own this is a fault of ours, please report it"),
        (Reason.REVOCATION_CRL_EXPIRED, server, "a revocation list has expired",
         "let the server publish a new one: is it running, and does the agent reach it?"),
        (Reason.REVOCATION_CRL_NOT_YET_VALID, clock, "a revocation list is not valid yet",
         "compare the clocks of this host and of the one that signed the list"),
        (Reason.REVOCATION_CRL_UNUSABLE, server, "a revocation list cannot be used",
         "it is damaged, signed by the wrong key, or for other certificates: give the gateway the CRL of that very CA"),
        (Reason.IDENTITY_NO_URI_SAN, client, "the client's certificate carries no identity",
         "issue one with a SPIFFE id as URI SAN (handfast cert issue NAME)"),
        (Reason.IDENTITY_SEVERAL_URI_SANS, client, "the client's certificate carries several URI names",
         "a SPIFFE certificate has exactly one URI SAN: issue one certificate for each identity"),
        (Reason.IDENTITY_NOT_SPIFFE, client, "the client's certificate has a URI name that is no SPIFFE id",
         "issue one with a SPIFFE id as URI SAN (handfast cert issue NAME)"),
        (Reason.IDENTITY_FOREIGN_DOMAIN, client, "the client's identity is of a trust domain that does not count at this host",
         "use a certificate of a trust domain named in the host's clients.trust"),
        (Reason.IDENTITY_SAN_NOT_ALLOWED, client, "the names in the client's certificate are not allowed here",
         "use a certificate whose identity lies in a trust domain named in the host's clients.trust"),
        (Reason.REVOCATION_CRL_UNAVAILABLE, server, "the revocation list of another authority cannot be fetched; the last good one counts until it ends",
         "does the server reach the URL that the world file names under 'revocation', and is a list there?"),
        (Reason.REVOCATION_STATUS_UNKNOWN, server, "it is not known whether the client's certificate is revoked, and its authority is one where that has to be known",
         "look for findings about that authority's responder (handfast events --kind finding.raised); without one, the responder answers that it does not know the certificate"),
        (Reason.REVOCATION_OCSP_UNAVAILABLE, server, "the OCSP responder of another authority does not answer; what it said last counts until that ends",
         "does the server reach the URL that the world file names under 'revocation', and does a responder answer there within 3 seconds?"),
        (Reason.REVOCATION_OCSP_UNUSABLE, server, "what the OCSP responder of another authority answers cannot be used",
         "the record says what is wrong with it: the CA that issued the certificate has to sign the answer, or whom it certified for OCSP, for that very certificate and this time"),
        (Reason.IDENTITY_NO_MAPPING, client, "no rule of the client's authority gives its certificate an identity",
         "compare the certificate (handfast cert show FILE) with the authority's identities in the world file, and add a rule if it should count"),
        (Reason.IDENTITY_NAME_UNUSABLE, client, "what the certificate says cannot be part of an identity",
         "the rule inserts a value that is absent, there twice, or has other characters than letters, digits, dots, dashes and underscores: insert another field, or match it and write the name out"),
        (Reason.TLS_VERSION, client, "the two have no TLS version in common",
         "let the client speak TLS 1.2 or 1.3"),
        (Reason.TLS_NO_SHARED_CIPHER, client, "the two have no cipher or signature algorithm in common",
         "let the client offer an ECDHE cipher and ECDSA or RSA-PSS with SHA-256"),
        (Reason.TLS_NO_SHARED_GROUP, client, "the two have no key exchange group in common",
         "let the client offer X25519 or P-256, and in TLS 1.2 an ECDHE cipher: without one it names no group at all"),
        (Reason.TLS_PLAINTEXT, client, "the client spoke plain HTTP to a TLS port",
         "write https:// in the client's URL"),
        (Reason.TLS_NOT_TLS, client, "what the client sent is not TLS",
         "look for a gRPC client without TLS, a health check, a scanner or a PROXY protocol header that comes to this port"),
        (Reason.TLS_UNKNOWN_NAME, client, "the client asked for a server name that is not served here, or for none",
         "use a host name of the world file in the URL; curl wants --resolve or --connect-to, not an address in the URL"),
        (Reason.HANDSHAKE_CLOSED, client, "the client closed the connection during the handshake",
         "a port probe or health check does this; if it was a real client, look at its own message: it may not trust our certificate"),
        (Reason.HANDSHAKE_RESET, middle, "the connection was reset during the handshake",
         "look at the client's message, and for a firewall or load balancer between the two"),
        (Reason.HANDSHAKE_TIMEOUT, middle, "the handshake was not finished in time",
         "look for packet loss, a wrong MTU, or a client that opens connections and sends nothing"),
        (Reason.HANDSHAKE_UNRECOGNISED, server, "the handshake failed in a way that Handfast has no name for yet",
         "the raw report is in the record; please send it to us, it will get a name"),
        (Reason.POLICY_NO_MATCH, client, "no rule allows this identity to do this here",
         "see the nearest rules with 'handfast explain REQUEST-ID', and add one to the route if it should"),
        (Reason.POLICY_DENIED, client, "a rule denies this",
         "see the rule with 'handfast explain REQUEST-ID'; a deny wins over every allow"),
        (Reason.REQUEST_NO_ROUTE, client, "no route of this host matches the path",
         "compare the path with the host's routes (handfast export)"),
        (Reason.REQUEST_MISDIRECTED, client, "the request names another host than the connection was made for",
         "let the client open a connection of its own for each host (RFC 9110, 421)"),
        (Reason.REQUEST_REJECTED, client, "the request is malformed",
         "escaped slashes, underscores in header names and unusual paths are refused; see the record"),
        (Reason.UPSTREAM_UNAVAILABLE, server, "the service behind the gateway does not answer",
         "is it running, and is the route's upstream right?"),
        (Reason.GATEWAY_FAULT, server, "the gateway could not decide, and so refused",
         "this is a fault of ours: please report the record"),
        (Reason.ENTRY_NO_MATCH, client, "no workload entry grants this identity",
         "add the workload to the world file"),
        (Reason.ENTRY_RESERVED, client, "names below 'handfast/' belong to the platform",
         "choose another name"),
        (Reason.AGENT_RESERVED, client, "the platform itself has this name in its records, so no agent can",
         "choose another name for the agent, such as that of its host"),
        (Reason.AGENT_NAME_TAKEN, client, "an agent was given this name before, and the token was not made for it",
         "choose another name; if this is the agent's host, made anew, make a token for its name (handfast agent token --name NAME)"),
        (Reason.AGENT_REVOKED, server, "the agent's own certificate was revoked, so the server tells it nothing any more",
         "if it is to come back: stop it, remove its identity.pem, and start it with a token made for its name; 'handfast up' makes that itself"),
        (Reason.AGENT_EXPIRED, server, "the agent's own certificate has expired, as the agent was away when it was to be renewed",
         "if it is to come back: start it with a token made for its name ('handfast agent token --name NAME')"),
        (Reason.AGENT_FORGOTTEN, server, "the server knows no such agent any more: an operator forgot it, or a backup from before it was restored",
         "if it is to come back: stop it, remove its identity.pem, and start it with a token made for its name; 'handfast up' makes that itself"),
        (Reason.ISSUANCE_KEY_NOT_ALLOWED, client, "the key in the request is not allowed",
         "use ECDSA P-256 or P-384, Ed25519, or RSA with 2048 to 4096 bits"),
        (Reason.ISSUANCE_BAD_PROOF, client, "the request is not signed with the key that it names",
         "make the CSR with the private key that belongs to it"),
        (Reason.ISSUANCE_KEY_COMPROMISED, client, "a certificate of this key was revoked as compromised",
         "make a new key; whoever else has this one would share the new certificate"),
        (Reason.ISSUANCE_NAME_NOT_ALLOWED, client, "a name in the request is not allowed",
         "ask for the names of the workload's entry, or add them there"),
        (Reason.ISSUANCE_TOO_LONG, client, "the certificate would live longer than its profile allows",
         "ask for a shorter life, or raise the workload's ttl"),
        (Reason.ISSUANCE_ISSUER_ENDS, server, "the issuing authority has ended or ends within minutes, and a leaf never outlives it",
         "replace it with 'handfast ca rotate' (with --root where the root ends as well); 'handfast ca status' says what keeps it from that"),
        (Reason.ISSUANCE_CUT_SHORT, server, "certificates end sooner than was asked for, as their issuing authority ends then",
         "replace it with 'handfast ca rotate' (with --root where the root ends as well); 'handfast ca status' says what keeps it from that"),
        (Reason.ISSUANCE_NAME_CONSTRAINT, client, "the issuing authority may not put this name into certificates",
         "ask for names that its name constraints permit ('handfast ca show' prints them), or let the root sign one that permits more"),
        (Reason.ISSUANCE_NO_STATUS, server, "the workload's certificates are to demand a stapled OCSP response, and name no place to get one",
         "start the server with --status and --status-url, or take 'must_staple' out of the workload's entry"),
        (Reason.ISSUANCE_LINT, server, "the certificate would break a rule of RFC 5280 or SPIFFE",
         "see the findings in the record"),
        (Reason.ISSUANCE_MISMATCH, server, "what was signed is not what was planned",
         "this is a fault of ours or an attack: the certificate was not delivered and is recorded; please report it"),
        (Reason.AUTHORITY_UNFIT, server, "this certificate cannot be an authority here",
         "have it made anew with what is missing; see 'What a CA needs' in docs/howto/authorities.md"),
        (Reason.AUTHORITY_UNCONFIRMED, server, "the root is a new one, and nobody has confirmed that it is the right one",
         "compare this fingerprint with the one its keeper gives you on another way, then repeat it with --root-fingerprint"),
        (Reason.CALLER_UNKNOWN, client, "the caller did not prove who it is",
         "use a client certificate of this trust domain, or the server's local socket"),
        (Reason.CALLER_NOT_ALLOWED, client, "the caller may not do this",
         "operators may; see 'handfast cert issue --help' for how an operator's certificate is made"),
        (Reason.TOKEN_NOT_VALID, client, "the token is unknown, used or expired",
         "make a new one; a join token works once, and one that was made for a name works for that name alone"),
        (Reason.NOT_FOUND, client, "there is no such thing",
         "list what there is with 'handfast cert list', 'handfast events' or 'handfast export --list'"),
        (Reason.ALREADY_REVOKED, client, "it is revoked already", "nothing is to be done"),
        (Reason.ACME_NAME_NOT_FOUND, client, "the name to be proved was not found in DNS",
         "let the server's resolver know the name (or its _acme-challenge TXT record); --acme resolver=ADDRESS names another resolver"),
        (Reason.ACME_ADDRESS_NOT_ALLOWED, client, "the name to be proved leads to an address that the server may not connect to",
         "private and loopback addresses are allowed by default; --acme network=NETWORK allows others, and never link-local ones"),
        (Reason.ACME_UNREACHABLE, client, "the challenge could not be fetched from the host that wants a certificate",
         "let the server reach that host's port 80 (http-01) or 443 (tls-alpn-01), or name others with --acme http-port=PORT and --acme tls-port=PORT"),
        (Reason.ACME_TLS, client, "the host that wants a certificate did not complete the tls-alpn-01 handshake",
         "its ACME client has to answer on the TLS port with the protocol acme-tls/1; a proxy in front must not end TLS itself"),
        (Reason.ACME_WRONG_ANSWER, client, "the challenge was reached, and what is there does not prove the name",
         "is the name served by the host where the ACME client runs, and does nothing else answer in its place?"),
        (Reason.ROTATION_UNDER_WAY, client, "a rotation is under way",
         "see how far it is with 'handfast ca status'; undo it with 'handfast ca rotate --back'"),
        (Reason.ROTATION_NONE, client, "there is nothing to be done here: no rotation is under way, or nobody holds it up",
         "see 'handfast ca status'; begin one with 'handfast ca rotate'"),
        (Reason.ROTATION_NO_WAY_BACK, client, "the authority from before this rotation cannot issue again",
         "begin another rotation ('handfast ca rotate'), with --root where the root has ended"),
        (Reason.ROTATION_STRANDS, client, "this step would cut off somebody who still depends on the old authority",
         "let them renew, or repeat the command with --force and exactly the number that would be cut off"),
        (Reason.ROTATION_ROOT_ENDS, server, "the root has ended, so a new issuing authority under it would count for nothing",
         "rotate the root: 'handfast ca rotate --root'"),
        (Reason.ROTATION_STUCK, server, "a rotation does not get on",
         "the error is in the record; put right what it names, or undo the rotation with 'handfast ca rotate --back'"),
        (Reason.AUDIT_BROKEN, server, "the audit chain does not hold: recorded events were changed, removed or added",
         "compare with a backup; find out who could write to the database, and keep checkpoints elsewhere"),
        (Reason.ENVOY_REJECTED, server, "Envoy rejected a part of its configuration; the last good one stays",
         "Envoy's words are in the record; change what they name, or report it"),
        (Reason.ENVOY_DIED, server, "Envoy ended by itself, and was started again",
         "its last words are in the log; look for memory limits and for its ports being taken"),
        (Reason.SNAPSHOT_STALE, server, "the agent has not heard from the server for some time; what runs goes on running",
         "is the server running, and does the agent reach it?"),
        (Reason.SNAPSHOT_BAD, server, "a new snapshot is not complete; the last good one stays",
         "see what it lacks in the record"),
        (Reason.RENEWAL_FAILED, server, "a certificate could not be renewed; it will be tried again",
         "see the reason in the record"),
        (Reason.STAPLE_UNUSABLE, server, "an OCSP response cannot be stapled to the host's certificate",
         "see what is wrong with it in the record; compare the clocks of the server and of this host"),
        (Reason.STAPLE_FAILED, server, "no new OCSP response could be had for a host's certificate; the old one is stapled until it ends",
         "see the reason in the record; is the server running, and does the agent reach it?"),
        (Reason.STAPLE_ENDED, server, "the OCSP response that the host's certificate demands has ended, so that clients who ask for it are refused",
         "let the agent reach the server, which makes the next one; where that lasts, take 'must_staple' out of the world file"),
    ]  # fmt: skip
    return {reason: Explanation(summary, side, hint) for reason, side, summary, hint in rows}


EXPLANATIONS: dict[Reason, Explanation] = _table()
