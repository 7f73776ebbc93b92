"""The labels of the figures of environments. They are few, also with many sites.

Up to `metrics.sites` sites, each has its own label, and the sites of a pattern are counted together under
the pattern. With more sites, all are counted together as `*`. The worst environments still have labels of
their own, so that an alert says where to look. These are not in the sum.
"""

import heapq
from collections.abc import Mapping

from listener.sites import Environment, Sites

SITE = ("site", "environment")

Key = tuple[str, str]
"""A site and an environment, or the labels of both."""

TOGETHER: Key = ("*", "*")
"""The labels of the environments that are counted together."""
GONE: Key = ("", "")
"""The labels of an environment that is not configured any more."""

NAMED = 20
"""How many of the worst environments have labels of their own when the others are counted together."""


class Labels:
    """The labels of all environments."""

    def __init__(self, sites: Sites, most: int) -> None:
        self._sites = sites
        self.together = len(sites.by_id) + len(sites.patterns) > most
        """Whether all environments are counted together."""
        named = {(site.id, name) for site in sites for name in site.environments}
        patterns = {(each.text, name) for each in sites.patterns for name in each.template.environments}
        self._all = (TOGETHER,) if self.together else (*sorted(named), *sorted(patterns))
        self.configured = frozenset(named)
        """The environments of the sites that are configured by their ids."""

    def all(self) -> tuple[Key, ...]:
        """Return all labels that are known at the start."""
        return self._all

    def named(self, key: Key) -> bool:
        """Return whether the site of an environment is configured by its id."""
        return key[0] in self._sites.by_id

    def of(self, site: str, environment: str) -> Key:
        """Return the labels under which an environment is counted."""
        if self._environment(site, environment) is None:
            return GONE
        if self.together:
            return TOGETHER
        pattern = self._sites.pattern(site)
        return (site if pattern is None else pattern.text), environment

    def follows(self, site: str, environment: str) -> bool:
        """Return whether an environment follows live."""
        found = self._environment(site, environment)
        return found is not None and found.follow

    def _environment(self, site: str, environment: str) -> Environment | None:
        found = self._sites.by_id.get(site)
        if found is None:
            pattern = self._sites.pattern(site)
            found = None if pattern is None else pattern.template
        return None if found is None else found.environments.get(environment)

    def counted(self, found: Mapping[Key, float]) -> dict[Key, int]:
        """Return the number of environments by their labels. The worst are those with the lowest values."""
        named = heapq.nsmallest(NAMED, found, lambda key: (found[key], key)) if self.together else ()
        counts: dict[Key, int] = dict.fromkeys(named, 1)
        for key in found.keys() - counts.keys():
            label = self.of(*key)
            counts[label] = counts.get(label, 0) + 1
        counts.pop(GONE, None)
        return counts

    def oldest(self, found: Mapping[Key, float]) -> dict[Key, float]:
        """Return the earliest time of the environments with the same labels."""
        first = heapq.nsmallest(NAMED + 1, found, lambda key: (found[key], key)) if self.together else found
        times: dict[Key, float] = {}
        for place, key in enumerate(first):
            label = key if self.together and place < NAMED else self.of(*key)
            times[label] = min(times.get(label, found[key]), found[key])
        times.pop(GONE, None)
        return times
