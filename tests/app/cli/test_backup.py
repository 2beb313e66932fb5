import json
from pathlib import Path

import pytest
from cryptography import x509

from handfast.app.server.messages import RevocationAnswer, RevocationRequest
from handfast.base.reasons import Reason
from handfast.base.refusal import Refused
from handfast.io.sealed import Passphrase
from tests.app.cli.terminal import handfast
from tests.app.sites import Site, site


async def revoke(here: Site, serial: str) -> None:
    request = RevocationRequest(serial=serial)
    await here.operator.call("POST", "/v1/revocations", RevocationAnswer, request)


def crl_number(here: Site) -> int:
    """Give the number of the list that gateways have now."""
    prepared = here.server.platform.slices.current.value
    assert prepared is not None
    numbers = []
    for text in json.loads(prepared.body)["crls"]:
        listed = x509.load_pem_x509_crl(text.encode())
        numbers.append(listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    return max(numbers)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a directory with an empty data directory in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".handfast").mkdir(0o700)
    return tmp_path


async def test_a_platform_goes_on_from_its_backup(place: Path):
    """Saved while it runs, restored elsewhere, started: certificates, revocations and world are known, and numbers go ahead."""
    async with site(place / ".handfast") as here:
        await here.apply()
        held, gone = await here.issue("payments"), await here.issue("gone")
        await revoke(here, gone.leaf.serial)
        shown = await handfast("backup", "a.tar")
        assert shown.code == 0
        late = await here.issue("late")
        for _ in range(3):
            await revoke(here, (await here.issue("x")).leaf.serial)
        await handfast("audit", "checkpoint", "--out", "late.json")
        number = crl_number(here)
    shown = await handfast("restore", "a.tar", "--data", "new")
    assert shown.code == 0
    assert "revocations made after" in shown.err
    async with site(place / "new") as again:
        ledger, slices = again.server.platform.ledger, again.server.platform.slices
        assert await ledger.by_serial(held.leaf.serial)
        assert slices.denied == {gone.leaf.fingerprint}
        assert set(slices.world.workloads) == {"payments"}
        assert crl_number(again) > number
        assert again.bundle == here.bundle
        with pytest.raises(Refused) as caught:
            await again.operator.send("GET", "/v1/certificates/" + late.leaf.serial)
        assert caught.value.refusal.reason is Reason.NOT_FOUND
        assert (await again.holder(held).send("GET", "/v1/authority")).status_code == 200
        shown = await handfast("audit", "verify", "--data", "new")
        assert (shown.code, shown.err) == (0, "")
        # What came after the backup is gone, and whoever kept a checkpoint of it sees that.
        shown = await handfast("audit", "verify", "--data", "new", "--checkpoint", "late.json")
        assert shown.code == 1


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("sealed", [True, False])
async def test_keys_that_lie_open_are_said_loudly(sealed: bool):
    """On the terminal, with each file; sealed ones are not mentioned."""
    async with site(Path(".handfast"), passphrase=Passphrase(b"0123456789abcdef") if sealed else None):
        shown = await handfast("backup", "a.tar")
    assert shown.code == 0
    assert ("NOT SEALED" in shown.err) != sealed
    assert ("authority/issuing-key.pem" in shown.err) != sealed
    assert Path("a.tar").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("place")
async def test_what_stands_in_the_way_is_two():
    """An archive or a directory that is there already, no ledger, no archive."""
    async with site(Path(".handfast")):
        assert (await handfast("backup", "a.tar")).code == 0
        for words in (
            ["backup", "a.tar"],
            ["backup", "b.tar", "--data", "nowhere"],
            ["backup", "none/b.tar"],
            ["backup", ".handfast/b.tar"],
            ["restore", "a.tar", "--data", ".handfast"],
            ["restore", "none.tar", "--data", "new"],
            ["restore", ".handfast/ledger.sqlite", "--data", "new"],
        ):
            shown = await handfast(*words)
            assert (shown.code, shown.out) == (2, ""), words
            assert shown.err.startswith("handfast: error: ")
    assert not Path("new").exists()
