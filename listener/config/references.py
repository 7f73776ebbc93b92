"""References: `file:PATH`, `env:NAME` or `credential:NAME` in the place of any text.

A credential is a file in the folder that systemd gives a service ($CREDENTIALS_DIRECTORY,
https://systemd.io/CREDENTIALS/). One newline at the end of a file is not part of the value. If a setting is
itself the path of a file (`PATHS`), the reference stands for the path of the file, not for its content.
"""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from listener.config.problems import Location, Problem, quoted
from listener.errors import ConfigurationError

PATHS: frozenset[Location] = frozenset(
    {
        ("include",),
        *(("ssh", key) for key in ("known_hosts", "identity", "agent", "config")),
        *(("server", "tls", key) for key in ("certificate", "key")),
    }
)

DEEPEST_PATH = max(map(len, PATHS))

LARGEST = 1 << 16
"""Bytes of a referenced file."""

CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"


class Referenced(str):
    """Text from a reference. A setting of another type may convert it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What references are resolved with."""

    directory: Path
    """The configuration file's own folder."""
    environ: Mapping[str, str]

    @property
    def credentials(self) -> Path | None:
        """The folder with the service's credentials, if it has one."""
        directory = self.environ.get(CREDENTIALS_DIRECTORY)
        return Path(directory) if directory else None

    def path(self, text: str) -> Path:
        """Return a path; one without a leading slash is relative to the configuration file's folder."""
        return self.directory / text

    def is_credential(self, path: Path) -> bool:
        """Return whether systemd provides a file as a credential. It sets the mode itself."""
        return self.credentials is not None and path.is_relative_to(self.credentials)

    def exposed(self, path: Path, mode: int) -> bool:
        """Return whether users other than its owner can open a file."""
        return not self.is_credential(path) and bool(mode & (stat.S_IRWXG | stat.S_IRWXO))


@dataclass(slots=True)
class Resolution:
    """A configuration in which every reference is replaced by its value."""

    tree: dict[str, Any]
    references: dict[Location, str] = field(default_factory=dict)
    """By their places, the references as they were written."""
    exposed: dict[Location, Path] = field(default_factory=dict)
    """By their places, the referenced files that users other than the owner can open."""
    problems: list[Problem] = field(default_factory=list)
    """The references that can't be resolved. They stay in the tree as they were written."""

    @property
    def unresolved(self) -> set[Location]:
        """The places of references that can't be resolved."""
        return {problem.location for problem in self.problems}


class _Unresolved(Exception):  # noqa: N818 (becomes a `Problem`)
    """Why a reference can't be resolved, and what to do."""


def resolve(tree: dict[str, Any], surroundings: Surroundings) -> Resolution:
    """Resolve all references in a tree, in place."""
    resolution = Resolution(tree)
    _resolve(tree, [], surroundings, resolution)
    return resolution


def resolved(reference: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the text that a reference stands for; raise `ConfigurationError` if it can't be resolved."""
    resolution = resolve({"": reference}, Surroundings(Path.cwd(), environ))
    if resolution.problems or not resolution.references:
        reason = resolution.problems[0].text if resolution.problems else "is not one"
        raise ConfigurationError(
            f"The reference {reason}.", remedy="write file:PATH, env:NAME or credential:NAME"
        )
    return str(resolution.tree[""])


def _resolve(node: Any, above: list[str | int], surroundings: Surroundings, resolution: Resolution) -> None:
    pairs: Any = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        if isinstance(value, str):
            kind, colon, name = value.partition(":")
            if colon and kind in KINDS:
                location = (*above, key)
                resolution.references[location] = value
                try:
                    node[key] = KINDS[kind](name, location, surroundings, resolution)
                except _Unresolved as reason:
                    resolution.problems.append(Problem(location, str(reason)))
            elif len(above) < DEEPEST_PATH and (*above, key) in PATHS:
                node[key] = str(surroundings.path(value))
        elif isinstance(value, dict | list):
            above.append(key)
            _resolve(value, above, surroundings, resolution)
            above.pop()


def _file(name: str, location: Location, surroundings: Surroundings, resolution: Resolution) -> str:
    if not name:
        raise _Unresolved("has no path; write file:PATH")
    return _content(surroundings.path(name), location, surroundings, resolution)


def _env(name: str, location: Location, surroundings: Surroundings, _: Resolution) -> str:
    if name not in surroundings.environ:
        raise _Unresolved(
            "names an environment variable that is not set; set it for the service (Environment= or "
            "EnvironmentFile= in its unit)"
        )
    value = Referenced(surroundings.environ[name])
    if value.encode(errors="ignore").decode() != value:
        raise _Unresolved("names an environment variable whose value is not UTF-8; write it as UTF-8 text")
    return str(surroundings.path(value)) if location in PATHS else value


def _credential(name: str, location: Location, surroundings: Surroundings, resolution: Resolution) -> str:
    if not name or "/" in name or name in {".", ".."}:
        raise _Unresolved("is not the name of a credential; write credential:NAME, without a slash")
    if surroundings.credentials is None:
        raise _Unresolved(
            f"needs ${CREDENTIALS_DIRECTORY}, which systemd sets; add LoadCredential=NAME:PATH to the unit, "
            "or write file:PATH"
        )
    return _content(surroundings.credentials / name, location, surroundings, resolution)


KINDS: Mapping[str, Callable[[str, Location, Surroundings, Resolution], str]] = {
    "file": _file,
    "env": _env,
    "credential": _credential,
}


def _content(path: Path, location: Location, surroundings: Surroundings, resolution: Resolution) -> str:
    if location in PATHS:
        return str(path)
    content, mode = _read(path)
    if surroundings.exposed(path, mode):
        resolution.exposed[location] = path
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise _Unresolved(f"names {quoted(path)}, which is not UTF-8; write it as UTF-8 text") from None
    return Referenced(text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n"))


def _read(path: Path) -> tuple[bytes, int]:
    """Return a file's content and mode."""
    try:
        if not path.is_file():
            raise _Unresolved(f"names {quoted(path)}, which is not a file; create it, or correct the path")
        with path.open("rb") as file:
            content, mode = file.read(LARGEST + 1), os.fstat(file.fileno()).st_mode
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not a path"
        raise _Unresolved(
            f"names {quoted(path)}, which can't be read ({why}); let the listener's user read it"
        ) from None
    if len(content) > LARGEST:
        raise _Unresolved(
            f"names {quoted(path)}, which is larger than {LARGEST >> 10} KiB; name another file"
        )
    return content, mode
