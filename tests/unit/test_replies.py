"""A host that answers what it can't have told, by a fault or on purpose, fails the step and nothing else."""

from unittest import mock

import pytest

from listener.errors import RemoteStepError
from listener.ssh.channel import MAX_REPLY, Reply, ReplyReader
from listener.ssh.remote_errors import error_of
from listener.ssh.replies import object_id, read_observation
from tests.fuzz.hosts import LEG, OBSERVED, TOKEN


def test_a_reply_is_read() -> None:
    observation = read_observation(LEG, OBSERVED)
    assert observation.live is not None
    assert observation.live.commit == "1" * 40
    assert observation.drift.changed.listed == ("site/ü.xml",)
    assert observation.branch is not None
    assert observation.branch.worktree == observation.worktree == "/srv/mysite"
    assert observation.times == {
        "HEAD": 1699999001.0,
        "index.lock": 1699999999.25,
        "live_in_progress": 1699999990.123456789,
    }
    assert observation.in_progress == {"live_in_progress": "5" * 40}
    assert observation.locks == ("index.lock",)
    assert observation.touched == 1699999999.25
    assert (observation.drift.ahead, observation.drift.behind, observation.drift.blobs) == (1, 2, 3)


@pytest.mark.parametrize(
    ("told", "instead"),
    [
        ("1" * 40, "--output=/etc/passwd"),
        ("2" * 40, "HEAD"),
        ("7" * 40, "--exec=x"),
        ("bare no\n", ""),
        ("now 1700000000.5", "now nan"),
        ("HEAD 1699999000", "HEAD 1e999"),
        ("file logs/HEAD", "mtime logs/HEAD"),
        (":/srv/mysite\nref", "\nref"),
        ("A\tsite", "X\tsite"),
        ("counts 1", "counts \N{ARABIC-INDIC DIGIT ONE}"),
        ("counts 1 1 1 0", "counts 1"),
        ("D\tc", "D\tc\udce9"),
        ("\nseen\n", "\n"),
    ],
)
def test_what_a_host_cannot_have_told_is_not_read(told: str, instead: str) -> None:
    with pytest.raises(RemoteStepError):
        read_observation(LEG, OBSERVED.replace(told, instead, 1))


@pytest.mark.parametrize("text", ["1" * 40, "0a" * 32])
def test_an_object_id_is_one(text: str) -> None:
    assert object_id(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "1" * 39, "1" * 41, "A" * 40, "1" * 40 + "\n", "-" + "1" * 39, "\N{ARABIC-INDIC DIGIT ONE}" * 40],
)
def test_other_words_are_no_object_ids(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        object_id(text)


def test_an_error_says_what_the_host_said_in_text_that_can_be_stored() -> None:
    error = error_of(Reply(1, "", "fatal: caf\udce9"))
    assert error.message.endswith(r"fatal: caf\xe9")


async def test_a_reply_whose_status_never_ends_is_given_up_at_once() -> None:
    session = ReplyReader()
    session.connection_made(mock.Mock())
    reply = session.expect(TOKEN)
    session.data_received(f"\n{TOKEN}\n".encode(), 1)
    session.data_received(f"\n{TOKEN} 1".encode(), None)
    assert not reply.done()
    session.data_received(b"1" * 100, None)
    with pytest.raises(RemoteStepError):
        await reply
    assert len(session.out) < MAX_REPLY


async def test_a_status_that_is_no_number_fails_the_step() -> None:
    session = ReplyReader()
    reply = session.expect(TOKEN)
    session.data_received(f"\n{TOKEN}\n".encode(), 1)
    session.data_received(f"\n{TOKEN} none\n".encode(), None)
    with pytest.raises(RemoteStepError):
        await reply
