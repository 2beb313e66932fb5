"""One stream of incremental aggregated discovery, as a state machine without a socket and without a clock.

Decides which resources Envoy is sent, in what order, and what its answers mean. Refuses to know how messages travel, what a
resource holds, and who else is connected.

The law of this file: Envoy is sent what it lacks and nothing else, and what it rejected is never sent to it again until it
changes; in its place stands the last version that this Envoy accepted. Hence, whatever the order of snapshots and answers,
Envoy comes to hold the last good state.

Three rules make the law hold:

* One response carries one resource. Envoy answers a response as a whole but applies it in part: it rejects three listeners for
  the sake of one, keeps the other two, and does not tell later that it has them, so that nobody could take them away.
* What Envoy rejected of a named type (secrets, routes, filters) is put right at once with the last good version. Envoy goes on
  serving the old secret after it refused a new one, but it refuses every listener that uses it until it gets a good one.
* A listener or a cluster that was refused in that state is tried once more when all is put right: it may not be at fault.

Order: clusters, secrets, filter configurations, listeners, routes. What is removed leaves in the opposite order, once Envoy has
accepted all that stays: a host that moves to a port that is taken goes on being served where it was.
Envoy applies what comes on one stream in the order in which it comes. A listener whose secret is missing is held back as a
whole; a route that names a missing cluster answers 503. Nothing that is added waits for an answer: Envoy withholds its answer to a
cluster until that cluster's secrets have come.

Source: the xDS protocol, "Incremental xDS" (envoyproxy.io, api-docs/xds_protocol), with what Envoy 1.40 was seen to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from envoy.service.discovery.v3.discovery_pb2 import Resource as WireResource
from google.protobuf.any_pb2 import Any

from handfast.base.refusal import BadInput
from handfast.envoy.types import CLUSTER, EXTENSION, LISTENER, ROUTE, SECRET

ORDER = (CLUSTER, SECRET, EXTENSION, LISTENER, ROUTE)
WILDCARD = frozenset({CLUSTER, LISTENER})
MAX_SUBSCRIPTIONS = 16_384
MAX_MESSAGE = 2_000

Key = tuple[str, str]
"""A resource's type URL and its name."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource. ``version`` follows from its bytes: the same bytes have the same version in every process."""

    name: str
    version: str
    body: Any

    @classmethod
    def of(cls, name: str, body: Any) -> Resource:
        """Give ``body`` the version that its bytes have: 16 hex digits of their SHA-256."""
        return cls(name, hashlib.sha256(body.value).hexdigest()[:16], body)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that an Envoy is to hold, by type URL and name.

    ``needed`` are the named resources that listeners and clusters refer to; Envoy asks for those once it has read who refers
    to them. ``digest`` (SHA-256, hex) names the snapshot.
    """

    resources: Mapping[str, Mapping[str, Resource]]
    needed: frozenset[Key] = frozenset()
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        """Derive the digest from types, names and versions."""
        rows = sorted(f"{url} {name} {r.version}\n" for url, of in self.resources.items() for name, r in of.items())
        object.__setattr__(self, "digest", hashlib.sha256("".join(rows).encode()).hexdigest())

    def of(self, type_url: str) -> Mapping[str, Resource]:
        """Give the resources of a type, by name."""
        return self.resources.get(type_url, {})

    def version(self, key: Key) -> str | None:
        """Give the version of a resource, None where there is no such resource."""
        resource = self.of(key[0]).get(key[1])
        return resource.version if resource else None


@dataclass(frozen=True, slots=True)
class Acked:
    """Envoy took a response. ``version`` is the digest of the snapshot that it came from."""

    type_url: str
    version: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Envoy refused ``names``, and says why. It goes on with what it had."""

    type_url: str
    names: tuple[str, ...]
    message: str


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from one input: what to send, in this order, and what became known."""

    responses: tuple[DeltaDiscoveryResponse, ...] = ()
    reports: tuple[Acked | Rejected, ...] = ()


@dataclass(slots=True)
class Verdicts:
    """What one Envoy thinks of what it was sent. Outlives the stream: one that comes back gets the last good again.

    ``good`` is the last good of each resource, ``bad`` the version that was refused. ``unanswered`` are named resources on the
    way, ``unhealed`` those that were refused and not put right yet, ``doubtful`` what was refused in that state.
    """

    good: dict[Key, Resource] = field(default_factory=dict)
    bad: dict[Key, str] = field(default_factory=dict)
    unanswered: set[Key] = field(default_factory=set)
    unhealed: set[Key] = field(default_factory=set)
    doubtful: set[Key] = field(default_factory=set)

    def refuse(self, key: Key, resource: Resource, newest: str | None) -> None:
        """Remember ``resource`` as bad while it is the ``newest``; what was good once and is refused now is good no longer."""
        if resource.version == newest:
            self.bad[key] = newest
        if (good := self.good.get(key)) and good.version == resource.version:
            del self.good[key]

    def prune(self, snapshot: Snapshot) -> None:
        """Forget resources that are gone, and refusals of versions that have changed since."""
        for keys in (self.unanswered, self.unhealed, self.doubtful):
            keys.intersection_update([key for key in keys if snapshot.version(key)])
        self.good = {key: r for key, r in self.good.items() if snapshot.version(key)}
        self.bad = {key: version for key, version in self.bad.items() if snapshot.version(key) == version}


@dataclass(slots=True)
class _Subscription:
    """What is known of one type: what Envoy wants, what it holds or will hold, and what it has said it holds."""

    type_url: str
    wildcard: bool = False
    unanswered: bool = False
    names: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    settled: dict[str, str] = field(default_factory=dict)
    newest: dict[str, str] = field(default_factory=dict)

    def wants(self, name: str) -> bool:
        return self.wildcard or name in self.names

    def forget(self, name: str) -> None:
        for known in (self.held, self.settled, self.newest):
            known.pop(name, None)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A response that is not answered yet: one resource, or the names of those that are gone, or nothing."""

    type_url: str
    resource: Resource | None
    removed: tuple[str, ...]
    digest: str


class XdsStream:
    """The state of one stream. Each input gives the `Step` that follows from it."""

    def __init__(self, snapshot: Snapshot | None, verdicts: Verdicts) -> None:
        """Begin with what is to be served (None: nothing is known yet, so nothing is answered) and what is known of the Envoy."""
        self.snapshot = snapshot
        self.acknowledged = ""
        self._verdicts = verdicts
        self._subscriptions: dict[str, _Subscription] = {}
        self._sent: dict[str, _Sent] = {}
        self._nonce = 0

    @property
    def backlog(self) -> int:
        """How many responses Envoy has not answered."""
        return len(self._sent)

    def set_resources(self, snapshot: Snapshot) -> Step:
        """Take a new snapshot, and give what Envoy lacks of it."""
        self.snapshot = snapshot
        self._verdicts.prune(snapshot)
        return self._step([])

    def receive(self, request: DeltaDiscoveryRequest) -> Step:
        """Take a request: a subscription, an answer to a response, or both.

        Raises:
            BadInput: it subscribes to more than 16,384 names of a type.
        """
        if request.type_url not in ORDER:
            return Step()
        reports = self._judge(request)
        self._subscribe(request)
        return self._step(reports)

    def _subscribe(self, request: DeltaDiscoveryRequest) -> None:
        subscription = self._subscriptions.get(request.type_url)
        if subscription is None:
            subscription = self._subscriptions[request.type_url] = _first(request, self._verdicts)
        for name in request.resource_names_subscribe:
            self._add(subscription, name, known=name in request.initial_resource_versions)
        for name in request.resource_names_unsubscribe:
            self._drop(subscription, name)
        if len(subscription.names) > MAX_SUBSCRIPTIONS:
            raise BadInput(f"a stream subscribed to more than {MAX_SUBSCRIPTIONS} names of {request.type_url}")

    def _add(self, subscription: _Subscription, name: str, *, known: bool) -> None:
        """Add a name. A name that is asked for again is sent again: the client may have dropped it meanwhile."""
        if name == "*":
            subscription.wildcard = subscription.type_url in WILDCARD
            return
        subscription.names.add(name)
        if not known:
            subscription.held.pop(name, None)

    def _drop(self, subscription: _Subscription, name: str) -> None:
        if name == "*":
            subscription.wildcard = False
        subscription.names.discard(name)
        if not subscription.wildcard:
            subscription.forget(name)
            self._verdicts.unhealed.discard((subscription.type_url, name))

    def _judge(self, request: DeltaDiscoveryRequest) -> list[Acked | Rejected]:
        """Read an answer. One to a response that was never sent on this stream, or was answered, says nothing."""
        sent = self._sent.get(request.response_nonce)
        if sent is None or sent.type_url != request.type_url:
            return []
        del self._sent[request.response_nonce]
        failed = request.HasField("error_detail")
        if sent.resource:
            subscription = self._subscriptions[sent.type_url]
            newest = subscription.newest.get(sent.resource.name) == request.response_nonce
            if newest:
                self._verdicts.unanswered.discard((sent.type_url, sent.resource.name))
            if failed:
                self._refuse(subscription, sent.resource, newest=newest)
            else:
                self._accept(subscription, sent.resource)
        if not failed:
            return [Acked(sent.type_url, sent.digest)]
        names = (sent.resource.name,) if sent.resource else sent.removed
        return [Rejected(sent.type_url, names, request.error_detail.message[:MAX_MESSAGE])]

    def _accept(self, subscription: _Subscription, resource: Resource) -> None:
        key = (subscription.type_url, resource.name)
        self._verdicts.good[key] = resource
        self._verdicts.unhealed.discard(key)
        if subscription.wants(resource.name):
            subscription.settled[resource.name] = resource.version

    def _refuse(self, subscription: _Subscription, resource: Resource, *, newest: bool) -> None:
        """Remember a resource as bad; unless a newer one is on the way, note what Envoy is left with.

        That is the version before, or, of a named type, a state in need of healing.
        """
        name, key = resource.name, (subscription.type_url, resource.name)
        self._verdicts.refuse(key, resource, self.snapshot.version(key) if self.snapshot else None)
        if subscription.type_url in WILDCARD:
            if self._verdicts.unhealed:
                self._verdicts.doubtful.add(key)
        elif subscription.wants(name):
            self._verdicts.unhealed.add(key)
        if newest:
            subscription.held.pop(name, None)
            if subscription.type_url in WILDCARD and name in subscription.settled:
                subscription.held[name] = subscription.settled[name]

    def _step(self, reports: list[Acked | Rejected]) -> Step:
        if self.snapshot is None:
            return Step((), tuple(reports))
        self._forgive()
        responses = (*self._additions(self.snapshot), *self._removals(self.snapshot))
        if self._complete(self.snapshot):
            self.acknowledged = self.snapshot.digest
        return Step(responses, tuple(reports))

    def _forgive(self) -> None:
        """Try those once more that were refused while a secret they may use was in a bad state."""
        if not self._verdicts.unhealed:
            for key in self._verdicts.doubtful:
                self._verdicts.bad.pop(key, None)
            self._verdicts.doubtful.clear()

    def _additions(self, snapshot: Snapshot) -> Iterator[DeltaDiscoveryResponse]:
        for subscription in self._in_order():
            for resource in self._due(subscription, snapshot):
                yield self._send(subscription, snapshot, resource)
            if subscription.unanswered:
                yield self._send(subscription, snapshot)

    def _removals(self, snapshot: Snapshot) -> Iterator[DeltaDiscoveryResponse]:
        """Take away what is no longer in the snapshot, once Envoy has accepted all that is: it may have to stand in for it."""
        if not self._accepted(snapshot):
            return
        for subscription in reversed(self._in_order()):
            gone = tuple(sorted(name for name in subscription.held if name not in snapshot.of(subscription.type_url)))
            if gone:
                yield self._send(subscription, snapshot, removed=gone)

    def _accepted(self, snapshot: Snapshot) -> bool:
        """Tell whether nothing of the snapshot is on its way, or known to be bad."""
        if any(sent.resource for sent in self._sent.values()):
            return False
        bad = self._verdicts.bad
        return not any(bad.get((url, r.name)) == r.version for url in ORDER for r in snapshot.of(url).values())

    def _in_order(self) -> list[_Subscription]:
        return [self._subscriptions[url] for url in ORDER if url in self._subscriptions]

    def _due(self, subscription: _Subscription, snapshot: Snapshot) -> Iterator[Resource]:
        """Give what Envoy wants and does not hold."""
        for name, newest in sorted(snapshot.of(subscription.type_url).items()):
            target = self._target(subscription, newest)
            if target and subscription.wants(name) and subscription.held.get(name) != target.version:
                yield target

    def _target(self, subscription: _Subscription, newest: Resource) -> Resource | None:
        """Give what Envoy is to hold: the newest, or the last good where that is known to be bad.

        Which one was good last is known when nothing of that name is on the way any more.
        """
        key = (subscription.type_url, newest.name)
        if self._verdicts.bad.get(key) != newest.version:
            return newest
        return None if subscription.newest.get(newest.name) in self._sent else self._verdicts.good.get(key)

    def _send(
        self, to: _Subscription, snapshot: Snapshot, resource: Resource | None = None, removed: tuple[str, ...] = ()
    ) -> DeltaDiscoveryResponse:
        self._nonce += 1
        nonce = str(self._nonce)
        self._sent[nonce] = _Sent(to.type_url, resource, removed, snapshot.digest)
        to.unanswered = False
        for name in removed:
            to.forget(name)
        if resource:
            to.held[resource.name] = resource.version
            to.newest[resource.name] = nonce
            if to.type_url not in WILDCARD:
                self._verdicts.unanswered.add((to.type_url, resource.name))
        return DeltaDiscoveryResponse(
            system_version_info=snapshot.digest[:16],
            type_url=to.type_url,
            nonce=nonce,
            resources=[WireResource(name=r.name, version=r.version, resource=r.body) for r in (resource,) if r],
            removed_resources=removed,
        )

    def _complete(self, snapshot: Snapshot) -> bool:
        """Tell whether Envoy has acknowledged all that it is to hold, and has nothing left to answer."""
        if self._sent or not self._subscriptions:
            return False
        keys = (
            {(url, name) for url in WILDCARD for name in snapshot.of(url)}
            | snapshot.needed
            | self._subscribed(snapshot)
        )
        return all(self._settled(key) == snapshot.version(key) for key in keys)

    def _subscribed(self, snapshot: Snapshot) -> set[Key]:
        return {(url, name) for url, s in self._subscriptions.items() for name in s.names if name in snapshot.of(url)}

    def _settled(self, key: Key) -> str:
        subscription = self._subscriptions.get(key[0])
        return subscription.settled.get(key[1], "") if subscription else ""


def _first(request: DeltaDiscoveryRequest, verdicts: Verdicts) -> _Subscription:
    """Begin a subscription. One to listeners or clusters that names none is to all of them.

    An Envoy that holds nothing of the type waits for an answer even where there is nothing to send. What it says it holds counts
    for nothing where the stream before broke off amid an answer: it may have refused a newer version since.
    """
    url, known = request.type_url, dict(request.initial_resource_versions)
    unsure = verdicts.unanswered | verdicts.unhealed
    held = {name: version for name, version in known.items() if (url, name) not in unsure}
    wildcard = url in WILDCARD and not request.resource_names_subscribe
    return _Subscription(url, wildcard, url in WILDCARD and not known, held=held, settled=dict(held))
