"""Any interleaving, against a model of Envoy on the other side of two queues."""

from collections import deque
from dataclasses import dataclass, field

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from hypothesis import given, settings
from hypothesis import strategies as st

from handfast.io.xds_state import CLUSTER, LISTENER, SECRET, Snapshot, Verdicts, XdsStream
from tests.io.xds_parts import answer, ask, snapshot


@dataclass
class ModelEnvoy:
    """Applies as Envoy does: partly, in order, with secrets that stay bad until a good one comes."""

    applied: dict[tuple[str, str], str] = field(default_factory=dict)
    tracked: dict[tuple[str, str], str] = field(default_factory=dict)
    poisoned: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    requests: deque[DeltaDiscoveryRequest] = field(default_factory=deque)

    def connect(self) -> None:
        """Say what is held, and of what more is wanted."""
        self.requests.clear()
        for url in (CLUSTER, LISTENER):
            self.requests.append(ask(url, initial=self._tracked(url)))
        if self.asked:
            self.requests.append(ask(SECRET, *sorted(self.asked), initial=self._tracked(SECRET)))

    def _tracked(self, url: str) -> dict[str, str]:
        return {name: version for (u, name), version in self.tracked.items() if u == url}

    def take(self, response: DeltaDiscoveryResponse) -> None:
        """Apply what can be applied, and answer."""
        url, errors = response.type_url, []
        wanted = [r for r in response.resources if url != SECRET or r.name in self.asked]
        for resource in wanted:
            content = resource.resource.value.decode()
            if error := self._apply(url, resource.name, content):
                errors.append(error)
                if url == SECRET:
                    break
        for name in response.removed_resources:
            self.applied.pop((url, name), None)
        if not errors:
            self.tracked.update({(url, r.name): r.version for r in wanted})
            for name in response.removed_resources:
                self.tracked.pop((url, name), None)
        self._resubscribe()
        self.requests.append(answer(response, "; ".join(errors)))

    def _apply(self, url: str, name: str, content: str) -> str:
        kind, *uses = content.split("|")
        if kind.startswith("bad"):
            if url == SECRET:
                self.poisoned.add(name)
            return f"{name} is bad"
        if url == LISTENER and self.poisoned.intersection(uses):
            return f"{name} uses a bad secret"
        if url == SECRET:
            self.poisoned.discard(name)
        self.applied[url, name] = content
        return ""

    def _resubscribe(self) -> None:
        wanted = {
            use for (url, _), content in self.applied.items() if url == LISTENER for use in content.split("|")[1:]
        }
        if wanted == self.asked:
            return
        for name in self.asked - wanted:
            self.tracked.pop((SECRET, name), None)
            self.poisoned.discard(name)
        self.requests.append(ask(SECRET, *sorted(wanted - self.asked), drop=sorted(self.asked - wanted)))
        self.asked = wanted


_content = st.tuples(
    st.sampled_from(["good1", "good2", "good3", "bad1", "bad2"]), st.sampled_from(["", "|s", "|t", "|s|t"])
)
_listeners = st.dictionaries(st.sampled_from("abc"), _content.map("".join), max_size=3)
_secrets = st.fixed_dictionaries({n: st.sampled_from(["good1", "good2", "bad1", "bad2"]) for n in "st"})
_worlds = st.tuples(_listeners, _secrets).map(
    lambda w: snapshot(*((LISTENER, n, c) for n, c in w[0].items()), *((SECRET, n, c) for n, c in w[1].items()))
)
_moves = st.lists(
    st.one_of(_worlds, st.sampled_from(["request", "response", "response", "request", "reconnect"])), max_size=40
)


def contents(of: Snapshot, url: str) -> dict[str, str]:
    return {name: resource.body.value.decode() for name, resource in of.of(url).items()}


class Wire:
    """Our side and Envoy's, with two queues between them that lose what is in them when the stream breaks."""

    def __init__(self, first: Snapshot) -> None:
        """Begin with a connected Envoy and nothing delivered."""
        self.envoy, self.verdicts = ModelEnvoy(), Verdicts()
        self.responses: deque[DeltaDiscoveryResponse] = deque()
        self.stream = XdsStream(first, self.verdicts)
        self.envoy.connect()

    def move(self, move: Snapshot | str) -> None:
        """Publish, deliver one message, or break the stream."""
        if isinstance(move, Snapshot):
            self.responses.extend(self.stream.set_resources(move).responses)
        elif move == "reconnect":
            self.stream = XdsStream(self.stream.snapshot, self.verdicts)
            self.responses.clear()
            self.envoy.connect()
        elif move == "request" and self.envoy.requests:
            self.responses.extend(self.stream.receive(self.envoy.requests.popleft()).responses)
        elif move == "response" and self.responses:
            self.envoy.take(self.responses.popleft())

    def settle(self) -> None:
        """Deliver all messages; there must be an end of them."""
        for _ in range(1000):
            self.move("request")
            self.move("response")
            if not self.envoy.requests and not self.responses:
                return
        raise AssertionError("it never comes to rest")


def is_good(content: str) -> bool:
    return content.startswith("good")


@settings(max_examples=150, deadline=None)
@given(_worlds, _moves)
def test_any_interleaving_ends_in_the_last_good_state(first: Snapshot, moves: list[Snapshot | str]):
    """When all is quiet, Envoy must hold each good resource of the last snapshot, and nothing else where all of it is good."""
    wire = Wire(first)
    for move in moves:
        wire.move(move)
    wire.settle()

    envoy, last = wire.envoy, wire.stream.snapshot
    listeners, secrets = contents(last, LISTENER), contents(last, SECRET)
    held = {name: content for (url, name), content in envoy.applied.items() if url == LISTENER}
    if all(map(is_good, [*listeners.values(), *secrets.values()])):  # else the old stays, to stand in for the bad
        assert held.keys() == listeners.keys()
    usable = {n: c for n, c in listeners.items() if is_good(c) and not envoy.poisoned.intersection(c.split("|"))}
    assert usable.items() <= held.items()

    good = {name for name in envoy.asked if is_good(secrets[name])}
    assert all(envoy.applied[SECRET, name] == secrets[name] for name in good)
    restorable = {name for name in envoy.asked if (SECRET, name) in wire.verdicts.good}
    assert not envoy.poisoned & (good | restorable)
    assert (wire.stream.acknowledged == last.digest) == (good == envoy.asked and all(map(is_good, listeners.values())))
