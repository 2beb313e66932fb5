from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from handfast.access.inlining import FileName, file_names, inlined

TEXT = """\
# roots: not-this.pem
trust_domain: example.org  # Ü
authorities:
  acme:
    roots: acme.pem   # the chain
    revocation: {when_unknown: refuse, crl: "lists/acme crl.pem"}
    identities: [{match: {common_name: "*"}, identity: "roots/{common_name}"}]
  beta: {"roots": 'beta.pem', revocation: {crl: "http://crl.test/a"}}
hosts: {roots: {listen: 1}}
"""


def content(named: FileName) -> str:
    return f'-- {named.name} --\n"quoted": \\ é\n'


def test_the_files_are_found_where_they_stand():
    """Roots and lists of authorities, and nothing else that is called so."""
    found = [(one.key, one.name, one.line) for one in file_names(TEXT)]
    assert found == [("roots", "acme.pem", 5), ("crl", "lists/acme crl.pem", 6), ("roots", "beta.pem", 8)]


def test_their_text_takes_their_place():
    """All else is as it was written, comments and lines too."""
    text = inlined(TEXT, content)
    plain = yaml.safe_load(text)["authorities"]
    assert plain["acme"]["roots_pem"] == '-- acme.pem --\n"quoted": \\ é\n'
    assert plain["acme"]["revocation"] == {
        "when_unknown": "refuse",
        "crl_pem": '-- lists/acme crl.pem --\n"quoted": \\ é\n',
    }
    assert plain["beta"]["revocation"] == {"crl": "http://crl.test/a"}
    assert "roots" not in plain["acme"] | plain["beta"]
    assert text.count("\n") == TEXT.count("\n")
    assert "   # the chain" in text
    assert inlined(text, content) == text


@pytest.mark.parametrize(
    "text", ["", "authorities", "authorities: [", "authorities: {a: [roots]}", "authorities: {a: {roots: [x]}}", "{authorities: " * 2000, "authorities: {a: {revocation: x}}"]
)  # fmt: skip
def test_what_is_no_world_names_no_file(text: str):
    """Whoever reads the world says what is wrong with it."""
    assert file_names(text) == ()


@given(st.text(max_size=60).map(lambda text: f"authorities: {{a: {{roots: {text}}}}}"))
def test_any_text_is_taken(text: str):
    """Nothing is raised, whatever stands there."""
    assert isinstance(inlined(text, lambda _: "x"), str)
