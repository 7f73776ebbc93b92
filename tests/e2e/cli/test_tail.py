"""`tail`."""

import asyncio
import json
import signal

from tests.e2e.cli.shell import Shell, ended
from tests.listening import Client, Daemon, push


async def test_what_is_stored_is_printed_for_people_and_for_programs(running: Daemon, shell: Shell) -> None:
    await shell("sync", "mysite", "staging")
    people = await shell("tail", "--after", "0", "--no-follow")
    assert people.status == 0
    assert " mysite/staging run queued [" in people.out
    programs = await shell("tail", "mysite", "--after", "0", "--no-follow", "--json", "--kind", "run")
    events = [json.loads(line) for line in programs.out.splitlines()]
    assert {event["kind"] for event in events} == {"run"}
    assert (events[0]["event"], events[-1]["event"]) == ("queued", "run")
    rest = await shell("tail", "--after", events[-2]["id"], "--no-follow", "--json", "--kind", "run")
    assert [json.loads(line) for line in rest.out.splitlines()] == events[-1:]


async def test_what_is_misspelt_is_refused(running: Daemon, shell: Shell) -> None:
    for words, said in (
        (("mysiet",), "'mysiet' is not a configured site"),
        (("mysite", "stagign"), "'stagign' is not a configured environment"),
        (("--since", "yesterday"), "since must be a time"),
        (("--after", "99.1.1"), "not kept any more"),
    ):
        done = await shell("tail", *words)
        assert (done.status, done.out) == (1, "")
        assert said in done.err
    assert (await shell("tail", "--kind", "nosuch")).status == 2


async def test_tail_goes_on_by_itself_when_the_listener_starts_again(
    running: Daemon, shell: Shell, api: Client
) -> None:
    following = await shell.start("tail", "--json", "--kind", "delivery")
    assert following.stdout is not None

    async def one() -> str:
        assert following.stdout is not None
        async with asyncio.timeout(30):
            return str(json.loads(await following.stdout.readline())["key"])

    first = asyncio.ensure_future(one())
    number = 0
    while not first.done():  # until it follows
        number += 1
        await api.deliver(f"before-{number}", push("refs/tags/v1"))
        await asyncio.wait({first}, timeout=0.2)
    seen = [first.result()]
    while seen[-1] != f"before-{number}":
        seen.append(await one())
    await running.kill()
    await running.start()
    for each in ("after-1", "after-2"):
        await api.deliver(each, push("refs/tags/v1"))
    assert [await one(), await one()] == ["after-1", "after-2"]
    following.send_signal(signal.SIGINT)
    done = await ended(following)
    assert done.status == 130
