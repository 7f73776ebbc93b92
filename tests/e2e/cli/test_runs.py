"""`runs`."""

import json
import os
import signal

from listener.rehearsal.published import Published
from tests.e2e.cli.shell import Shell, ended, publishing
from tests.listening import Client, Daemon


async def test_the_history_is_listed_page_by_page_and_by_filters(running: Daemon, shell: Shell) -> None:
    runs = [(await shell("sync", "mysite", "staging", "--json")).document["id"] for _ in range(2)]
    first = await shell("runs", "list", "--limit", "1")
    assert first.status == 0
    assert first.out.splitlines()[1].split()[0] == runs[1]
    assert first.err == f"older runs: --before {runs[1]}\n"
    second = await shell("runs", "list", "--limit", "1", "--before", runs[1], "--json")
    assert [run["id"] for run in second.document["runs"]] == [runs[0]]
    failed = await shell("runs", "list", "--site", "mysite", "--environment", "staging", "--state", "failed")
    assert len(failed.out.splitlines()) == 1


async def test_the_history_of_what_is_misspelt_is_no_empty_one(running: Daemon, shell: Shell) -> None:
    none = await shell("runs", "list", "--site", "mysite", "--environment", "staging")
    assert (none.status, len(none.out.splitlines())) == (0, 1)
    site = await shell("runs", "list", "--site", "mysiet")
    assert (site.status, site.out, site.err) == (1, "", "error: Site not found\n")
    environment = await shell("runs", "list", "--site", "mysite", "--environment", "stagign")
    assert (environment.status, environment.err) == (1, "error: Environment not found\n")
    hook = await shell("deliveries", "list", "--hook", "froge")
    assert (hook.status, hook.out) == (1, "")
    assert hook.err.splitlines() == ["error: Unknown hook.", "remedy: name a configured one: forge"]
    assert (await shell("deliveries", "list", "--hook", "forge")).status == 0


async def test_a_run_is_shown_with_who_asked_and_what_it_removed(running: Daemon, shell: Shell) -> None:
    run = (await shell("sync", "mysite", "staging", "--json")).document
    done = await shell("runs", "show", run["id"])
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["run", run["id"]]
    assert any(
        line.startswith("asked for") and line.endswith("by root from 127.0.0.1 (api, token root)")
        for line in lines
    )
    removed = lines.index("removed      1 path")
    assert lines[removed + 1] == "    site/website/staged-for-review/index.xml"
    shown = (await shell("runs", "show", run["id"], "--json")).document
    assert shown["rollback"]["plan"] == "forward-commit"
    assert {key: shown[key] for key in run} == run


async def test_the_log_of_a_waiting_run_is_what_is_there_or_followed_until_it_ends(
    running: Daemon, shell: Shell, published: Published
) -> None:
    async with publishing(published):
        run = (await shell("sync", "mysite", "staging", "--no-wait", "--json")).document["id"]
        following = await shell.start("runs", "log", run, "--follow", "--json")
        assert following.stdout is not None
        first = await following.stdout.readline()
        stored = await shell("runs", "log", run)
        assert stored.status == 0
        assert " start attempt=1 " in stored.out.splitlines()[0]
        cancelled = await shell("runs", "cancel", run)
        assert (cancelled.status, cancelled.out) == (0, f"run {run} is cancelled\n")
        done = await ended(following)
    assert done.status == 0
    events = [json.loads(line)["event"] for line in (first.decode() + done.out).splitlines()]
    # It may be connected already.
    assert [event for event in events if event != "connect"][:2] == ["start", "observe"]


async def test_whether_to_follow_a_log_is_asked_by_true_or_false(
    running: Daemon, shell: Shell, api: Client
) -> None:
    run = (await shell("sync", "mysite", "staging", "--json")).document["id"]
    status, problem, _ = await api.call("GET", f"/api/v1/runs/{run}/log?follow=perhaps")
    assert (status, problem["detail"]) == (400, "follow must be true or false.")


async def test_ctrl_c_ends_a_followed_log_quietly(
    running: Daemon, shell: Shell, published: Published
) -> None:
    async with publishing(published):
        run = (await shell("sync", "mysite", "staging", "--no-wait", "--json")).document["id"]
        following = await shell.start("runs", "log", run, "--follow")
        assert following.stdout is not None
        await following.stdout.readline()
        following.send_signal(signal.SIGINT)
        done = await ended(following)
    assert (done.status, done.err) == (130, "")


async def test_a_reader_that_goes_away_is_no_error(running: Daemon, shell: Shell) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = await shell.start("runs", "list", out=writing)
    os.close(writing)
    done = await ended(process)
    assert (done.status, done.err) == (141, "")


async def test_a_run_that_has_succeeded_is_neither_cancelled_nor_retried(
    running: Daemon, shell: Shell
) -> None:
    run = (await shell("sync", "mysite", "staging", "--json")).document["id"]
    for command in ("cancel", "retry"):
        done = await shell("runs", command, run)
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith("error: The run is succeeded")


async def test_a_failed_run_is_retried_by_a_new_one(
    running: Daemon, shell: Shell, api: Client, published: Published
) -> None:
    live = published.commit("live")
    published.git("branch", "-D", "live")
    failed = (await shell("sync", "mysite", "staging", "--json")).document["id"]
    published.git("branch", "live", live)
    done = await shell("runs", "retry", failed, "--json")
    assert done.status == 0
    assert done.document["id"] != failed
    assert (await api.ended(done.document["id"]))["state"] == "succeeded"


async def test_a_run_is_rolled_back_after_it_was_told_what_that_would_do(
    running: Daemon, shell: Shell, published: Published
) -> None:
    tree = published.tree("staging")
    run = (await shell("sync", "mysite", "staging", "--json")).document
    shown = (await shell("runs", "show", run["id"])).out.splitlines()
    old = run["outcome"]["old"][:10]
    would = f"rollback: the branch would get a forward commit with the content of {old}"
    assert would in shown
    assert "    site/website/staged-for-review/index.xml" in shown[shown.index(would) :]
    dry = await shell("rollback", run["id"], "--dry-run")
    assert (dry.status, dry.out.splitlines()[0]) == (0, would)
    assert published.tree("staging") != tree
    done = await shell("rollback", run["id"])
    assert done.status == 0
    assert published.tree("staging") == tree
    again = await shell("rollback", run["id"])
    assert (again.status, "already where it was" in again.err) == (1, True)
