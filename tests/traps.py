"""Traps on a host: the git command or the hook that is caught in one waits there, to be freed or killed."""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from listener.rehearsal.published import Published

WAIT = """\
#!/bin/sh
# Wait if a trap called $1 is set, and as many as it lets pass have passed.
cd {folder} || exit 1
[ -e "set-$1" ] || exit 0
read -r passing <"set-$1"
if [ "$passing" -gt 0 ]; then
	echo $((passing - 1)) >"set-$1"
	exit 0
fi
rm "set-$1"
# Nobody is to wait for what this holds open when the one who waits is killed.
exec </dev/null >/dev/null 2>&1
echo "$PPID" >caught.new
mv caught.new caught
while [ ! -e free ]; do sleep 0.02; done
"""

GIT = """\
#!/bin/sh
# Git, whose every command may be caught.
case ${{0##*/}} in git-*) set -- "${{0##*/git-}}" "$@" ;; esac
command=version
skip=no
for word; do
	case $skip$word in
	yes*) skip=no ;;
	no-c) skip=yes ;;
	no-*) ;;
	*)
		command=$word
		break
		;;
	esac
done
{wait} "$command"
exec {git} "$@"
"""

TRANSACTION = """\
#!/bin/sh
# A ref transaction may be caught in each of its phases.
case $(cat) in
*refs/heads/staging*) {wait} "$1" ;;
*refs/sync-staging/incoming*) {wait} "incoming $1" ;;
esac
"""

RECEIVING = """\
#!/bin/sh
# A push may be caught when its objects have arrived.
cat >/dev/null
{wait} pre-receive
"""


@dataclass(frozen=True)
class Caught:
    """A git command or a hook that waits in a trap."""

    process: int
    group: int
    """All that the session on the host has started."""

    def kill(self) -> None:
        """End the process alone as `kill -9` does."""
        os.kill(self.process, signal.SIGKILL)

    def kill_all(self) -> None:
        """End the whole group so."""
        os.killpg(self.group, signal.SIGKILL)

    def end_all(self) -> None:
        """Ask the whole group to end."""
        os.killpg(self.group, signal.SIGTERM)

    def stop_all(self) -> None:
        """Let the whole group stand still, as a disk that hangs does: it hears no signal but KILL."""
        os.killpg(self.group, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the group go on, as far as it is there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGCONT)

    async def gone(self) -> None:
        """Wait until nothing of the group is left."""
        await until(lambda: self.group not in map(group, processes()))


class Traps:
    """The traps of one host, whose sshd gets `extra`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "traps"
        self._folder.mkdir()
        self._wait = self._folder / "wait"
        _write(self._wait, WAIT.format(folder=shlex.quote(str(self._folder))))
        programs = folder / "programs"
        self._fill(programs)
        path = f"{programs}:{os.environ['PATH']}"
        self.extra = f'SetEnv HOME={folder} "PATH={path}" GIT_EXEC_PATH={programs}\n'

    def _fill(self, programs: Path) -> None:
        """Make a folder of git's programs in which git itself, and what sessions start, is ours."""
        real = Path(subprocess.check_output(["git", "--exec-path"], text=True).strip())
        programs.mkdir()
        for program in real.iterdir():
            (programs / program.name).symlink_to(program)
        ours = GIT.format(wait=shlex.quote(str(self._wait)), git=shutil.which("git"))
        for name in ("git", "git-upload-pack", "git-receive-pack"):
            (programs / name).unlink(missing_ok=True)
            _write(programs / name, ours)

    def lay_hooks(self, repository: Published) -> None:
        """Let the hooks of a repository be caught."""
        inside = repository.path / ".git"
        hooks = (inside if inside.is_dir() else repository.path) / "hooks"
        hooks.mkdir(exist_ok=True)
        for name, text in (("reference-transaction", TRANSACTION), ("pre-receive", RECEIVING)):
            _write(hooks / name, text.format(wait=shlex.quote(str(self._wait))))

    def clear(self) -> None:
        """Take every trap away, and forget who was caught."""
        for file in self._folder.iterdir():
            if file != self._wait:
                file.unlink()

    def set(self, name: str, passing: int = 0) -> None:
        """Set a trap for a git command, a phase or a hook; some may pass before it springs."""
        (self._folder / f"set-{name}").write_text(f"{passing}\n")

    async def caught(self) -> Caught:
        """Wait until somebody is caught."""
        caught = self._folder / "caught"
        await until(caught.exists)
        process = int(caught.read_text())
        return Caught(process, os.getpgid(process))

    def free(self) -> None:
        """Let whoever is caught go on."""
        (self._folder / "free").touch()


async def until(true: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(300):
        while not true():
            await asyncio.sleep(0.01)


def processes() -> list[int]:
    """Return the ids of all processes."""
    with os.scandir("/proc") as entries:
        return [int(each.name) for each in entries if each.name.isdigit()]


def environment(pid: int) -> list[bytes]:
    """Return the variables of a process, empty for one that has ended or is not ours."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def group(pid: int) -> int:
    """Return the group of a process; 0 for one that has ended."""
    try:
        state, _, group = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:3]
    except OSError:
        return 0
    return 0 if state == "Z" else int(group)


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
