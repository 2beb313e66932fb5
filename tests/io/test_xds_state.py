import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest

from handfast.base.refusal import BadInput
from handfast.io.xds_state import (
    CLUSTER,
    EXTENSION,
    LISTENER,
    MAX_SUBSCRIPTIONS,
    ROUTE,
    SECRET,
    Acked,
    Rejected,
    Step,
    Verdicts,
    XdsStream,
)
from tests.io.xds_parts import answer, ask, sent, snapshot, take


def test_the_same_bytes_have_the_same_version_and_other_bytes_another():
    """A version must follow from the content alone."""
    one, same, other = (snapshot((LISTENER, "l", c)).version((LISTENER, "l")) for c in ("a", "a", "b"))
    assert one == same != other


def test_a_digest_does_not_depend_on_the_order_of_a_snapshot():
    """Two snapshots with the same content must have the same digest, and others another."""
    a, b = (CLUSTER, "a", "1"), (LISTENER, "b", "2")
    assert snapshot(a, b).digest == snapshot(b, a).digest != snapshot(a).digest


def test_a_first_script_of_both_sides():
    """Clusters and listeners must be sent unasked by name, secrets and routes once their names are asked for."""
    stream = XdsStream(snapshot((CLUSTER, "c", "c1"), (LISTENER, "l", "l1"), (SECRET, "s", "s1")), Verdicts())
    step = stream.receive(ask(CLUSTER))
    assert sent(step) == [(CLUSTER, ["c1"], [])]
    take(stream, step)
    step = stream.receive(ask(LISTENER))
    assert sent(step) == [(LISTENER, ["l1"], [])]
    secret = stream.receive(ask(SECRET, "s"))
    assert sent(secret) == [(SECRET, ["s1"], [])]
    assert take(stream, step).reports == (Acked(LISTENER, stream.snapshot.digest),)
    assert stream.acknowledged == ""
    take(stream, secret)
    assert stream.acknowledged == stream.snapshot.digest


def test_nothing_is_answered_before_there_is_a_snapshot():
    """An Envoy that connects early must wait, and get everything at once when there is something."""
    stream = XdsStream(None, Verdicts())
    assert stream.receive(ask(CLUSTER)) == stream.receive(ask(LISTENER)) == Step()
    assert sent(stream.set_resources(snapshot((LISTENER, "l", "l1")))) == [(CLUSTER, [], []), (LISTENER, ["l1"], [])]


def test_types_leave_in_their_order_and_removals_after_them_in_the_opposite_one():
    """What is referred to must come before what refers to it, and go after it."""
    urls = (CLUSTER, SECRET, EXTENSION, LISTENER, ROUTE)
    stream = XdsStream(snapshot(), Verdicts())
    for url in urls:
        take(stream, stream.receive(ask(url, *(() if url in {CLUSTER, LISTENER} else ("old", "new")))))
    take(stream, stream.set_resources(snapshot(*((url, "old", "1") for url in urls))))
    step = stream.set_resources(snapshot(*((url, "new", "2") for url in urls)))
    assert sent(step) == [(u, ["2"], []) for u in urls]
    *early, last = [stream.receive(answer(response)) for response in step.responses]
    assert not any(sent(step) for step in early)
    assert sent(last) == [(u, [], ["old"]) for u in reversed(urls)]


def test_nothing_is_removed_while_what_should_take_its_place_is_rejected():
    """A host that moves to a port that is taken goes on being served where it was, until something better is accepted."""
    stream = XdsStream(snapshot((LISTENER, "old", "1")), Verdicts())
    take(stream, stream.receive(ask(LISTENER)))
    moved = stream.set_resources(snapshot((LISTENER, "new", "taken")))
    assert sent(stream.receive(answer(moved.responses[0], "cannot bind"))) == []
    better = stream.set_resources(snapshot((LISTENER, "new", "free")))
    assert sent(better) == [(LISTENER, ["free"], [])]
    assert sent(stream.receive(answer(better.responses[0]))) == [(LISTENER, [], ["old"])]


def test_an_unchanged_resource_is_not_sent_again():
    """A snapshot that changes one resource must cost one resource."""
    stream = XdsStream(snapshot((LISTENER, "a", "1"), (LISTENER, "b", "1")), Verdicts())
    take(stream, stream.receive(ask(LISTENER)))
    assert sent(stream.set_resources(snapshot((LISTENER, "a", "1"), (LISTENER, "b", "2")))) == [(LISTENER, ["2"], [])]
    assert sent(stream.set_resources(snapshot((LISTENER, "a", "1"), (LISTENER, "b", "2")))) == []


def test_a_client_that_comes_back_is_sent_what_it_lacks_alone():
    """After a reconnect, versions that the client names must not be sent, and names that are gone must be removed."""
    now = snapshot((LISTENER, "same", "1"), (LISTENER, "changed", "2"))
    had = {"same": now.version((LISTENER, "same")), "changed": "older", "gone": "x"}
    stream = XdsStream(now, Verdicts())
    step = stream.receive(ask(LISTENER, initial=had))
    assert sent(step) == [(LISTENER, ["2"], [])]
    step = stream.receive(answer(step.responses[0]))
    assert sent(step) == [(LISTENER, [], ["gone"])]
    take(stream, step)
    assert stream.acknowledged == now.digest


def test_a_client_that_has_all_already_is_sent_nothing_and_counts_as_acknowledged():
    """A restart of the server must not touch an Envoy that is up to date."""
    now = snapshot((LISTENER, "l", "1"), (SECRET, "s", "1"), needed=((SECRET, "s"),))
    stream = XdsStream(now, Verdicts())
    assert stream.receive(ask(LISTENER, initial={"l": now.version((LISTENER, "l"))})) == Step()
    assert stream.acknowledged == ""
    assert stream.receive(ask(SECRET, "s", initial={"s": now.version((SECRET, "s"))})) == Step()
    assert stream.acknowledged == now.digest


def test_a_name_that_is_asked_for_again_is_sent_again():
    """The protocol lets a client drop a resource and ask again; it must get it."""
    stream = XdsStream(snapshot((SECRET, "s", "1")), Verdicts())
    take(stream, stream.receive(ask(SECRET, "s")))
    assert sent(stream.receive(ask(SECRET, "s"))) == [(SECRET, ["1"], [])]


def test_a_name_that_is_dropped_is_no_longer_sent():
    """After it unsubscribed, a client must hear nothing of a name."""
    stream = XdsStream(snapshot((SECRET, "s", "1")), Verdicts())
    take(stream, stream.receive(ask(SECRET, "s")))
    stream.receive(ask(SECRET, drop=["s"]))
    assert stream.set_resources(snapshot((SECRET, "s", "2"))) == Step()


def test_a_listener_that_is_rejected_is_not_sent_again_until_it_changes():
    """Envoy keeps the old listener; sending the bad one again must not happen, sending the next one must."""
    stream = XdsStream(snapshot((LISTENER, "l", "1")), Verdicts())
    take(stream, stream.receive(ask(LISTENER)))
    (response,) = stream.set_resources(snapshot((LISTENER, "l", "bad"))).responses
    step = stream.receive(answer(response, "no such filter"))
    assert step.reports == (Rejected(LISTENER, ("l",), "no such filter"),)
    assert step.responses == ()
    assert (
        stream.set_resources(snapshot((LISTENER, "l", "bad"), (LISTENER, "m", "1"))).responses[0].resources[0].name
        == "m"
    )
    assert sent(stream.set_resources(snapshot((LISTENER, "l", "2"), (LISTENER, "m", "1")))) == [(LISTENER, ["2"], [])]


def test_a_secret_that_is_rejected_is_replaced_with_the_last_good_one_at_once():
    """Envoy refuses each listener that uses a secret it refused, until it gets a good one."""
    stream = XdsStream(snapshot((SECRET, "s", "good")), Verdicts())
    take(stream, stream.receive(ask(SECRET, "s")))
    (response,) = stream.set_resources(snapshot((SECRET, "s", "bad"))).responses
    step = stream.receive(answer(response, "key does not match"))
    assert sent(step) == [(SECRET, ["good"], [])]
    assert take(stream, step).responses == ()
    assert stream.set_resources(snapshot((SECRET, "s", "bad"))) == Step()


def test_a_last_good_version_that_is_rejected_too_is_not_sent_for_ever():
    """An Envoy that refuses what it once took must be left alone."""
    stream = XdsStream(snapshot((SECRET, "s", "good")), Verdicts())
    take(stream, stream.receive(ask(SECRET, "s")))
    (response,) = stream.set_resources(snapshot((SECRET, "s", "bad"))).responses
    (response,) = stream.receive(answer(response, "no")).responses
    assert stream.receive(answer(response, "no")).responses == ()


def test_each_resource_is_judged_by_itself():
    """One bad listener must not keep the others out, and must be blamed alone."""
    stream = XdsStream(snapshot((LISTENER, "a", "1"), (LISTENER, "b", "bad"), (LISTENER, "c", "3")), Verdicts())
    step = stream.receive(ask(LISTENER))
    assert sent(step) == [(LISTENER, ["1"], []), (LISTENER, ["bad"], []), (LISTENER, ["3"], [])]
    answers = [answer(x, e) for x, e in zip(step.responses, ("", "no", ""), strict=True)]
    reports = [r for a in answers for r in stream.receive(a).reports]
    assert [type(r) for r in reports] == [Acked, Rejected, Acked]
    assert reports[1].names == ("b",)


def test_a_listener_that_was_refused_for_its_secret_is_tried_again_when_the_secret_is_put_right():
    """A good listener must not stay out because it came while a secret was bad."""
    stream = XdsStream(snapshot((LISTENER, "l", "1"), (SECRET, "s", "good")), Verdicts())
    take(stream, stream.receive(ask(LISTENER)))
    take(stream, stream.receive(ask(SECRET, "s")))
    secret, listener = stream.set_resources(snapshot((LISTENER, "l", "2"), (SECRET, "s", "bad"))).responses
    (restored,) = stream.receive(answer(secret, "no")).responses
    assert stream.receive(answer(listener, "secret s is bad")).responses == ()
    step = stream.receive(answer(restored))
    assert sent(step) == [(LISTENER, ["2"], [])]
    again = stream.receive(answer(step.responses[0], "and still bad"))
    assert again.responses == ()
    assert [type(r) for r in again.reports] == [Rejected]


def test_an_answer_to_an_older_response_does_not_undo_a_newer_one():
    """A rejection that crosses a newer version on the wire must leave the newer one alone."""
    stream = XdsStream(snapshot((LISTENER, "l", "bad")), Verdicts())
    (old,) = stream.receive(ask(LISTENER)).responses
    (new,) = stream.set_resources(snapshot((LISTENER, "l", "2"))).responses
    assert stream.receive(answer(old, "no")).responses == ()
    stream.receive(answer(new))
    assert stream.acknowledged == stream.snapshot.digest


def test_a_way_back_counts_only_when_it_is_answered():
    """While answers are missing, Envoy may hold something else, though it once acknowledged what is wanted now."""
    stream = XdsStream(snapshot((LISTENER, "l", "1"), (LISTENER, "gone", "1")), Verdicts())
    take(stream, stream.receive(ask(LISTENER)))
    there = stream.set_resources(snapshot((LISTENER, "l", "2")))
    back = stream.set_resources(last := snapshot((LISTENER, "l", "1")))
    assert stream.acknowledged != last.digest
    *early, last_step = [stream.receive(answer(r)) for r in (*there.responses, *back.responses)]
    assert stream.acknowledged != last.digest
    assert not any(step.responses for step in early)
    take(stream, last_step)
    assert stream.acknowledged == last.digest


def test_what_was_good_last_is_found_though_the_bad_one_was_known_before():
    """A version that is known to be bad, and comes back behind two good ones, must leave the second of them in place."""
    stream = XdsStream(snapshot((LISTENER, "l", "bad")), Verdicts())
    steps = [stream.receive(ask(LISTENER))]
    steps += [stream.set_resources(snapshot((LISTENER, "l", content))) for content in ("1", "2", "bad")]
    answers = [answer(r, "no" if r.resources[0].resource.value == b"bad" else "") for s in steps for r in s.responses]
    assert [stream.receive(a).responses for a in answers] == [()] * 4


def test_an_envoy_that_starts_anew_gets_the_last_good_version():
    """What an Envoy refused must not be sent to its successor either; the last good must."""
    verdicts = Verdicts()
    stream = XdsStream(snapshot((LISTENER, "l", "good")), verdicts)
    take(stream, stream.receive(ask(LISTENER)))
    (response,) = stream.set_resources(snapshot((LISTENER, "l", "bad"))).responses
    stream.receive(answer(response, "no"))
    fresh = XdsStream(stream.snapshot, verdicts)
    assert sent(fresh.receive(ask(LISTENER))) == [(LISTENER, ["good"], [])]


def test_a_secret_is_put_right_after_a_reconnect_too():
    """A client that names the good version, but refused a newer one on a stream that broke off, must be sent the good one."""
    verdicts = Verdicts()
    good = snapshot((SECRET, "s", "good"))
    stream = XdsStream(good, verdicts)
    take(stream, stream.receive(ask(SECRET, "s")))
    stream.set_resources(snapshot((SECRET, "s", "bad")))
    fresh = XdsStream(good, verdicts)
    assert sent(fresh.receive(ask(SECRET, "s", initial={"s": good.version((SECRET, "s"))}))) == [(SECRET, ["good"], [])]


def test_answers_that_belong_to_nothing_say_nothing():
    """An unknown nonce, one answered before, one of another type, and an unknown type must change nothing."""
    stream = XdsStream(snapshot((LISTENER, "l", "1")), Verdicts())
    (response,) = stream.receive(ask(LISTENER)).responses
    stray = DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce=response.nonce)
    assert stream.receive(stray).reports == ()
    assert stream.receive(answer(response)).reports != ()
    assert stream.receive(answer(response)) == Step()
    assert stream.receive(ask("type.googleapis.com/unknown", "x")) == Step()


def test_too_many_names_are_refused():
    """A stream must not make us remember without bound."""
    stream = XdsStream(snapshot(), Verdicts())
    with pytest.raises(BadInput, match="subscribed to more"):
        stream.receive(ask(SECRET, *(str(i) for i in range(MAX_SUBSCRIPTIONS + 1))))


def test_the_text_of_a_rejection_is_cut():
    """A report must be bounded."""
    stream = XdsStream(snapshot((LISTENER, "l", "1")), Verdicts())
    (response,) = stream.receive(ask(LISTENER)).responses
    assert len(stream.receive(answer(response, "x" * 10_000)).reports[0].message) == 2000
