"""Gives the memory of ended connections back to the system.

The C library keeps freed memory that lies below memory in use. So the process would stay large for days after
a flood. glibc has `malloc_trim` for that; other C libraries are left alone.
"""

import asyncio
import ctypes
from collections.abc import Callable

LOOK = 2.0
"""Seconds between two checks of how many connections have ended."""

MANY = 32
"""Ended connections since the last time that are worth a trim."""

_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)


async def trim_forever(ended: Callable[[], int]) -> None:
    """Trim whenever many connections have ended, until cancelled; `ended` returns their number."""
    before = ended()
    while True:
        await asyncio.sleep(LOOK)
        if _trim is not None and ended() - before >= MANY:
            before = ended()
            _trim(0)
