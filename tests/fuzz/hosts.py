"""What a hostile host may answer: nothing of it is more than a failed step."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from unittest import mock

from listener.errors import SyncError
from listener.observations import Observation
from listener.plans import decide
from listener.sites import Environment, Policy, RepositoryAddress
from listener.ssh.channel import Reply, ReplyReader
from listener.ssh.git_remote import MarkAges, read_advertised
from listener.ssh.remote_errors import error_of
from listener.ssh.replies import read_applied, read_observation, strictly, unquote
from listener.ssh.survey import read_survey
from tests.fuzz.target import Target

AT = RepositoryAddress("studio", "/srv/mysite")
LEG = Environment.of("mysite", "staging", AT, "live", Policy.FORWARD, [(AT, "staging")], follow=True).legs[0]

OBJECT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

TOKEN = "0123456789abcdef" * 2


def check(observation: Observation) -> None:
    """Nothing that a host says may be an option of a git command, and a decision is always made."""
    named = [observation.live, observation.branch, observation.target]
    for branch in filter(None, named):
        assert OBJECT.fullmatch(branch.commit), branch
    for commit in observation.in_progress.values():
        assert OBJECT.fullmatch(commit), commit
    json.dumps(asdict(observation.drift), ensure_ascii=False).encode()
    decide(LEG, observation, quiet=2.0, patience=900.0)


def check_told(error: SyncError) -> None:
    """What an error says is stored and sent on."""
    f"{error.message}{error.remedy}".encode()


def try_replies(data: bytes) -> None:
    """The first byte says what was asked, the rest is the answer."""
    text = data[1:].decode("utf-8", "surrogateescape")
    try:
        match data[:1]:
            case b"o":
                check(read_observation(LEG, text))
            case b"a":
                read_applied(LEG, text, "")
            case b"s":
                for found in read_survey([LEG, LEG], TOKEN, text):
                    if isinstance(found, Observation):
                        check(found)
            case b"r":
                check_told(error_of(Reply(1, text, text)))
            case b"l":
                check(read_advertised(LEG, text, MarkAges()))
            case b"q":
                with strictly():
                    unquote(text).encode()
    except SyncError as error:
        check_told(error)


OBSERVED = f"""now 1700000000.5
bare no
worktree /srv/mysite
head ref: refs/heads/staging
ref refs/heads/live:{"1" * 40}:{"1" * 40}:{"2" * 40}:::<a@b>:
ref refs/heads/staging:{"3" * 40}:{"3" * 40}:{"4" * 40}:::<sync-staging@localhost>:/srv/mysite
ref refs/heads/live_in_progress:{"5" * 40}:{"5" * 40}:{"6" * 40}:::<a:b@c>:
file logs/HEAD 1699999000 300 12
file index.lock 1699999999.25 0 13
file refs/heads/live_in_progress 1699999990.123456789 41 14
seen
target {"7" * 40} {"8" * 40}
ancestor
apart 1\t2
blobs 3
differences
A\tsite/a.xml
M\t"site/\\303\\274.xml"
D\tc
counts 1 1 1 0
"""


def reply_seeds() -> Iterator[bytes]:
    whole = OBSERVED.encode()
    yield b"o" + whole
    back = whole.partition(b"worktree /srv/mysite\n")[2].partition(b"file ")[0]
    yield b"adetached\n" + whole.replace(b"apart ", b"moved fast-forward\n" + back + b"apart ")
    yield b"a" + b"busy live_in_progress\n"
    yield b"s" + (whole + f"\n{TOKEN} 0\nerror not-a-repository there is none\n{TOKEN} 1\n".encode())
    yield b"r" + b"error wrong-owner it belongs to root\n"
    yield b"r" + b"No space left on device\n"
    yield (
        b"l"
        + f"{'1' * 40}\tHEAD\n{'1' * 40}\trefs/heads/staging\n{'2' * 40}\trefs/heads/x_in_progress".encode()
    )
    yield b"q" + rb'"a\303\274\n\"\\"'


def try_frames(data: bytes) -> None:
    """Pieces as they arrive, each behind `o` or `e` for its stream; `@` stands for the token."""
    asyncio.run(_try_frames(data))


async def _try_frames(data: bytes) -> None:
    session = ReplyReader()
    session.connection_made(mock.Mock())
    reply = session.expect(TOKEN)
    for piece in data.split(b"\r"):
        arrived = piece[1:].replace(b"@", b"\n" + TOKEN.encode())
        session.data_received(arrived, 1 if piece[:1] == b"e" else None)
    session.connection_lost(None)
    try:
        assert isinstance(await reply, Reply)
    except SyncError as error:
        check_told(error)


def frame_seeds() -> Iterator[bytes]:
    yield b"osome output@ 0\n\reand errors@ \n"
    yield b"o@ 1\n\re@"
    yield b"opart\rof it@\ro 0\n\re@\n"
    yield b"o@ 0\n"


TARGETS = {"replies": Target(try_replies, reply_seeds), "frames": Target(try_frames, frame_seeds)}
