"""Accounts and the keys that bind them to a workload (RFC 8555 sections 7.1.2 and 7.3.4).

Decides what an account is, which contacts it may name, and which DNS names it is granted: those of its workload's entry in
the world, or, where the world has no such entry, those that the operator named with the binding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from handfast.trust.acme.keys import AccountKey
from handfast.trust.acme.problems import AcmeError, Problem
from handfast.trust.entries import Workload

MAX_CONTACTS, MAX_CONTACT = 10, 256
REQUESTER = "acme account "


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What an operator made with ``handfast acme key``: a workload's name, its names where the world has no entry for it.

    ``accounts`` is how many accounts it still lets in.
    """

    id: str
    name: str
    domains: tuple[str, ...]
    accounts: int
    expires: datetime

    def open(self, now: datetime) -> bool:
        """Tell whether it lets another account in."""
        return self.accounts > 0 and now < self.expires


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account: its key, and the workload whose certificates it gets."""

    id: str
    key: AccountKey
    name: str
    domains: tuple[str, ...]
    binding: str
    created: datetime
    contact: tuple[str, ...] = ()
    deactivated: bool = False

    @property
    def requester(self) -> str:
        """How records name it."""
        return f"{REQUESTER}{self.id}"

    def granted(self, workload: Workload | None) -> tuple[str, ...]:
        """Give the DNS names that its certificates may carry; the world's entry counts, where there is one."""
        return workload.dns if workload else self.domains


def read_contact(contact: object) -> tuple[str, ...] | Problem:
    """Read an account's contacts: at most 10 plain mailto addresses of 256 characters (RFC 8555 section 7.3)."""
    if not isinstance(contact, Sequence) or isinstance(contact, str) or len(contact) > MAX_CONTACTS:
        return Problem(AcmeError.INVALID_CONTACT, f"contact is a list of {MAX_CONTACTS} at most")
    for one in contact:
        if not isinstance(one, str) or len(one) > MAX_CONTACT or not one.isascii() or not one.isprintable():
            return Problem(AcmeError.INVALID_CONTACT, f"a contact is a URL of {MAX_CONTACT} plain characters at most")
        scheme, _, address = one.partition(":")
        if scheme != "mailto":
            return Problem(AcmeError.UNSUPPORTED_CONTACT, "a contact is a mailto: address")
        if address.count("@") != 1 or set(address) & set(",?% "):
            return Problem(AcmeError.INVALID_CONTACT, "a contact is one address, without header fields")
    return tuple(contact)
