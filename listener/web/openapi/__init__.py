"""What `GET /openapi.json` tells: every route, what it takes and what it answers (OpenAPI 3.1).

A new route is one row in the table of its module here; the schemas beside them say what `listener.web.views`
answers. The tests hold both to what the application has and answers.
"""

from listener.web.openapi import arrivals, hooks, native, page, probes, studio
from listener.web.openapi.document import Described, document
from listener.web.openapi.operations import Operation

__all__ = ["OPERATIONS", "Described", "document"]

OPERATIONS: tuple[Operation, ...] = (
    *studio.OPERATIONS,
    *hooks.OPERATIONS,
    *native.OPERATIONS,
    *arrivals.OPERATIONS,
    *page.OPERATIONS,
    *probes.OPERATIONS,
)
"""Every route, in the order in which they are read."""
