"""Gives back to the system what connections have left behind.

The C library keeps what was freed below something that is still in use, so that a flood would be seen in the
size of the process for days. glibc gives it back when it is asked to; other libraries are not asked.
"""

import asyncio
import ctypes
from collections.abc import Callable

LOOK = 2.0
"""Seconds between two looks at how many connections have ended."""

MANY = 32
"""Connections that have ended since the last time: what fewer leave is not worth the search."""

_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)


async def give_back(ended: Callable[[], int]) -> None:
    """Look for ever how many connections have `ended`, and give back what they have left."""
    before = ended()
    while True:
        await asyncio.sleep(LOOK)
        if _trim is not None and ended() - before >= MANY:
            before = ended()
            _trim(0)
