"""Endpoints for authorities: what there are, rotate, go back, force; and for agents that will not come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from handfast.app.server.callers import OPERATORS, Caller
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.platform import Platform
from handfast.app.server.rotation_messages import (
    AuthoritiesAnswer,
    GenerationRow,
    HeldBy,
    HolderRow,
    RotationForce,
    RotationRequest,
    WaitingRow,
)
from handfast.trust.rotation import Generation, Stage, Waiting, due_at


@dataclass(frozen=True, slots=True)
class RotationApi:
    """The operations on authorities."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        answer, roles = AuthoritiesAnswer, OPERATORS
        return (
            Endpoint(method="GET", path="/v1/authorities", handler=self.authorities, roles=roles, answer=answer),
            Endpoint(
                method="POST", path="/v1/authorities/rotation", handler=self.rotate, roles=roles,
                body=RotationRequest, answer=answer, status=201,
            ),
            Endpoint(
                method="DELETE", path="/v1/authorities/rotation", handler=self.go_back, roles=roles, answer=answer,
            ),
            Endpoint(
                method="POST", path="/v1/authorities/rotation/force", handler=self.force, roles=roles,
                body=RotationForce, answer=answer,
            ),
            Endpoint(
                method="DELETE", path="/v1/agents/{name}", handler=self.forget_agent, roles=roles, answer=answer,
            ),
        )  # fmt: skip

    async def authorities(self, _: Caller, __: Request, ___: None) -> AuthoritiesAnswer:
        """Give all authorities, and who holds up what."""
        return await self._answer()

    async def rotate(self, caller: Caller, _: Request, body: RotationRequest) -> AuthoritiesAnswer:
        """Begin to replace the issuing CA, or the root with it. The server goes on by itself."""
        rotation = self.platform.rotation
        await rotation.begin(root=body.root, compromised=body.compromised, requester=str(caller))
        return await self._answer()

    async def go_back(self, caller: Caller, _: Request, __: None) -> AuthoritiesAnswer:
        """Undo the rotation that is under way, as long as the authority before it is not retired."""
        await self.platform.rotation.back(str(caller))
        return await self._answer()

    async def force(self, caller: Caller, _: Request, body: RotationForce) -> AuthoritiesAnswer:
        """Take the step that is held up, and cut off exactly as many as the caller says."""
        await self.platform.rotation.force(body.strands, str(caller))
        return await self._answer()

    async def forget_agent(self, caller: Caller, request: Request, _: None) -> AuthoritiesAnswer:
        """Forget an agent that will not come back. Revoke its certificates beside it, if it was stolen."""
        await self.platform.rotation.forget_agent(request.path_params["name"][:64], str(caller))
        return await self._answer()

    async def _answer(self) -> AuthoritiesAnswer:
        seen = await self.platform.rotation.outlook()
        rotation = self.platform.rotation
        return AuthoritiesAnswer(
            trust_domain=self.platform.trust_domain.name,
            bundle=self.platform.authority.bundle_pem,
            generations=[await self._row(row) for row in rotation.rows],
            waiting=[_waiting(one) for one in seen.waiting],
            fault=rotation.fault,
        )

    async def _row(self, row: Generation) -> GenerationRow:
        rotation = self.platform.rotation
        leaves = await rotation.leaves_of(row)
        return GenerationRow(
            number=row.number,
            root=row.root,
            stage=row.stage.value,
            since=row.since,
            issuer=row.issuer,
            ends=row.window.not_after if row.window else None,
            root_ends=row.root_window.not_after if row.root_window else None,
            compromised=row.compromised,
            leaves=leaves.count,
            last_leaf_ends=leaves.until,
            renew_at=due_at(rotation.rows) if row.stage is Stage.ISSUING else None,
            cut_short=await rotation.cut_short(row),
            copies=await rotation.copies(row) if leaves.count else 0,
        )


def _waiting(one: Waiting) -> WaitingRow:
    return WaitingRow(
        step=one.step.verb.value,
        generation=one.step.number,
        strands=one.strands,
        agents=[HeldBy(agent=agent.name, last_seen=agent.last_seen) for agent in one.agents[:100]],
        leaves=one.leaves.count,
        names=list(one.leaves.names),
        leaves_until=one.leaves.until,
        not_before=one.until,
        holders=[
            HolderRow(
                name=holder.name, leaves=holder.count, until=holder.until, renewed=holder.renewed, copies=holder.copies
            )
            for holder in one.leaves.holders
        ],
    )
