"""All targets, by name."""

from collections.abc import Mapping

from tests.fuzz import files, hosts, http, senders
from tests.fuzz.target import Target

TARGETS: Mapping[str, Target] = {**senders.TARGETS, **hosts.TARGETS, **files.TARGETS, **http.TARGETS}
