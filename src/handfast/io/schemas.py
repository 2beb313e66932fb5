"""Several ledgers in one PostgreSQL database: the first trust domain's where the address leads, each further one's in a schema of its own.

Decides what belongs to one of them alone: the schema that its sessions see, and nothing else; the lock by which its writers take turns;
the channel on which they tell each other. Refuses to know what is in a ledger.

A session sees its schema from its first moment, by a startup parameter. It is never set later: behind a pooler that hands sessions around, the next
one could be another trust domain's.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from handfast.base.spiffe import TrustDomain
from handfast.io.postgres_session import Address, Session, quoted

MAX_NAME_BYTES = 63
"""PostgreSQL cuts longer names, so that two could become one: ``NAMEDATALEN`` less 1."""
_FIRST = "handfast"
_LOCK_BYTES, _DIGEST_HEX = 8, 40


def address_of(first: Address, trust_domain: TrustDomain) -> Address:
    """Give the address of a further trust domain's ledger, in the database of the ``first`` one's."""
    return replace(first, schema=schema_of(trust_domain), shown=f"{first.shown} ({trust_domain})")


def schema_of(trust_domain: TrustDomain) -> str:
    """Give the schema's name: the trust domain's with a prefix, or its digest with another where that is too long."""
    name = f"{_FIRST}/{trust_domain}"
    return name if len(name) <= MAX_NAME_BYTES else f"{_FIRST}#{_digest(str(trust_domain)).hex()[:_DIGEST_HEX]}"


def channel(schema: str) -> str:
    """Give the channel of a schema, as `asyncpg` takes it; "" is the first trust domain's."""
    return schema or _FIRST


def lock(schema: str) -> str:
    """Give the statement that waits for a schema's advisory lock and holds it to the transaction's end."""
    seed = _digest(schema)[:_LOCK_BYTES] if schema else _FIRST.encode()
    return f"select pg_advisory_xact_lock({int.from_bytes(seed, 'big', signed=True)})"


async def make(session: Session, schema: str) -> None:
    """Make a schema where there is none, in the transaction that is open. Who may not make one may still use it."""
    if schema and await session.fetchval("select to_regnamespace($1)", quoted(schema)) is None:
        await session.execute(f"create schema {quoted(schema)}")


async def enter(session: Session, schema: str) -> None:
    """See a schema until the transaction that is open ends, and no other; "" is what the session began with."""
    await session.execute(f"set local search_path to {quoted(schema) if schema else 'default'}")


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
