"""The verbs against a real server: what they print, what they write, how they end."""

import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from handfast.app.server.callers import Role
from handfast.base.events import RequestDenied
from handfast.base.reasons import Reason
from handfast.io.credentials import Credential
from handfast.trust.facts import pem_certificates
from tests.app.cli.terminal import Shown, handfast, run, steady
from tests.app.sites import DOMAIN, WORLD, Site
from tests.support.clock import START

Run = Callable[..., Awaitable[Shown]]


@pytest.fixture
async def here(here: Site) -> Site:
    """Give a running control plane, and a world beside it."""
    Path("world.yaml").write_text(WORLD)
    return here


@pytest.mark.usefixtures("here")
async def test_a_session_reads_as_it_did(golden: Callable[[str, str], None]):
    """From the first diff to the last status, with every exit code."""
    steps = (
        "diff world.yaml",
        "apply world.yaml",
        "apply world.yaml",
        "diff world.yaml",
        "export",
        "export --revision 7",
        "export --list",
        "export --list --revision 1",
        "export --json",
        "cert issue payments",
        "cert issue handfast/agent/edge",
        "cert list",
        "cert list --state revoked",
        "cert show payments/cert.pem",
        "cert revoke payments --reason keyCompromise",
        "cert revoke payments",
        "cert revoke payments --reason because",
        "cert list --name payments",
        "events --kind certificate.revoked --kind certificate.refused --kind world.applied",
        "explain nothing",
        "status",
    )
    told = []
    for step in steps:
        shown = await handfast(*step.split())
        told.append(f"$ handfast {step}\n{shown.out}{shown.err}exit {shown.code}\n")
    golden("session.txt", steady("\n".join(told)))


@pytest.mark.usefixtures("here")
async def test_a_list_of_revisions_is_whole():
    """More of them than a page holds, as JSON and as a table; the newest stands first."""
    await handfast("apply", "world.yaml")
    for number in range(2, 104):
        Path("world.yaml").write_text(f"{WORLD}# {number}\n" if number % 2 else WORLD.replace("GET", "POST"))
        assert (await handfast("apply", "world.yaml")).code == 0
    rows = json.loads((await handfast("export", "--list", "--json")).out)
    assert [row["number"] for row in rows] == list(range(103, 0, -1))
    assert len((await handfast("export", "--list")).out.splitlines()) == 104


async def test_an_issued_certificate_is_three_files_that_belong_together(here: Site, tmp_path: Path):
    """Chain, key for its owner alone, roots; and the key was made here."""
    shown = await handfast(
        "cert", "issue", "team/ledger", "--dns", "ledger.internal", "--ttl", "90m", "--out", "tls", "--p12"
    )
    assert shown.code == 0
    files = {path.name: path for path in (tmp_path / "tls").iterdir()}
    assert set(files) == {"cert.pem", "key.pem", "ca.pem", "client.p12"}
    assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o600}
    held = Credential(*(files[name].read_text() for name in ("key.pem", "cert.pem", "ca.pem")))
    assert here.holder(held)
    assert held.leaf.dns_sans == ("ledger.internal",)
    assert held.bundle_pem == here.bundle


@pytest.mark.parametrize("words", [("cert", "issue", "payments"), ("cert", "batch", "-")])
def test_a_life_that_is_none_is_named(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The option stands before the sentence, also where no server is asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("payments\n"))
    shown = run(*words, "--ttl", "soon")
    assert shown.code == 2
    assert shown.err.startswith("handfast: error: --ttl: 'soon' is not a duration")


async def test_an_operator_elsewhere_needs_its_certificate(here: Site):
    """With ``--server`` and an operator's directory the same verbs work over mutual TLS."""
    await handfast("cert", "issue", "ann", "--operator", "--out", "ann")
    remote = {"HANDFAST_SERVER": here.server.url, "HANDFAST_IDENTITY": "ann"}
    shown = await handfast("apply", "world.yaml", "--json", **remote)
    assert (shown.code, json.loads(shown.out)["revision"]) == (0, 1)
    await handfast("cert", "revoke", "handfast/operator/ann")
    shown = await handfast("apply", "world.yaml", **remote)
    assert shown.code == 1
    assert "revoked" in shown.err


async def test_a_workload_is_no_operator(here: Site):
    """Its certificate opens none of the verbs."""
    await handfast("cert", "issue", "payments")
    shown = await handfast("status", "--server", here.server.url, "--identity", "payments")
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.startswith("handfast: error: ")
    assert "handfast: hint: " in shown.err


async def test_json_is_for_programs(here: Site):
    """With ``--json`` each verb prints JSON and nothing else; events are one a line."""
    await here.issue("payments")
    await handfast("apply", "world.yaml")
    serial = json.loads((await handfast("cert", "list", "--json")).out)[0]["serial"]
    for words in (["status"], ["cert", "show", serial], ["diff", "world.yaml"], ["cert", "revoke", serial]):
        assert json.loads((await handfast(*words, "--json")).out)
    lines = (await handfast("events", "--json")).out.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))


async def test_findings_are_exit_code_one(here: Site):
    """An agent that is behind is a reason to look."""
    assert (await handfast("status")).code == 0
    await here.being(Role.AGENT)
    shown = await handfast("status")
    assert shown.code == 1
    assert "edge is behind" in shown.out


async def test_a_refusal_is_explained(here: Site):
    """By the request id that the client got: the story, and the decision again."""
    await here.apply()
    event = RequestDenied(
        id="7c1c0f0e-3a55-4b53-9a3e-1f6d1c1e8f55", at=START, gateway="edge", host=f"api.{DOMAIN}", route="/", method="PUT", path="/",
        peer="192.0.2.1:1", status=403, reason=Reason.POLICY_NO_MATCH, identity=f"spiffe://{DOMAIN}/payments", revision="1",
    )  # fmt: skip
    await here.server.platform.ledger.append([event])
    shown = await handfast("explain", event.id)
    assert shown.code == 0
    assert Reason.POLICY_NO_MATCH.summary in shown.out
    assert "handfast explain" not in shown.out  # the hint leads to here
    assert json.loads((await handfast("explain", event.id, "--json")).out)["decision"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["a/b", "a?b=c", "a#b", "%2e%2e", "", "x" * 129])
async def test_an_id_is_never_a_path(name: str):
    """What cannot be an id is not asked for."""
    shown = await handfast("explain", name)
    assert shown.code == 2
    assert "is not the id" in shown.err


@pytest.mark.usefixtures("here")
async def test_a_faulty_world_is_told_with_its_place(tmp_path: Path):
    """File, line and key, before anything is sent."""
    (tmp_path / "bad.yaml").write_text(WORLD.replace("workloads", "worklods"))
    for verb in ("apply", "diff"):
        shown = await handfast(verb, "bad.yaml")
        assert (shown.code, shown.out) == (2, "")
        assert shown.err.startswith("handfast: error: bad.yaml:2: ")


async def test_who_sees_secrets_on_the_terminal(here: Site):
    """No verb prints a key."""
    for words in (
        ["cert", "issue", "a", "--p12"],
        ["cert", "show", "a/cert.pem"],
        ["cert", "list", "--json"],
        ["status", "--json"],
    ):
        shown = await handfast(*words)
        assert "PRIVATE KEY" not in shown.out + shown.err
    assert here


# Without a server


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "words", [["status"], ["events"], ["explain", "x"], ["cert", "list"], ["export"], ["cert", "revoke", "x"]]
)
@pytest.mark.usefixtures("nowhere")
def test_without_a_server_the_hint_says_how_to_start_one(words: list[str]):
    """Error, hint, and exit code 2: the data directory is not one."""
    shown = run(*words)
    assert (shown.code, shown.out) == (2, "")
    error, hint = shown.err.splitlines()
    assert error == "handfast: error: no server runs with the data directory .handfast"
    assert hint.startswith("handfast: hint: start one with 'handfast up'")


def test_a_socket_that_nobody_answers_on_is_three(nowhere: Path):
    """What may pass has an exit code of its own."""
    (nowhere / "server.sock").touch()
    shown = run("status", "--data", str(nowhere))
    assert (shown.code, shown.out) == (3, "")
    assert shown.err.startswith("handfast: error: the server at ")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:7443", "ftp://x"])
@pytest.mark.usefixtures("nowhere")
def test_a_server_is_reached_over_tls_alone(url: str):
    """No address begins with anything but https."""
    shown = run("status", "--server", url)
    assert shown.code == 2
    assert "https://" in shown.err


def test_an_operators_key_must_be_private(nowhere: Path):
    """A key that others can read is not used."""
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (nowhere / name).write_text("x")
        (nowhere / name).chmod(0o644)
    shown = run("status", "--server", "https://127.0.0.1:1", "--identity", str(nowhere))
    assert shown.code == 2
    assert "others can read this secret" in shown.err


def test_a_file_without_certificates_is_said(nowhere: Path):
    """`cert show` reads PEM."""
    (nowhere / "x.pem").write_text("nothing")
    shown = run("cert", "show", "x.pem")
    assert shown.code == 2
    assert "x.pem" in shown.err
    assert run("cert", "show", "zz").code == 2


@pytest.mark.parametrize(
    "words",
    [
        ["--api", "7443"],
        ["--api", "127.0.0.1:x"],
        ["--admin", "127.0.0.1:99999"],
        ["--passphrase-file", "none"],
        ["--config", "none.yaml"],
        ["--workers", "0"],
        ["--gateway-port", "0"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("nowhere")
def test_a_wrong_start_is_two(words: list[str]):
    """Each option is looked at before anything is started."""
    shown = run("up", *words)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err
    assert not Path(".handfast/authority").exists()


def test_the_chain_in_a_file_is_shown_whole(nowhere: Path):
    """Leaf and intermediate, one after the other."""
    from tests.support.pki import Pki  # noqa: PLC0415

    leaf = Pki().leaf()
    (nowhere / "x.pem").write_bytes(leaf.chain_pem)
    assert (
        len(json.loads(run("cert", "show", "x.pem", "--json").out))
        == len(pem_certificates(leaf.chain_pem.decode()))
        == 2
    )
