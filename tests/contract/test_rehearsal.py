"""What the tests and the demo stand on is as the notes on CrafterCMS and on sshd say it is."""

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest

from listener.rehearsal import processes
from listener.rehearsal import sshd as sshd_module
from listener.rehearsal.embedded import EmbeddedServer
from listener.rehearsal.git import GitError, git
from listener.rehearsal.published import SANDBOX_BRANCH, Published, build
from listener.rehearsal.sshd import LoopbackHost, Sshd, SshdError
from tests.conftest import age
from tests.proxy import Proxy
from tests.publisher import (
    STEPS,
    STEPS_OF_5,
    DeliveryNode,
    PublishError,
    Studio5Publisher,
    StudioPublisher,
)

Server = Sshd | EmbeddedServer

STAGED = "site/website/staged-for-review/index.xml"
REWRITTEN = "site/website/articles/0000/index.xml"
REMOVED = "site/components/feature-0001.xml"
NEWS = {"site/website/news/index.xml": "approved\n", "static-assets/css/part-0002.css": None}


def refs(published: Published) -> str:
    return published.git("for-each-ref", "--format=%(refname) %(objectname)")


def test_live_and_staging_have_no_common_ancestor_and_head_is_on_a_clean_staging(
    published: Published,
) -> None:
    with pytest.raises(GitError):
        published.git("merge-base", "live", "staging")
    assert published.head() == "ref: refs/heads/staging"
    assert published.is_clean()
    assert not (published.path / ".git" / "index.lock").exists()


def test_staging_has_an_item_more_one_changed_and_one_less_than_live(tmp_path: Path) -> None:
    published = build(tmp_path, files=300)
    live, staging = published.files("live"), published.files("staging")
    assert len(live) == 300
    assert set(staging) - set(live) == {STAGED}
    assert set(live) - set(staging) == {REMOVED}
    assert {path for path in set(live) & set(staging) if live[path] != staging[path]} == {REWRITTEN}


def test_the_repository_is_a_clone_of_the_sandbox_beside_it_wherever_both_lie(published: Published) -> None:
    assert published.git("config", "remote.origin.url") == "../sandbox"
    published.git("fetch", "--quiet", "origin")
    newest = git(published.sandbox, "rev-parse", "HEAD")
    assert published.git("rev-parse", f"origin/{SANDBOX_BRANCH}") == newest
    assert published.files(SANDBOX_BRANCH) == published.files("staging")


def test_each_publish_has_a_tag_of_its_own(published: Published) -> None:
    listing = published.git("for-each-ref", "--format=%(objecttype) %(refname:short)", "refs/tags")
    tag = re.compile(r"tag \d{4}-\d\d-\d\dT\d{9}Z_published_on_\d{4}-\d\d-\d\dT\d{9}Z")
    assert len(listing.splitlines()) == 5
    assert all(tag.fullmatch(line) for line in listing.splitlines())


def test_nothing_of_the_users_own_git_gets_in(
    pristine: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[user]\n name = Somebody\n[commit]\n gpgSign = true\n[core]\n autocrlf = true\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    built = build(tmp_path, files=40)
    assert refs(built) == refs(pristine)
    StudioPublisher(built).publish("staging", NEWS)
    assert built.git("log", "-1", "--format=%an %cn", "staging") == "Studio Studio"


def test_to_look_whether_it_is_clean_writes_nothing(published: Published) -> None:
    index = published.path / ".git" / "index"
    (published.path / REWRITTEN).touch()
    before = index.stat()
    assert published.is_clean()
    assert (index.stat().st_mtime_ns, index.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_publish_to_staging_leaves_live_alone_and_head_on_staging(
    published: Published, publisher: StudioPublisher
) -> None:
    live = published.commit("live")
    publisher.publish("staging", NEWS)
    assert published.commit("live") == live
    assert published.head() == "ref: refs/heads/staging"
    assert published.is_clean()
    assert "site/website/news/index.xml" in published.files("staging")
    assert "static-assets/css/part-0002.css" not in published.files("staging")
    assert published.commit("staging_in_progress") == ""


def test_a_publish_to_live_goes_to_staging_first_and_takes_nothing_that_is_only_staged(
    published: Published, publisher: StudioPublisher
) -> None:
    before = published.files("live")
    steps = list(publisher.steps("live", NEWS))
    assert steps == [(target, step) for target in ("staging", "live") for step in STEPS]
    assert published.head() == "ref: refs/heads/live"
    assert published.is_clean()
    assert "site/website/news/index.xml" in published.files("staging")
    after = published.files("live")
    assert set(after) - set(before) == {"site/website/news/index.xml"}
    assert set(before) - set(after) == {"static-assets/css/part-0002.css"}
    assert after[REWRITTEN] == before[REWRITTEN]


def test_without_staging_a_publish_to_live_goes_there_alone(published: Published) -> None:
    staging = published.commit("staging")
    StudioPublisher(published, staging_enabled=False).publish("live", NEWS)
    assert published.commit("staging") == staging
    assert "site/website/news/index.xml" in published.files("live")


def test_a_targets_first_publish_makes_it_an_orphan_with_what_live_has(
    published: Published, publisher: StudioPublisher
) -> None:
    published.git("checkout", "--quiet", "live")
    published.git("branch", "--quiet", "-D", "staging")
    publisher.publish("staging", NEWS)
    assert set(published.files("live")) - set(published.files("staging")) == {
        "static-assets/css/part-0002.css"
    }
    with pytest.raises(GitError):
        published.git("merge-base", "live", "staging")
    assert published.is_clean()


@pytest.mark.parametrize("at", STEPS)
def test_after_a_crash_at_any_step_studio_publishes_again(
    published: Published, publisher: StudioPublisher, at: str
) -> None:
    publisher.crash("staging", NEWS, at=("staging", at), index_lock=True)
    publisher.restart()
    publisher.publish("live", NEWS)
    assert "site/website/news/index.xml" in published.files("live")
    assert published.is_clean()


def test_a_crash_leaves_head_on_the_in_progress_branch(
    published: Published, publisher: StudioPublisher
) -> None:
    publisher.crash("staging", NEWS, at=("staging", "commit"))
    assert published.head() == "ref: refs/heads/staging_in_progress"


def test_a_lock_that_nobody_gives_back_ends_publishing(
    published: Published, publisher: StudioPublisher
) -> None:
    publisher.crash("staging", NEWS, at=("staging", "checkout target"), index_lock=True)
    with pytest.raises(PublishError, match="a lock was held for too long"):
        publisher.publish("staging", NEWS)


def test_a_lock_that_is_given_back_in_time_is_waited_for(
    published: Published, publisher: StudioPublisher
) -> None:
    lock = published.path / ".git" / "index.lock"
    giving_back = threading.Timer(0.1, lock.unlink)
    for step in publisher.steps("staging", NEWS):
        if step == ("staging", "commit"):
            lock.touch()
            giving_back.start()
    giving_back.join()
    assert "site/website/news/index.xml" in published.files("staging")


def test_a_staging_moved_under_its_own_head_breaks_the_next_publish(
    published: Published, publisher: StudioPublisher
) -> None:
    publisher.edit({REWRITTEN: "rewritten once more, and not published\n"})
    publisher.publish("staging", NEWS)
    published.git("update-ref", "refs/heads/staging", published.commit("live"))
    with pytest.raises(PublishError, match="checkout sandbox"):
        publisher.publish("staging", NEWS)


def test_a_merge_that_fails_goes_unnoticed(published: Published, publisher: StudioPublisher) -> None:
    for step in publisher.steps("staging", NEWS):
        if step == ("staging", "merge"):
            published.git("update-ref", "refs/heads/staging", published.commit("live"))
    assert "site/website/news/index.xml" not in published.files("staging")
    assert published.commit("staging_in_progress") == ""


@pytest.fixture
def node(published: Published, tmp_path: Path) -> DeliveryNode:
    return DeliveryNode(published, tmp_path / "node", "staging")


def forwarded(published: Published, old: str) -> str:
    """A commit with live's tree and the parents `old` and live."""
    parents = ("-p", old, "-p", "live")
    return published.git("commit-tree", published.tree("live"), *parents, "-m", "Sync")


def test_a_node_keeps_the_old_content_when_staging_goes_back_to_an_older_live(
    published: Published, tmp_path: Path
) -> None:
    old = published.git("commit-tree", published.tree("staging"), "-p", "live", "-m", "Staged on live")
    published.git("update-ref", "refs/heads/staging", old)
    node = DeliveryNode(published, tmp_path / "node", "staging")
    published.git("update-ref", "refs/heads/staging", published.commit("live"))
    assert node.pull() == "up to date"
    assert node.tree() != published.tree("live")
    published.git("update-ref", "refs/heads/staging", forwarded(published, old))
    assert node.pull() == "fast-forward"
    assert node.tree() == published.tree("live")


def test_a_node_merges_when_a_diverged_staging_is_reset_to_live(
    published: Published, node: DeliveryNode
) -> None:
    published.git("update-ref", "refs/heads/staging", published.commit("live"))
    assert node.pull() == "merged"
    assert node.tree() == published.tree("live")


def test_a_node_fast_forwards_to_a_commit_with_lives_tree_and_both_parents(
    published: Published, node: DeliveryNode
) -> None:
    new = forwarded(published, published.commit("staging"))
    published.git("update-ref", "refs/heads/staging", new)
    assert node.pull() == "fast-forward"
    assert node.tree() == published.tree("live")
    assert node.pull() == "up to date"


def test_to_age_a_repository_changes_when_it_was_touched_and_nothing_else(published: Published) -> None:
    index, before = published.path / ".git" / "index", refs(published)
    touched = index.stat().st_mtime
    age(published, 900)
    assert index.stat().st_mtime == pytest.approx(touched - 900, abs=0.01)
    assert refs(published) == before
    assert published.is_clean()


@asynccontextmanager
async def connection_to(
    host: LoopbackHost,
    *,
    port: int = 0,
    known_hosts: Path | None = None,
    user: str = "",
    key: Path | None = None,
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with asyncssh.connect(
        host.address,
        port or host.port,
        username=user or host.user,
        client_keys=[str(key or host.identity)],
        known_hosts=str(known_hosts or host.known_hosts),
        config=[],
        agent_path=None,
    ) as connection:
        yield connection


@pytest.fixture(params=["sshd", "embedded"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """A server of the test's own, of either kind."""
    if request.param == "sshd":
        yield request.getfixturevalue("own_sshd")
        return
    folder = tmp_path / "embedded"
    folder.mkdir()
    async with EmbeddedServer(folder) as running:
        yield running


async def done(step: Awaitable[None] | None) -> None:
    """Wait for what only one kind of server has to wait for."""
    if step is not None:
        await step


async def test_a_command_has_its_status_and_two_streams_of_any_bytes(server: Server) -> None:
    async with connection_to(server) as connection:
        ended = await connection.run("printf 'o\\377'; printf 'e\\376' >&2; exit 3", encoding=None)
    assert (ended.exit_status, ended.stdout, ended.stderr) == (3, b"o\xff", b"e\xfe")
    assert "Starting session" in server.log()


async def test_a_command_reads_its_input_to_the_end_and_much_of_it(server: Server) -> None:
    much = bytes(range(256)) * 20_000
    async with connection_to(server) as connection:
        ended = await connection.run("cat; echo ended >&2", input=much, encoding=None)
    assert (ended.stdout, ended.stderr) == (much, b"ended\n")


async def test_without_a_command_a_shell_reads_its_input(server: Server) -> None:
    async with connection_to(server) as connection:
        ended = await connection.run(input="echo $((6 * 7))\n")
    assert str(ended.stdout).splitlines()[-1] == "42"


async def test_a_command_that_is_killed_tells_the_signal(server: Server) -> None:
    async with connection_to(server) as connection:
        ended = await connection.run("kill -TERM $$")
    assert ended.exit_signal is not None
    assert ended.exit_signal[0] == "TERM"


async def test_two_commands_run_side_by_side_in_process_groups_of_their_own(server: Server) -> None:
    command = 'ps -o pid=,pgid= -p $$ || echo "$$ $(cut -d" " -f5 /proc/$$/stat)"'
    async with connection_to(server) as connection:
        first, second = await asyncio.gather(connection.run(command), connection.run(command))
    for ended in (first, second):
        pid, group = str(ended.stdout).split()
        assert pid == group
    assert first.stdout != second.stdout


async def test_another_key_and_another_user_are_not_let_in(server: Server, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(stranger))
    for refused in (connection_to(server, key=stranger), connection_to(server, user="nobody-known")):
        with pytest.raises(asyncssh.PermissionDenied):
            async with refused:
                pass


async def test_a_changed_host_key_is_noticed(server: Server) -> None:
    async with connection_to(server):
        pass
    await done(server.new_host_key())
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        async with connection_to(server):
            pass
    server.trust(server.known_hosts, server.port)
    async with connection_to(server) as connection:
        assert (await connection.run("true")).exit_status == 0


async def test_a_host_goes_down_with_its_connections_and_comes_back_on_its_port(server: Server) -> None:
    async with connection_to(server) as connection:
        running = asyncio.ensure_future(connection.run("sleep 300"))
        await connection.run("true")
        await done(server.stop())
        await connection.wait_closed()
        assert (await running).exit_status is None
    with pytest.raises(ConnectionRefusedError):
        async with connection_to(server):
            pass
    await done(server.start())
    async with connection_to(server) as connection:
        assert (await connection.run("true")).exit_status == 0


def runs(pid: int) -> bool:
    """Whether a process runs: one that has ended and waits for its parent has no command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


async def test_a_command_outlives_its_connection_and_ends_with_the_server(server: Server) -> None:
    async with connection_to(server) as connection:
        orphan = await connection.create_process("echo $$; exec sleep 300")
        pid = int(await orphan.stdout.readline())
        connection.abort()
        await connection.wait_closed()
    async with connection_to(server) as connection:
        assert (await connection.run(f"kill -0 {pid}")).exit_status == 0
        assert runs(pid)
    await done(server.stop())
    assert not runs(pid)
    assert processes._marked(server.mark) == []


def test_a_machine_without_sshd_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshd_module, "find_sshd", lambda: None)
    with pytest.raises(SshdError, match="install openssh-server"):
        Sshd(tmp_path)


def test_an_sshd_that_cannot_start_says_why_and_leaves_no_process(own_sshd: Sshd) -> None:
    own_sshd.stop()
    with socket.create_server((own_sshd.address, own_sshd.port)):
        with pytest.raises(SshdError, match="Address already in use"):
            own_sshd.start()
        assert own_sshd._process is None
    own_sshd.start()


@pytest.fixture
def trusted(sshd: Sshd, proxy: Proxy, tmp_path: Path) -> Path:
    """A known_hosts file that expects the shared sshd behind the proxy."""
    known_hosts = tmp_path / "known_hosts"
    sshd.trust(known_hosts, proxy.port)
    return known_hosts


async def test_a_cut_ends_a_connection_in_the_middle_of_a_command(
    sshd: Sshd, proxy: Proxy, trusted: Path
) -> None:
    async with connection_to(sshd, port=proxy.port, known_hosts=trusted) as connection:
        process = await connection.create_process("echo begun; exec cat")
        assert await process.stdout.readline() == "begun\n"
        proxy.cut()
        await connection.wait_closed()
        assert (await process.wait()).exit_status is None
    async with connection_to(sshd, port=proxy.port, known_hosts=trusted) as connection:
        assert (await connection.run("true")).exit_status == 0


async def test_a_freeze_holds_everything_back_until_the_thaw(sshd: Sshd, proxy: Proxy, trusted: Path) -> None:
    async with connection_to(sshd, port=proxy.port, known_hosts=trusted) as connection:
        proxy.freeze()
        running = asyncio.ensure_future(connection.run("echo through"))
        await asyncio.wait({running}, timeout=0.3)
        assert not running.done()
        assert not connection.is_closed()
        proxy.thaw()
        assert (await running).stdout == "through\n"


async def test_a_frozen_connection_can_be_cut(sshd: Sshd, proxy: Proxy, trusted: Path) -> None:
    async with connection_to(sshd, port=proxy.port, known_hosts=trusted) as connection:
        proxy.freeze()
        proxy.cut()
        await connection.wait_closed()


async def test_a_delay_makes_everything_late_and_keeps_its_order(
    sshd: Sshd, proxy: Proxy, trusted: Path
) -> None:
    numbers = "".join(f"{number}\n" for number in range(50_000))
    async with connection_to(sshd, port=proxy.port, known_hosts=trusted) as connection:
        proxy.delay = 0.05
        loop = asyncio.get_running_loop()
        begin = loop.time()
        ended = await connection.run("cat", input=numbers)
        assert loop.time() - begin >= 2 * proxy.delay
    assert ended.stdout == numbers


@pytest.fixture(params=[True, False], ids=["through the index", "in memory"])
def studio_5(published: Published, request: pytest.FixtureRequest) -> Studio5Publisher:
    return Studio5Publisher(published, index=request.param)


def test_studio_5_publishes_past_head_and_the_work_tree(
    published: Published, studio_5: Studio5Publisher
) -> None:
    index, before = (published.path / ".git" / "index").read_bytes(), published.files("live")
    assert list(studio_5.steps("live", NEWS)) == [
        (target, step) for target in ("staging", "live") for step in STEPS_OF_5
    ]
    assert studio_5.updates == [("staging", "moved"), ("live", "moved")]
    after = published.files("live")
    assert set(after) - set(before) == {"site/website/news/index.xml"}
    assert set(before) - set(after) == {"static-assets/css/part-0002.css"}
    assert published.head() == "ref: refs/heads/staging"
    assert not (published.path / "site/website/news/index.xml").exists(), "the work tree is left behind"
    assert ((published.path / ".git" / "index").read_bytes() == index) is not studio_5.index


def test_studio_5_ignores_that_its_branch_has_moved_meanwhile(
    published: Published, studio_5: Studio5Publisher
) -> None:
    for step in studio_5.steps("staging", NEWS):
        if step == ("staging", "update ref"):
            published.git("update-ref", "refs/heads/staging", forwarded(published, "staging"))
    assert studio_5.updates == [("staging", "rejected")]
    assert "site/website/news/index.xml" not in published.files("staging")


def test_studio_5_ignores_a_lock_of_its_branch(published: Published, studio_5: Studio5Publisher) -> None:
    (published.path / ".git" / "refs" / "heads" / "staging.lock").touch()
    studio_5.publish("staging", NEWS)
    assert studio_5.updates == [("staging", "locked")]


def test_studio_5_leaves_no_trace_of_a_fetch_that_brings_nothing(
    published: Published, studio_5: Studio5Publisher
) -> None:
    studio_5.publish("staging", NEWS)
    fetched = (published.path / ".git" / "FETCH_HEAD").stat().st_mtime_ns
    studio_5._fetch()
    assert (published.path / ".git" / "FETCH_HEAD").stat().st_mtime_ns == fetched
    studio_5.edit(NEWS)
    studio_5._fetch()
    assert (published.path / ".git" / "FETCH_HEAD").stat().st_mtime_ns > fetched
