"""One request about several repositories. Each of them gets the whole time limit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from listener.ssh.dialogue import Fields


@dataclass(slots=True)
class Batch:
    """The repositories of one request in their order, and how many of them are answered."""

    paths: Sequence[str]
    separator: str = ""
    """The first word of the line that ends each repository's part of the reply; empty for a single one."""
    received: str | None = None
    """The reply as far as it came before the request failed; None if the request was never sent."""
    answered: int = 0
    on_answer: Callable[[], object] = field(default=lambda: None, repr=False)

    @classmethod
    def of(cls, parts: Sequence[Fields]) -> "Batch":
        """Return the batch of a request with these parts."""
        paths = [part.get("path") or part.get("root", "") for part in parts]
        return cls([path for path in paths if path], parts[0].get("separator", "") if parts else "")

    @property
    def current(self) -> str:
        """The repository that the host works in now."""
        return self.paths[min(self.answered, len(self.paths) - 1)] if self.paths else ""

    def count_answers(self, reply: bytearray, known: int) -> None:
        """Count the parts of the reply that are complete. The first `known` bytes were searched before."""
        end = b"\n" + self.separator.encode() + b" "
        more = reply.count(end, max(0, known - len(end) + 1))
        # A host that sends more parts than were asked for gets no more time.
        if more and self.answered < len(self.paths):
            self.answered += more
            self.on_answer()


SINGLE = Batch(())
