"""What holds for all tests: pure code touches no socket, programs that are missing fail in CI, golden files are kept clean."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from handfast.io import pkcs8, sealed_files
from tests.support.golden import Goldens

TESTS = Path(__file__).parent
LONG = ("e2e", "stories", "envoy_real", "test_documents.py")
PURE = ("base", "trust", "access", "envoy", "doctor")
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}

settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), max_examples=150, derandomize=True, print_blob=True)
settings.load_profile("ci" if IN_CI else "dev")

_GOLDENS = pytest.StashKey[Goldens]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the golden files anew, and delete those that no test asked for",
    )


def pytest_configure(config: pytest.Config) -> None:
    rewrite = config.getoption("--rewrite-golden")
    if rewrite and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--rewrite-golden needs one process: leave -n out")
    config.stash[_GOLDENS] = Goldens(TESTS / "vectors" / "out", rewrite=rewrite)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep pure tests off the network, and begin with the long ones, in what order chance gave them: begun last, one holds up all."""
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in PURE:
            item.add_marker("disable_socket")
    items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] not in LONG)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for the programs that ``@pytest.mark.debian("openssl", ...)`` names."""
    wanted = [program for marker in item.iter_markers("debian") for program in marker.args]
    missing = [program for program in wanted if shutil.which(program) is None]
    if missing and IN_CI:
        pytest.fail(f"not installed: {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with a short path: that of a socket in it has a hundred bytes at most, and a test's name alone may have thirty."""
    return tmp_path_factory.mktemp("d")


@pytest.fixture(autouse=True)
def guesses_cost_little(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive keys from passphrases at once, but where that is what is tested: in earnest each takes 0.15 s and more."""
    if request.path.stem not in {"test_pkcs8", "test_sealed_files"}:
        monkeypatch.setattr(pkcs8, "SCRYPT_P", 1)
        monkeypatch.setattr(pkcs8, "SCRYPT_N", 2**10)
        monkeypatch.setattr(sealed_files, "SCRYPT_N", 2**10)


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        items[0].config.stash[_GOLDENS].partial = True


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    goldens = session.config.stash[_GOLDENS]
    named = any("::" in argument for argument in session.config.args)
    if goldens.rewrite and exitstatus == pytest.ExitCode.OK and not named and not goldens.partial:
        goldens.delete_stale({_group(item) for item in session.items}, TESTS)


def _group(item: pytest.Item) -> str:
    """Give a test module's folder of golden files: ``tests/envoy/test_failures.py`` has ``envoy/failures``."""
    path = item.path.relative_to(TESTS)
    return str(path.with_name(path.stem.removeprefix("test_")))


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden file of that name: ``golden("table.txt", text)``."""
    goldens, group = request.config.stash[_GOLDENS], _group(request.node)
    return lambda name, text: goldens.check(group, name, text)
