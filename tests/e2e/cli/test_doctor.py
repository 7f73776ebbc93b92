"""`doctor`: a healthy listener has no finding, and each thing that is broken has one of its own."""

import os
import socket
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from listener.rehearsal.git import git
from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd, free_port
from listener.sites import Access
from tests.cluster import Cluster
from tests.conftest import age, unavailable
from tests.e2e.cli.shell import Ended, Shell
from tests.listening import configuration, daemon, on_a_closed_port, written
from tests.proxy import Proxy
from tests.strangers import certificate
from tests.studio import FakeStudio, status_of_4

SECRET = "a9c1e5f0b7d24c3e8f6a1b0c9d8e7f60"


@asynccontextmanager
async def examined(folder: Path, whole: dict[str, Any]) -> AsyncIterator[Shell]:
    """A shell beside a running listener with this configuration."""
    config = written(folder, whole)
    async with daemon(config):
        yield Shell(config)


def found(done: Ended) -> dict[str, dict[str, str]]:
    """The findings of a JSON document by their codes; none of the machine that the tests run on."""
    findings = done.document["findings"]
    return {each["code"]: each for each in findings if each["group"] not in {"disk", "service"}}


@pytest.fixture
async def studio() -> AsyncIterator[FakeStudio]:
    async with FakeStudio() as running:
        running.bodies["mysite"] = status_of_4("ready")
        yield running


@pytest.fixture
def whole(tmp_path: Path, sshd: Sshd, published: Published, studio: FakeStudio) -> dict[str, Any]:
    """A configuration that nothing is wrong with."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    whole = configuration(tmp_path, sshd, published.path)
    whole["sites"]["mysite"]["environments"]["staging"]["follow"] = False
    whole["hooks"]["forge"]["secrets"] = [f"file:{secret}"]
    whole["sync"]["cache"] = str(tmp_path / "cache")
    tokens = {"token": studio.token, "management_token": studio.management_token}
    whole["studio"] = {"url": studio.url, **{key: f"file:{secret}-{key}" for key in tokens}}
    for key, text in tokens.items():
        file = tmp_path / f"secret-{key}"
        file.write_text(text)
        file.chmod(0o600)
    return whole


async def test_a_healthy_listener_has_no_finding(tmp_path: Path, whole: dict[str, Any]) -> None:
    async with examined(tmp_path, whole) as shell:
        done = await shell("doctor", "--json")
        assert (done.status, found(done)) == (0, {}), done.out
        spoken = await shell("doctor", "--verbose")
    assert spoken.status == 0
    assert "  ok: host studio: git version " in spoken.out
    assert "  ok: environment mysite/staging: forward-commit" in spoken.out
    assert SECRET not in done.out + done.err + spoken.out + spoken.err


def keygen(*words: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], check=True, capture_output=True)


def text_of(path: str) -> str:
    return Path(path).read_text()


async def examine(folder: Path, whole: dict[str, Any], *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit status and the findings, without a running listener: that it does not run is left out."""
    done = await Shell(written(folder, whole))("doctor", "--json", *words)
    findings = found(done)
    findings.pop("listener-down", None)
    return done.status, findings


async def only(folder: Path, whole: dict[str, Any], *words: str) -> dict[str, str]:
    """The one finding."""
    status, findings = await examine(folder, whole, *words)
    assert (status, len(findings)) == (1, 1), findings
    return next(iter(findings.values()))


async def test_a_listener_that_does_not_run_is_a_problem_and_free_ports_are_none(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    done = await Shell(written(tmp_path, whole))("doctor", "--json")
    assert (done.status, set(found(done))) == (1, {"listener-down"})


async def test_warnings_change_the_exit_status_only_when_they_are_to_count(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    whole["sites"]["mysite"]["environments"]["staging"]["follow"] = True
    async with examined(tmp_path, whole) as shell:
        done = await shell("doctor", "--json")
        assert (done.status, set(found(done)), done.document["status"]) == (
            0,
            {"configuration-warning"},
            "warning",
        )
        assert (await shell("doctor", "--strict")).status == 1


async def test_nothing_is_changed_and_no_file_is_left(
    tmp_path: Path, whole: dict[str, Any], published: Published
) -> None:
    config = written(tmp_path, whole)
    async with daemon(config) as running:
        await running.terminate()
    age(published, 120)

    def state() -> dict[str, tuple[int, int]]:
        files = [*tmp_path.rglob("*"), *published.path.rglob("*")]
        return {str(file): (file.lstat().st_mtime_ns, file.lstat().st_size) for file in files}

    before = state()
    await Shell(config)("doctor")
    assert state() == before


# The configuration and what it names.


async def test_a_configuration_that_can_not_be_used_ends_with_2_and_lists_each_problem(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    whole["hooks"]["forge"]["secrets"] = ["file:nowhere", "credential:forge"]
    whole["sites"]["mysite"]["lives"] = "live"
    (tmp_path / "secret-token").chmod(0o644)
    status, findings = await examine(tmp_path, whole)
    assert status == 2
    assert set(findings) == {"configuration-invalid", "credential-outside-service"}
    assert "systemd-run" in findings["credential-outside-service"]["remedy"]
    done = await Shell(tmp_path / "listener.yaml")("doctor")
    for place in ("sites.mysite.lives", "hooks.forge.secrets.0", "studio.token: other users can open"):
        assert place in done.out
    assert "service: ok, systemd does not run here" in done.out


async def test_a_configuration_that_does_not_exist_ends_with_2(tmp_path: Path) -> None:
    done = await Shell(tmp_path / "nowhere.yaml")("doctor", "--json")
    assert (done.status, set(found(done))) == (2, {"configuration-invalid"})


async def test_an_empty_secret_and_a_short_one_are_found(tmp_path: Path, whole: dict[str, Any]) -> None:
    (tmp_path / "secret").write_text("")
    assert (await examine(tmp_path, whole))[0] == 2
    (tmp_path / "secret").write_text("short")
    _, findings = await examine(tmp_path, whole)
    assert "hooks.forge.secrets.0" in findings["configuration-warning"]["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("file", ["secret", "listener.yaml"])
async def test_a_trusted_file_of_somebody_else_is_found(
    tmp_path: Path, whole: dict[str, Any], file: str
) -> None:
    config = written(tmp_path, whole)
    os.chown(tmp_path / file, 65534, -1)
    done = await Shell(config)("doctor", "--json")
    assert str(tmp_path / file) == found(done)["wrong-owner-file"]["what"]


async def test_a_key_with_a_passphrase_is_one_finding_and_no_host_is_asked(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    key = tmp_path / "locked"
    keygen("-t", "ed25519", "-N", "secret-words", "-f", str(key))
    whole["ssh"]["identity"] = str(key)
    _, findings = await examine(tmp_path, whole)
    assert set(findings) == {"identity-unusable", "not-checked"}
    assert "has a passphrase" in findings["identity-unusable"]["message"]


@pytest.mark.parametrize(
    ("days", "code"), [(30.0, ""), (5.0, "certificate-ends"), (-1.0, "certificate-expired")]
)
async def test_the_end_of_the_certificate_is_told_in_time(
    tmp_path: Path, whole: dict[str, Any], days: float, code: str
) -> None:
    whole["server"]["tls"] = certificate(tmp_path, days=days)
    _, findings = await examine(tmp_path, whole)
    assert set(findings) == {code} - {""}


# Hosts.


async def test_a_host_without_a_line_in_known_hosts_is_found(tmp_path: Path, whole: dict[str, Any]) -> None:
    known_hosts = tmp_path / "known_hosts"
    key = text_of(whole["ssh"]["known_hosts"]).split(maxsplit=1)[1]
    known_hosts.write_text(f"other.example.com {key}")
    whole["ssh"]["known_hosts"] = str(known_hosts)
    _, findings = await examine(tmp_path, whole)
    assert set(findings) == {"host-unknown", "not-checked"}
    assert "ssh-keyscan" in findings["host-unknown"]["remedy"]


async def test_hashed_names_in_known_hosts_are_good_and_an_unreadable_line_is_told(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(text_of(whole["ssh"]["known_hosts"]))
    keygen("-H", "-f", str(known_hosts))
    assert "|1|" in known_hosts.read_text()
    whole["ssh"]["known_hosts"] = str(known_hosts)
    assert (await examine(tmp_path, whole))[1] == {}
    known_hosts.write_text("=\n" + known_hosts.read_text())
    _, findings = await examine(tmp_path, whole)
    assert findings["known-hosts-line"]["message"].endswith(": 1")


async def test_a_host_with_another_key_is_found(
    tmp_path: Path, whole: dict[str, Any], own_sshd: Sshd
) -> None:
    at(whole, own_sshd)
    assert (await examine(tmp_path, whole))[1] == {}
    own_sshd.new_host_key()
    _, findings = await examine(tmp_path, whole)
    assert set(findings) == {"host-key-rejected", "not-checked"}


def at(whole: dict[str, Any], sshd: Sshd) -> None:
    """Name another sshd as the host."""
    whole["ssh"] = {"known_hosts": str(sshd.known_hosts), "identity": str(sshd.identity)}
    whole["hosts"]["studio"]["port"] = sshd.port


async def test_a_host_that_refuses_the_login_is_found(
    tmp_path: Path, whole: dict[str, Any], own_sshd: Sshd
) -> None:
    at(whole, own_sshd)
    (own_sshd.folder / "authorized_keys").write_text("")
    assert (await examine(tmp_path, whole))[1].keys() == {"login-refused", "not-checked"}


async def test_a_host_that_does_not_answer_and_one_that_hangs_hold_no_other_up(
    tmp_path: Path, whole: dict[str, Any], proxy: Proxy, published: Published
) -> None:
    key = text_of(whole["ssh"]["known_hosts"])
    whole = on_a_closed_port(tmp_path, whole) | {"hosts": whole["hosts"]}
    closed, public = text_of(whole["ssh"]["known_hosts"]), key.split(maxsplit=1)[1]
    (tmp_path / "known_hosts").write_text(f"{key}{closed}[127.0.0.1]:{proxy.port} {public}")
    whole["ssh"]["known_hosts"] = str(tmp_path / "known_hosts")
    user, port = whole["hosts"]["studio"]["user"], int(closed.split("]:")[1].split()[0])
    whole["hosts"]["down"] = {"address": "127.0.0.1", "port": port, "user": user}
    whole["hosts"]["frozen"] = {"address": "127.0.0.1", "port": proxy.port, "user": user}
    proxy.freeze()
    for name in ("down", "frozen"):
        whole["sites"][name] = {
            "repository": {"host": name, "path": str(published.path)},
            "environments": {"staging": {"follow": False}},
        }
    done = await Shell(written(tmp_path, whole))("doctor", "--json", "--verbose", "--timeout", "2")
    by_what = {each["what"]: each["code"] for each in done.document["findings"]}
    assert by_what["host down"] == "host-unreachable"
    assert by_what["host frozen"] in {"host-unreachable", "host-slow"}
    assert by_what["repositories of host down"] == by_what["repositories of host frozen"] == "not-checked"
    assert by_what["environment mysite/staging"] == "ok"


async def test_a_host_that_only_runs_git_is_told_how_to_be_configured(
    tmp_path: Path, whole: dict[str, Any], git_sshd: Sshd
) -> None:
    at(whole, git_sshd)
    _, findings = await examine(tmp_path, whole)
    assert "set hosts.studio.access to git" in findings["shell-unavailable"]["remedy"]


@pytest.mark.parametrize("access", [Access.GIT, Access.RESTRICTED])
async def test_a_host_of_each_access_is_good_and_its_cache_is_not_made(
    tmp_path: Path, whole: dict[str, Any], sshd_of: dict[Access, Sshd], access: Access, published: Published
) -> None:
    at(whole, sshd_of[access])
    whole["hosts"]["studio"]["access"] = access.value
    _, findings = await examine(tmp_path, whole)
    assert set(findings) <= {"configuration-warning"}, findings
    assert not (tmp_path / "cache").exists()


async def test_an_environment_on_another_repository_is_checked_with_live_beside_it(
    tmp_path: Path, whole: dict[str, Any], published: Published
) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(published.path), "mirror.git")
    carriers = [{"host": "studio", "path": str(tmp_path / "mirror.git")}]
    whole["sites"]["mysite"]["environments"]["staging"] = {"repositories": carriers}
    assert (await examine(tmp_path, whole))[1] == {}
    published.git("checkout", "--quiet", "--detach")
    published.git("branch", "-D", "live")
    assert (await only_repository(tmp_path, whole))["code"] == "live-missing"


async def only_repository(folder: Path, whole: dict[str, Any]) -> dict[str, str]:
    """The one finding about repositories."""
    _, findings = await examine(folder, whole)
    (finding,) = [each for each in findings.values() if each["group"] == "repositories"]
    return finding


async def test_a_host_whose_clock_is_wrong_is_found(
    tmp_path: Path, whole: dict[str, Any], published: Published
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    # The script takes the time of a pipe for the host's time.
    program = """{if ($1 == "file" && $2 == "-") $3 = sprintf("%.3f", $3 + 90); print}"""
    stat = tools / "stat"
    stat.write_text(f"#!/bin/sh\n/usr/bin/stat \"$@\" | awk '{program}'\n")
    stat.chmod(0o755)
    age(published, 3600)
    folder = tmp_path / "sshd"
    folder.mkdir()
    with Sshd(folder, f"SetEnv HOME={folder} PATH={tools}:/usr/bin:/bin\n") as wrong:
        at(whole, wrong)
        _, findings = await examine(tmp_path, whole)
    assert findings.keys() == {"clock-differs"}
    assert "90 s ahead of" in findings["clock-differs"]["message"]


# Repositories.


async def test_a_repository_that_does_not_exist_is_found(tmp_path: Path, whole: dict[str, Any]) -> None:
    whole["sites"]["mysite"]["repository"]["path"] = str(tmp_path / "nowhere")
    assert (await only_repository(tmp_path, whole))["code"] == "not-a-repository"


async def test_a_site_without_live_is_found(
    tmp_path: Path, whole: dict[str, Any], published: Published
) -> None:
    published.git("branch", "-D", "live")
    assert (await only_repository(tmp_path, whole))["code"] == "live-missing"


async def test_an_environment_without_its_branch_is_good(
    tmp_path: Path, whole: dict[str, Any], published: Published
) -> None:
    whole["sites"]["mysite"]["environments"] = {"qa": {"follow": False}}
    assert (await examine(tmp_path, whole))[1] == {}


async def test_locks_and_marks_that_are_left_are_found_and_young_ones_are_not(
    tmp_path: Path, whole: dict[str, Any], published: Published
) -> None:
    (published.path / ".git" / "refs" / "heads" / "staging.lock").touch()
    published.git("branch", "staging_in_progress", "staging")
    whole["sync"]["patience"] = 60
    assert (await examine(tmp_path, whole))[1] == {}
    age(published, 120)
    _, findings = await examine(tmp_path, whole)
    assert set(findings) == {"stale-lock", "mark-left"}
    assert "refs/heads/staging.lock" in findings["stale-lock"]["message"]
    assert "staging_in_progress" in findings["mark-left"]["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_a_repository_of_another_user_is_found(
    tmp_path: Path, whole: dict[str, Any], published: Published
) -> None:
    os.chown(published.path / ".git" / "objects", 65534, -1)
    assert (await only_repository(tmp_path, whole))["code"] == "wrong-owner"


async def test_a_repository_that_can_not_be_written_to_is_found(
    tmp_path: Path, whole: dict[str, Any], published: Published
) -> None:
    with read_only(published.path):
        finding = await only_repository(tmp_path, whole)
    assert finding["code"] == "read-only"
    assert (await examine(tmp_path, whole))[1] == {}


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let a folder be mounted read-only."""
    bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, check=False)
    if bound.returncode != 0:
        unavailable("the right to mount a file system")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_bare_repository_is_told_where_studio_is_said_to_have_made_it(
    tmp_path: Path, whole: dict[str, Any], published: Published
) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(published.path), "mirror.git")
    whole["sites"]["mysite"]["repository"]["path"] = str(tmp_path / "mirror.git")
    assert (await examine(tmp_path, whole))[1].keys() == {"bare-repository"}
    del whole["studio"]
    assert "bare-repository" not in (await examine(tmp_path, whole))[1]


async def test_many_repositories_are_summed_and_some_of_the_bad_ones_are_named(
    tmp_path: Path, whole: dict[str, Any], published: Published
) -> None:
    del whole["studio"]
    environments = {"staging": {"follow": False}}
    whole["sites"] |= {
        f"site{number}": {
            "repository": {"host": "studio", "path": f"{tmp_path}/nowhere{number}"},
            "environments": environments,
        }
        for number in range(150)
    }
    done = await Shell(written(tmp_path, whole))("doctor")
    assert "repositories: 150 problems, 1 ok" in done.out
    assert done.out.count("[not-a-repository]") == 6
    assert "  problem: 145 more [not-a-repository]; --verbose lists them" in done.out


async def test_a_repository_that_hangs_is_told_and_holds_no_other_up(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    del whole["studio"]
    fifo = tmp_path / "hangs" / ".git"
    fifo.mkdir(parents=True)
    os.mkfifo(fifo / "HEAD")
    for part in ("objects", "refs"):
        (fifo / part).mkdir()
    whole["sites"]["hangs"] = {
        "repository": {"host": "studio", "path": str(tmp_path / "hangs")},
        "environments": {"staging": {"follow": False}},
    }
    done = await Shell(written(tmp_path, whole))("doctor", "--json", "--verbose", "--timeout", "3")
    by_what = {each["what"]: each["code"] for each in done.document["findings"]}
    assert by_what["environment mysite/staging"] == "ok"
    assert by_what["environment hangs/staging"] == "step-timed-out"


# Studio.


async def test_studio_is_asked_for_its_version_and_whether_it_publishes(
    tmp_path: Path, whole: dict[str, Any], studio: FakeStudio
) -> None:
    done = await Shell(written(tmp_path, whole))("doctor")
    assert "studio: ok, version 4.1.0" in done.out
    studio.bodies["mysite"] = status_of_4("stopped")
    assert (await examine(tmp_path, whole))[1].keys() == {"publisher-off"}
    studio.bodies["mysite"] = status_of_4("ready") | {
        "publishingStatus": {"enabled": False, "status": "ready"}
    }
    assert (await examine(tmp_path, whole))[1].keys() == {"publisher-off"}
    studio.bodies.clear()
    assert (await only(tmp_path, whole))["code"] == "unknown-to-studio"
    studio.replica = True
    assert (await only(tmp_path, whole))["code"] == "not-primary"


async def test_studio_is_asked_about_the_sites_of_a_pattern_too(
    tmp_path: Path, whole: dict[str, Any], studio: FakeStudio, published: Published
) -> None:
    pattern = str(published.path).replace("mysite", "{site}")
    environments = {"staging": {"follow": False}}
    whole["sites"] = {
        "my*": {"repository": {"host": "studio", "path": pattern}, "environments": environments}
    }
    whole["hooks"] = {}
    _, findings = await examine(tmp_path, whole)
    assert findings == {}
    studio.bodies["mysite"] = status_of_4("stopped")
    assert (await examine(tmp_path, whole))[1].keys() == {"publisher-off"}


async def test_studio_that_refuses_the_token_or_does_not_answer_is_found(
    tmp_path: Path, whole: dict[str, Any], studio: FakeStudio
) -> None:
    (tmp_path / "secret-token").write_text("wrong-token")
    assert (await only(tmp_path, whole))["code"] == "studio-refused"
    whole["studio"]["url"] = f"http://127.0.0.1:{free_port()}/studio"
    assert (await only(tmp_path, whole))["code"] == "studio-unavailable"
    whole["studio"] = {"url": whole["studio"]["url"], "callers": ["admin"]}
    _, findings = await examine(tmp_path, whole)
    assert "studio-unavailable" in findings
    whole["studio"]["url"] = studio.url
    assert "studio-unavailable" not in (await examine(tmp_path, whole))[1]


# The store.


async def test_a_store_that_others_can_open_is_found(tmp_path: Path, whole: dict[str, Any]) -> None:
    async with examined(tmp_path, whole) as shell:
        (tmp_path / "listener.db").chmod(0o644)
        findings = found(await shell("doctor", "--json"))
    assert findings.keys() == {"store-exposed"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_a_store_of_another_user_is_found(tmp_path: Path, whole: dict[str, Any]) -> None:
    sqlite3.connect(tmp_path / "listener.db").close()
    (tmp_path / "listener.db").chmod(0o600)
    os.chown(tmp_path / "listener.db", 65534, -1)
    assert (await only(tmp_path, whole))["code"] == "store-owner"


async def test_a_store_that_is_damaged_too_new_or_has_no_folder_is_found(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    store = tmp_path / "listener.db"
    async with examined(tmp_path, whole):
        pass
    database = sqlite3.connect(store)
    database.execute("PRAGMA user_version = 999")
    database.close()
    assert (await only(tmp_path, whole))["code"] == "store-too-new"
    store.write_bytes(b"not a database at all" * 1000)
    assert (await only(tmp_path, whole))["code"] == "store-damaged"
    whole["store"] = f"sqlite:///{tmp_path}/nowhere/listener.db"
    assert (await only(tmp_path, whole))["code"] == "store-folder"


async def test_a_store_that_was_moved_is_found(tmp_path: Path, whole: dict[str, Any]) -> None:
    async with examined(tmp_path, whole) as shell:
        pass
    moved = await shell("store", "copy", "--to", f"sqlite:///{tmp_path}/other.db")
    assert moved.status == 0, moved.err
    assert (await only(tmp_path, whole))["code"] == "store-moved"


@pytest.fixture
def durable(cluster: Cluster) -> Iterator[str]:
    """The URL of a database whose server keeps its commits."""
    settings = ("fsync", "full_page_writes")
    database = cluster.database()
    for setting in settings:
        cluster.sql(f"ALTER SYSTEM SET {setting} = on", "postgres")
    cluster.sql("SELECT pg_reload_conf()", "postgres")
    while cluster.sql("SHOW full_page_writes", "postgres") != "on":
        pass
    yield cluster.url(database)
    for setting in settings:
        cluster.sql(f"ALTER SYSTEM RESET {setting}", "postgres")
    cluster.sql("SELECT pg_reload_conf()", "postgres")


async def test_a_store_in_postgresql_is_good_empty_and_in_use(
    tmp_path: Path, whole: dict[str, Any], durable: str
) -> None:
    whole["store"] = durable
    assert (await examine(tmp_path, whole))[1] == {}
    async with examined(tmp_path, whole) as shell:
        done = await shell("doctor")
    assert done.status == 0, done.out
    assert "store: ok, PostgreSQL " in done.out


async def test_a_store_in_postgresql_that_can_not_be_used_is_found(
    tmp_path: Path, whole: dict[str, Any], cluster: Cluster, durable: str
) -> None:
    database = cluster.database()
    whole["store"] = cluster.url(database).replace(database, "nowhere")
    assert "configuration" in (await examine(tmp_path, whole))[1]
    whole["store"] = cluster.tcp_url(database, free_port())
    findings = (await examine(tmp_path, whole))[1]
    assert "store-unavailable" in findings
    assert "s3cret" not in str(findings)
    whole["store"] = cluster.url(database)
    cluster.sql(f"ALTER DATABASE {database} SET default_transaction_read_only = on", "postgres")
    assert "store-read-only" in (await examine(tmp_path, whole))[1]
    cluster.sql(f"ALTER DATABASE {database} RESET default_transaction_read_only", "postgres")
    cluster.sql("CREATE TABLE schema_version (version integer)", database)
    cluster.sql("INSERT INTO schema_version VALUES (999)", database)
    assert "store-too-new" in (await examine(tmp_path, whole))[1]


async def test_a_server_that_can_lose_commits_is_found(
    tmp_path: Path, whole: dict[str, Any], cluster: Cluster
) -> None:
    whole["store"] = cluster.url(cluster.database())
    finding = await only(tmp_path, whole)
    assert (finding["code"], "fsync = off" in finding["message"]) == ("store-not-durable", True)


# The listener itself.


async def test_another_program_on_the_port_is_found(tmp_path: Path, whole: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", whole["server"]["port"])) as other:
        other.settimeout(1)
        whole["metrics"]["listen"] = f"127.0.0.1:{other.getsockname()[1]}"
        other.close()
    with socket.create_server(("127.0.0.1", 0)) as other:
        whole["metrics"]["listen"] = f"127.0.0.1:{other.getsockname()[1]}"
        assert (await only(tmp_path, whole))["code"] == "port-taken"


async def test_a_program_that_answers_in_place_of_the_listener_is_found(
    tmp_path: Path, whole: dict[str, Any], studio: FakeStudio
) -> None:
    whole["server"]["port"] = studio.port
    assert (await only(tmp_path, whole))["code"] == "port-taken"


async def test_a_configuration_that_is_newer_than_the_running_listener_is_found(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    async with examined(tmp_path, whole) as shell:
        later = shell.config.stat().st_mtime + 60
        os.utime(tmp_path / "secret", (later, later))
        findings = found(await shell("doctor", "--json"))
    assert findings.keys() == {"configuration-changed"}
    assert str(tmp_path / "secret") in findings["configuration-changed"]["message"]


async def test_a_file_that_was_added_to_the_included_folder_needs_a_restart(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    folder = tmp_path / "sites.d"
    folder.mkdir(mode=0o700)
    whole["include"] = str(folder)
    async with examined(tmp_path, whole) as shell:
        assert found(await shell("doctor", "--json")) == {}
        (folder / "removed.yaml").touch()
        (folder / "removed.yaml").unlink()
        later = shell.config.stat().st_mtime + 60
        os.utime(folder, (later, later))
        assert found(await shell("doctor", "--json")).keys() == {"configuration-changed"}


async def test_a_listener_that_is_not_ready_is_found_with_the_reason(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    async with examined(tmp_path, whole) as shell:
        (tmp_path / "listener.db").rename(tmp_path / "moved.db")
        findings = found(await shell("doctor", "--json"))
    assert "is not at" in findings["listener-unready"]["message"]


async def test_figures_that_are_not_where_the_configuration_says_are_found(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    whole["metrics"]["listen"] = f"127.0.0.1:{free_port()}"
    async with examined(tmp_path, whole) as shell:
        assert found(await shell("doctor", "--json")) == {}
        whole["metrics"]["listen"] = f"127.0.0.1:{free_port()}"
        assert found(await Shell(written(tmp_path, whole))("doctor", "--json")).keys() == {"metrics-down"}


# The service manager: a `systemctl` that prints what the real one does.

HEALTHY = {
    "LoadState": "loaded",
    "UnitFileState": "enabled",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "ExecMainStatus": "0",
    "NRestarts": "0",
    "NeedDaemonReload": "no",
    "Restart": "always",
    "WatchdogUSec": "30s",
    "MemoryMax": "1610612736",
    "LimitNOFILE": "8192",
    "User": "daemon",
    "MainPID": "0",
}


@pytest.mark.parametrize(
    ("changed", "codes"),
    [
        ({}, set()),
        ({"LoadState": "not-found"}, {"service-missing"}),
        ({"UnitFileState": "disabled"}, {"service-disabled"}),
        ({"ActiveState": "failed", "Result": "exit-code"}, {"service-failed"}),
        ({"ActiveState": "inactive"}, {"service-inactive"}),
        ({"NRestarts": "3"}, {"service-restarts"}),
        ({"NeedDaemonReload": "yes"}, {"service-changed"}),
        ({"WatchdogUSec": "0"}, {"service-watchdog"}),
        ({"MemoryMax": "infinity"}, {"service-memory"}),
        ({"Restart": "no"}, {"service-restart"}),
        ({"LimitNOFILE": "512"}, {"service-files"}),
    ],
)
async def test_what_the_service_manager_says_is_judged(
    tmp_path: Path, whole: dict[str, Any], changed: dict[str, str], codes: set[str]
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    said = "".join(f"{key}={value}\n" for key, value in (HEALTHY | changed).items())
    (tools / "systemctl").write_text(f"#!/bin/sh\ncat <<'EOF'\n{said}EOF\n")
    (tools / "systemctl").chmod(0o755)
    shell = Shell(written(tmp_path, whole))
    shell.environ["PATH"] = f"{tools}:{shell.environ['PATH']}"
    done = await shell("doctor", "--json")
    findings = {each["code"] for each in done.document["findings"] if each["group"] == "service"}
    assert findings - {"run-as-root"} == codes
    assert ("run-as-root" in findings) == (os.geteuid() == 0 and changed.get("LoadState") is None)
