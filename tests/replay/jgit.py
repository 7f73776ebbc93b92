"""JGit and a JDK: found, installed where they are missing, and running the publishers written for them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).parent / "java"

PACKAGES = ("default-jdk-headless", "libjgit-java")

DEBIAN = Path("/usr/share/java")
DEBIAN_JARS = ("org.eclipse.jgit.jar", "javaewah.jar", "slf4j-api.jar")


class MissingError(Exception):
    """What the replay stands on is not there."""


def class_path(folder: Path | None) -> str:
    """The jars: those of a folder, or Debian's, which are installed if they are missing."""
    if shutil.which("javac") is None or (folder is None and not all(map(Path.exists, _debian()))):
        _install()
    jars = _debian() if folder is None else sorted(folder.glob("*.jar"))
    if not jars:
        raise MissingError(f"There are no jars in {folder}.")
    return os.pathsep.join(map(str, jars))


def _debian() -> list[Path]:
    return [DEBIAN / jar for jar in DEBIAN_JARS]


def _install() -> None:
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingError(f"Missing: {' '.join(PACKAGES)}. Run: sudo apt-get install {' '.join(PACKAGES)}")
    sys.stderr.write(f"Installing {' '.join(PACKAGES)} …\n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for attempt in (command, ["apt-get", "update", "-qq"], command):
        done = subprocess.run(attempt, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0 and attempt is command:
            return
    raise MissingError(done.stdout + done.stderr)


def compiled(jars: str, folder: Path) -> str:
    """Compile the publishers against the jars; the class path that runs them."""
    sources = sorted(map(str, SOURCES.glob("*.java")))
    done = subprocess.run(
        ["javac", "-nowarn", "-d", str(folder), "-cp", jars, *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise MissingError(f"The publishers don't compile:\n{done.stdout}{done.stderr}")
    return os.pathsep.join((str(folder), jars))


def command(classes: str, way: str, folder: Path, sites: int, milliseconds: Sequence[int]) -> list[str]:
    """The command that publishes; see `Replay.java`."""
    return ["java", "-cp", classes, "Replay", way, str(folder), str(sites), *map(str, milliseconds)]
