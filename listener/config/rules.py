"""What the sections of a configuration demand of each other. Each section has its own rules in itself."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from listener.config.document import Checked, Document
from listener.config.problems import OTHER, Location, Problem
from listener.config.sections import HostSection, TokenSection
from listener.config.sites import broken_sites
from listener.sites import PLACEHOLDER, RepositoryAddress, Site, SitePattern


def broken_rules(document: Document) -> Iterator[Problem]:
    """Yield every rule that the sections break, each by itself and beside the others of its kind."""
    if document.ssh is not None:
        yield from document.ssh.broken()
    if document.studio is not None:
        yield from document.studio.broken()
    elif "studio" in document.model_fields_set:
        yield Problem(("studio",), "is empty; write a map of url and what Studio is asked for, or remove it")
    yield from document.sync.broken()
    yield from _circles(document.hosts)
    yield from broken_sites(document.sites, document.hosts)
    for name, hook in document.hooks.items():
        yield from hook.broken(("hooks", name))
    for index, token in enumerate(document.tokens):
        yield from token.broken(("tokens", index))
    yield from _equal_tokens(document.tokens)


def _circles(hosts: Mapping[str, HostSection]) -> Iterator[Problem]:
    """Yield the hosts that are reached through themselves, directly or through others."""
    judged: set[str] = set()
    for name in hosts:
        trail: dict[str, None] = {}
        at = name
        while at in hosts and at not in judged and at not in trail:
            trail[at] = None
            at = hosts[at].via or ""
        if at in trail:
            circle = list(trail)[list(trail).index(at) :]
            for each in circle:
                text = "leads back to the host itself; remove one via of the circle"
                yield Problem(("hosts", each, "via"), text)
        judged.update(trail)


def _equal_tokens(tokens: Iterable[TokenSection]) -> Iterator[Problem]:
    first: dict[str, Location] = {}
    for index, token in enumerate(tokens):
        for key in ("name", "sha256"):
            place: Location = ("tokens", index, key)
            other = first.setdefault(f"{key} {getattr(token, key)}", place)
            if other != place:
                yield Problem(place, f"is the same as {OTHER}; each token needs its own", other)


def broken_references(checked: Checked) -> Iterator[Problem]:
    """Yield every name of a host, site or environment that isn't configured.

    A section whose shape is wrong can be named; nothing is said where its whole map is wrong.
    """
    if ("hosts",) not in checked.left_out:
        yield from _hosts(checked.document, checked.names("hosts"))
    if ("sites",) in checked.left_out:
        return
    yield from _sites(checked.document, checked.names("sites"))
    environments = {name for site in checked.document.sites.values() for name in site.environments}
    if not any(at[0] == "sites" for at in checked.left_out):
        for hook, section in checked.document.hooks.items():
            places = _listed(("hooks", hook, "environments"), section.environments)
            yield from _unknown(places, environments, "environment")


def _hosts(document: Document, known: Collection[str]) -> Iterator[Problem]:
    places = [
        ((*at, "host"), each.host)
        for name, site in document.sites.items()
        for at, each in site.repositories(("sites", name))
    ]
    places += [
        (("hosts", name, "via"), host.via) for name, host in document.hosts.items() if host.via is not None
    ]
    yield from _unknown(places, known, "host")


def _sites(document: Document, known: Collection[str]) -> Iterator[Problem]:
    """Yield the names of unknown sites: neither configured, nor covered by a pattern."""
    patterns = [SitePattern(text, _NOWHERE) for text in known if "*" in text]
    ids = {name for name in known if "*" not in name}

    def covered(name: str) -> bool:
        return any(pattern.matches(name) for pattern in patterns)

    named: list[tuple[Location, str]] = []
    for name, hook in document.hooks.items():
        at = ("hooks", name)
        named += [
            ((*at, "repositories", repository), site)
            for repository, site in hook.repositories.items()
            if PLACEHOLDER not in site
        ]
        named += [((*at, "site"), hook.site)] if hook.site is not None else []
        either = [pair for pair in _listed((*at, "sites"), hook.sites) if not covered(pair[1])]
        yield from _unknown(either, known, "site")
    for index, token in enumerate(document.tokens):
        named += _listed(("tokens", index, "sites"), token.sites)
    yield from _unknown([pair for pair in named if not covered(pair[1])], ids, "site")


_NOWHERE = Site("", RepositoryAddress("", ""), "", {})


def _listed(at: Location, values: Iterable[str]) -> list[tuple[Location, str]]:
    return [((*at, index), value) for index, value in enumerate(values)]


def _unknown(places: Iterable[tuple[Location, str]], known: Collection[str], noun: str) -> Iterator[Problem]:
    for location, name in places:
        if name not in known:
            yield Problem(location, f"is not a configured {noun}", meant=(name, known))
