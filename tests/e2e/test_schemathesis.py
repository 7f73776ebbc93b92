"""schemathesis against a running listener: all that its description promises is tried.

In a process of its own, by its own phases (examples, boundary values, random data, sequences), with data that
fits and data that does not, and by all of its checks: no defect, no undescribed answer, no refused data that
fits, no accepted data that does not, no route that forgets to ask for a token.
"""

import asyncio
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from listener.config.settings import load
from listener.system import System
from tests import figures
from tests.conftest import unavailable
from tests.listening import ADMIN, MEMBER, Client, client

LONG = "SYNC_STAGING_ATTACK" in os.environ
EXAMPLES = os.environ.get("SYNC_STAGING_ATTACK", "3")
"""How many examples of random data a route gets, in each phase that draws them."""

CALLERS = {
    "an admin, by made-up names": (ADMIN, False),
    "an admin, by names that are there": (ADMIN, True),
    "a member, by names that are there": (MEMBER, True),
    "nobody": (None, False),
}
"""Who asks: the token, and whether the names of sites, runs and hooks are known."""
SHORT = ("an admin, by names that are there", "nobody")

# Studio's router knew no 405: these two calls answer as it did. They answer 500 when a sync fails: perhaps
# the same attack has set a hold. A defect is found in the log.
RULES = """
[[operations]]
include-path-regex = "/api/1/services/"
checks.unsupported_method.enabled = false
checks.not_a_server_error.enabled = false

# An unknown header is nothing wrong.
[[operations]]
include-name = "GET /api/v1/runs/{run}/log"
checks.negative_data_rejection.enabled = false

# A stream without an end. Its names must be configured ones, and its ids must be kept still.
[[operations]]
include-name = "GET /api/v1/events"
checks.negative_data_rejection.enabled = false
checks.positive_data_acceptance.enabled = false
parameters = { follow = "false" }
"""


async def attacked(url: str, folder: Path, token: str | None, parameters: dict[str, str]) -> tuple[int, str]:
    """What schemathesis found, and its exit status."""
    rules = folder / "schemathesis.toml"
    known = "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in parameters.items())
    rules.write_text(f"[parameters]\n{known}{RULES}")
    arguments = [
        *("--config-file", rules, "run", f"{url}/openapi.json", "--max-examples", EXAMPLES),
        *("--continue-on-failure", "--no-color", "--generation-database", "none", "--warnings", "off"),
        *([] if token is None else ["--header", f"Authorization: Bearer {token}"]),
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "schemathesis.cli", *map(str, arguments)),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    status = process.returncode
    assert status is not None
    return status, told.decode()


async def a_delivery(listener: Client) -> tuple[str, str]:
    """The ids of a delivery, and of its run, which has moved the branch."""
    _, accepted, _ = await listener.deliver("a-run")
    run: str = accepted["runs"][0]
    await listener.ended(run)
    return accepted["delivery"], run


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("caller", CALLERS if LONG else SHORT)
async def test_the_listener_answers_as_it_is_described(
    configured: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], caller: str
) -> None:
    if importlib.util.find_spec("schemathesis") is None:
        unavailable("schemathesis")
    token, known = CALLERS[caller]
    path = configured(server={"host": "127.0.0.1", "port": 0, "drain": 5, "wait": 1, "refusals": 10**6})
    async with System(load(path)) as system:
        await system.listen()
        url = f"http://127.0.0.1:{system.port}"
        async with client(url) as listener:
            delivery, run = await a_delivery(listener)
        names = {
            "path.site": "mysite",
            "path.environment": "staging",
            "path.run": run,
            "path.hook": "forge",
            "path.delivery": delivery,
        }
        status, told = await attacked(url, tmp_path, token, names if known else {})
    assert status == 0, told
    assert "defect" not in capsys.readouterr().out
    tried = re.search(r"(\d+) generated", told)
    assert tried, told
    assert int(tried[1]) > 300
    figures.tell(f"schemathesis as {caller}", requests=tried[1])
