"""A delivery, its hook, and the facts of its payload."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from listener.errors import MalformedDeliveryError
from listener.networks import Network
from listener.signatures import Form, Request, header_values
from listener.sites import PLACEHOLDER

KEY_MOST = 256
"""Characters of a sender's delivery id."""


FORGES = frozenset({"github", "gitlab", "gitea", "forgejo", "gogs", "bitbucket", "azure-devops"})
"""The schemes of forges. They have their own payloads, and their repository names ignore case."""


def printable(what: str, text: str) -> str:
    """Return text that is valid as an id or a name; raise `MalformedDeliveryError` for any other."""
    if not text or len(text) > KEY_MOST or not text.isprintable():
        raise MalformedDeliveryError(f"The {what} is not 1 to {KEY_MOST} printable characters.")
    return text


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP request to a hook, as it arrived."""

    hook: str
    headers: tuple[tuple[bytes, bytes], ...]
    """Names (any case) and values, in order, duplicates included."""
    body: bytes
    received_at: float
    """Unix seconds."""
    secret: bytes = field(default=b"", repr=False)
    """The text behind the hook's name in the path."""

    @property
    def request(self) -> Request:
        """The parts that a verifier looks at."""
        return Request(self.headers, self.body, self.secret)

    def values(self, name: str) -> list[bytes]:
        """Return every value of the header `name`."""
        return header_values(self.headers, name)

    def value(self, name: str) -> str:
        """Return the one value of a header that must be there once; raise `MalformedDeliveryError`."""
        values = self.values(name)
        if len(values) != 1:
            raise MalformedDeliveryError(f"The header {name} was sent {len(values)} times, not once.")
        return printable(f"header {name}", values[0].decode("latin-1"))

    def id_of(self, *names: str) -> str | None:
        """Return the delivery's id, from the first of these headers that is there; None for no id.

        These headers are not signed, and proxies add some of them (`X-Request-Id`). A header that is
        repeated, empty or too long is ignored; the push itself still counts.
        """
        name, found = next(((each, found) for each in names if (found := self.values(each))), ("", []))
        if len(found) != 1 or not 0 < len(found[0]) <= KEY_MOST:
            return None
        return printable(f"header {name}", found[0].decode("latin-1"))


@dataclass(frozen=True, slots=True)
class Payload:
    """The fields of a body that the sender defines: keys, with dots between nested ones."""

    site: str = "site_id"
    repository: str = ""
    """Empty for bodies without a repository."""
    ref: str = "ref"
    """The field of a full ref."""
    branch: str = "environment"
    """The field of a branch; a full ref takes precedence."""
    event: str = "event"
    id: str = ""
    """Empty for bodies without an id."""
    id_header: str = ""
    """The header with the delivery's id, instead of a field."""


@dataclass(frozen=True)
class Hook:
    """A configured webhook endpoint: a scheme, its secrets, and what it may select."""

    name: str
    scheme: str
    secrets: tuple[bytes, ...] = field(repr=False)
    repositories: Mapping[str, str] = field(default_factory=dict)
    """The site of each full repository name of the sender; `{site}` stands for any site id."""
    sites: frozenset[str] = frozenset()
    """The sites, and patterns of sites, that a payload with a site id may select."""
    site: str | None = None
    """The one site that every delivery selects, for payloads without a site id."""
    body_limit: int = 1 << 20
    """Bytes."""
    branch: str | None = None
    """The branch that publishes are pushed to; None for the site's live."""
    environments: frozenset[str] = frozenset()
    """The environments that it may sync; empty for all."""
    events: frozenset[str] = frozenset()
    """The sender's event names for a publish; empty for `publish`."""
    form: Form | None = None
    """The format of its signatures, for the scheme `hmac`."""
    payload: Payload = Payload()
    networks: tuple[Network, ...] = ()
    """The networks that its deliveries come from; empty for any."""
    secret_names: tuple[str, ...] = ()
    """The reference of each secret; empty for a secret that is in the file itself."""

    def secret_name(self, index: int) -> str:
        """Return the name of a secret: its reference, or its place in the list, from 1."""
        named = self.secret_names[index] if index < len(self.secret_names) else ""
        return named or f"secret {index + 1}"

    @property
    def secrets_by_name(self) -> tuple[str, ...]:
        """The names of the secrets, in their order; two with the same reference have one name."""
        return tuple(dict.fromkeys(map(self.secret_name, range(len(self.secrets)))))

    def mirrored(self, repository: str) -> str | None:
        """Return the site id of a repository's name; exact names go before patterns."""
        named = self._compared(repository)
        if named in self._exact:
            return self._exact[named]
        for before, after, site in self._patterns:
            part = named.removeprefix(before).removesuffix(after)
            if part and "/" not in part and named == f"{before}{part}{after}":
                return site.replace(PLACEHOLDER, part)
        return None

    @cached_property
    def _exact(self) -> dict[str, str]:
        """The site of each repository by its compared name; the first one counts."""
        return {self._compared(name): site for name, site in reversed([*self.repositories.items()])}

    @cached_property
    def _patterns(self) -> list[tuple[str, str, str]]:
        """The text before and after each pattern's placeholder, and its site; the longest pattern first."""
        found = []
        for name in sorted(self.repositories, key=len, reverse=True):
            before, placeholder, after = name.partition(PLACEHOLDER)
            if placeholder:
                found.append((self._compared(before), self._compared(after), self.repositories[name]))
        return found

    def _compared(self, repository: str) -> str:
        """Return the name for comparison: for a forge, `Acme/MySite` is `acme/mysite`."""
        return repository.casefold() if self.scheme in FORGES else repository


@dataclass(frozen=True, slots=True)
class Change:
    """One ref that was pushed."""

    ref: str
    """A full ref, such as refs/heads/live."""
    after: str | None = None
    """The new commit, as the sender says."""
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a verified payload that matter here."""

    key: str | None
    """The sender's delivery id."""
    event: str
    publish: bool
    """Whether this kind of event announces new commits."""
    repository: str | None = None
    site: str | None = None
    changes: tuple[Change, ...] | None = None
    """None if the payload names no ref, and means live."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a test delivery should say."""

    key: str
    repository: str
    site: str
    ref: str | None
    """A full ref; None for the branch of a publish."""
    branch: str
    """The branch of a publish."""
    before: str
    after: str

    @property
    def full_ref(self) -> str:
        """The ref that was pushed."""
        return self.ref or f"refs/heads/{self.branch}"


@dataclass(frozen=True, slots=True)
class Sample:
    """A test delivery, as its sender would send it."""

    event: str
    payload: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers besides those of the signature."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the payloads of one kind of sender, and makes them for a test."""

    read: Callable[[Delivery, Hook], Facts]
    """Raises `MalformedDeliveryError`, `UnsupportedMediaError`."""
    sample: Callable[[Wanted, Hook], Sample]
    ping: Sample | None = None
    """What the sender sends for a new webhook; None for nothing."""
    configurable: bool = False
    """Whether the hook configures the fields (`Payload`); else the payload is a forge's."""
    body_limit: int = 25 << 20
    """Bytes."""

    @property
    def selectors(self) -> tuple[str, ...]:
        """The settings that say what deliveries may select; a hook has exactly one of them."""
        return ("site", "sites", "repositories") if self.configurable else ("repositories",)
