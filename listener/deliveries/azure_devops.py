"""The payloads of Azure DevOps service hooks.

https://learn.microsoft.com/en-us/azure/devops/service-hooks/events#git.push
"""

from listener.deliveries.delivery import Delivery, Facts, Hook, Reader, Sample, Wanted, printable
from listener.deliveries.payloads import listed, pushed, read_json, typed
from listener.errors import MalformedDeliveryError

PUSH = "git.push"


def _read(delivery: Delivery, _: Hook) -> Facts:
    payload = read_json(delivery)
    key = printable("field id", typed(payload, "id", str))
    event = typed(payload, "eventType", str)
    if event != PUSH:
        return Facts(key, event, publish=False)
    resource = payload.get("resource")
    if not isinstance(resource, dict) or not {"refUpdates", "repository"} <= resource.keys():
        raise MalformedDeliveryError(
            "The payload does not say what was pushed: choose All as resource details to send at the sender."
        )
    repository = typed(resource, "repository", dict)
    project = typed(repository, "project", dict)
    changes = tuple(
        pushed(typed(each, "name", str), each.get("newObjectId")) for each in listed(resource, "refUpdates")
    )
    name = f"{typed(project, 'name', str)}/{typed(repository, 'name', str)}"
    return Facts(key, event, publish=True, repository=name, changes=changes)


def _sample(wanted: Wanted, _: Hook) -> Sample:
    project, _slash, name = wanted.repository.partition("/")
    update = {"name": wanted.full_ref, "oldObjectId": wanted.before, "newObjectId": wanted.after}
    resource = {"refUpdates": [update], "repository": {"name": name, "project": {"name": project}}}
    return Sample(PUSH, {"id": wanted.key, "eventType": PUSH, "resource": resource})


AZURE_DEVOPS = Reader(_read, _sample)
