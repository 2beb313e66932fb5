"""A week of a fleet whose authorities are rotated again and again, on a clock that the test moves.

1,500 workloads hold certificates of an hour and follow the keeping logic of the platform (`handfast.trust.renewal`). Twenty of them, spread
over all moments at which they renew, are signed for, and verified; of the others the ledger has the record that a signature would have left. The platform beneath is the
real one: authorities on disk, ledger, slices, and the machine that drives the rotation.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store

from handfast.access.slice import parse_slice
from handfast.app.server.build import ServerConfig, build_server
from handfast.app.server.platform import Platform
from handfast.base.events import AgentJoined
from handfast.base.reasons import Reason
from handfast.base.refusal import Refused
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window
from handfast.io.credentials import new_key
from handfast.io.database import Value, step
from handfast.io.issuance import IssuedCertificate
from handfast.io.ledger.events import to_micros
from handfast.trust.csr import CsrFacts, read_csr
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.plan import LeafRequest
from handfast.trust.profile import BACKDATE
from handfast.trust.renewal import Counting, counting, renew_at, superseded
from tests.support.clock import FakeClock
from tests.support.ledger import revoked_live

HOUR, MINUTE, DAY = timedelta(hours=1), timedelta(minutes=1), timedelta(days=1)
HOLDERS, SIGNED = 1500, 20
EVERY = HOLDERS // SIGNED
AGENTS = ("east", "lost", "west")
ROWS = 50
_COLUMNS = (
    "serial, issuer, identity, name, dns, not_before, not_after, requester, state, tbs, der, fingerprint, recorded_at, "
    "revocation_reason"
)


@dataclass(slots=True)
class Holder:
    """One workload: what it holds, and when it renews."""

    name: str
    jitter: float
    window: Window
    issuer: str = ""
    roots: tuple[bytes, ...] = ()
    superseded_since: datetime | None = None

    @property
    def due(self) -> datetime:
        return renew_at(self.window, self.jitter, self.superseded_since)


@dataclass
class Fleet:
    """A platform, its agents, and all who hold its certificates."""

    platform: Platform
    clock: FakeClock
    holders: list[Holder]
    counting: Counting
    agents: list[str] = field(default_factory=lambda: list(AGENTS))
    issued: int = 0
    verified: int = 0
    _due: list[tuple[datetime, int]] = field(default_factory=list)

    # What a holder does

    async def renew_due(self) -> None:
        """Let everybody renew whose time has come; nobody's certificate has ended by then."""
        now, rows, renewed = self.clock.now(), list[tuple[Value, ...]](), list[int]()
        signing: list[Holder] = []
        while self._due and self._due[0][0] <= now:
            _, number = heapq.heappop(self._due)
            one = self.holders[number]
            if one.due > now:
                continue  # a time from before it was told something else
            assert one.window.contains(now) or not one.issuer, f"{one.name} has ended"
            renewed.append(number)
            if number % EVERY:
                rows.append(self._recorded(one, now))
            else:
                signing.append(one)
        # Who renews in one minute shares the ledger's transactions, as in one turn of a server's loop.
        await asyncio.gather(
            *map(self._sign, signing),
            *(self._insert(rows[start : start + ROWS]) for start in range(0, len(rows), ROWS)),
        )
        for number in renewed:
            self._hold(number)

    def _take(self, one: Holder, issuer: str, roots: tuple[bytes, ...], window: Window) -> None:
        one.issuer, one.roots, one.window, one.superseded_since = issuer, roots, window, None

    def _hold(self, number: int) -> None:
        one = self.holders[number]
        one.superseded_since = self.clock.now() if superseded(one.issuer, one.roots, self.counting) else None
        heapq.heappush(self._due, (one.due, number))

    async def _sign(self, one: Holder) -> None:
        csr = read_csr(new_key().csr_pem.encode())
        assert isinstance(csr, CsrFacts)
        request = LeafRequest(
            identity=self.platform.trust_domain.id(one.name), csr=csr, ttl=HOUR, dns=(f"{one.name}.internal",)
        )
        made = await self.platform.issuance.issue(request, workload=None, requester="story")
        assert isinstance(made, IssuedCertificate)
        seen, roots = facts(made.der), pem_certificates(made.bundle_pem)
        verify(pem_certificates(made.chain_pem), roots, seen.dns_sans[0], self.clock.now())
        self.verified += 1
        self._take(one, seen.aki, roots, seen.window)

    def _recorded(self, one: Holder, now: datetime) -> tuple[Value, ...]:
        authority = self.platform.authority
        self.issued += 1
        serial, issuer = f"{self.issued:040x}", authority.issuer_facts.key_id.hex()
        self._take(one, issuer, authority.roots, Window(now - BACKDATE, now + HOUR))
        begin, end, at = to_micros(one.window.not_before), to_micros(one.window.not_after), to_micros(now)
        identity = f"spiffe://example.org/{one.name}"
        return (
            serial,
            issuer,
            identity,
            one.name,
            "[]",
            begin,
            end,
            "story",
            "issued",
            b"",
            b"",
            f"{serial}{'0' * 24}",
            at,
            "",
        )

    async def _insert(self, rows: list[tuple[Value, ...]]) -> None:
        flat = [value for row in rows for value in row]
        await self.platform.ledger._db.write(step(_inserting(len(rows), len(rows[0])), *flat))

    # What goes on

    def told(self) -> None:
        """Have every holder learn from the newest slice what counts, as an agent tells those that it serves."""
        current = self.platform.slices.current.value
        assert current
        slice_ = parse_slice(current.body)
        roots = [der for text in slice_.roots for der in pem_certificates(text)]
        newest = counting(pem_certificates(slice_.issuers[0])[0], roots)
        if newest == self.counting:
            return
        self.counting = newest
        for number in range(len(self.holders)):
            self._hold(number)

    async def minute(self) -> None:
        """Pass one minute, or five while nothing happens."""
        rotation = self.platform.rotation
        busy = any(row.stage.value not in {"issuing", "retired"} for row in rotation.rows)
        self.clock.set(self.clock.now() + (MINUTE if busy else 5 * MINUTE))
        await self.renew_due()
        current = self.platform.slices.current.value
        assert current
        for name in self.agents if busy else ():
            await self.platform.ledger.agent_reported(name, self.clock.now(), current.digest, [])
        await rotation.go_on()
        self.told()
        self.check()

    def check(self) -> None:
        """Hold every kind of holder against every other: each trusts what each shows, and every gateway takes it."""
        authorities = self.platform.authorities
        kinds = Counter((one.issuer, one.roots) for one in self.holders)
        for issuer, _ in kinds:
            above = authorities.by_issuer(issuer)
            assert above, "somebody holds a certificate of an authority that does not count"
            assert all(above.root_der in roots for _, roots in kinds)
        now = self.clock.now()
        assert all(now < one.window.not_after for one in self.holders)

    async def until(self, done: Callable[[], bool], within: timedelta) -> None:
        end = self.clock.now() + within
        while not done():
            assert self.clock.now() < end, f"not within {within}"
            await self.minute()

    async def live(self, length: timedelta) -> None:
        end = self.clock.now() + length
        while self.clock.now() < end:
            await self.minute()

    async def rotated(self, within: timedelta) -> None:
        """Live on until the rotation is over."""
        await self.until(lambda: self.stages()[-1] == "issuing" and "retiring" not in self.stages(), within)

    def stages(self) -> list[str]:
        return [row.stage.value for row in self.platform.rotation.rows]


@cache
def _inserting(count: int, width: int) -> str:
    rows = ("(" + ", ".join(f"${row * width + column + 1}" for column in range(width)) + ")" for row in range(count))
    return f"insert into certificates ({_COLUMNS}) values {', '.join(rows)}"


def verify(chain: tuple[bytes, ...], roots: tuple[bytes, ...], name: str, now: datetime) -> None:
    """Build the path as a TLS client does, with a library that knows nothing of us."""
    leaf, *others = map(x509.load_der_x509_certificate, chain)
    store = Store([x509.load_der_x509_certificate(root) for root in roots])
    authorities = ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, Criticality.CRITICAL, lambda _, __, ext: _is_ca(ext)
    )
    policies = {"ca_policy": authorities, "ee_policy": ExtensionPolicy.permit_all().require_present(
        x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)}  # fmt: skip
    builder = PolicyBuilder().store(store).time(now.replace(tzinfo=None)).extension_policies(**policies)
    assert builder.build_server_verifier(x509.DNSName(name)).verify(leaf, others)


def _is_ca(constraints: x509.BasicConstraints) -> None:
    assert constraints.ca


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Give a fleet in which everybody has a first certificate."""
    clock = FakeClock()
    config = ServerConfig(
        directory=tmp_path, trust_domain=TrustDomain("example.org"), api=("127.0.0.1", 0), admin=("127.0.0.1", 0)
    )
    server = await build_server(config, clock)
    platform = server.platform
    now = clock.now()
    for name in AGENTS:
        await platform.ledger.add_agent(AgentJoined(id=f"join-{name}", at=now, agent=name, serial="00"))
    begin = Window(now - DAY, now - BACKDATE)
    holders = [Holder(f"workload-{n:04}", -1 + 2 * n / HOLDERS, begin) for n in range(HOLDERS)]
    made = Fleet(platform, clock, holders, platform.authorities.counting)
    made._due = [(now, number) for number in range(HOLDERS)]
    await made.renew_due()
    yield made
    await server.stop(0)


@pytest.mark.timeout(240)
async def test_a_week_of_rotations_drops_nothing(fleet: Fleet):
    """Two issuing authorities, a root, a lost agent and a compromise: nobody's certificate ends, and everybody trusts everybody."""
    rotation, first = fleet.platform.rotation, fleet.platform.authority
    await fleet.live(DAY / 2)

    await rotation.begin(root=False, compromised=False, requester="story")
    await fleet.rotated(within=2 * HOUR)
    assert fleet.stages() == ["retired", "issuing"]
    assert fleet.platform.authority.root_der == first.root_der

    await fleet.live(DAY)
    fleet.agents.remove("lost")
    await rotation.begin(root=True, compromised=False, requester="story")
    await fleet.live(3 * HOUR)
    (held,) = (await rotation.outlook()).waiting
    assert ([one.name for one in held.agents], held.leaves.count) == (["lost"], 0)
    assert fleet.stages() == ["retired", "issuing", "published"]
    with pytest.raises(Refused) as caught:
        await rotation.force(2, "story")
    assert caught.value.refusal.reason is Reason.ROTATION_STRANDS
    await rotation.force(1, "story")
    await fleet.rotated(within=2 * HOUR)
    assert first.root_der not in fleet.platform.authorities.roots
    await fleet.live(10 * MINUTE)
    assert {one.roots for one in fleet.holders} == {fleet.platform.authorities.roots}

    await fleet.live(2 * DAY)
    await rotation.forget_agent("lost", "story")
    await rotation.begin(root=False, compromised=False, requester="story")
    await fleet.rotated(within=2 * HOUR)

    await fleet.live(DAY)
    await _a_compromise(fleet)
    await fleet.live(DAY)

    assert fleet.stages() == ["retired"] * 4 + ["issuing"]
    assert fleet.clock.now() - fleet.platform.rotation.rows[0].since > 5 * DAY
    assert fleet.verified > 7 * 24 * SIGNED
    assert fleet.issued > 6 * 24 * (HOLDERS - SIGNED)


async def _a_compromise(fleet: Fleet) -> None:
    """All of it is renewed within minutes; then what is left of it is refused, and so is what its thief will sign."""
    rotation, authorities = fleet.platform.rotation, fleet.platform.authorities
    stolen = fleet.platform.authority.issuer_facts.key_id.hex()
    thief = Holder("workload-0000", 0, fleet.holders[0].window)
    await fleet._sign(thief)
    await rotation.begin(root=False, compromised=True, requester="story")
    await fleet.rotated(within=10 * MINUTE)
    assert not authorities.accepts(stolen)
    assert {one.issuer for one in fleet.holders} == {fleet.counting.issuer} != {stolen}
    now = fleet.clock.now()
    assert thief.window.contains(now)
    revoked = {one.serial for one in await revoked_live(fleet.platform.ledger, now)}
    assert len(revoked) >= HOLDERS
    assert thief.issuer == stolen
    current = fleet.platform.slices.current.value
    assert current
    slice_ = parse_slice(current.body)
    lists = [x509.load_pem_x509_crl(text.encode()) for text in slice_.crls]
    gone = next(row for row in rotation.rows if row.issuer == stolen)
    assert sum(len(one) for one in lists if one.issuer == lists[0].issuer) == 2  # the authority, and who answers for it
    assert gone.compromised
    assert len(lists) == 2
