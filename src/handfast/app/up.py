"""``handfast up``: the server, one agent with its Envoy, and SQLite, in one process tree on this machine.

The agent reaches the server by the API alone, as a remote one would. What is on disk is found again at the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from handfast.access.world_file import digest, parse_world
from handfast.app import demo
from handfast.app.agent.build import Agent, AgentConfig, build_agent
from handfast.app.agent.paths import AgentPaths
from handfast.app.client import Api
from handfast.app.domain_servers import check_domains, start_domains
from handfast.app.server.build import Server, ServerConfig, build_server
from handfast.app.server.messages import (
    CertificateAnswer,
    CertificateRequest,
    CertificateRow,
    TokenAnswer,
    TokenRequest,
    WorldAnswer,
)
from handfast.app.server.status import NO_STATUS, StatusConfig
from handfast.app.showing import showing
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.io.acme_challenges import DEFAULT_LOOKS, LookSettings
from handfast.io.authority_files import AUTHORITY, ISSUING
from handfast.io.credentials import Credential, load, p12
from handfast.io.files import private_directory, write, write_secret
from handfast.io.ports import Clock
from handfast.io.postgres_session import Address
from handfast.io.records import CertificateState
from handfast.io.sealed import Passphrase
from handfast.sdk.front import Front
from handfast.trust.facts import issuer_facts, pem_certificates
from handfast.trust.rotation import PACE, Pace

AGENT = "local"
READY_S = 20.0
OPERATOR_TTL_S = 7 * 86400
P12_PASSWORD = "handfast"  # noqa: S105 - for the demo's own certificate, and printed


@dataclass(frozen=True, slots=True, kw_only=True)
class UpConfig:
    """What ``up`` is started with. Without ``world_text`` it goes on with the world that counts, or begins with the demo.

    ``names`` are the DNS names that the API is reached by. ``trust_domain`` counts where neither a world nor an authority says it.
    """

    data: Path
    world_text: str = ""
    api: tuple[str, int] = ("127.0.0.1", 7443)
    admin: tuple[str, int] = ("127.0.0.1", 7480)
    gateway_port: int = 8443
    envoy: Path | None = None
    workers: int = 2
    passphrase: Passphrase | None = field(default=None, repr=False)
    operator: str = "operator"
    database: Address | None = None
    names: tuple[str, ...] = ("localhost",)
    trust_domain: str = ""
    acme: LookSettings = DEFAULT_LOOKS
    status: StatusConfig = NO_STATUS
    pace: Pace = PACE


@dataclass(slots=True)
class Running:
    """What is up."""

    config: UpConfig
    server: Server
    agent: Agent
    demo: bool
    warnings: list[str]
    others: list[Server]


@contextlib.asynccontextmanager
async def up(config: UpConfig, clock: Clock) -> AsyncIterator[Running]:
    """Bring everything up; take everything down at the end.

    Raises:
        HandfastError: something is in the way. What was started is stopped again.
    """
    private_directory(config.data)
    with _alone(config.data):
        async with contextlib.AsyncExitStack() as stack:
            running = await _bring_up(config, clock, stack)
            yield running


async def _bring_up(config: UpConfig, clock: Clock, stack: contextlib.AsyncExitStack) -> Running:
    is_demo = _is_demo(config)
    server, others, api = await _start_servers(config, _trust_domain(config), clock, stack)
    text = await _start_demo(config, server, stack) if is_demo else config.world_text
    warnings = await _apply(api, text)
    await _refuse_revoked(api, _agent_paths(config).identity)
    agent = build_agent(_agent_config(config, server, api), clock)
    stack.push_async_callback(agent.stop)
    await agent.start()
    server.more_metrics.append(agent.envoy_metrics)
    if is_demo:
        await _demo_client(config, server, clock, api, stack)
    await _wait_ready(server, agent)
    return Running(config, server, agent, is_demo, warnings, others)


@contextlib.asynccontextmanager
async def servers_alone(config: UpConfig, clock: Clock) -> AsyncIterator[list[Server]]:
    """Bring up what `up` does without its agent and its gateway; several such servers may share one database.

    Gives one for each trust domain, the first one first.

    Raises:
        HandfastError: something is in the way. What was started is stopped again.
    """
    private_directory(config.data)
    with _alone(config.data):
        if not (config.world_text or config.trust_domain or (config.data / AUTHORITY).exists()):
            raise BadInput(
                "there is neither an authority nor the name of a trust domain",
                file=str(config.data),
                hint="name it with --trust-domain or a world file, or copy the directory 'authority' of another server to here",
            )
        async with contextlib.AsyncExitStack() as stack:
            server, others, api = await _start_servers(config, _trust_domain(config), clock, stack)
            await _apply(api, config.world_text)
            yield [server, *others]


async def _start_servers(
    config: UpConfig, trust_domain: TrustDomain, clock: Clock, stack: contextlib.AsyncExitStack
) -> tuple[Server, list[Server], Api]:
    """Start the server, and those of the other trust domains, with what an operator needs to reach the first."""
    first = ServerConfig(
        directory=config.data,
        trust_domain=trust_domain,
        api=config.api,
        admin=config.admin,
        names=config.names,
        passphrase=config.passphrase,
        database=config.database,
        acme=config.acme,
        status=config.status,
        pace=config.pace,
    )
    await check_domains(first)
    server = await build_server(first, clock)
    stack.push_async_callback(server.stop)
    await server.start()
    others = await start_domains(first, clock, stack)
    api = await stack.enter_async_context(Api.local(server.socket))
    await _operator(config, server, clock, api, stack)
    return server, others, api


def _trust_domain(config: UpConfig) -> TrustDomain:
    """Give the world's, or else the one that this data directory was begun with."""
    if config.world_text:
        return parse_world(config.world_text).trust_domain
    issuing = config.data / AUTHORITY / ISSUING  # an imported root may name no trust domain
    return (
        issuer_facts(pem_certificates(issuing.read_text())[0]).trust_domain
        if issuing.exists()
        else TrustDomain(config.trust_domain or demo.TRUST_DOMAIN)
    )


def _is_demo(config: UpConfig) -> bool:
    """Tell whether the demo runs: where no world was named, now or when this data directory was begun."""
    return not config.world_text and (_demo_files(config.data).exists() or not (config.data / AUTHORITY).exists())


def _demo_files(data: Path) -> Path:
    return data / "demo"


async def _apply(api: Api, text: str) -> list[str]:
    if not text:
        return []
    answer = await api.call("PUT", "/v1/world", WorldAnswer, text)
    return answer.warnings


def _agent_config(config: UpConfig, server: Server, api: Api) -> AgentConfig:
    paths = _agent_paths(config)
    return AgentConfig(
        name=AGENT,
        directory=paths.root,
        server_url=server.url,
        bundle_pem=server.platform.authority.bundle_pem,
        trust_domain=server.platform.trust_domain,
        token=lambda: _token(api, paths.identity),
        envoy=config.envoy,
        concurrency=config.workers,
        pace=config.pace,
    )


def _agent_paths(config: UpConfig) -> AgentPaths:
    return AgentPaths(config.data / "agent")


async def _token(api: Api, identity: Path) -> str:
    """Have a token for our own agent's name, and no other: whoever reads it on its way gets nothing else."""
    await _refuse_revoked(api, identity)
    return (await api.call("POST", "/v1/agents/tokens", TokenAnswer, TokenRequest(name=AGENT, ttl_seconds=60))).token


async def _refuse_revoked(api: Api, identity: Path) -> None:
    """Leave an agent out that an operator revoked: it does not come back by itself, also not once its certificate has ended.

    Raises:
        Refused: what lies in ``identity`` was revoked.
    """
    held = load(identity)
    if held is None:
        return
    try:
        row = await api.call("GET", f"/v1/certificates/{held.leaf.serial}", CertificateRow)
    except Refused as refused:
        if refused.refusal.reason is Reason.NOT_FOUND:  # the ledger is another one, or older
            return
        raise
    if row.state == CertificateState.REVOKED.value:
        seen = {"agent": AGENT, "serial": row.serial, "file": str(identity)}
        raise Refused(Refusal(Reason.AGENT_REVOKED, seen))


def _wants(server: Server) -> str:
    current = server.platform.slices.current.value
    return current.digest if current else ""


async def _wait_ready(server: Server, agent: Agent) -> None:
    """Wait until the gateway serves the world that counts.

    Raises:
        Unavailable: it does not, in time.
    """
    if not await agent.ready(_wants(server), READY_S):
        raise Unavailable(
            f"Envoy did not take the configuration within {READY_S:.0f} s",
            hint="see the findings in 'handfast status' and the log in the data directory; is a port of the world taken?",
        )


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the data directory: two at a time would spoil each other's state.

    Raises:
        Unavailable: another one has it.
    """
    handle = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Unavailable(
            f"another 'handfast up' runs with the data directory {data}",
            hint="stop it, or use another directory with --data",
        ) from None
    finally:
        os.close(handle)


# The operator


async def _operator(config: UpConfig, server: Server, clock: Clock, api: Api, stack: contextlib.AsyncExitStack) -> None:
    """Have a certificate for the operator, for use from elsewhere; here the local socket is enough."""

    async def first(csr: str) -> CertificateAnswer:
        asked = CertificateRequest(name=config.operator, csr=csr, operator=True, ttl_seconds=OPERATOR_TTL_S)
        return await api.call("POST", "/v1/certificates", CertificateAnswer, asked)

    directory = private_directory(config.data / "operator")

    def show(credential: Credential) -> None:
        for name, text in _three_files(credential, "cert", "key").items():
            write_secret(directory / name, text.encode())

    await stack.enter_async_context(showing(directory / "credential.pem", server, clock, first, show))


def _three_files(credential: Credential, certificate: str, key: str) -> dict[str, str]:
    return {
        f"{key}.pem": credential.key_pem,
        f"{certificate}.pem": credential.chain_pem,
        "ca.pem": credential.bundle_pem,
    }


# The demo


async def _start_demo(config: UpConfig, server: Server, stack: contextlib.AsyncExitStack) -> str:
    """Start the demo's service; give the demo's world, unless another one was applied since."""
    front = Front(demo.service(), on_failed_handshake=lambda _: None)
    stack.push_async_callback(front.stop, 0.5)
    try:
        _, port = await front.listen_plain("127.0.0.1", demo.PORT)
    except HandfastError:
        _, port = await front.listen_plain("127.0.0.1", 0)
    directory = private_directory(_demo_files(config.data))
    file, text = directory / "handfast.yaml", demo.world(port, config.gateway_port)
    latest = await server.platform.ledger.latest_revision()
    changed_since = latest and not (file.exists() and digest(file.read_text()) == latest.digest)
    if changed_since:
        return ""
    write(file, text.encode())
    return text


async def _demo_client(
    config: UpConfig, server: Server, clock: Clock, api: Api, stack: contextlib.AsyncExitStack
) -> None:
    """Have the demo's client certificate in the files that curl and browsers take."""

    async def first(csr: str) -> CertificateAnswer:
        return await api.call(
            "POST", "/v1/certificates", CertificateAnswer, CertificateRequest(name=demo.CLIENT, csr=csr)
        )

    directory = _demo_files(config.data)

    def show(credential: Credential) -> None:
        for name, text in _three_files(credential, "client", "client-key").items():
            write_secret(directory / name, text.encode())
        write_secret(directory / "client.p12", p12(credential, demo.CLIENT, P12_PASSWORD))

    await stack.enter_async_context(showing(directory / "credential.pem", server, clock, first, show))
