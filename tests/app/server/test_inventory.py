from datetime import timedelta
from typing import Any

import pytest

from handfast.app.server.callers import Role
from handfast.app.server.inventory_messages import (
    ImportAnswer,
    ImportRequest,
    InventoryList,
    InventoryRow,
    OwnerRequest,
)
from handfast.app.server.messages import Nothing
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from handfast.trust.facts import facts, pem_certificates
from tests.app.sites import Site
from tests.support.pki import Issued, Pki

PARTNER = Pki("Partner")


async def import_(site: Site, *certificates: Issued, owner: str = "") -> ImportAnswer:
    text = b"".join(one.cert_pem for one in certificates).decode()
    request = ImportRequest(certificates=text, owner=owner)
    return await site.operator.call("POST", "/v1/inventory", ImportAnswer, request)


async def search(site: Site, **query: str) -> list[InventoryRow]:
    page = await site.operator.call("GET", "/v1/inventory", InventoryList, **query)
    return [row for row in page.certificates if row.name != "handfast/server"]


async def test_an_imported_certificate_stands_beside_ours(here: Site):
    """One list has both; what was imported says so, and is an event."""
    ours, theirs = await here.issue("payments"), PARTNER.leaf("client", dns=("client.partner",))
    answer = await import_(here, theirs, owner="team-partners")
    assert (len(answer.imported), answer.known) == (1, 0)
    rows = {row.source: row for row in await search(here)}
    assert rows["issued"].fingerprint == ours.leaf.fingerprint
    seen = facts(theirs.cert_der)
    row = rows["imported"]
    assert (row.fingerprint, row.issuer, row.owner, row.state) == (
        seen.fingerprint,
        seen.issuer,
        "team-partners",
        "watched",
    )
    assert (row.name, row.dns) == (seen.uri_sans[0], ["client.partner"])
    events = (await here.operator.send("GET", "/v1/events", query={"kind": "certificate.imported"})).json()["events"]
    assert [event["fingerprint"] for event in events] == [seen.fingerprint]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"san_uris": ("spiffe://p/x",), "dns": ("a.b",)}, "spiffe://p/x"),
        ({"san_uris": (), "dns": ("a.b",)}, "a.b"),
        ({"san_uris": (), "dns": (), "ips": ()}, "client"),
    ],
)
async def test_what_it_is_called(here: Site, more: dict[str, Any], expected: str):
    """By its URI, else its first DNS name, else its common name."""
    assert (await import_(here, PARTNER.leaf("client", **more))).imported[0].name == expected


async def test_an_import_trusts_nothing(here: Site):
    """The holder of an imported certificate is as unknown as before, whatever identity it claims."""
    theirs = PARTNER.leaf("eve", san_uris=("spiffe://example.org/handfast/operator/eve",))
    await import_(here, theirs)
    with pytest.raises(Refused) as caught:
        await here.anonymous().call("GET", "/v1/inventory", InventoryList)
    assert caught.value.refusal.reason is Reason.CALLER_UNKNOWN
    assert await here.server.platform.ledger.by_fingerprint(facts(theirs.cert_der).fingerprint) is None
    assert (await here.operator.send("GET", "/v1/certificates")).json()["certificates"][0]["name"] == "handfast/server"


async def test_importing_again_is_known(here: Site):
    """One row a certificate, with its newest owner."""
    one, two = PARTNER.leaf("one"), PARTNER.leaf("two")
    await import_(here, one)
    answer = await import_(here, one, two, owner="x")
    assert (len(answer.imported), answer.known) == (1, 1)
    assert {row.owner for row in await search(here)} == {"x"}


async def test_a_certificate_of_ours_is_not_imported(here: Site):
    """It is in the inventory; nothing of the request is kept."""
    held = await here.issue("a")
    with pytest.raises(BadInput):
        await here.operator.call(
            "POST", "/v1/inventory", ImportAnswer, ImportRequest(certificates=held.chain_pem.partition("-----END")[0])
        )
    with pytest.raises(BadInput, match="issued here"):
        await here.operator.call("POST", "/v1/inventory", ImportAnswer, ImportRequest(certificates=held.chain_pem))


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
async def test_what_is_no_certificate_is_not_imported(here: Site, text: str):
    """Bad PEM and bad DER are said."""
    with pytest.raises(BadInput):
        await here.operator.call("POST", "/v1/inventory", ImportAnswer, ImportRequest(certificates=text))
    assert await search(here) == []


async def test_the_search_takes_what_tools_print(here: Site):
    """Colons and capitals in hex, the beginning of a serial, a time to the end."""
    held = await here.issue("a", ttl_seconds=600)
    await here.issue("b", ttl_seconds=86400)
    colons = ":".join(held.leaf.fingerprint[at : at + 2].upper() for at in range(0, 64, 2))
    for query in ({"fingerprint": colons}, {"serial": held.leaf.serial[:9].upper()}, {"expires": "1h"}, {"name": "a"}):
        assert [row.fingerprint for row in await search(here, **query)] == [held.leaf.fingerprint]
    here.clock.set(here.clock.now() + timedelta(hours=1))
    assert [row.name for row in await search(here, state="expired")] == ["a"]


async def test_a_fingerprint_finds_one_with_its_pem(here: Site):
    """Ours and theirs alike; an unknown one is not found."""
    held, theirs = await here.issue("a"), PARTNER.leaf("x")
    await import_(here, theirs)
    for der in (held.leaf_der, theirs.cert_der):
        row = await here.operator.call("GET", f"/v1/inventory/{facts(der).fingerprint.upper()}", InventoryRow)
        assert pem_certificates(row.certificate) == (der,)
    for unknown in ("0" * 64, "x"):
        with pytest.raises(Refused) as caught:
            await here.operator.call("GET", f"/v1/inventory/{unknown}", InventoryRow)
        assert caught.value.refusal.reason is Reason.NOT_FOUND


async def test_an_owner_is_found_by_what_he_looks_after(here: Site):
    """Of a name all certificates, and what was imported for him."""
    await here.issue("payments")
    await here.issue("ledger")
    await import_(here, PARTNER.leaf("x"), owner="team-p")
    await here.operator.call("PUT", "/v1/owners", Nothing, OwnerRequest(name="payments", owner="team-p"))
    rows = await search(here, owner="team-p")
    assert {(row.source, row.owner) for row in rows} == {("issued", "team-p"), ("imported", "team-p")}
    assert len(rows) == 2
    with pytest.raises(BadInput):
        await here.operator.call("PUT", "/v1/owners", Nothing, OwnerRequest(name="../x", owner="a"))


async def test_the_world_file_names_owners(here: Site):
    """Of certificates that are out already, too, and as soon as it changes; what an operator said of such a name waits."""
    await here.issue("payments")
    await here.operator.call("PUT", "/v1/owners", Nothing, OwnerRequest(name="payments", owner="before"))
    world = "trust_domain: example.org\nworkloads: {payments: {owner: OWNER}, ledger: {}}\n"
    for owner in ("team-p", "team-q"):
        await here.apply(world.replace("OWNER", owner))
        (row,) = await search(here, owner=owner)
        assert (row.name, row.owner) == ("payments", owner)
    assert await search(here, owner="before") == []
    shown = await here.operator.call("GET", f"/v1/inventory/{row.fingerprint}", InventoryRow)
    assert shown.owner == "team-q"
    with pytest.raises(BadInput, match="team-q"):
        await here.operator.call("PUT", "/v1/owners", Nothing, OwnerRequest(name="payments", owner="other"))
    await here.operator.call("PUT", "/v1/owners", Nothing, OwnerRequest(name="ledger", owner="other"))
    await here.apply(world.replace("{owner: OWNER}", ""))
    assert [row.name for row in await search(here, owner="before")] == ["payments"]


async def test_pages_make_up_the_whole(here: Site):
    """Following ``next`` gives each certificate once."""
    await import_(here, *(PARTNER.leaf(f"c{n}") for n in range(3)))
    for n in range(3):
        await here.issue(f"w{n}")
    seen, after = [], ""
    while True:
        page = await here.operator.call("GET", "/v1/inventory", InventoryList, limit="2", after=after)
        seen += [row.fingerprint for row in page.certificates]
        after = page.next
        if not after:
            break
    assert len(seen) == len(set(seen)) == 7


@pytest.mark.parametrize(
    "query",
    [{"state": "good"}, {"limit": "501"}, {"after": "x"}, {"serial": "xyz"}, {"fingerprint": "%"}, {"expires": "soon"},
     {"expires": "99999999999d"}, {"name": "x" * 513}],
)  # fmt: skip
async def test_a_query_that_makes_no_sense_is_bad_input(query: dict[str, str], here: Site):
    """Refused, never guessed at."""
    with pytest.raises(BadInput):
        await search(here, **query)


@pytest.mark.parametrize("role", [Role.AGENT, Role.WORKLOAD, Role.NOBODY])
async def test_the_inventory_is_for_operators(here: Site, role: Role):
    """What there is tells an attacker whom to attack."""
    api = await here.being(role)
    for method, path, body in (
        ("GET", "/v1/inventory", None),
        ("GET", f"/v1/inventory/{'0' * 64}", None),
        ("POST", "/v1/inventory", '{"certificates": ""}'),
        ("PUT", "/v1/owners", '{"name": "a", "owner": "b"}'),
        ("GET", "/v1/audit/chain", None),
        ("POST", "/v1/audit/checkpoints", None),
    ):
        with pytest.raises(Refused) as caught:
            await api.send(method, path, body)
        assert caught.value.refusal.reason in {Reason.CALLER_UNKNOWN, Reason.CALLER_NOT_ALLOWED}
