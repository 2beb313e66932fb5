"""A root that its keeper has elsewhere, in the hands of plain openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

_ROOT = """\
[req]
distinguished_name = name
prompt = no
x509_extensions = root
[name]
CN = Example Offline Root
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
"""
_CA = """\
[ca]
default_ca = root
[root]
database = {0}/index.txt
crlnumber = {0}/crlnumber
certificate = {0}/root.pem
private_key = {0}/root-key.pem
default_md = sha256
"""


def openssl(*words: str | Path) -> str:
    """Run openssl; give what it printed."""
    done = subprocess.run(["openssl", *words], check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@dataclass(frozen=True)
class OfflineRoot:
    """A directory with a root, its key, and what `openssl ca` remembers."""

    directory: Path

    @property
    def pem(self) -> Path:
        """The root's certificate."""
        return self.directory / "root.pem"

    @property
    def key(self) -> Path:
        """The root's key."""
        return self.directory / "root-key.pem"

    @property
    def fingerprint(self) -> str:
        """Its SHA-256, as openssl prints it."""
        return openssl("x509", "-in", self.pem, "-noout", "-fingerprint", "-sha256").strip().partition("=")[2]

    def sign(self, csr: Path, *, days: int = 300, name: str = "issuing") -> Path:
        """Sign a request as it stands; give the certificate and the root in one file."""
        issuing, chain = self.directory / f"{name}.pem", self.directory / "chain.pem"
        by = ["-CA", self.pem, "-CAkey", self.key, "-CAcreateserial", "-days", str(days)]
        openssl("x509", "-req", "-in", csr, "-copy_extensions", "copyall", *by, "-out", issuing)
        chain.write_text(issuing.read_text() + self.pem.read_text())
        return chain

    def below(
        self, directory: Path, *, length: int | None = 1, more: str = "", days: int = 3000, name: str = "Example Policy"
    ) -> OfflineRoot:
        """Make a CA that this one signed: in the hands of a keeper of its own."""
        policy = offline_root(directory, name=name)
        request, settings = directory / "policy.csr", directory / "policy.cnf"
        bound = "" if length is None else f",pathlen:{length}"
        usage = "keyUsage = critical,keyCertSign,cRLSign\nsubjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid"
        settings.write_text(f"basicConstraints = critical,CA:TRUE{bound}\n{usage}\n{more}\n")
        openssl("req", "-new", "-key", policy.key, "-config", directory / "root.cnf", "-out", request)
        by = ["-CA", self.pem, "-CAkey", self.key, "-CAcreateserial", "-days", str(days), "-extfile", settings]
        openssl("x509", "-req", "-in", request, *by, "-out", policy.pem)
        return policy

    def crl(self, *, days: int = 310, revoked: Path | None = None, began: datetime | None = None) -> Path:
        """Sign a revocation list, of this moment or of an earlier one."""
        out, settings = self.directory / "root.crl", self.directory / "ca.cnf"
        if revoked:
            openssl("ca", "-config", settings, "-revoke", revoked)
        due = ["-crldays", str(days)]
        if began:
            ends = began + timedelta(days=days)
            due = ["-crl_lastupdate", f"{began:%Y%m%d%H%M%SZ}", "-crl_nextupdate", f"{ends:%Y%m%d%H%M%SZ}"]
        openssl("ca", "-config", settings, "-gencrl", *due, "-out", out)
        return out


def offline_root(directory: Path, *, days: int = 3650, key: str = "ec:prime256v1", name: str = "") -> OfflineRoot:
    """Make one."""
    directory.mkdir()
    root = OfflineRoot(directory)
    (directory / "root.cnf").write_text(_ROOT.replace("Example Offline Root", name or "Example Offline Root"))
    (directory / "ca.cnf").write_text(_CA.format(directory))
    (directory / "index.txt").touch()
    (directory / "crlnumber").write_text("01\n")
    kind, _, more = key.partition(":")
    options = ["-pkeyopt", f"ec_paramgen_curve:{more}"] if kind == "ec" else ["-pkeyopt", f"rsa_keygen_bits:{more}"]
    openssl("genpkey", "-algorithm", kind, *options, "-out", root.key)
    root.key.chmod(0o600)
    openssl(
        "req",
        "-new",
        "-x509",
        "-config",
        directory / "root.cnf",
        "-key",
        root.key,
        "-days",
        str(days),
        "-out",
        root.pem,
    )
    return root
