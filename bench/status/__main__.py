"""``python -m bench.status``: what an OCSP answer costs beside ``openssl ocsp``; with ``--crl``, what a list of a million entries costs."""

from __future__ import annotations

import argparse
import sys

from bench.status import crl, ocsp


def main() -> int:
    """Run; 1 where a limit is not kept."""
    parser = argparse.ArgumentParser(prog="python -m bench.status", description=__doc__)
    parser.add_argument("--crl", action="store_true", help="measure a long revocation list instead of OCSP")
    parser.add_argument("--quick", action="store_true", help="fewer rounds of less work: a look, no measurement")
    options = parser.parse_args()
    if options.crl:
        return crl.run(100_000 if options.quick else 1_000_000)
    return ocsp.run(*((3, 100) if options.quick else (9, 500)))


if __name__ == "__main__":
    sys.exit(main())
