"""A loaded shell that runs whatever it is told: what a step of the script may do, without a repository."""

from dataclasses import dataclass

from listener.ssh.connection import HostConnection
from listener.ssh.dialogue import Dialogue, dialogue_of
from tests.contract.test_repository import Notes

_SAID = """
ss_answer() {
	ss_read body
	exec </dev/null
	eval "$body"
}
"""


@dataclass(frozen=True)
class _Saying:
    """Like the script that is sent, but for the requests that it takes."""

    sent: Dialogue

    def preamble(self, name: str) -> bytes:
        start = f"ss_dialogue {name}\n".encode()
        return self.sent.preamble(name).removesuffix(start) + _SAID.encode() + start

    def __getattr__(self, name: str) -> object:
        return getattr(self.sent, name)


async def say(connection: HostConnection, command: str, limit: float = 10, notes: Notes | None = None) -> str:
    """Run a command line in a loaded shell, as a function of the script would run."""
    connection._dialogue = _Saying(dialogue_of(connection.host.access))  # type: ignore[assignment]
    return await connection.call(notes or Notes(), limit, "say", {"body": command})
