import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import BOTH_VERSIONS, GONE, Connection, Seen, curl
from tests.e2e.echo import LOOPBACK, Echo
from tests.e2e.platform import Client, Platform, wait_for
from tests.support.ports import free_port

HOST = "api.example.org"
ROUNDS = 10


def world(gateway: int, service: Echo, allow: str = "[payments]", more: str = "", hosts: str = "") -> str:
    """Give a world with one host; ``allow`` is what its route '/' allows, ``more`` further routes, ``hosts`` further hosts."""
    return f"""\
trust_domain: example.org
workloads:
  payments: {{}}
hosts:
  {HOST}:
    listen: {LOOPBACK}:{gateway}
    clients: {{certificate: required}}
    routes:
      - {{path: /, upstream: "{service.url}", allow: {allow}}}
{more}{hosts}"""


@pytest.fixture(scope="module")
def other() -> Iterator[Echo]:
    """Give a second service."""
    service = Echo()
    yield service
    service.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, echo: Echo) -> Iterator[Platform]:
    """Give a platform whose world may be changed."""
    gateway = free_port()
    running = Platform(tmp_path_factory.mktemp("changing"), world(gateway, echo), gateway)
    try:
        running.start()
        yield running
    finally:
        running.close()


@pytest.fixture
def plain(site: Platform, echo: Echo) -> Iterator[str]:
    """Begin and end with the smallest world; give it."""
    text = world(site.gateway, echo)
    site.apply(text)
    yield text
    site.apply(text)


@pytest.fixture(scope="module")
def payments(site: Platform) -> Client:
    """Give the client that every world here lets in."""
    return site.issue("payments")


def written(directory: Path, text: str, name: str = "handfast.yaml") -> Path:
    """Write a world file."""
    path = directory / name
    path.write_text(text)
    return path


# Changes under load


class Load:
    """Clients that send all the while, each over connections of its own."""

    def __init__(self, platform: Platform, client: Client) -> None:
        """Begin."""
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self._over = threading.Event()
        self._works = [lambda tls=tls: self._stay(platform, client, tls) for tls in BOTH_VERSIONS]
        self._works.append(lambda: self._come_anew(platform, client))
        self._threads = [threading.Thread(target=self._send, args=(work,)) for work in self._works]
        for thread in self._threads:
            thread.start()

    def _send(self, work: Callable[[], None]) -> None:
        try:
            while not self._over.is_set():
                work()
        except GONE as error:
            self.failures.append(repr(error))

    def _stay(self, platform: Platform, client: Client, tls: object) -> None:
        """Send over one connection until the gateway asks to end it (RFC 9112 section 9.6)."""
        with Connection(platform, HOST, client.files, tls) as connection:
            while not self._over.wait(0.004):
                response = connection.request("/under-load", "POST")
                self.statuses.append(response.status)
                if response.named("connection") == ["close"]:
                    return

    def _come_anew(self, platform: Platform, client: Client) -> None:
        self._over.wait(0.02)
        with Connection(platform, HOST, client.files) as connection:
            self.statuses.append(connection.request().status)

    def end(self) -> None:
        """Stop sending."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def _round(at: int, gateway: int, services: tuple[Echo, Echo]) -> str:
    """Give the world of a round: other rules, another service, other headers, other routes, another host each time."""
    one, two = services if at % 2 else services[::-1]
    allow = f"[payments, guest-{at}]"
    more = f"      - {{path: /extra-{at}, upstream: '{two.url}', allow: [guest-{at}], headers: {{X-Round-{at % 3}: name}}}}\n"
    hosts = (
        f"  extra-{at}.example.org:\n    listen: {LOOPBACK}:{gateway}\n    clients: {{certificate: optional}}\n"
        f"    session: true\n    routes: [{{path: /, upstream: '{two.url}', allow: anyone}}]\n"
    )
    return world(gateway, one, allow, more, hosts)


def test_changes_under_load_drop_no_request(site: Platform, echo: Echo, other: Echo, plain, payments: Client):
    """Ten applies, each with other rules, routes, services, hosts and revoked certificates, fail no request."""
    guests = [site.issue(f"guest-{at}") for at in range(ROUNDS)]
    load = Load(site, payments)
    try:
        for at, guest in enumerate(guests):
            assert site.apply(_round(at, site.gateway, (echo, other))).changed
            assert Seen(curl(site, f"{HOST}/extra-{at}", files=guest.files)).one(f"x-round-{at % 3}") == f"guest-{at}"
            assert curl(site, f"extra-{at}.example.org/").status == 200
            if at:
                assert curl(site, f"{HOST}/", files=guests[at - 1].files).plain["code"] == "policy.no-match"
                site.revoke(guests[at - 1])
    finally:
        load.end()
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert len(load.statuses) > 20 * ROUNDS


# Applying


def test_an_apply_is_in_force_within_a_second(site: Platform, echo: Echo, plain, tmp_path: Path):
    """'handfast apply' tells its effect and its revision, and an open connection has the new rules within a second."""
    before = site.status()["revision"]
    clerk = site.issue("clerk")
    with Connection(site, HOST, clerk.files) as connection:
        assert connection.request().status == 403
        done = site.run("apply", written(tmp_path, world(site.gateway, echo, "[payments, clerk]")))
        wait_for("new rule in force", lambda: connection.request().status == 200, 1.0)
    assert f"revision {before + 1} counts" in done.stdout
    assert "clerk" in done.stdout
    assert "clerk: no workload has this identity" in done.stderr


BROKEN = {
    "unknown-key": ("allow: [payments]", "alow: [payments]", 9, "alow"),
    "unknown-word": ("certificate: required", "certificate: mandatory", 7, "hosts.api.example.org.clients.certificate"),
    "bad-path": ("path: /,", "path: v1,", 9, "hosts.api.example.org.routes[0].path"),
    "bad-upstream": ("http://", "ftp://", 9, "hosts.api.example.org.routes[0].upstream"),
    "bad-domain": ("trust_domain: example.org", "trust_domain: Example Org", 1, "trust_domain"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_by_place(site: Platform, plain, payments: Client, tmp_path: Path, broken):
    """A broken world names file, line and key, exits with 2, and changes nothing."""
    good, bad, line, key = broken
    file, before = written(tmp_path, plain.replace(good, bad), "broken.yaml"), site.status()["revision"]
    error, *hints = site.run("apply", file, expect=2).stderr.splitlines()
    assert error.startswith(f"handfast: error: {file}:{line}: ")
    assert key in error
    assert all(hint.startswith("handfast: hint: ") for hint in hints)
    assert site.status()["revision"] == before
    assert site.world() == plain
    assert curl(site, f"{HOST}/", files=payments.files).status == 200


def test_diff_refuses_a_broken_file_alike(site: Platform, plain, tmp_path: Path):
    """'handfast diff' names the place as 'handfast apply' does."""
    file = written(tmp_path, plain.replace("allow:", "alow:"), "broken.yaml")
    assert site.run("diff", file, expect=2).stderr == site.run("apply", file, expect=2).stderr


def test_another_trust_domain_is_refused(site: Platform, plain, tmp_path: Path):
    """A good file for another trust domain is not applied: it would orphan every certificate."""
    file = written(tmp_path, plain.replace("trust_domain: example.org", "trust_domain: other.test"))
    assert "this server's trust domain is example.org" in site.run("apply", file, expect=2).stderr
    assert site.world() == plain


def test_diff_tells_who_loses_what(site: Platform, plain, payments: Client, echo: Echo, tmp_path: Path):
    """'handfast diff' counts the requests of the last days that would be refused, exits with 1, and changes nothing."""
    with Connection(site, HOST, payments.files) as connection:
        assert {connection.request("/ledger", "PATCH").status for _ in range(3)} == {200}
    file = written(tmp_path, world(site.gateway, echo, "[{identity: payments, methods: [GET, POST]}]"))

    def told() -> str:
        lines = site.run("diff", file, expect=1).stdout.splitlines()
        return next((line for line in lines if "PATCH" in line and line.startswith("payments")), "")

    line = wait_for("loss in the diff", told)
    assert line == f"payments loses PATCH / on {HOST}; 3 such requests in the last 7 days (policy.no-match)"
    assert site.world() == plain
    assert curl(site, f"{HOST}/", "-X", "PATCH", files=payments.files).status == 200


def test_diff_of_the_same_is_nothing(site: Platform, plain, tmp_path: Path):
    """The file that counts differs in nothing, and exits with 0."""
    assert site.run("diff", written(tmp_path, plain)).stdout.splitlines()[-1] == "nothing would change"


def test_every_revision_is_kept(site: Platform, plain, echo: Echo):
    """'handfast export' gives what was written, of the revision that counts and of those before it."""
    number = site.status()["revision"]
    changed = site.apply("# another comment\n" + world(site.gateway, echo, "any-certificate"))
    assert changed.revision == number + 1
    assert site.run("export").stdout.startswith("# another comment\n")
    assert site.run("export", "--revision", str(number)).stdout == plain
