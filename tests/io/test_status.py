from http import HTTPStatus

import pytest

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused, Unavailable
from handfast.io.status import ExitCode, exit_code, http_status

OWN = {
    Reason.CALLER_UNKNOWN: 401,
    Reason.TOKEN_NOT_VALID: 401,
    Reason.NOT_FOUND: 404,
    Reason.ALREADY_REVOKED: 409,
    Reason.ISSUANCE_MISMATCH: 500,
    Reason.ISSUANCE_LINT: 500,
}


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_is_a_refusal_for_everybody(reason: Reason):
    """Forbidden, unless a better word was chosen; never a success, never a redirect; exit code 1."""
    error = Refused(Refusal(reason))
    assert http_status(error) == OWN.get(reason, HTTPStatus.FORBIDDEN)
    assert exit_code(error) == ExitCode.REFUSED == 1


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BadInput("x"), HTTPStatus.BAD_REQUEST, ExitCode.USAGE),
        (Unavailable("x"), HTTPStatus.SERVICE_UNAVAILABLE, ExitCode.UNAVAILABLE),
    ],
)
def test_the_others_have_one_word_each(error: HandfastError, status: int, code: int):
    """What cannot be read is the caller's, what does not answer may pass."""
    assert (http_status(error), exit_code(error)) == (status, code)


def test_exit_codes_are_those_that_are_written_down():
    """Scripts depend on them."""
    assert {code.name: code.value for code in ExitCode} == {"OK": 0, "REFUSED": 1, "USAGE": 2, "UNAVAILABLE": 3}
