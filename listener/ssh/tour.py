"""The way of one request through several repositories, each of which gets the whole time limit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from listener.ssh.dialogue import Fields


@dataclass(slots=True)
class Tour:
    """The repositories that a request goes into, one after the other, and how far it has come."""

    paths: Sequence[str]
    mark: str = ""
    """What the line begins with that closes each one's part of the reply; empty where there is but one."""
    heard: str | None = None
    """What was told until the request failed; None if it was never sent."""
    passed: int = 0
    on_pass: Callable[[], object] = field(default=lambda: None, repr=False)

    @classmethod
    def of(cls, parts: Sequence[Fields]) -> "Tour":
        """Return the tour that a request's parts ask for."""
        paths = [part.get("path") or part.get("root", "") for part in parts]
        return cls([path for path in paths if path], parts[0].get("separator", "") if parts else "")

    @property
    def at(self) -> str:
        """The repository that it is in."""
        return self.paths[min(self.passed, len(self.paths) - 1)] if self.paths else ""

    def look(self, said: bytearray, known: int) -> None:
        """Take note of the parts that are whole now; the first `known` bytes were looked at before."""
        end = b"\n" + self.mark.encode() + b" "
        passed = said.count(end, max(0, known - len(end) + 1))
        # More parts than were asked for earn no more time.
        if passed and self.passed < len(self.paths):
            self.passed += passed
            self.on_pass()


NOWHERE = Tour(())
