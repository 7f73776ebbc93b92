"""Fuzzing led by coverage (atheris): `python -m tests.fuzz [--seconds N] [TARGET…]`.

What a target finds is written beside its corpus under `.cache/fuzz`, and ends it. Copy it to
`tests/fuzz/found/TARGET`, where the tests try it for ever after, and correct the fault.
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

CORPORA = Path(".cache/fuzz")

LONGEST = 8192
"""Bytes of an input."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="which; all, one after the other, if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="how long each is tried (60)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: make fuzz installs it, for CPython 3.11 to 3.13")  # noqa: T201 (says why nothing is done)
        return 0
    if options.here:
        fuzz(options.targets[0], options.seconds)
    return max([alone(name, options.seconds) for name in options.targets or names()], default=0)


def names() -> list[str]:
    """The names of all targets."""
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (what it imports is measured where it is fuzzed)

    return list(TARGETS)


def alone(name: str, seconds: int) -> int:
    """Fuzz one target in a process of its own, which libFuzzer ends; return its exit status."""
    print(f"== {name}", flush=True)  # noqa: T201 (heads what libFuzzer prints)
    arguments = [sys.executable, "-m", "tests.fuzz", "--here", "--seconds", str(seconds), name]
    return subprocess.run(arguments, check=False).returncode


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target until the time is over or something is found, and end the process."""
    import atheris  # noqa: PLC0415 (it is optional)

    with atheris.instrument_imports(include=["listener", "yaml"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 (what it imports is measured)

    target = TARGETS[name]
    corpus = CORPORA / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST}",
            f"-artifact_prefix={CORPORA}/found-{name}-",
            "-timeout=20",
            "-rss_limit_mb=1500",
            "-print_final_stats=1",
            "-verbosity=0",
            str(corpus),
        ],
        target.try_out,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
