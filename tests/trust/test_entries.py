from pathlib import Path

import pytest

import handfast
from handfast.base.events import SERVER
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.trust.entries import RESERVED_AGENTS, refuse_agent


@pytest.mark.parametrize("name", sorted(RESERVED_AGENTS))
def test_an_agent_cannot_have_the_name_of_the_platform_itself(name: str):
    """What it reports would be told as the server's own."""
    assert refuse_agent(name) == Refusal(Reason.AGENT_RESERVED, {"agent": name})


@pytest.mark.parametrize("name", ["edge", "local", "server-1", "servers", "my-server", "agent", "operator"])
def test_other_names_are_free(name: str):
    """What only begins or ends like a reserved name is another one."""
    assert refuse_agent(name) is None


def test_the_platform_calls_itself_by_no_other_name():
    """Whatever event the server makes itself, its gateway and source are the reserved name, and no text of its own."""
    assert SERVER in RESERVED_AGENTS
    source = Path(handfast.__file__).parent / "app" / "server"
    texts = [text for file in source.rglob("*.py") for text in file.read_text().splitlines()]
    named = [line.strip() for line in texts if 'gateway="' in line or 'source="' in line]
    assert not [line for line in named if 'source="issued"' not in line]
