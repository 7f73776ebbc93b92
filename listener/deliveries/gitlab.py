"""The payloads of GitLab.

https://docs.gitlab.com/user/project/integrations/webhook_events/#push-events
"""

from typing import Any

from listener.deliveries.delivery import Delivery, Facts, Hook, Reader, Sample, Wanted
from listener.deliveries.payloads import excerpt, pushed, read_json, typed

PUSH, SYSTEM = "Push Hook", "System Hook"


def _read(delivery: Delivery, _: Hook) -> Facts:
    # These two stay the same when a delivery is sent again. GitLab before 17.4 sends neither. Such a delivery
    # has no id: the ids of the webhook and of the event are shared with other deliveries.
    key = delivery.id_of("webhook-id", "Idempotency-Key")
    event = delivery.value("X-Gitlab-Event")
    payload = read_json(delivery)
    if event == SYSTEM:
        event = _of_system(payload)
    if event not in {PUSH, SYSTEM}:
        return Facts(key, event, publish=False)
    project = typed(payload, "project", dict)
    change = pushed(typed(payload, "ref", str), payload.get("after"))
    return Facts(
        key, event, publish=True, repository=typed(project, "path_with_namespace", str), changes=(change,)
    )


def _of_system(payload: dict[str, Any]) -> str:
    """Return the event of a system hook: its header is always the same, and the body names the event.

    https://docs.gitlab.com/administration/system_hooks/#push-events
    """
    name = payload.get("event_name", payload.get("object_kind"))
    return SYSTEM if name == "push" else f"{SYSTEM} {excerpt(str(name))}"


def _sample(wanted: Wanted, _: Hook) -> Sample:
    payload = {
        "object_kind": "push",
        "ref": wanted.full_ref,
        "before": wanted.before,
        "after": wanted.after,
        "project": {"path_with_namespace": wanted.repository},
    }
    return Sample(PUSH, payload)


GITLAB = Reader(_read, _sample)
