"""Where the listener answers: the section `server` of a configuration, read without the rest.

Commands that talk to a listener need nothing else of it, and start quickly: neither pydantic nor the models
are imported here, what stands behind `server` in the file is not read, and no secret is resolved.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from listener.config.file import read_part
from listener.config.references import Referenced, Surroundings, resolve
from listener.errors import ConfigurationError

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8787
HIGHEST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener answers, and by which certificate it is known."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    """0 for a free port, which the listener chooses at its start."""
    certificate: str | None = None
    """Path of its certificate, as PEM; None without TLS."""


def read_server(path: Path, environ: Mapping[str, str] = os.environ) -> Address:
    """Return the address that a configuration file names; raise `ConfigurationError`.

    `environ` is where `env:NAME` and the folder of `credential:NAME` are looked up.
    """
    surroundings = Surroundings(path.absolute().parent, environ)
    resolution = resolve({"server": read_part(path, "server")}, surroundings)
    address = _address(resolution.tree["server"])
    if address is None:
        raise ConfigurationError(
            f"{path}: the section server can't be used.", remedy="sync-staging check-config tells why"
        )
    return address


def _address(server: Any) -> Address | None:
    if server is None:
        return Address()
    if not isinstance(server, dict):
        return None
    host, port = server.get("host", DEFAULT_HOST), server.get("port", DEFAULT_PORT)
    if isinstance(port, Referenced) and re.fullmatch("[0-9]{1,18}", port):
        port = int(port)
    tls = server.get("tls")
    certificate = tls.get("certificate") if isinstance(tls, dict) else None
    usable = isinstance(host, str) and not address_fault(host)
    usable = usable and type(port) is int and 0 <= port <= HIGHEST_PORT
    usable = usable and (tls is None or isinstance(certificate, str))
    return Address(host, port, certificate) if usable else None


def address_fault(address: str) -> str:
    """Return what is wrong with a host's address."""
    if "@" in address:
        return "holds a user; write the address alone, and the user as the setting user beside it"
    if re.fullmatch(r"[^:]*:[0-9]+", address):
        return "holds a port; write the address alone, and the port as the setting port beside it"
    if not re.fullmatch(r"[A-Za-z0-9:][A-Za-z0-9.:%_-]{0,254}", address):
        return "is not a host name or IP address; write one such as studio.example.com"
    return ""
