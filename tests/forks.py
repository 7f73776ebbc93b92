"""Commands and daemons in processes of their own, without the second that importing costs each.

`python -m tests.forks FD` is a process that has imported the listener, and forks once for each of them;
`start` asks it. A forked process has the streams, environment, folder and signals of one started anew.
"""

import asyncio
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal, TextIO

import listener
from listener.__main__ import main

REQUEST_MOST = 1 << 18
"""Bytes of one request."""

PIPE = asyncio.subprocess.PIPE


class Forked:
    """A process that runs, in the shape of `asyncio.subprocess.Process`."""

    def __init__(
        self,
        pid: int,
        status: asyncio.StreamReader,
        stdout: asyncio.StreamReader | None,
        stderr: asyncio.StreamReader | None,
    ) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout, self.stderr = stdout, stderr
        self._watching = asyncio.create_task(self._watch(status))

    async def _watch(self, status: asyncio.StreamReader) -> int:
        self.returncode = int(await status.read())
        return self.returncode

    async def wait(self) -> int:
        return await asyncio.shield(self._watching)

    async def communicate(self) -> tuple[bytes, bytes]:
        """What it writes to its pipes, to their end."""
        out, err, _ = await asyncio.gather(_whole(self.stdout), _whole(self.stderr), self.wait())
        return out, err

    def send_signal(self, number: int) -> None:
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = Forked | asyncio.subprocess.Process


async def _whole(reader: asyncio.StreamReader | None) -> bytes:
    return b"" if reader is None else await reader.read()


async def start(
    *words: str, env: dict[str, str] | None = None, stdout: int | None = None, stderr: int | None = None
) -> Forked:
    """Run a command line; the streams are descriptors, PIPE, or None for this process's own."""
    status, tell = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    out, outs = _stream(stdout, 1)
    err, errs = _stream(stderr, 2)
    request = {"words": words, "env": dict(os.environ) if env is None else env, "cwd": str(Path.cwd())}
    socket.send_fds(_server(), [json.dumps(request).encode()], [null, outs, errs, tell])
    for descriptor in {null, tell, *(outs,) * (out is not None), *(errs,) * (err is not None)}:
        os.close(descriptor)
    telling = await _reader(status)
    pid = int(await telling.readline())
    return Forked(
        pid, telling, None if out is None else await _reader(out), None if err is None else await _reader(err)
    )


def _stream(given: int | None, own: int) -> tuple[int | None, int]:
    """The end of a stream to read here, if any, and the process's end of it."""
    return os.pipe() if given == PIPE else (None, own if given is None else given)


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader


@functools.cache
def _server() -> socket.socket:
    """The way to the process that forks, which ends with this one."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.forks", str(its.fileno())]
    folder = Path(__file__).parents[1]
    process = subprocess.Popen(command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, cwd=folder)
    its.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def serve(control: socket.socket) -> list[str] | None:
    """Fork until nobody is left to ask; in each new process, return its command line."""
    children: dict[int, tuple[int, int]] = {}
    waiting = selectors.DefaultSelector()
    waiting.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is not control:
                waiting.unregister(key.fileobj)
                _bury(key.fd, *children.pop(key.fd))
                continue
            said, descriptors, _, _ = socket.recv_fds(control, REQUEST_MOST, 4)
            if not said:
                return None
            pid = os.fork()
            if pid == 0:
                waiting.close()
                return _become(json.loads(said), descriptors)
            *streams, tell = descriptors
            for descriptor in streams:
                os.close(descriptor)
            os.write(tell, b"%d\n" % pid)
            pidfd = os.pidfd_open(pid)
            children[pidfd] = pid, tell
            waiting.register(pidfd, selectors.EVENT_READ)


def _bury(pidfd: int, pid: int, tell: int) -> None:
    """Tell how a process has ended."""
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    with contextlib.suppress(BrokenPipeError):  # Nobody waits for it any more.
        os.write(tell, b"%d" % os.waitstatus_to_exitcode(status))
    os.close(tell)


def _become(request: dict[str, object], descriptors: list[int]) -> list[str]:
    """Be as a process that was started anew; return its command line."""
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    env, words, cwd = request["env"], request["words"], request["cwd"]
    assert isinstance(env, dict)
    assert isinstance(words, list)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(str(cwd))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = _text(0, "r", "surrogateescape")
    sys.stdout = _text(1, "w", "surrogateescape")
    sys.stderr = _text(2, "w", "backslashreplace")
    return words


def _text(descriptor: int, mode: Literal["r", "w"], errors: str) -> TextIO:
    buffering = 1 if descriptor == 2 or os.isatty(descriptor) else -1
    return open(descriptor, mode, buffering, encoding="utf-8", errors=errors, closefd=False)


def import_all() -> None:
    """Import all modules, so that no process that is forked has to."""
    for module in pkgutil.walk_packages(listener.__path__, "listener."):
        importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import_all()
    words = serve(socket.socket(fileno=int(sys.argv[1])))
    if words is not None:
        sys.argv[1:] = words
        main()
