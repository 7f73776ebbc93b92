"""Five walks through the house, taken for real: through which files they lead, and how often they come back.

A *stay* is an unbroken series of calls within one file. A *return* is a stay in a file visited before.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import structlog

import listener
from listener.config.settings import load
from listener.rehearsal.published import build
from listener.rehearsal.sshd import Sshd
from listener.system import System
from tests.listening import Client, client, configuration, written

PACKAGE = Path(listener.__file__).parent

Walk = list[str]
"""The files of a walk, a stay each."""


class _Footsteps:
    """Notes in which file of the package each call begins. A coroutine that goes on is not a call."""

    def __init__(self) -> None:
        self.stays: Walk = []
        self._files: dict[CodeType, str] = {}

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        file = self._files.get(code)
        if file is None:
            path = Path(code.co_filename)
            file = str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else ""
            self._files[code] = file
        if file and _begins(frame) and self.stays[-1:] != [file]:
            self.stays.append(file)


def _begins(frame: FrameType) -> bool:
    """Return whether a function begins here: a coroutine that is resumed calls nothing."""
    at = max(frame.f_lasti, 0)
    return frame.f_code.co_code[at + 1] == 0


@contextmanager
def _walking() -> Iterator[Walk]:
    steps = _Footsteps()
    sys.setprofile(steps)
    try:
        yield steps.stays
    finally:
        sys.setprofile(None)


async def walks(folder: Path) -> dict[str, Walk]:
    """Take the five walks of a listener with one site, whose parts lie in `folder`."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    published = build(folder / "site")
    with Sshd(folder) as sshd:
        path = written(folder, configuration(folder, sshd, published.path))
        taken: dict[str, Walk] = {}
        with _walking() as taken["the settings, from the file"]:
            settings = load(path)
        async with System(settings) as system:
            await system.listen()
            async with client(f"http://127.0.0.1:{system.port}") as speaking:
                await _calls(speaking, taken)
    return taken


async def _calls(speaking: Client, taken: dict[str, Walk]) -> None:
    await speaking.call("GET", "/readyz")
    await asyncio.sleep(1)  # What begins at a start is not part of a walk.
    with _walking() as taken["a webhook, to its answer"]:
        _, answer, _ = await speaking.deliver("first")
    with _walking() as taken["a run, to its end"]:
        await asyncio.sleep(2)  # A request would have a walk of its own.
    await speaking.ended(answer["runs"][0])
    with _walking() as taken["a call of a member, to its answer"]:
        await speaking.sync()
    with _walking() as taken["a run's log, to its reader"]:
        await speaking.events(answer["runs"][0])
