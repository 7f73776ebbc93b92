"""Checks the listener's unit of systemd, by `systemctl show` alone."""

import asyncio
import contextlib
import os
import pwd
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from listener.cli.doctor.findings import Finding, Group

ANSWER_LIMIT = 10.0
"""Seconds."""

FEWEST_FILES = 1024
UNLIMITED = "infinity"

_PROPERTIES = (
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainStatus",
    "NRestarts",
    "NeedDaemonReload",
    "Restart",
    "WatchdogUSec",
    "MemoryMax",
    "LimitNOFILE",
    "User",
    "MainPID",
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit's properties, as `systemctl show` prints them."""

    name: str
    properties: Mapping[str, str]

    @property
    def installed(self) -> bool:
        """Whether systemd knows the unit."""
        return self.properties.get("LoadState") == "loaded"

    @property
    def process(self) -> int | None:
        """The id of its main process, if it runs."""
        text = self.properties.get("MainPID", "0")
        return int(text) if text.isdecimal() and int(text) else None

    @property
    def user(self) -> int | None:
        """The id of the user that it runs as; None if the unit or the user is unknown."""
        if not self.installed:
            return None
        try:
            return pwd.getpwnam(self.properties.get("User") or "root").pw_uid
        except KeyError:
            return None


async def shown(name: str) -> Unit | None:
    """Return what systemd says about a unit; None on a machine without systemd."""
    words = ("systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--", name)
    try:
        async with asyncio.timeout(ANSWER_LIMIT):
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, "LC_ALL": "C"},
            )
            try:
                out, _ = await process.communicate()
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                raise
    except (OSError, TimeoutError):
        return None
    if process.returncode != 0:
        return None
    pairs = (line.partition("=") for line in out.decode(errors="replace").splitlines())
    return Unit(name, {key: value for key, _, value in pairs})


def findings(unit: Unit | None) -> list[Finding]:
    """Check a unit."""
    if unit is None:
        return [Finding.good(Group.SERVICE, "systemd", "systemd does not run here")]
    if not unit.installed:
        state = unit.properties.get("LoadState", "")
        message = (
            f"the unit {unit.name} is not installed" if state == "not-found" else f"its state is {state}"
        )
        remedy = "install it as systemd/README.md says, or name another one with --unit"
        return [Finding.warning(Group.SERVICE, unit.name, "service-missing", message, remedy)]
    found = [*_state(unit), *_settings(unit)]
    return found or [Finding.good(Group.SERVICE, unit.name, "enabled and active")]


def _state(unit: Unit) -> Iterator[Finding]:
    said, what = unit.properties, unit.name
    if said.get("ActiveState") == "failed":
        message = f"it has failed: {said.get('Result')}, exit status {said.get('ExecMainStatus')}"
        remedy = f"read why: journalctl -u {what} -n 50; then systemctl restart {what}"
        yield Finding.problem(Group.SERVICE, what, "service-failed", message, remedy)
    elif said.get("ActiveState") != "active":
        message = f"it is {said.get('ActiveState')} ({said.get('SubState')})"
        yield Finding.problem(Group.SERVICE, what, "service-inactive", message, f"systemctl start {what}")
    if said.get("UnitFileState") not in {"enabled", "enabled-runtime", "static", "alias", "generated"}:
        message = f"it does not start with the machine ({said.get('UnitFileState') or 'not enabled'})"
        yield Finding.warning(Group.SERVICE, what, "service-disabled", message, f"systemctl enable {what}")
    restarts = said.get("NRestarts", "0")
    if restarts not in {"", "0"}:
        message = f"systemd has restarted it {restarts} times"
        remedy = f"read why: journalctl -u {what} -p warning"
        yield Finding.warning(Group.SERVICE, what, "service-restarts", message, remedy)
    if said.get("NeedDaemonReload") == "yes":
        message = "its files were changed, and systemd has not read them again"
        remedy = f"systemctl daemon-reload, then systemctl restart {what}"
        yield Finding.warning(Group.SERVICE, what, "service-changed", message, remedy)


def _settings(unit: Unit) -> Iterator[Finding]:
    """Yield the settings of the unit in systemd/ that this unit does not have."""
    said = unit.properties
    lacking = {
        "WatchdogSec=": ("service-watchdog", said.get("WatchdogUSec") in {"", "0", UNLIMITED}),
        "MemoryMax=": ("service-memory", said.get("MemoryMax") in {"", UNLIMITED}),
        "Restart=": ("service-restart", said.get("Restart") == "no"),
        "User=": ("service-user", (said.get("User") or "root") == "root"),
        "LimitNOFILE=": ("service-files", _few(said.get("LimitNOFILE", ""))),
    }
    for setting, (code, wrong) in lacking.items():
        if wrong:
            message = f"{setting} {_WHY[setting]}"
            remedy = f"set it as systemd/sync-staging.service does: systemctl edit {unit.name}"
            yield Finding.warning(Group.SERVICE, unit.name, code, message, remedy)
    if unit.user is not None and os.geteuid() == 0 and unit.user != 0:
        message = "doctor runs as root, which may read and write everything; the listener may not"
        remedy = f"run doctor as the listener's user: runuser -u {said['User']} -- sync-staging doctor"
        yield Finding.warning(Group.SERVICE, unit.name, "run-as-root", message, remedy)


_WHY = {
    "WatchdogSec=": "is not set: systemd does not notice a listener that hangs",
    "MemoryMax=": "is not set: the listener may use all memory of the machine",
    "Restart=": "has the value no: systemd does not restart a listener that has ended",
    "User=": "is root: the listener does not need the rights of root",
    "LimitNOFILE=": f"is below {FEWEST_FILES}: too few connections are possible",
}


def _few(text: str) -> bool:
    return bool(re.fullmatch("[0-9]+", text)) and int(text) < FEWEST_FILES
