"""Acceptances that wait for the writer at the same time become one write."""

import asyncio
import threading
from collections.abc import Sequence

from listener.errors import StoreUnavailableError
from listener.queue import Acceptance
from listener.store.acceptance import Submission, claims
from listener.store.joining import Key

TOGETHER_MOST = 250
"""The most acceptances in one write. Other listeners may wait for the keys that it has to itself."""

Answer = asyncio.Future[Acceptance]


class Gathering:
    """Acceptances that wait until the writer takes them."""

    def __init__(self) -> None:
        self._submissions: list[Submission] = []
        self._answers: list[Answer] = []
        self._sender_keys: set[Key] = set()
        self._taken = False
        # SQLite's writer is a thread: what is added while it takes the others would be lost.
        self._lock = threading.Lock()

    def add(self, submission: Submission, answer: Answer) -> bool:
        """Add one; return False if that is not possible. Then it goes into the next gathering.

        The same delivery is never in one write twice: the second one gets the answer of the first.
        """
        key = submission.sender_key
        with self._lock:
            if self._taken or len(self._submissions) >= TOGETHER_MOST or key in self._sender_keys:
                return False
            if key is not None:
                self._sender_keys.add(key)
            self._submissions.append(submission)
        self._answers.append(answer)
        return True

    def take(self) -> Sequence[Submission]:
        """Return all of them, and accept no more. A write that is tried again gets the same ones."""
        with self._lock:
            self._taken = True
        return self._submissions

    def claims(self) -> set[Key]:
        """Return the keys that the write must have to itself."""
        return {key for each in self.take() for key in claims(each)}

    def settle(self, written: asyncio.Future[list[Acceptance]]) -> "list[Gathering]":
        """Answer all callers; return the acceptances that have to be carried out again, each alone.

        A write that fails has stored nothing. One acceptance may be the reason, and the others must not fail
        because of it.
        """
        # A write may fail before it begins. Without this, the gathering would stay open for ever.
        self.take()
        error = written.exception()
        if error is None:
            for answer, acceptance in zip(self._answers, written.result(), strict=True):
                if not answer.done():
                    answer.set_result(acceptance)
            return []
        if len(self._answers) == 1 or isinstance(error, StoreUnavailableError):
            self.fail(error)
            return []
        return [_alone(*each) for each in zip(self._submissions, self._answers, strict=True)]

    def fail(self, error: BaseException) -> None:
        """Answer all callers with an error."""
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(error)


def _alone(submission: Submission, answer: Answer) -> Gathering:
    gathering = Gathering()
    gathering.add(submission, answer)
    return gathering
