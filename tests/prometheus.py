"""Debian's Prometheus: promtool, which checks rules and figures, and a server that reads a listener."""

import asyncio
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from prometheus_client.parser import text_string_to_metric_families

from listener.rehearsal.sshd import free_port
from tests.conftest import unavailable

FOLDER = Path(__file__).parents[1] / "config" / "monitoring"
RULES = FOLDER / "alerts.yml"
CASES = FOLDER / "alerts.test.yml"
DASHBOARD = FOLDER / "dashboard.json"

NAME = re.compile(r"\b(?:sync_staging|process)_\w+")

SPAN = 120
"""Minutes that a scene lasts."""

Fired = tuple[str, tuple[tuple[str, str], ...]]
"""An alert, and its labels without the severity."""


def program(name: str) -> str:
    """The path of one of Prometheus's programs; without it, the test is skipped."""
    path = shutil.which(name)
    if path is None:
        unavailable(f"{name} (prometheus)")
    return path


def promtool(*words: str, text: str = "") -> str:
    """What promtool prints; it must find nothing wrong."""
    done = subprocess.run(
        [program("promtool"), *words], input=text, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    """The alerts."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def queries() -> list[str]:
    """The queries of the dashboard, as Grafana sends them."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [text.replace("$job", ".*").replace("$__rate_interval", "1m") for text in found]


def sources(names: set[str]) -> set[str]:
    """The figures that series belong to."""
    return {re.sub(r"_bucket$", "", name) for name in names}


def exposed_names(text: str) -> set[str]:
    """The names of the figures in a scrape."""
    return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


@dataclass(frozen=True, slots=True)
class Scene:
    """Two scrapes of a listener: of the beginning, and of what then went on for hours."""

    before: str
    after: str
    taken_at: float
    """When the second was made, in Unix seconds."""

    def series(self) -> list[dict[str, str]]:
        """The series of the scene for promtool, whose clock begins at 0: ten minutes, then all the rest."""
        before, after = _samples(self.before), _samples(self.after)
        found = []
        for labelled in sorted({*before, *after}):
            first, then = before.get(labelled), after.get(labelled)
            beginning = "_x10" if first is None else f"{self._at(labelled, first, 0)}x9"
            rest = f"_x{SPAN}" if then is None else self._going_on(labelled, then)
            found.append({"series": labelled, "values": f"{beginning} {rest}"})
        return found

    def _going_on(self, labelled: str, value: float) -> str:
        shown = self._at(labelled, value, 600)
        # What is looked at or answers again and again is not older an hour later.
        step = "+60" if re.match(r"sync_staging_last_look|sync_staging_host_last", labelled) else ""
        return f"{shown}{step}x{SPAN}"

    def _at(self, labelled: str, value: float, now: float) -> str:
        moment = value - self.taken_at + now if "_timestamp_seconds" in labelled else value
        return f"{moment:.3f}" if moment != int(moment) else str(int(moment))


def _samples(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("sync_staging_") and not sample.name.endswith("_bucket"):
                labels = ", ".join(
                    f"{name}={json.dumps(value)}" for name, value in sorted(sample.labels.items())
                )
                found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def assert_alerts(scene: Scene, folder: Path, minute: int, *fired: Fired) -> None:
    """These alerts fire at a minute of a scene, and no others."""
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in rules()}
    expected: dict[str, list[dict[str, Any]]] = {name: [] for name in severities}
    for name, labels in fired:
        expected[name].append({"exp_labels": {"severity": severities[name], **dict(labels)}})
    # promtool compares the texts too; they have tests of their own.
    bare = [{key: each[key] for key in each if key != "annotations"} for each in rules()]
    (folder / "bare.yml").write_text(yaml.safe_dump({"groups": [{"name": "bare", "rules": bare}]}))
    tests = [
        {"alertname": name, "eval_time": f"{minute}m", "exp_alerts": alerts}
        for name, alerts in expected.items()
    ]
    case = {"interval": "1m", "input_series": scene.series(), "alert_rule_test": tests}
    document = {"rule_files": ["bare.yml"], "evaluation_interval": "1m", "tests": [case]}
    (folder / "scene.yml").write_text(yaml.safe_dump(document))
    promtool("test", "rules", str(folder / "scene.yml"))


class Prometheus:
    """A server that scrapes listeners each second and evaluates the alerts."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    async def ask(self, path: str, **values: str) -> Any:
        """The data that the server answers."""
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(values)}"

        def fetch() -> Any:
            with urllib.request.urlopen(url, timeout=10) as response:
                return json.load(response)

        answer = await asyncio.to_thread(fetch)
        assert answer["status"] == "success", answer
        return answer["data"]

    async def query(self, text: str) -> list[dict[str, Any]]:
        """The result of a query, now."""
        found: list[dict[str, Any]] = (await self.ask("query", query=text))["result"]
        return found

    async def until(self, text: str) -> list[dict[str, Any]]:
        """Wait until a query has a result."""
        while not (found := await self.query(text)):
            await asyncio.sleep(0.2)
        return found

    async def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = (await self.ask("alerts"))["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}


def _prepared(folder: Path, config: Mapping[str, Any]) -> BinaryIO:
    """The log of a server whose folder this makes."""
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    return (folder / "log").open("wb")


@asynccontextmanager
async def prometheus(folder: Path, ports: Sequence[int]) -> AsyncIterator[Prometheus]:
    """A server that reads listeners at these ports of loopback; it is ended at the end."""
    targets = [f"127.0.0.1:{port}" for port in ports]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "sync-staging", "static_configs": [{"targets": targets}]}],
    }
    log = _prepared(folder, config)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=log,
        stderr=log,
    )
    try:
        server = Prometheus(port)
        async with asyncio.timeout(60):
            while True:
                assert process.returncode is None, (folder / "log").read_text()
                try:
                    await server.until("up == 1")
                    break
                except OSError:
                    await asyncio.sleep(0.1)
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        log.close()
