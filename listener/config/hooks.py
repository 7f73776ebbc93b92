"""The section `hooks`: its shape, the rules within it, and the hooks that it describes."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_serializer

from listener.config.names import (
    BodyPath,
    BranchName,
    HeaderName,
    Limit,
    ListKey,
    NetworkOf,
    RepositoryName,
)
from listener.config.problems import OTHER, Location, Problem, shown
from listener.config.sections import Section
from listener.deliveries import FORGES, READERS, Hook, Payload, excerpt
from listener.signatures import SCHEMES, Form, weakness
from listener.signatures.configured import BODY, TIMESTAMP
from listener.sites import PLACEHOLDER

SELECTORS: Mapping[str, tuple[str, ...]] = {name: reader.selectors for name, reader in READERS.items()}
"""By each scheme, the settings that say what its deliveries may select. A hook has exactly one of them."""

HMAC = "hmac"
"""The scheme whose form the hook describes."""

CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie"})
"""Headers that can't be an id: an id is stored and shown."""

_WITH_ID = "standard-webhooks"
"""The scheme that has an id of its own."""


class HmacSection(Section):
    """How a sender signs, for the scheme hmac."""

    header: HeaderName = Field(description="the header that the signature stands in, such as X-Signature")
    algorithm: Literal["sha256", "sha512"] = Field("sha256", description="such as sha256")
    encoding: Literal["hex", "base64"] = Field("hex", description="such as hex")
    prefix: str = Field("", description="what stands before the signature, such as sha256=")
    signature_key: ListKey | None = Field(
        None, description="the key of the signature in a header such as t=1700000000,v1=…: here v1"
    )
    timestamp_key: ListKey | None = Field(
        None, description="the key of the timestamp in a header such as t=1700000000,v1=…: here t"
    )
    timestamp_header: HeaderName | None = Field(
        None, description="the header that is the timestamp, such as X-Timestamp"
    )
    signed: str | None = Field(None, description="the text that is signed, such as '{timestamp}.{body}'")
    tolerance: Limit = Field(300.0, description="how far off the timestamp may be, such as 5m")

    @property
    def timed(self) -> bool:
        """Whether there is a timestamp."""
        return bool(self.timestamp_key or self.timestamp_header)

    @property
    def form(self) -> Form:
        """The form that the section describes."""
        signed = f"{TIMESTAMP}.{BODY}" if self.timed else BODY
        return Form(**{"signed": signed, **self.model_dump(exclude_none=True)})

    def broken(self, at: Location) -> Iterator[Problem]:
        """Yield every rule that the section at this place breaks."""
        if self.timestamp_key and self.timestamp_header:
            yield Problem((*at, "timestamp_key"), "can't be used with timestamp_header; write one of them")
        if self.timestamp_key and not self.signature_key:
            yield Problem((*at, "timestamp_key"), "needs signature_key, the key of the signature beside it")
        if self.signature_key and self.prefix:
            yield Problem((*at, "prefix"), "has no effect in a list of keys; remove it, or signature_key")
        if self.signature_key and self.signature_key == self.timestamp_key:
            yield Problem((*at, "timestamp_key"), "is the signature's key too; write the timestamp's own key")
        signed, timed = self.form.signed, self.timed
        if signed.count(BODY) != 1 or signed.count(TIMESTAMP) != timed:
            wanted = f"{BODY} and {TIMESTAMP} once" if timed else f"{BODY} once, and no {TIMESTAMP}"
            yield Problem((*at, "signed"), f"must contain {wanted}; write one such as {_EXAMPLES[timed]}")


_EXAMPLES = (f"'{BODY}'", f"'{TIMESTAMP}.{BODY}'")


class PayloadSection(Section):
    """Where a body says what, for the schemes whose bodies are the sender's own."""

    site: BodyPath = Field("site_id", description="the place of the site's id in the body, such as site_id")
    repository: BodyPath | None = Field(
        None, description="the place of the repository's full name, such as repository.full_name"
    )
    ref: BodyPath = Field("ref", description="the place of the full ref, such as ref")
    branch: BodyPath = Field("environment", description="the place of the branch, such as environment")
    event: BodyPath = Field("event", description="the place of the event, such as event")
    id: BodyPath | None = Field(None, description="the place of the delivery's id, such as id")
    id_header: HeaderName | None = Field(
        None, description="the header that is the delivery's id, such as X-Delivery-Id"
    )

    @property
    def payload(self) -> Payload:
        """The places that the section describes."""
        return Payload(**self.model_dump(exclude_none=True))

    def broken(self, at: Location, scheme: str) -> Iterator[Problem]:
        """Yield every rule that the section at this place breaks, of a hook of this scheme."""
        given = [key for key in ("id", "id_header") if getattr(self, key)]
        if given and scheme == _WITH_ID:
            yield Problem((*at, given[0]), f"isn't a setting of the scheme {scheme}: its id is webhook-id")
        if len(given) > 1:
            yield Problem((*at, "id_header"), "can't be used with id; write one of them")
        if (self.id_header or "").lower() in CREDENTIALS:
            yield Problem((*at, "id_header"), "is a credential; write the header of the delivery's id")


class HookSection(Section):
    """A webhook endpoint."""

    scheme: str = Field(description="how the sender signs, such as github")
    secrets: list[str] = Field(
        min_length=1,
        repr=False,
        description="a list of one or more secrets, such as [credential:forge-secret]; "
        "no hook starts without one",
    )
    repositories: dict[RepositoryName, str] = Field(
        default_factory=dict, description="a map of repository names, each with the site that it mirrors"
    )
    site: str | None = Field(None, description="the one site that every delivery selects")
    sites: list[str] = Field(default_factory=list, description="a list of sites that a payload may select")
    branch: BranchName | None = Field(
        None, description="the branch of a publish, if it is not the site's live"
    )
    environments: list[str] = Field(
        default_factory=list, description="a list of the environments that it may sync, such as [staging]"
    )
    events: list[str] = Field(
        default_factory=list, description="a list of the events that tell of a publish, such as [publish]"
    )
    networks: list[NetworkOf] = Field(
        default_factory=list,
        min_length=1,
        description="a list of the networks that its deliveries come from, such as [192.0.2.0/24]",
    )
    hmac: HmacSection | None = Field(None, description="a map of header and of how it is made")
    payload: PayloadSection = Field(
        default_factory=PayloadSection, description="a map of places in the body, such as {site: site_id}"
    )

    @field_serializer("secrets")
    def _number(self, secrets: list[str]) -> int:
        return len(secrets)

    @field_serializer("payload", mode="wrap")
    def _used(self, payload: PayloadSection, serialize: SerializerFunctionWrapHandler) -> Any:
        return serialize(payload) if READERS[self.scheme].configurable else None

    def broken(self, at: Location) -> Iterator[Problem]:
        """Yield every rule that the hook at this place breaks."""
        if self.scheme not in SELECTORS:
            yield Problem((*at, "scheme"), "is an unknown scheme", meant=(self.scheme, SELECTORS.keys()))
            return
        yield from self._selection(at)
        if self.scheme in FORGES:
            yield from self._names(at)
        yield from self._placeholders(at)
        yield from self._belonging(at)
        yield from self.payload.broken((*at, "payload"), self.scheme)
        if self.hmac is not None:
            yield from self.hmac.broken((*at, HMAC))
        for index, secret in enumerate(self.secrets):
            if fault := SCHEMES[self.scheme].fault(secret.encode()):
                yield Problem((*at, "secrets", index), fault)

    def _selection(self, at: Location) -> Iterator[Problem]:
        wanted = SELECTORS[self.scheme]
        given = [key for key in ("repositories", "site", "sites") if getattr(self, key)]
        for key in given:
            if key not in wanted:
                yield Problem(
                    (*at, key), f"isn't a setting of the scheme {self.scheme}; write {' or '.join(wanted)}"
                )
        fitting = [key for key in given if key in wanted]
        if not fitting:
            yield Problem(at, f"selects no site; write {' or '.join(wanted)}")
        if len(fitting) > 1:
            yield Problem(at, f"has {' and '.join(fitting)}; write one of them")

    def _names(self, at: Location) -> Iterator[Problem]:
        """Yield the repository names that a forge doesn't have, or has only once."""
        first: dict[str, Location] = {}
        for written in self.repositories:
            name, place = written.casefold(), (*at, "repositories", written)
            if name.endswith(".git"):
                yield Problem(place, "ends with .git, which isn't part of the name; write owner/name alone")
            if first.setdefault(name, place) != place:
                text = f"differs from {OTHER} only in case, and names the same repository; remove it"
                yield Problem(place, text, first[name])

    def _placeholders(self, at: Location) -> Iterator[Problem]:
        for name, site in self.repositories.items():
            if (name.count(PLACEHOLDER), site.count(PLACEHOLDER)) not in {(0, 0), (1, 1)}:
                yield Problem(
                    (*at, "repositories", name),
                    "must contain {site} once on both sides or on neither; "
                    "write one such as 'acme/{site}': '{site}'",
                )

    def _belonging(self, at: Location) -> Iterator[Problem]:
        """Yield the settings that this scheme doesn't have, and those that it needs."""
        scheme, own = self.scheme, READERS[self.scheme].configurable
        foreign = {
            "payload": not own and self.payload.model_fields_set,
            "events": not own and self.events,
            HMAC: scheme != HMAC and self.hmac is not None,
        }
        for key in (key for key, given in foreign.items() if given):
            yield Problem((*at, key), f"isn't a setting of the scheme {scheme}; remove it")
        if scheme == HMAC and self.hmac is None:
            yield Problem((*at, HMAC), "is missing: a map of header and of how the signature is made")
        if own and bool(self.repositories) != bool(self.payload.repository):
            yield Problem(
                (*at, "payload", "repository"),
                "is needed together with the hook's repositories; write both or neither",
            )

    def hook(self, name: str, references: Mapping[Location, str]) -> Hook:
        """Return the hook that this section describes; `references` tells what its secrets are called."""
        return Hook(
            name,
            self.scheme,
            tuple(secret.encode() for secret in self.secrets),
            repositories=dict(self.repositories),
            sites=frozenset(self.sites),
            site=self.site,
            body_limit=READERS[self.scheme].body_limit,
            branch=self.branch,
            environments=frozenset(self.environments),
            events=frozenset(self.events),
            form=None if self.hmac is None else self.hmac.form,
            payload=self.payload.payload,
            secret_names=tuple(
                excerpt(references.get(("hooks", name, "secrets", index), ""))
                for index in range(len(self.secrets))
            ),
            networks=tuple(self.networks),
        )

    def warnings(self, name: str) -> Iterator[str]:
        """Yield each secret that can be guessed, or that isn't the text that the sender has."""
        for index, secret in enumerate(self.secrets):
            if fault := weakness(self.scheme, name, secret):
                yield f"{shown(('hooks', name, 'secrets', index))}: {fault}"
