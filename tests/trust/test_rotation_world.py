"""The law of rotation in a small world that is set in motion at random."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from handfast.base.refusal import Refusal
from handfast.trust import rotation
from handfast.trust.rotation import DELIVERED, SETTLE, AgentSeen, Facts, Generations, Holder, Leaves, Stage, Step, Verb
from tests.trust.rotation_parts import HOUR, NOW, first, made


@dataclass
class Leaf:
    """A live certificate, the roots that came with it, and when."""

    name: str
    issuer: int
    roots: frozenset[int]
    recorded: datetime
    ends: datetime


@dataclass
class Agent:
    """An agent: the generations in the slice that it acknowledged, and when it was last heard of."""

    name: str
    has: frozenset[int]
    seen: datetime


@dataclass
class World:
    """What a platform is made of, as far as rotation goes."""

    now: datetime = NOW
    rows: Generations = field(default_factory=first)
    agents: dict[str, Agent] = field(default_factory=dict)
    leaves: list[Leaf] = field(default_factory=list)

    def delivered(self) -> frozenset[int]:
        return frozenset(row.number for row in self.rows if row.stage in DELIVERED)

    def live(self) -> list[Leaf]:
        return [leaf for leaf in self.leaves if leaf.ends > self.now]

    def root(self, number: int) -> int:
        return rotation.by_number(self.rows, number).root

    def facts(self) -> Facts:
        new = rotation.coming(self.rows)
        published = new if new and new.stage is Stage.PUBLISHED else None
        agents = [
            AgentSeen(a.name, a.seen, bool(published) and published.number in a.has) for a in self.agents.values()
        ]
        unaware = [leaf for leaf in self.live() if published and leaf.recorded < published.since + SETTLE]
        of = {row.number: [leaf for leaf in self.live() if leaf.issuer == row.number] for row in self.rows}
        return Facts(
            now=self.now,
            agents=agents,
            unaware=Leaves(len(unaware), tuple(Holder(leaf.name, 1, NOW) for leaf in unaware)),
            dependent={number: Leaves(len(leaves)) for number, leaves in of.items()},
        )


class Rotating(RuleBasedStateMachine):
    """Agents and workloads come, renew, sleep and go, while somebody rotates, goes back and changes their mind."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(name=st.sampled_from("abc"))
    def an_agent_takes_the_newest_slice(self, name: str) -> None:
        self.world.agents[name] = Agent(name, self.world.delivered(), self.world.now)

    @rule(name=st.sampled_from("abc"))
    def an_agent_is_heard_of(self, name: str) -> None:
        if name in self.world.agents:
            self.world.agents[name].seen = self.world.now

    @rule(name=st.sampled_from("xyz"), hours=st.sampled_from([1, 24, 24 * 90]))
    def a_leaf_is_issued(self, name: str, hours: int) -> None:
        world = self.world
        roots = frozenset(world.root(number) for number in world.delivered())
        leaf = Leaf(name, rotation.issuing(world.rows).number, roots, world.now, world.now + hours * HOUR)
        world.leaves.append(leaf)

    @rule(minutes=st.sampled_from([1, 50, 24 * 60, 100 * 24 * 60]))
    def time_passes(self, minutes: int) -> None:
        self.world.now += timedelta(minutes=minutes)
        # An agent that lives is heard of every two seconds, whether it takes a slice or not.
        for agent in self.world.agents.values():
            agent.seen = self.world.now

    @rule(root=st.booleans())
    def somebody_rotates(self, root: bool) -> None:
        rows = rotation.begin(self.world.rows, self.world.now, root=root)
        if not isinstance(rows, Refusal):
            self.world.rows = rows

    @rule()
    def somebody_goes_back(self) -> None:
        step = rotation.back(self.world.rows, self.world.now)
        if isinstance(step, Step):
            self.world.rows = rotation.taken(self.world.rows, step, self.world.now)

    @precondition(lambda self: rotation.outlook(self.world.rows, self.world.facts()).step)
    @rule()
    def the_server_takes_a_step(self) -> None:
        world = self.world
        step = rotation.outlook(world.rows, world.facts()).step
        assert step
        if step.verb is Verb.MAKE:
            world.rows = made(world.rows, world.now)
        else:
            world.rows = rotation.taken(world.rows, step, world.now)

    @invariant()
    def nobody_is_stranded(self) -> None:
        """Each live leaf is of a generation that is delivered, that each agent has, and whose root each holder has."""
        world = self.world
        for leaf in world.live():
            issuer = rotation.by_number(world.rows, leaf.issuer)
            if issuer.ended(world.now):
                continue
            assert issuer.number in world.delivered()
            for agent in world.agents.values():
                # An agent that knows nothing but what has ended has no certificate: it gets a slice before it is served again.
                cut_off = all(rotation.by_number(world.rows, number).ended(world.now) for number in agent.has)
                assert cut_off or issuer.number in agent.has, (agent, leaf)
            for other in world.live():
                assert rotation.by_number(world.rows, other.issuer).ended(world.now) or issuer.root in other.roots

    @invariant()
    def one_issues(self) -> None:
        assert rotation.issuing(self.world.rows)
        assert sum(row.stage in {Stage.PREPARED, Stage.PUBLISHED} for row in self.world.rows) <= 1


TestRotating = Rotating.TestCase
TestRotating.settings = settings(stateful_step_count=60, deadline=None)
