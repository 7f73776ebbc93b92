"""Which environments a verified delivery syncs.

Data from a payload is only compared or looked up: a ref is compared with the configured branch, a repository
or a site id is looked up in the configuration. Nothing of it reaches git or a shell.
"""

from dataclasses import dataclass

from listener.deliveries.delivery import Facts, Hook
from listener.deliveries.payloads import excerpt
from listener.sites import Environment, Site, Sites


@dataclass(frozen=True, slots=True)
class Ignored:
    """A valid delivery that selects nothing."""

    reason: str


def select(facts: Facts, hook: Hook, sites: Sites) -> tuple[Environment, ...] | Ignored:
    """Return the environments to sync, at least one, or the reason why there are none."""
    if not facts.publish:
        return Ignored(_no_publish(facts, hook))
    site = _site(facts, hook, sites)
    if isinstance(site, Ignored):
        return site
    missed = _missed(facts, hook, site)
    if missed:
        return Ignored(missed)
    if not site.following:
        return Ignored(f"no environment of site {site.id} follows live")
    covered = tuple(
        each for each in site.following if not hook.environments or each.name in hook.environments
    )
    names = ", ".join(sorted(hook.environments))
    return covered or Ignored(
        f"no environment of site {site.id} that follows live is among those of hook {hook.name} ({names})"
    )


def _no_publish(facts: Facts, hook: Hook) -> str:
    if hook.events:
        return f"hook {hook.name} does not take the event {excerpt(facts.event)}"
    return f"the event {excerpt(facts.event)} is not a publish"


def _missed(facts: Facts, hook: Hook, site: Site) -> str:
    """Return why a push is not one to the publishing branch; empty if it is."""
    if facts.changes is None:
        return ""
    branch = hook.branch or site.live
    what = f"live of site {site.id}" if branch == site.live else f"the branch of hook {hook.name}"
    what = what if branch == site.live == "live" else f"{branch}, {what}"
    pushed = [change for change in facts.changes if change.ref == f"refs/heads/{branch}"]
    if not all(change.deleted for change in pushed):
        return ""
    if pushed:
        return f"branch {branch} of site {site.id} was deleted"
    if not facts.changes:
        return f"no branch of site {site.id} was pushed"
    first, *others = facts.changes
    if others:
        return f"{_spoken(first.ref)} and {len(others)} more are not {what}"
    return f"{_spoken(first.ref)} is not {what}"


def _spoken(ref: str) -> str:
    """Return a ref in the words of people."""
    for kind, prefix in (("branch", "refs/heads/"), ("tag", "refs/tags/")):
        if ref.startswith(prefix):
            return f"{kind} {excerpt(ref.removeprefix(prefix))}"
    return (
        f"ref {excerpt(ref)}"
        if ref.startswith("refs/")
        else f"{excerpt(ref) or 'an empty ref'}, which is not a full ref,"
    )


def _site(facts: Facts, hook: Hook, sites: Sites) -> Site | Ignored:
    """Return the site of a delivery."""
    if hook.repositories:
        repository = facts.repository or ""
        site_id = hook.mirrored(repository)
        if site_id is None:
            return Ignored(
                f"repository {excerpt(repository)} is not among the repositories of hook {hook.name}"
            )
    elif hook.site is not None:
        site_id = hook.site
    elif facts.site is None:
        return Ignored(f"the payload names no site, and hook {hook.name} needs one")
    elif _covers(hook, facts.site, sites):
        site_id = facts.site
    else:
        return Ignored(f"site {excerpt(facts.site)} is not among the sites of hook {hook.name}")
    if site_id not in sites:
        return Ignored(f"site {excerpt(site_id)} is not configured")
    return sites.site(site_id)


def _covers(hook: Hook, site_id: str, sites: Sites) -> bool:
    """Return whether the hook covers the site, by its id or by its pattern."""
    pattern = sites.pattern(site_id)
    return site_id in hook.sites or (pattern is not None and pattern.text in hook.sites)
