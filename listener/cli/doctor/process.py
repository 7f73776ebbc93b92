"""Checks the listener: whether it runs, answers, and uses the configuration that is in the file."""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path

from listener import __version__
from listener.cli import address
from listener.cli.doctor.findings import Finding, Group
from listener.cli.failures import ListenerUnreachableError
from listener.cli.transport import Transport
from listener.config.settings import Settings

SILENCE = 10.0
"""The most seconds without a byte of an answer."""
MOST_READ = 1 << 16

CLOCK_TICK = 2.0
"""Seconds by which the time of a file and the start of a process may differ."""

_RESTART = "restart it (systemctl restart sync-staging): it reads its configuration at start"


def findings(settings: Settings, path: Path, files: Sequence[Path], process: int | None) -> list[Finding]:
    """Check the listener that these settings describe. `process` is its id, if it is known."""
    if settings.server.port == 0:
        message = "server.port is 0: the listener uses any free port, and can't be found"
        return [Finding.good(Group.LISTENER, "listener", message)]
    found = address.own(path)
    transport = Transport(found.url, {}, found.trust)
    try:
        status, body = _asked(transport, "/healthz")
    except ListenerUnreachableError as error:
        remedy = "start it: systemctl start sync-staging, or sync-staging serve"
        down = Finding.problem(Group.LISTENER, "listener", "listener-down", error.message, remedy)
        return [down, *_ports(settings)]
    version = _field(body, "version")
    if status != HTTPStatus.OK or not version:
        message = f"another program answers at {found.url}"
        remedy = "stop it, or choose another server.port"
        return [Finding.problem(Group.LISTENER, "listener", "port-taken", message, remedy)]
    bad = [*_ready(transport), *compared(version), *_changed(files, process), *_metrics(settings)]
    return bad or [Finding.good(Group.LISTENER, "listener", f"version {version} at {found.url}")]


def _asked(transport: Transport, where: str) -> tuple[int, bytes]:
    """Return the status and the beginning of the body; raise `ListenerUnreachableError`."""
    with transport.request("GET", where, None, {}, SILENCE) as response:
        return response.status, response.read(MOST_READ)


def _field(body: bytes, name: str) -> str:
    """Return a text in a JSON object; empty if there is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return ""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _ready(transport: Transport) -> Iterator[Finding]:
    try:
        status, body = _asked(transport, "/readyz")
    except ListenerUnreachableError as error:
        yield Finding.of(Group.LISTENER, "listener", error, "listener-unready")
        return
    if status != HTTPStatus.OK:
        reason = _field(body, "reason") or f"/readyz answers {status}"
        remedy = "read its log: journalctl -u sync-staging"
        yield Finding.problem(Group.LISTENER, "listener", "listener-unready", reason, remedy)


def compared(version: str) -> Iterator[Finding]:
    """Yield a warning if another version runs than the installed one."""
    if version != __version__:
        message = f"version {version} runs, version {__version__} is installed"
        yield Finding.warning(Group.LISTENER, "listener", "version-differs", message, "restart it")


def _changed(files: Sequence[Path], process: int | None) -> Iterator[Finding]:
    """Yield a warning if files of the configuration are newer than the running listener."""
    began = started(process) if process else None
    if began is None:
        return
    newer = [str(file) for file in files if file.exists() and file.stat().st_mtime > began + CLOCK_TICK]
    if newer:
        message = f"changed since the listener started: {', '.join(newer[:3])}"
        message += f" and {len(newer) - 3} more" if newer[3:] else ""
        yield Finding.warning(Group.LISTENER, "listener", "configuration-changed", message, _RESTART)


def started(process: int) -> float | None:
    """Return when a process of this machine started, as Unix seconds; None if that is not known."""
    try:
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return None
    return time.time() - up + int(ticks) / os.sysconf("SC_CLK_TCK")


def _metrics(settings: Settings) -> Iterator[Finding]:
    """Yield a problem if the figures of the running listener can't be read."""
    where = settings.metrics.address
    if where is None or where[1] == 0:
        return
    url = address.url_of(*where)
    try:
        status, body = _asked(Transport(url, {}, None), "/metrics")
    except ListenerUnreachableError:
        status, body = 0, b""
    if status != HTTPStatus.OK or b"sync_staging_" not in body:
        message = f"the listener's figures are not at {url}"
        remedy = "restart it if metrics.listen was changed; if another program answers there, change it"
        yield Finding.problem(Group.LISTENER, "metrics", "metrics-down", message, remedy)


def _ports(settings: Settings) -> Iterator[Finding]:
    """Yield the addresses on which the listener could not listen now."""
    where = {"server.port": (settings.server.host, settings.server.port)}
    if settings.metrics.address is not None:
        where["metrics.listen"] = settings.metrics.address
    for setting, (host, port) in where.items():
        fault = _bound(host, port)
        if fault == errno.EADDRINUSE:
            message, remedy = "another program listens there", f"stop it, or choose another {setting}"
            yield Finding.problem(Group.LISTENER, f"{host}:{port}", "port-taken", message, remedy)
        elif fault:
            message, remedy = f"can't listen there: {os.strerror(fault)}", f"choose another {setting}"
            yield Finding.problem(Group.LISTENER, f"{host}:{port}", "port-forbidden", message, remedy)


def _bound(host: str, port: int) -> int:
    """Listen on an address for a moment; return why that is not possible, as an errno, or 0."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return 0
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL
