"""What authorities that are not ours have revoked: their lists, fetched from where an operator said, and the last good ones kept.

Decides when a list is fetched again, and which one counts. Refuses to judge a list: that is `handfast.trust.foreign_crl`. The
law of this file: an address comes from the world file, never from a certificate, and no redirect is followed; a list that cannot
be used takes the place of none; an older one never takes the place of a newer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import httpx2

from handfast.access.authority import ForeignAuthority
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Unavailable
from handfast.base.windows import from_unix, to_unix
from handfast.io.files import private_directory, read, write
from handfast.trust.facts import pem
from handfast.trust.foreign_crl import MAX_LIST_BYTES, MOST_REVOKED, RevocationList, crl_ders, judge_crl, listed, newer

FETCH_S = 10.0
SOONEST, LATEST = timedelta(minutes=1), timedelta(hours=1)
MOST_KEPT_BYTES = 2 * MAX_LIST_BYTES
"""What is kept is PEM, which is larger than the DER that came."""
Lists = tuple[RevocationList, ...]
Ts = TypeVarTuple("Ts")
T = TypeVar("T")


async def fetch(url: str, *, limit: int = MAX_LIST_BYTES, seconds: float = FETCH_S) -> bytes:
    """Get what is at an http or https URL. Redirects, compression and proxies of the environment are not followed.

    Raises:
        Unavailable: it does not answer with 200, in time and within ``limit`` bytes.
    """
    async with httpx2.AsyncClient(trust_env=False, timeout=seconds) as client:
        try:
            get = client.build_request("GET", url, headers={"accept-encoding": "identity"})
        except httpx2.InvalidURL as error:
            raise Unavailable(f"it cannot be fetched: {str(error)[:200]}") from error
        return await answered(client, get, limit=limit, seconds=seconds)


async def answered(client: httpx2.AsyncClient, request: httpx2.Request, *, limit: int, seconds: float) -> bytes:
    """Send a request and give what is answered. Redirects are not followed.

    Raises:
        Unavailable: it is not answered with 200, in time and within ``limit`` bytes.
    """
    response: httpx2.Response | None = None
    try:
        async with asyncio.timeout(seconds):
            response = await client.send(request, stream=True, follow_redirects=False)
            return await _bounded(response, limit)
    except TimeoutError as error:
        raise Unavailable(f"there is no whole answer within {seconds:.0f} s") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise Unavailable(f"it cannot be fetched: {str(error)[:200] or type(error).__name__}") from error
    finally:
        if response is not None:
            await response.aclose()


async def _bounded(response: httpx2.Response, limit: int) -> bytes:
    if response.status_code != 200:
        raise Unavailable(f"it is answered with {response.status_code}")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise Unavailable(f"it is larger than {limit} bytes")
    return bytes(body)


@dataclass(slots=True)
class Known:
    """What is known of one authority: of which entry of the world, its lists, when to look again, and what was wrong last."""

    of: ForeignAuthority
    lists: Lists = ()
    look_at: datetime | None = None
    fault: Refusal | None = None


class ForeignStatus:
    """The last good lists of all authorities that the world names. They outlive a restart, in ``directory``."""

    def __init__(self, directory: Path) -> None:
        """Know nothing yet."""
        self._directory = directory
        self._known: dict[str, Known] = {}

    def lists_of(self, authorities: Mapping[str, ForeignAuthority]) -> Mapping[str, Lists]:
        """Give the last good lists of these authorities, by name."""
        known = {name: self._known.get(name) for name in sorted(authorities)}
        return {
            name: one.lists for name, one in known.items() if one and one.lists and _same(one.of, authorities[name])
        }

    async def follow(self, authorities: Mapping[str, ForeignAuthority], now: datetime) -> None:
        """Take the world's word for which authorities there are. What stands in the world itself, or was kept, is read at once."""
        self._known = {name: one for name, one in self._known.items() if name in authorities}
        for name, authority in authorities.items():
            known = self._known.get(name)
            if known is None or not _same(known.of, authority):
                self._known[name] = await asyncio.to_thread(self._recalled, authority, now)

    def _recalled(self, authority: ForeignAuthority, now: datetime) -> Known:
        known, revocation = Known(authority), authority.revocation
        if revocation is None or not authority.has_lists:
            return known
        if revocation.pem:
            known.lists, known.fault = _judged(revocation.pem.encode(), known, now, ended=True)
            return known
        known.look_at = now
        try:
            known.lists = tuple(one for der in self._kept(authority) for one in listed(der, authority.cas))
        except HandfastError as error:
            known.fault = _fault(error)
        return known

    def due(self, now: datetime) -> list[ForeignAuthority]:
        """Give the authorities whose list is to be fetched now. A look that is further away than any is of a clock that was set back."""
        return [one.of for one in self._known.values() if one.look_at and not now < one.look_at <= now + LATEST]

    def next_look(self, now: datetime) -> float:
        """Give the seconds until a list is due or ends, an hour at most."""
        looks = [one.look_at for one in self._known.values() if one.look_at]
        ends = [from_unix(one.until) for known in self._known.values() for one in known.lists]
        waits = [(moment - now).total_seconds() for moment in (*looks, *(end for end in ends if end > now))]
        return max(0.0, min([*waits, LATEST.total_seconds()]))

    def faults(self, now: datetime) -> dict[str, Refusal]:
        """Give what is wrong, by authority: a list that has ended before all else."""
        found = {name: one.fault for name, one in self._known.items() if one.fault}
        for name, known in self._known.items():
            if over := next((one for one in known.lists if one.until <= to_unix(now)), None):
                found[name] = Refusal(Reason.REVOCATION_CRL_EXPIRED, {"until": from_unix(over.until).isoformat()})
        return found

    async def renew(self, authority: ForeignAuthority, now: datetime) -> None:
        """Fetch an authority's list, and keep it if it is good. If not, the last good one stays, and the fault is told."""
        known = self._known.get(authority.name)
        if known is None or known.of is not authority or authority.revocation is None:
            return
        known.look_at = now + SOONEST
        try:
            raw = await fetch(authority.revocation.url)
            known.lists, known.fault = await asyncio.to_thread(_judged, raw, known, now)
            if known.fault is None:
                known.look_at = _next_look(known.lists, now)
            await asyncio.to_thread(self._keep, authority, raw, known.lists)
        except HandfastError as error:
            known.fault = _fault(error)

    def _keep(self, authority: ForeignAuthority, raw: bytes, lists: Lists) -> None:
        """Keep the lists that count, of those that were fetched and of those that were kept before; no others beside them."""
        left, before, kept = set(lists), _or_none(self._kept, authority), list[bytes]()
        for der in (*crl_ders(raw), *before):
            if counting := left & set(_or_none(listed, der, authority.cas)):
                kept.append(der)
                left -= counting
        if not kept or tuple(kept) == before:
            return
        text = "".join(pem(der, "X509 CRL") for der in kept).encode()
        if len(text) > MOST_KEPT_BYTES:
            raise BadInput(
                f"its lists are larger than {MOST_KEPT_BYTES} bytes together, and would not outlive a restart",
                hint="have the authority leave expired certificates out of them, or name fewer of its CAs",
            )
        private_directory(self._directory)
        write(self._path(authority), text, 0o600)

    def _kept(self, authority: ForeignAuthority) -> tuple[bytes, ...]:
        path = self._path(authority)
        return crl_ders(read(path, MOST_KEPT_BYTES), most=MOST_KEPT_BYTES) if path.exists() else ()

    def _path(self, authority: ForeignAuthority) -> Path:
        return self._directory / f"{authority.name}.crl.pem"


def _or_none(work: Callable[[*Ts], tuple[T, ...]], *arguments: *Ts) -> tuple[T, ...]:
    """Give what can be read, which is nothing where it is damaged."""
    try:
        return work(*arguments)
    except HandfastError:
        return ()


def _same(one: ForeignAuthority, other: ForeignAuthority) -> bool:
    return (one.cas, one.revocation) == (other.cas, other.revocation)


def _judged(raw: bytes, known: Known, now: datetime, *, ended: bool = False) -> tuple[Lists, Refusal | None]:
    """Give the lists that count from now on, and what is wrong with one of those in ``raw``.

    Of one that has ended is taken where ``ended`` says so who stands in it: time brings nobody back.
    """
    held = {one.ca: one for one in known.lists}
    fault: Refusal | None = None
    for der in crl_ders(raw):
        judged = judge_crl(der, known.of.cas, now)
        if ended and isinstance(judged, Refusal) and judged.reason is Reason.REVOCATION_CRL_EXPIRED:
            judged = listed(der, known.of.cas)
        if isinstance(judged, Refusal):
            fault = judged
            continue
        merged = held | {one.ca: newer(one, held.get(one.ca, one)) for one in judged}
        if (count := sum(len(one.serials) for one in merged.values())) > MOST_REVOKED:
            why = {"list": f"with it there are {count} entries of this authority; {MOST_REVOKED} are the most"}
            fault = Refusal(Reason.REVOCATION_CRL_UNUSABLE, why)
            continue
        held = merged
    return tuple(one for _, one in sorted(held.items())), fault


def _next_look(lists: Lists, now: datetime) -> datetime:
    soonest = min((from_unix(one.until) for one in lists), default=now)
    return now + min(max((soonest - now) / 2, SOONEST), LATEST)


def _fault(error: HandfastError) -> Refusal:
    return Refusal(Reason.REVOCATION_CRL_UNAVAILABLE, {"error": error.message[:200]})
