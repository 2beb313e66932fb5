import re

import pytest

from handfast.base.reasons import EXPLANATIONS, Reason, Side

CODE = re.compile(r"[a-z]+(-[a-z]+)*(\.[a-z]+(-[a-z]+)*)?")


def test_every_reason_is_explained_and_nothing_else_is():
    """The enum and the table of explanations name the same reasons."""
    assert set(EXPLANATIONS) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_speaks_to_people(reason: Reason):
    """Each has a code for machines, a clause that says what it is, a side, and a hint that says what to do."""
    assert CODE.fullmatch(reason.value)
    assert isinstance(reason.side, Side)
    for text in (reason.summary, reason.hint):
        assert text == text.strip()
        assert text
        assert text[0].islower() or text.startswith(("Envoy", "OpenSSL"))
        assert not text.endswith(".")


def test_no_two_reasons_read_alike():
    """A person who reads only the summary knows which reason it is."""
    summaries = [reason.summary for reason in Reason]
    assert len(set(summaries)) == len(summaries)


def test_a_code_is_the_text_of_its_reason():
    """Logs and metrics can write a reason as it is."""
    assert f"{Reason.CERT_EXPIRED}" == "cert.expired"
    assert Reason("cert.expired") is Reason.CERT_EXPIRED
