"""The alerts and the dashboard are right by Prometheus's own tools, documented, and tested both ways."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from listener.cli.parser import build
from tests.prometheus import CASES, DASHBOARD, NAME, RULES, promtool, queries, rules, sources

README = (Path(__file__).parents[2] / "config" / "README.md").read_text()


def test_promtool_finds_the_rules_right() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "rules", str(RULES))


def test_each_alert_fires_in_its_case_and_stays_quiet_in_its_other_one() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(CASES))
    cases = yaml.safe_load(CASES.read_text())["tests"]
    tests = [test for case in cases for test in case["alert_rule_test"]]
    for rule in rules():
        expected = [bool(test["exp_alerts"]) for test in tests if test["alertname"] == rule["alert"]]
        assert {True, False} <= set(expected), rule["alert"]


def test_each_alert_says_where_it_is_and_what_to_do() -> None:
    for rule in rules():
        texts = rule["annotations"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert len(texts["summary"]) < 120
        assert texts["description"].endswith((".", "log for `defect`, and report it."))
        assert re.search(r"\b(Run|Renew|Search|Check|Look)\b", texts["description"]), rule["alert"]


def test_each_command_that_an_alert_names_exists() -> None:
    for rule in rules():
        text = re.sub(r"\{\{[^}]*\}\}", "NAME", rule["annotations"]["description"])
        for command in re.findall(r"`sync-staging ([^`]*)`", text):
            build().parse_args(shlex.split(command))


def test_the_manual_lists_every_alert() -> None:
    listed = set(re.findall(r"`([A-Z]\w+)`", README[README.index("### Alerts and a dashboard") :]))
    assert {rule["alert"] for rule in rules()} <= listed


def test_every_figure_of_an_alert_or_the_dashboard_is_documented() -> None:
    used = {name for text in (*queries(), *(rule["expr"] for rule in rules())) for name in NAME.findall(text)}
    documented = {*re.findall(r"`(sync_staging_\w+)`", README)}
    assert len(used) > 30
    assert sources({name for name in used if not name.startswith("process_")}) <= documented


def test_the_dashboard_shows_every_figure() -> None:
    shown = sources({name for text in queries() for name in NAME.findall(text)})
    documented = set(re.findall(r"`(sync_staging_\w+)`", README))
    beside = {"sync_staging_secret_uses_total", "sync_staging_last_looks_timestamp_seconds"}
    assert documented - shown <= beside | {"sync_staging_looks_interval_seconds"}


def test_no_two_panels_of_the_dashboard_overlap() -> None:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"] == "sync-staging"
    assert dashboard["schemaVersion"] >= 36
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["targets"]
