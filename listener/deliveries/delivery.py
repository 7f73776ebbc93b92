"""One request to a hook, the hook, and what the request says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from listener.errors import MalformedDeliveryError
from listener.networks import Network
from listener.signatures import Form, Request
from listener.sites import PLACEHOLDER

KEY_MOST = 256
"""Characters of a sender's delivery id."""


FORGES = frozenset({"github", "gitlab", "gitea", "forgejo", "gogs", "bitbucket", "azure-devops"})
"""The schemes of forges: their payloads are their own, and they tell no two names apart by case alone."""


def printable(what: str, text: str) -> str:
    """Return text that may be kept as an id or a name; raise `MalformedDeliveryError` for any other."""
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
    """What stood behind the hook's name in the path."""

    @property
    def request(self) -> Request:
        """What of it a verifier looks at."""
        return Request(self.headers, self.body, self.secret)

    def values(self, name: str) -> list[bytes]:
        """Return every value of the header `name`."""
        wanted = name.lower().encode()
        return [value for key, value in self.headers if key.lower() == wanted]

    def value(self, name: str) -> str:
        """Return the one value of a header that must be there once; raise `MalformedDeliveryError`."""
        values = self.values(name)
        if len(values) != 1:
            raise MalformedDeliveryError(f"The header {name} is there {len(values)} times, not once.")
        return printable(f"header {name}", values[0].decode("latin-1"))

    def id_of(self, *names: str) -> str | None:
        """Return the delivery's id, from the first of these headers that is there; None for no id.

        Nobody signs these headers, and proxies add some of them to what a sender has sent (`X-Request-Id`).
        An id that is there twice, empty or over-long is no id; the push that it came with counts.
        """
        name = next((each for each in names if self.values(each)), None)
        found = self.values(name) if name else []
        if name is None or len(found) != 1 or not 0 < len(found[0]) <= KEY_MOST:
            return None
        return self.value(name)


@dataclass(frozen=True, slots=True)
class Payload:
    """Where a body of the sender's own definition says what: keys, with dots between those that nest."""

    site: str = "site_id"
    repository: str = ""
    """Empty for bodies that name none."""
    ref: str = "ref"
    """Of a full ref."""
    branch: str = "environment"
    """Of a branch alone; a full ref goes before it."""
    event: str = "event"
    id: str = ""
    """Empty for bodies without an id."""
    id_header: str = ""
    """The header that is the delivery's id, instead."""


@dataclass(frozen=True)
class Hook:
    """A configured webhook endpoint: a scheme, its secrets, and what it may select."""

    name: str
    scheme: str
    secrets: tuple[bytes, ...] = field(repr=False)
    repositories: Mapping[str, str] = field(default_factory=dict)
    """The sender's full repository names, each with the site that it mirrors; `{site}` stands for any."""
    sites: frozenset[str] = frozenset()
    """The sites, and patterns of sites, that a payload which names a site may select."""
    site: str | None = None
    """The one site that every delivery selects, for payloads that name none."""
    body_limit: int = 1 << 20
    """Bytes."""
    branch: str | None = None
    """The branch that a publish is pushed to; None for the site's live."""
    environments: frozenset[str] = frozenset()
    """The names of the environments that it may sync; empty for all."""
    events: frozenset[str] = frozenset()
    """The events of a sender's own that tell of a publish; empty for `publish`."""
    form: Form | None = None
    """How its deliveries are signed, for the scheme `hmac`."""
    payload: Payload = Payload()
    networks: tuple[Network, ...] = ()
    """Where its deliveries come from; empty for anywhere."""
    secret_names: tuple[str, ...] = ()
    """The references that the secrets came from, each in its place; empty for one that stands in clear."""

    def secret_name(self, index: int) -> str:
        """Return what a secret is called: by its reference, or by its place in the list, from 1."""
        named = self.secret_names[index] if index < len(self.secret_names) else ""
        return named or f"secret {index + 1}"

    @property
    def secrets_by_name(self) -> tuple[str, ...]:
        """The names of the secrets, in their order; two from the same reference have one name."""
        return tuple(dict.fromkeys(map(self.secret_name, range(len(self.secrets)))))

    def mirrored(self, repository: str) -> str | None:
        """Return the site id that a repository's name stands for; exact names go before patterns."""
        named = self._spelt(repository)
        if named in self._exact:
            return self._exact[named]
        for before, after, site in self._patterns:
            part = named.removeprefix(before).removesuffix(after)
            if part and "/" not in part and named == f"{before}{part}{after}":
                return site.replace(PLACEHOLDER, part)
        return None

    @cached_property
    def _exact(self) -> dict[str, str]:
        """The site of each repository; of two that are spelt alike, the first one's."""
        return {self._spelt(name): site for name, site in reversed([*self.repositories.items()])}

    @cached_property
    def _patterns(self) -> list[tuple[str, str, str]]:
        """What stands before and after each pattern's placeholder, and its site; the longest first."""
        patterns = sorted((name for name in self.repositories if PLACEHOLDER in name), key=len, reverse=True)
        return [(*map(self._spelt, name.split(PLACEHOLDER, 1)), self.repositories[name]) for name in patterns]  # type: ignore[misc]

    def _spelt(self, repository: str) -> str:
        """Return a repository's name as it is compared: to a forge, `Acme/MySite` is `acme/mysite`."""
        return repository.casefold() if self.scheme in FORGES else repository


@dataclass(frozen=True, slots=True)
class Change:
    """One ref that was pushed."""

    ref: str
    """A full one."""
    after: str | None = None
    """The commit that it names now, as the sender says."""
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What a verified payload says, as far as it matters."""

    key: str | None
    """The sender's delivery id."""
    event: str
    publish: bool
    """Whether this kind of event tells of new commits at all."""
    repository: str | None = None
    site: str | None = None
    changes: tuple[Change, ...] | None = None
    """None when the payload speaks of live without naming a ref."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a test delivery shall say."""

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
    """A test delivery, as its sender would make it."""

    event: str
    payload: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Those that the signature does not bring."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How the payloads of one kind of sender are read, and made for a test."""

    read: Callable[[Delivery, Hook], Facts]
    """Raises `MalformedDeliveryError`, `UnsupportedMediaError`."""
    sample: Callable[[Wanted, Hook], Sample]
    ping: Sample | None = None
    """What the sender says of a new webhook; None where it says nothing."""
    configurable: bool = False
    """Whether the hook says where in the body what stands (`Payload`); else it is a forge's."""
    body_limit: int = 25 << 20
    """Bytes."""

    @property
    def selectors(self) -> tuple[str, ...]:
        """The settings of which a hook has exactly one: they say what its deliveries may select."""
        return ("site", "sites", "repositories") if self.configurable else ("repositories",)
