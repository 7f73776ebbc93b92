"""Logging in to one host: its jump hosts, its host key, and our keys."""

import asyncio
import contextlib
from collections.abc import Sequence

import asyncssh

from listener.errors import AgentUnavailableError, HostUnreachableError, SshConfigUnusableError, SyncError
from listener.sites import Host
from listener.ssh import destination, failures, keys
from listener.ssh.destination import Destination
from listener.ssh.failures import LoginAttempt
from listener.ssh.keys import Agent

MAX_JUMPS = 8
"""Jump hosts before a host. A configuration with more than these has a loop."""

Connection = asyncssh.SSHClientConnection
Keys = Sequence[asyncssh.SSHKey | asyncssh.SSHKeyPair]


async def log_in(
    host: Host, limit: float, tunnel: Connection | None = None, jump_host: str = ""
) -> Connection:
    """Return a new connection to a host; raise the `SyncError` that names the cause.

    Each jump host and the host itself may take `limit` seconds. `tunnel` is the connection to the jump host
    `jump_host`. Without it, the ProxyJump of the OpenSSH configuration counts.
    """
    route = await _route(host, MAX_JUMPS) if tunnel is None else [await destination.find(host)]
    connection = tunnel
    try:
        for goal in route:
            before, connection = connection, await _connect(goal, limit, connection, jump_host)
            if before is not tunnel:
                # This connection alone uses the one before it, which must end with it.
                connection.set_tunnel(before)
            jump_host = goal.host.name
    except BaseException:
        if connection is not None and connection is not tunnel:
            connection.abort()
        raise
    assert connection is not None  # noqa: S101 (a route has at least the host itself)
    return connection


async def _route(host: Host, jumps_left: int) -> list[Destination]:
    """Return the jump hosts and then the host. The first jump host may have jump hosts of its own."""
    goal = await destination.find(host)
    if goal.jumps and not jumps_left:
        raise SshConfigUnusableError(
            f"{host.config}: ProxyJump is a loop, or has more than {MAX_JUMPS} hosts",
            remedy="give the jump host a block of its own, before the others, with ProxyJump none",
        )
    route = await _route(goal.jumps[0], jumps_left - 1) if goal.jumps else []
    return [*route, *[await destination.find(jump) for jump in goal.jumps[1:]], goal]


async def _connect(goal: Destination, limit: float, tunnel: Connection | None, jump_host: str) -> Connection:
    host = goal.host
    proxied = goal.proxied and tunnel is None
    attempt = LoginAttempt(host, min(limit, goal.limit or limit), jump_host, proxied=proxied)
    known_hosts = keys.known_keys(goal)
    agent = Agent(host.agent, limit) if host.agent else None
    client = _Client(attempt, agent)
    try:
        await client.prepare()
        with failures.login_errors(attempt):
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
            await _reject_unknown_key_type(goal, attempt, tunnel, known_hosts[0], error)
        raise
    finally:
        if agent is not None:
            agent.close()


async def _reject_unknown_key_type(
    goal: Destination, attempt: LoginAttempt, tunnel: Connection | None, known: Keys, error: SyncError
) -> None:
    """Raise `HostKeyRejectedError` if the host hung up because it has no key of a type in known_hosts.

    The login asked only for those types. This second connection asks for any type, and does not log in.
    """
    shown = None
    with contextlib.suppress(OSError, asyncssh.Error):
        async with asyncio.timeout(attempt.limit):
            shown = await asyncssh.get_server_host_key(
                goal.host.address, goal.host.port or (), tunnel=tunnel, options=goal.options, config=None
            )
    if shown is not None and shown not in known:
        raise failures.unknown_key_type(attempt, shown.get_algorithm()) from error


class _Client(asyncssh.SSHClient):
    """Offers the identity and then the agent's keys, and notes how far the attempt gets."""

    def __init__(self, attempt: LoginAttempt, agent: Agent | None) -> None:
        self._attempt = attempt
        self._agent = agent
        """Until its keys are read."""
        self._next_keys: Keys = ()
        self._described = ""
        """How an error describes the next keys."""
        self._identity = b""

    async def prepare(self) -> None:
        """Read the identity. Without one, ask the agent now: without keys there is no reason to connect."""
        host = self._attempt.host
        if host.identity is not None:
            key = keys.identity(host.identity)
            self._prepare_keys([key], host.identity)
            self._identity = key.public_data
        elif self._agent is not None:
            await self._ask_agent(self._agent)
            if not self._next_keys:
                raise AgentUnavailableError(
                    f"the ssh agent at {host.agent} holds no key",
                    remedy=f"load one: SSH_AUTH_SOCK={host.agent} ssh-add KEY; if it is locked, ssh-add -X",
                )

    async def _ask_agent(self, agent: Agent) -> None:
        held = [key for key in await agent.keys() if key.public_data != self._identity]
        self._agent, self._attempt.agent_keys = None, len(held)
        count = "the one key" if len(held) == 1 else f"any of the {len(held)} keys"
        self._prepare_keys(held, f"{count} of the ssh agent at {agent.path}")

    def _prepare_keys(self, found: Keys, described: str) -> None:
        self._next_keys, self._described = found, described

    def connection_made(self, conn: Connection) -> None:
        self._attempt.connection = conn

    async def public_key_auth_requested(self) -> Keys | None:
        if not self._next_keys and self._agent is not None:
            await self._ask_agent(self._agent)
        offered, self._next_keys = self._next_keys, ()
        if not offered:
            self._attempt.exhausted = True
            return None
        self._attempt.offered.append(self._described)
        return offered

    def kbdint_auth_requested(self) -> str | None:
        self._note_other_methods()
        return None

    def password_auth_requested(self) -> str | None:
        self._note_other_methods()
        return None

    def _note_other_methods(self) -> None:
        connection = self._attempt.connection
        if connection is not None and not self._attempt.other_methods:
            self._attempt.other_methods = tuple(connection.get_server_auth_methods())
