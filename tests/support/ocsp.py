"""OCSP responders of others: answers of every kind, a server that gives them, and OpenSSL's own."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.partners import authority
from tests.support.pki import Issued

LOOPBACK = "127.0.0.1"
GOOD, REVOKED, UNKNOWN = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED, ocsp.OCSPCertStatus.UNKNOWN


def delegate(by: Issued, *, purpose: bool = True, ends: timedelta = timedelta(days=1)) -> Issued:
    """Certify somebody who answers in a CA's stead, or who just has a certificate of it."""
    eku = ExtendedKeyUsageOID.OCSP_SIGNING if purpose else ExtendedKeyUsageOID.CLIENT_AUTH
    return authority("Responder", by, ca=False, eku=eku, ends=ends)


@dataclass(kw_only=True)
class Saying:
    """What an answer says. Times count from now; ``until`` None leaves the end out."""

    word: ocsp.OCSPCertStatus = GOOD
    since: timedelta = timedelta(minutes=-1)
    until: timedelta | None = timedelta(hours=1)
    nonce: bytes | None = None
    signer: Issued | None = None
    sent: tuple[Issued, ...] = ()
    algorithm: hashes.HashAlgorithm = field(default_factory=hashes.SHA1)
    digest: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()


def answer(leaf: x509.Certificate, by: Issued, said: Saying) -> bytes:
    """Sign an answer about a leaf of a CA, DER: by the CA itself, or by ``said.signer``."""
    now, signer = datetime.now(UTC), said.signer or by
    revoked = said.word is REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=leaf,
            issuer=by.cert,
            algorithm=said.algorithm,
            cert_status=said.word,
            this_update=now + said.since,
            next_update=None if said.until is None else now + said.until,
            revocation_time=now - timedelta(days=1) if revoked else None,
            revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, signer.cert)
    )
    if said.sent:
        builder = builder.certificates([one.cert for one in said.sent])
    if said.nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(said.nonce), critical=False)
    for extension, critical in said.extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer.key, said.digest).public_bytes(Encoding.DER)


def failure(status: ocsp.OCSPResponseStatus) -> bytes:
    """Write an answer without a signature."""
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)


def nonce_of(request: bytes) -> bytes:
    """Give the nonce of a request."""
    value = ocsp.load_der_ocsp_request(request).extensions.get_extension_for_class(x509.OCSPNonce).value
    return value.nonce


# Servers


@dataclass
class Site:
    """A responder that says what it is told to; it counts who asked, with which header fields."""

    server: ThreadingHTTPServer
    reply: Callable[[bytes], bytes] = lambda _: b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stall: float = 0.0
    asked: list[bytes] = field(default_factory=list)
    fields: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server.server_port}/ocsp"


@contextmanager
def site() -> Iterator[Site]:
    """Run one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["content-length"]))
            made.asked.append(asked)
            made.fields.append({name.lower(): text for name, text in self.headers.items()})
            time.sleep(made.stall)
            body = made.reply(asked)
            self.send_response(made.status)
            for name, value in {**made.headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # who asked did not wait

    made = Site(Server((LOOPBACK, 0), Handler))
    threading.Thread(target=made.server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


def index(*lines: tuple[str, x509.Certificate]) -> str:
    """Write the file that ``openssl ca`` keeps: ``V`` or ``R`` and the certificate. It has a tab between fields."""
    rows = []
    for mark, one in lines:
        ends = f"{one.not_valid_after_utc:%y%m%d%H%M%SZ}"
        at = f"{datetime.now(UTC) - timedelta(hours=1):%y%m%d%H%M%SZ},keyCompromise" if mark == "R" else ""
        serial = f"{one.serial_number:X}"
        rows.append("\t".join((mark, ends, at, serial.zfill(len(serial) + len(serial) % 2), "unknown", "/CN=x")))
    return "".join(f"{row}\n" for row in rows)


@contextmanager
def openssl(directory: Path, by: Issued, signer: Issued, *more: str) -> Iterator[str]:
    """Run ``openssl ocsp`` over ``index.txt`` in a directory, and give its URL. It looks at that file again when it was changed."""
    (directory / "ca.pem").write_bytes(by.cert_pem)
    files, said = signer.write(directory, "responder"), directory / "openssl.log"
    command = ["openssl", "ocsp", "-port", "0", "-ignore_err", "-index", "index.txt", "-CA", "ca.pem",
               "-rsigner", str(files.chain), "-rkey", str(files.key), *more]  # fmt: skip
    with said.open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield f"http://{LOOPBACK}:{_port(process, said)}/"
    finally:
        process.terminate()
        process.wait(10)


def _port(process: subprocess.Popen[bytes], said: Path) -> int:
    """Read on which port OpenSSL listens: it says so once it does."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        assert process.poll() is None, said.read_text()
        if found := re.search(r"ACCEPT .*:(\d+) PID", said.read_text()):
            return int(found[1])
        time.sleep(0.02)
    raise AssertionError(f"the responder does not listen: {said.read_text()}")
