"""The payloads of Bitbucket: Cloud and Data Center sign in the same way, but their payloads differ.

https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/#Push
https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html
"""

from collections.abc import Iterator
from typing import Any

from listener.deliveries.delivery import Change, Delivery, Facts, Hook, Reader, Sample, Wanted
from listener.deliveries.payloads import listed, pushed, read_json, typed

CLOUD, DATA_CENTER = "repo:push", "repo:refs_changed"

_PREFIXES = {"branch": "refs/heads/", "tag": "refs/tags/"}


def _read(delivery: Delivery, _: Hook) -> Facts:
    key = delivery.id_of("X-Request-UUID", "X-Request-Id")
    event = delivery.value("X-Event-Key")
    payload = read_json(delivery)
    if event not in {CLOUD, DATA_CENTER}:
        return Facts(key, event, publish=False)
    repository = typed(payload, "repository", dict)
    if event == CLOUD:
        name = typed(repository, "full_name", str)
        changes = tuple(_cloud(typed(payload, "push", dict)))
    else:
        name = f"{typed(typed(repository, 'project', dict), 'key', str)}/{typed(repository, 'slug', str)}"
        changes = tuple(
            pushed(typed(each, "refId", str), each.get("toHash")) for each in listed(payload, "changes")
        )
    return Facts(key, event, publish=True, repository=name, changes=changes)


def _cloud(push: dict[str, Any]) -> Iterator[Change]:
    """Yield the changes; a deleted branch has no new commit."""
    for each in listed(push, "changes"):
        deleted = each.get("new") is None
        if deleted and each.get("old") is None:
            continue  # It names no ref. The other changes count.
        tip = typed(each, "old" if deleted else "new", dict)
        kind = typed(tip, "type", str)
        if kind in _PREFIXES:
            after = None if deleted else typed(typed(tip, "target", dict), "hash", str)
            yield Change(_PREFIXES[kind] + typed(tip, "name", str), after, deleted=deleted)


def _sample(wanted: Wanted, _: Hook) -> Sample:
    """Return a push as Data Center sends it: its repositories are named by key and slug."""
    project, _slash, slug = wanted.repository.partition("/")
    change = {
        "refId": wanted.full_ref,
        "fromHash": wanted.before,
        "toHash": wanted.after,
        "type": "UPDATE",
    }
    repository = {"slug": slug, "project": {"key": project}}
    return Sample(DATA_CENTER, {"eventKey": DATA_CENTER, "repository": repository, "changes": [change]})


BITBUCKET = Reader(_read, _sample, ping=Sample("diagnostics:ping", {"test": True}))
