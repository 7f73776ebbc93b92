"""Logging in to one host: the way there, its key, and ours."""

import asyncio
import contextlib
from collections.abc import Sequence

import asyncssh

from listener.errors import AgentUnavailableError, HostUnreachableError, SshConfigUnusableError, SyncError
from listener.sites import Host
from listener.ssh import destination, failures, keys
from listener.ssh.destination import Destination
from listener.ssh.failures import Attempt
from listener.ssh.keys import Agent

JUMPS_MOST = 8
"""Jump hosts on the way to a host; a configuration that leads over more leads in a circle."""

Connection = asyncssh.SSHClientConnection
Keys = Sequence[asyncssh.SSHKey | asyncssh.SSHKeyPair]


async def log_in(host: Host, limit: float, tunnel: Connection | None = None, gate: str = "") -> Connection:
    """Return a new connection to a host; raise the `SyncError` that names the cause.

    Each host on the way may take `limit` seconds. `tunnel` is the connection to the one before it, named
    `gate`; without it, a ProxyJump of the OpenSSH configuration is followed.
    """
    route = await _route(host, JUMPS_MOST) if tunnel is None else [await destination.find(host)]
    connection = tunnel
    try:
        for goal in route:
            before, connection = connection, await _connect(goal, limit, connection, gate)
            if before is not tunnel:
                # It carries no other, and ends with this one.
                connection.set_tunnel(before)
            gate = goal.host.name
    except BaseException:
        if connection is not None and connection is not tunnel:
            connection.abort()
        raise
    assert connection is not None  # noqa: S101 (a route has at least the host itself)
    return connection


async def _route(host: Host, left: int) -> list[Destination]:
    """Return the jump hosts and the host itself; the first jump host may have such of its own."""
    goal = await destination.find(host)
    if goal.jumps and not left:
        raise SshConfigUnusableError(
            f"{host.config}: ProxyJump leads in a circle, or over more than {JUMPS_MOST} hosts",
            remedy="give the jump host a block of its own, before the others, with ProxyJump none",
        )
    route = await _route(goal.jumps[0], left - 1) if goal.jumps else []
    return [*route, *[await destination.find(hop) for hop in goal.jumps[1:]], goal]


async def _connect(goal: Destination, limit: float, tunnel: Connection | None, gate: str) -> Connection:
    host = goal.host
    attempt = Attempt(host, min(limit, goal.limit or limit), gate, proxied=goal.proxied and tunnel is None)
    known_hosts = keys.known_keys(goal)
    agent = Agent(host.agent, limit) if host.agent else None
    client = _Client(attempt, agent)
    try:
        await client.prepare()
        with failures.of_connecting(attempt):
            async with asyncio.timeout(attempt.limit):
                return await asyncssh.connect(
                    host.address,
                    host.port or (),
                    tunnel=tunnel,
                    options=goal.options,
                    config=None,
                    known_hosts=known_hosts,
                    encryption_algs=goal.ciphers,
                    connect_timeout=None,
                    client_factory=lambda: client,
                )
    except HostUnreachableError as error:
        if attempt.greeted and not attempt.verified:
            await _reject_other_kind(goal, attempt, tunnel, known_hosts[0], error)
        raise
    finally:
        if agent is not None:
            agent.leave()


async def _reject_other_kind(
    goal: Destination, attempt: Attempt, tunnel: Connection | None, known: Keys, error: SyncError
) -> None:
    """Raise `HostKeyRejectedError` if a host hung up because it has no key of the kinds that are known of it.

    Only those were asked for, so it had nothing to show: now it may show any, and nothing else is asked.
    """
    shown = None
    with contextlib.suppress(OSError, asyncssh.Error):
        async with asyncio.timeout(attempt.limit):
            shown = await asyncssh.get_server_host_key(
                goal.host.address, goal.host.port or (), tunnel=tunnel, options=goal.options, config=None
            )
    if shown is not None and shown not in known:
        raise failures.other_kind(attempt, shown.get_algorithm()) from error


class _Client(asyncssh.SSHClient):
    """Shows the identity and then the agent's keys, and notes how far the attempt comes."""

    def __init__(self, attempt: Attempt, agent: Agent | None) -> None:
        self._attempt = attempt
        self._agent = agent
        self._waiting: Keys = ()
        self._told = ""
        self._identity = b""

    async def prepare(self) -> None:
        """Read the identity; without one, ask the agent now: a host is not bothered for nothing."""
        host = self._attempt.host
        if host.identity is not None:
            key = keys.identity(host.identity)
            self._show([key], host.identity)
            self._identity = key.public_data
        elif self._agent is not None:
            await self._ask(self._agent)
            if not self._waiting:
                raise AgentUnavailableError(
                    f"the ssh agent at {host.agent} holds no key",
                    remedy=f"load one: SSH_AUTH_SOCK={host.agent} ssh-add KEY; if it is locked, ssh-add -X",
                )

    async def _ask(self, agent: Agent) -> None:
        held = [key for key in await agent.keys() if key.public_data != self._identity]
        self._agent, self._attempt.agent_keys = None, len(held)
        count = "the one key" if len(held) == 1 else f"any of the {len(held)} keys"
        self._show(held, f"{count} of the ssh agent at {agent.path}")

    def _show(self, waiting: Keys, told: str) -> None:
        self._waiting, self._told = waiting, told

    def connection_made(self, conn: Connection) -> None:
        self._attempt.connection = conn

    async def public_key_auth_requested(self) -> Keys | None:
        if not self._waiting and self._agent is not None:
            await self._ask(self._agent)
        shown, self._waiting = self._waiting, ()
        if not shown:
            self._attempt.exhausted = True
            return None
        self._attempt.offered.append(self._told)
        return shown

    def kbdint_auth_requested(self) -> str | None:
        self._note_further()
        return None

    def password_auth_requested(self) -> str | None:
        self._note_further()
        return None

    def _note_further(self) -> None:
        connection = self._attempt.connection
        if connection is not None and not self._attempt.further:
            self._attempt.further = tuple(connection.get_server_auth_methods())
