"""`sync`, by the listener and without one."""

import asyncio
import re
from pathlib import Path

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd
from tests.e2e.cli.shell import PATIENT, PROGRESS, Shell, behind, ended, publishing, told
from tests.listening import Client, Daemon, client, configuration, daemon, written
from tests.proxy import Proxy
from tests.publisher import StudioPublisher


async def test_sync_makes_the_environment_equal_and_tells_the_log_on_the_way(
    running: Daemon, shell: Shell, published: Published
) -> None:
    old = published.commit("staging")
    done = await shell("sync", "mysite", "staging")
    assert done.status == 0
    assert published.tree("staging") == published.tree("live")
    new = published.commit("staging")
    assert done.out == f"mysite/staging: forward-commit, {old[:10]} -> {new[:10]}, 1 path removed\n"
    assert told(done) == ["start", "observe", "plan", "apply", "confirm", "run"]


async def test_sync_answers_with_the_run_as_json(running: Daemon, shell: Shell) -> None:
    done = await shell("sync", "mysite", "staging", "--json")
    assert done.status == 0
    assert done.document["state"] == "succeeded"
    assert [trigger["actor"] for trigger in done.document["triggers"]] == ["root"]


async def test_a_dry_run_tells_what_would_be_removed_and_moves_nothing(
    running: Daemon, shell: Shell, published: Published
) -> None:
    old = published.commit("staging")
    done = await shell("sync", "mysite", "staging", "--dry-run")
    assert done.status == 0
    assert done.out.splitlines() == [
        "mysite/staging would get a forward commit with live's content",
        f"  branch {old[:10]}, live {published.commit('live')[:10]}",
        "  3 commits ahead of live, 2 behind",
        "  would add 1 path:",
        "    site/components/feature-0001.xml",
        "  would change 1 path:",
        "    site/website/articles/0000/index.xml",
        "  would remove 1 path:",
        "    site/website/staged-for-review/index.xml",
    ]
    assert published.commit("staging") == old
    asked = await shell("sync", "mysite", "staging", "--dry-run", "--json")
    assert asked.document["removed"] == ["site/website/staged-for-review/index.xml"]


async def test_a_dry_run_of_what_would_be_refused_ends_with_1(
    running: Daemon, shell: Shell, published: Published
) -> None:
    published.git("branch", "-D", "live")
    done = await shell("sync", "mysite", "staging", "--dry-run")
    assert done.status == 1
    assert done.out.splitlines()[0] == "mysite/staging would be refused"
    assert done.out.splitlines()[-1] == "  remedy: publish the site to live once"


async def test_a_refused_sync_ends_with_1_and_says_what_to_do(
    running: Daemon, shell: Shell, published: Published
) -> None:
    published.git("branch", "-D", "live")
    done = await shell("sync", "mysite", "staging")
    assert (done.status, done.out) == (1, "mysite/staging: failed (live-missing)\n")
    assert done.err.splitlines()[-2:] == [
        "error: The live branch does not exist: the site was never published.",
        "remedy: publish the site to live once",
    ]


async def test_sync_without_waiting_returns_while_the_run_waits(
    running: Daemon, shell: Shell, api: Client, published: Published
) -> None:
    async with publishing(published):
        done = await shell("sync", "mysite", "staging", "--no-wait", "--json")
        assert done.status == 0
        assert done.document["state"] in {"queued", "running"}
        other = await shell("sync", "mysite", "staging", "--no-wait")
        assert re.fullmatch(r"mysite/staging: (?:queued|running), run [0-9a-f-]{36}\n", other.out)
    assert (await api.ended(done.document["id"]))["state"] == "succeeded"


async def test_sync_resumes_the_log_where_its_connection_broke(
    running: Daemon, shell: Shell, published: Published
) -> None:
    published.git("branch", PROGRESS, "live")
    async with Proxy(int(running.url.rpartition(":")[2])) as proxy:
        following = await shell.start(
            "sync", "mysite", "staging", "--url", f"http://127.0.0.1:{proxy.port}", "--json"
        )
        assert following.stderr is not None
        first = (await following.stderr.readline()).decode()
        proxy.cut()
        published.git("branch", "-D", PROGRESS)
        done = await ended(following)
    assert done.status == 0
    log = await shell("runs", "log", done.document["id"])
    assert (first + done.err).splitlines() == log.out.splitlines()


async def test_sync_follows_the_successor_of_a_superseded_run(
    tmp_path: Path, sshd: Sshd, published: Published, publisher: StudioPublisher
) -> None:
    async with Proxy(sshd.port) as proxy:
        whole = configuration(tmp_path, sshd, published.path, sync={**PATIENT, "connect_timeout": 0.5})
        config = written(tmp_path, behind(proxy, whole, tmp_path))
        shell = Shell(config)
        async with daemon(config) as running, client(running.url) as api:
            assert (await shell("sync", "mysite", "staging")).status == 0
            publisher.publish("live", {"site/website/news/index.xml": "<page/>\n"})
            proxy.freeze()
            following = await shell.start("sync", "mysite", "staging", "--json")
            while not (await api.call("GET", "/api/v1/runs?state=running"))[1]["runs"]:
                await asyncio.sleep(0.02)
            _, successor, _ = await api.call("POST", "/api/v1/sites/mysite/environments/staging/sync")
            proxy.cut()
            while not (await api.call("GET", "/api/v1/runs?state=superseded"))[1]["runs"]:
                await asyncio.sleep(0.02)
            proxy.thaw()
            done = await ended(following)
    assert done.status == 0
    assert done.document["id"] == successor["id"]
    assert published.tree("staging") == published.tree("live")


async def test_sync_local_works_without_a_listener(shell: Shell, published: Published) -> None:
    done = await shell("sync", "mysite", "staging", "--local")
    assert done.status == 0, done.err
    assert published.tree("staging") == published.tree("live")
    assert done.out.startswith("mysite/staging: forward-commit, ")
    assert told(done) == ["start", "observe", "plan", "apply", "confirm", "run"]


async def test_sync_local_notes_the_system_user_as_who_asked(shell: Shell, sshd: Sshd) -> None:
    done = await shell("sync", "mysite", "staging", "--local", "--json")
    [trigger] = done.document["triggers"]
    assert trigger["origin"] == "cli"
    assert trigger["actor"] == sshd.user


async def test_sync_local_is_refused_while_a_listener_runs(running: Daemon, shell: Shell) -> None:
    done = await shell("sync", "mysite", "staging", "--local")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1] == "remedy: leave out --local: the running listener can do the sync"


async def test_a_local_dry_run_looks_beside_a_running_listener(running: Daemon, shell: Shell) -> None:
    done = await shell("sync", "mysite", "staging", "--local", "--dry-run", "--json")
    assert done.status == 0
    assert done.document["plan"] == "forward-commit"


async def test_sync_local_knows_the_configured_environments_only(shell: Shell) -> None:
    done = await shell("sync", "mysite", "live", "--local")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: Environment not found")
