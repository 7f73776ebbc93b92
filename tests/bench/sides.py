"""Who makes staging equal to live: a local script, Debian's `webhook` and ssh, the listener of each tree."""

import asyncio
import json
import shlex
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from listener.rehearsal.published import Published
from listener.rehearsal.sshd import Sshd, free_port
from tests.bench.stage import Stage, Tree, bare, line
from tests.listening import GITHUB_SECRET, SYNC_STAGING, Client, Daemon, client, push, signed

PLANS = ("forward commit", "fast-forward", "reset", "create")
"""What is done in live's own repository."""

ELSEWHERE = ("another repository", "another where only git runs")

SCRIPT = """\
#!/bin/sh
# Make staging equal to live: PLAN REPOSITORY [SOURCE]. What the listener does, without its checks.
set -e
export GIT_AUTHOR_NAME=script GIT_AUTHOR_EMAIL=script@localhost
export GIT_COMMITTER_NAME=script GIT_COMMITTER_EMAIL=script@localhost
cd "$2"
if [ -n "${3-}" ]; then
	git fetch --quiet "$3" +refs/heads/live:refs/live/live
	live=refs/live/live
else
	live=refs/heads/live
fi
refs=$(git for-each-ref --format='%(refname) %(objectname) %(tree)' "$live" refs/heads/staging)
old= new= tree=
while read -r name commit its; do
	case $name in
	refs/heads/staging) old=$commit ;;
	"$live") new=$commit tree=$its ;;
	esac
done <<END
$refs
END
case $1 in
"forward commit") new=$(git commit-tree "$tree" -p "$old" -p "$new" -m "Sync staging") ;;
esac
git update-ref refs/heads/staging "$new" "$old"
"""


@dataclass(frozen=True)
class Place:
    """Where one plan is carried out: a site, as the sides know it."""

    plan: str
    source: Published
    carrier: Path
    """The repository with staging, or the same."""

    @property
    def site(self) -> str:
        return self.plan.replace(" ", "-")

    @property
    def metadata(self) -> Path:
        inside = self.carrier / ".git"
        return inside if inside.is_dir() else self.carrier

    def words(self) -> list[str]:
        """The script's arguments."""
        elsewhere = [str(self.source.path)] if self.plan in ELSEWHERE else []
        plan = "forward commit" if self.plan in ELSEWHERE else self.plan
        return [plan, str(self.carrier), *elsewhere]

    def set_back(self) -> None:
        """Let staging be as the plan wants to find it."""
        if self.plan == "create":
            self.source.git("update-ref", "-d", "refs/heads/staging")


def place(stage: Stage, plan: str) -> Place:
    """A place of one side's own."""
    source = stage.repository(plan.replace(" ", "-"))
    # As Studio leaves it between publishes: HEAD on a branch that nobody moves.
    source.git("symbolic-ref", "HEAD", "refs/heads/master")
    source.git("reset", "--quiet", "--hard")
    if plan == "fast-forward":
        source.git("update-ref", "refs/heads/staging", "refs/heads/live")
    if plan not in ELSEWHERE:
        return Place(plan, source, source.path)
    return Place(plan, source, bare(source, source.path.parent / "carrier.git"))


class Side(Protocol):
    """One way from a publish to a moved branch."""

    name: str
    places: dict[str, Place]

    async def deliver(self, plan: str) -> None:
        """Let it begin; it may go on after that."""

    async def call(self, plan: str) -> None:
        """Do it, and return when it is done."""

    async def settled(self) -> None:
        """Wait until nothing of it goes on any more."""


@dataclass
class Floor:
    """A shell script on the host itself."""

    places: dict[str, Place]
    script: Path
    name: str = "local script"

    async def deliver(self, plan: str) -> None:
        await self.call(plan)

    async def call(self, plan: str) -> None:
        words = self.places[plan].words()
        process = await asyncio.create_subprocess_exec("sh", str(self.script), *words)
        assert await process.wait() == 0

    async def settled(self) -> None:
        pass


@dataclass
class Hooked:
    """Debian's `webhook`, which carries the script out on the host by ssh."""

    name: str
    places: dict[str, Place]
    port: int
    pid: int
    session: aiohttp.ClientSession

    async def deliver(self, plan: str) -> None:
        await self._send(f"{self.places[plan].site}-begun")

    async def call(self, plan: str) -> None:
        await self._send(f"{self.places[plan].site}-done")

    async def _send(self, hook: str) -> None:
        body = push()
        url = f"http://127.0.0.1:{self.port}/hooks/{hook}"
        async with self.session.post(url, data=body, headers=signed(body, "d")) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()

    async def settled(self) -> None:
        await asyncio.sleep(0.05)


@dataclass
class Product:
    """The listener of a tree."""

    name: str
    places: dict[str, Place]
    running: Daemon
    listener: Client
    numbers: Any
    runs: list[str]

    async def deliver(self, plan: str) -> None:
        body = push(repository=f"acme/{self.places[plan].site}")
        status, answer, _ = await self.listener.deliver(f"d-{next(self.numbers)}", body)
        assert status == 202, answer
        self.runs += answer["runs"]

    async def call(self, plan: str) -> None:
        body = {"site_id": self.places[plan].site, "environment": "staging"}
        status, answer, _ = await self.listener.call("POST", SYNC_STAGING, json=body)
        assert status == 200, answer

    async def settled(self) -> None:
        for run in self.runs:
            ended = await self.listener.ended(run)
            assert ended["state"] == "succeeded", ended
        self.runs.clear()


def ssh(sshd: Sshd, port: int, control: Path | None) -> list[str]:
    """The words of an OpenSSH client; with `control`, those that share one connection."""
    shared = (
        [f"ControlMaster=auto ControlPath={control} ControlPersist=600"] if control else ["ControlMaster=no"]
    )
    options = " ".join(
        ["BatchMode=yes StrictHostKeyChecking=no UserKnownHostsFile=/dev/null LogLevel=ERROR", *shared]
    )
    words = ["ssh", "-F", "none", "-p", str(port), "-i", str(sshd.identity)]
    for option in options.split():
        words += ["-o", option]
    return [*words, f"{sshd.user}@127.0.0.1"]


def hooks(places: dict[str, Place], folder: Path, command: list[str], script: Path) -> list[dict[str, Any]]:
    """The hooks of each place: one that answers at once, one that answers when the command has ended."""
    found: list[dict[str, Any]] = []
    secret = {
        "type": "payload-hmac-sha256",
        "secret": GITHUB_SECRET,
        "parameter": {"source": "header", "name": "X-Hub-Signature-256"},
    }
    for each in places.values():
        execute = folder / f"{each.site}.sh"
        remote = shlex.join(["sh", str(script), *each.words()])
        execute.write_text(f"#!/bin/sh\nexec {shlex.join([*command, remote])}\n")
        execute.chmod(0o755)
        for end, waits in (("begun", False), ("done", True)):
            found.append(
                {
                    "id": f"{each.site}-{end}",
                    "execute-command": str(execute),
                    "include-command-output-in-response": waits,
                    "trigger-rule": {"match": secret},
                }
            )
    # One that is not met, to be answered without anything being done.
    none = {"type": "value", "value": "refs/heads/none", "parameter": {"source": "payload", "name": "ref"}}
    rule = {"and": [{"match": secret}, {"match": none}]}
    found.append({"id": "nothing", "execute-command": "/bin/true", "trigger-rule": rule})
    return found


@asynccontextmanager
async def hooked(
    stage: Stage, places: dict[str, Place], port: int, script: Path, *, shared: bool = False
) -> AsyncIterator[Hooked]:
    """A running `webhook`, each ssh of its own cold or by way of one connection."""
    folder = stage.new_folder()
    command = ssh(stage.sshd, port, folder / "control" if shared else None)
    file, own = folder / "hooks.json", free_port()
    file.write_text(json.dumps(hooks(places, folder, command, script)))
    process = await asyncio.create_subprocess_exec(
        *("webhook", "-hooks", str(file), "-ip", "127.0.0.1", "-port", str(own)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with aiohttp.ClientSession() as session:
            await answering(session, own)
            yield Hooked(
                f"webhook, {'ControlMaster' if shared else 'cold ssh'}", places, own, process.pid, session
            )
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if shared:
            ending = await asyncio.create_subprocess_exec(
                *command[:-1], "-O", "exit", command[-1], stderr=asyncio.subprocess.DEVNULL
            )
            await ending.wait()


async def answering(session: aiohttp.ClientSession, port: int) -> None:
    """Wait until somebody answers at a port."""
    while True:
        try:
            async with session.get(f"http://127.0.0.1:{port}/"):
                return
        except aiohttp.ClientError:
            await asyncio.sleep(0.02)


def sections(stage: Stage, places: dict[str, Place], port: int) -> dict[str, Any]:
    """The sections of a configuration with these places, their hosts at the end of a line."""
    studio = {"address": "127.0.0.1", "port": port, "user": stage.sshd.user}
    forge = {**studio, "port": stage.git_sshd.port, "access": "git"}
    sites: dict[str, Any] = {}
    for plan, each in places.items():
        environment: dict[str, Any] = {"follow": True, "policy": "reset" if plan == "reset" else "forward"}
        if plan in ELSEWHERE:
            host = "studio" if plan == ELSEWHERE[0] else "forge"
            environment["repositories"] = [{"host": host, "path": str(each.carrier), "branch": "staging"}]
        source = {"host": "studio", "path": str(each.source.path)}
        sites[each.site] = {"repository": source, "environments": {"staging": environment}}
    repositories = {f"acme/{name}": name for name in sites}
    return {
        "hosts": {"studio": studio, "forge": forge},
        "sites": sites,
        "hooks": {"forge": {"scheme": "github", "secrets": [GITHUB_SECRET], "repositories": repositories}},
        "tokens": [],
    }


@asynccontextmanager
async def product(
    stage: Stage, tree: Tree, places: dict[str, Place], port: int, store: tuple[str, str], **more: Any
) -> AsyncIterator[Product]:
    """A running listener with these places."""
    folder, whole = stage.whole(store=store[1], **more)
    own = sections(stage, places, port)
    own["tokens"] = whole["tokens"][:1]
    known = folder / "known_hosts"
    stage.sshd.trust(known, port)
    known.write_text(f"{known.read_text().strip()}\n{stage.git_sshd.known_hosts.read_text()}")
    own["ssh"] = {"known_hosts": str(known), "identity": str(stage.sshd.identity)}
    whole["sync"]["cache"] = str(folder / "cache")
    async with (
        stage.serving(tree, folder, {**whole, **own}) as running,
        client(running.url) as listener,
    ):
        yield Product(f"{tree.name}, {store[0]}", places, running, listener, iter(range(10**9)), [])


@asynccontextmanager
async def all_sides(stage: Stage, plans: tuple[str, ...], round_trip: float) -> AsyncIterator[list[Side]]:
    """All sides at the end of a line, each with places of its own; the local script first."""
    script = stage.new_folder() / "move.sh"
    script.write_text(SCRIPT)

    def places() -> dict[str, Place]:
        return {plan: place(stage, plan) for plan in plans}

    async with AsyncExitStack() as parts:
        port = await parts.enter_async_context(line(stage.sshd.port, round_trip))
        opened: list[AbstractAsyncContextManager[Side]] = []
        if shutil.which("webhook"):
            opened += [hooked(stage, places(), port, script, shared=shared) for shared in (True, False)]
        else:
            stage.figures.missing.append("webhook: it is not installed (Debian's package of that name)")
        for tree in stage.trees:
            opened += [
                product(stage, tree, places(), port, store)
                for store in stage.stores(both=not stage.short).items()
            ]
        yield [Floor(places(), script), *[await parts.enter_async_context(each) for each in opened]]
