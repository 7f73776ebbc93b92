"""The errors that a host's script, its gate and git there report in text."""

import re

from listener.errors import DiskFullError, ReadOnlyError, RefLockedError, RemoteStepError, SyncError
from listener.ssh.channel import Reply, escaped

MAX_MESSAGE = 500
"""Characters of a host's output that an error repeats."""


def error_of(reply: Reply) -> SyncError:
    """Return the error of a reply that failed, with a part of its text."""
    reply = Reply(reply.status, escaped(reply.out), escaped(reply.err))
    said = reply.err.strip()[-MAX_MESSAGE:]
    found = _ERROR_LINE.search(reply.out.strip())
    if found is None:
        return RemoteStepError(f"a step failed with status {reply.status}: {said}")
    code, text = found[1], found[2][:MAX_MESSAGE]
    error = _BY_CODE.get(code, RemoteStepError)
    if error is RemoteStepError:
        error = cause_of(f"{text}\n{said}") or error
    return error(f"{text}: {said}" if said not in text and not error.permanent else text)


def gate_error(stderr: str) -> SyncError | None:
    """Return the error that the gate of a restricted key reports on standard error, if it does."""
    return error_of(Reply(1, stderr, "")) if _ERROR_LINE.search(stderr.strip()) else None


_ERROR_LINE = re.compile(r"^error ([a-z-]+) (.*)\Z", re.DOTALL | re.MULTILINE)
"""The script's last line of output if it fails: a code of `listener.errors`, and a text."""


def cause_of(said: str) -> type[RemoteStepError] | None:
    """Return the error for a message of git or the shell; None if it is not one that has its own error."""
    return next((cause for words, cause in _CAUSES if re.search(words, said)), None)


_CAUSES: tuple[tuple[str, type[RemoteStepError]], ...] = (
    (r"No space left on device|Disk quota exceeded", DiskFullError),
    (r"Read-only file system|Permission denied|insufficient permission", ReadOnlyError),
    (r"\.lock': File exists", RefLockedError),
)


def _codes(kind: type[SyncError]) -> dict[str, type[SyncError]]:
    found = {kind.code: kind}
    for narrower in kind.__subclasses__():
        found |= _codes(narrower)
    return found


_BY_CODE = _codes(SyncError)
