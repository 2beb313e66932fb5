"""One table from errors to what each face of the platform calls them: HTTP, exit codes."""

from __future__ import annotations

from enum import IntEnum

from handfast.base.reasons import Reason
from handfast.base.refusal import HandfastError, Refused, Unavailable


class ExitCode(IntEnum):
    """What the command line's exit code says."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNAVAILABLE = 3


_HTTP: dict[Reason, int] = {
    Reason.CALLER_UNKNOWN: 401,
    Reason.TOKEN_NOT_VALID: 401,
    Reason.NOT_FOUND: 404,
    Reason.ALREADY_REVOKED: 409,
    Reason.ISSUANCE_MISMATCH: 500,
    Reason.ISSUANCE_LINT: 500,
}


def http_status(error: HandfastError) -> int:
    """Give the HTTP status of an error: a refusal's own or 403, 503 for what may pass, 400 for what cannot be read."""
    if isinstance(error, Refused):
        return _HTTP.get(error.refusal.reason, 403)
    return 503 if isinstance(error, Unavailable) else 400


def exit_code(error: HandfastError) -> ExitCode:
    """Give the exit code of an error."""
    if isinstance(error, Refused):
        return ExitCode.REFUSED
    return ExitCode.UNAVAILABLE if isinstance(error, Unavailable) else ExitCode.USAGE
