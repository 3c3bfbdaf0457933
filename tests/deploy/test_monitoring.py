"""Prometheus on real replicas, through the shipped configuration: every query of the dashboard finds data."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.deploy.conftest import Cluster
from tests.deploy.processes import ROOT, answers, free_port, program, wait_until

PROMETHEUS = ROOT / "docker/prometheus"
DASHBOARD = json.loads((ROOT / "docker/grafana/dashboards/bijou.json").read_text())
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
SCRAPE_S = 1
METRIC = re.compile(r"\b(?:bijou|haproxy)_[a-z_]+\b")
SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_accepts(command: list[str]):
    promtool = [program("promtool", "prometheus"), *command]
    checked = subprocess.run(promtool, cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_has_a_unit_test_that_makes_it_fire():
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    cases = [case for test in tests["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == alerts


def test_every_alert_is_explained_to_who_is_woken():
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    guide = (ROOT / "docs/deployment.md").read_text()
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert all(rule["labels"]["severity"] in {"page", "ticket"} and rule["annotations"]["summary"] for rule in alerts)
    assert [rule["alert"] for rule in alerts if rule["alert"] not in guide] == []


def test_grafana_finds_its_source_and_its_dashboard():
    provisioning = ROOT / "docker/grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((provisioning / "dashboards/bijou.yml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    mounts = {volume.split(":")[1]: volume.split(":")[0] for volume in compose["volumes"]}
    assert (ROOT / mounts[provider["options"]["path"]] / "bijou.json").exists()
    targets = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    assert {target["datasource"]["uid"] for target in targets} == {source["uid"]}
    scrape = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape


def test_panels_neither_overlap_nor_share_an_id():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_every_metric_that_is_asked_for_exists(cluster: Cluster):
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
    queries = [query for _, query in QUERIES] + [r["expr"] for group in rules["groups"] for r in group["rules"]]
    wanted = {SUFFIX.sub("", name) for query in queries for name in METRIC.findall(query)}
    pages = [httpx2.get(f"{url}/metrics").text for url in (cluster.replicas[0].url, cluster.balancer.statistics)]
    exposed = {line.split()[2] for page in pages for line in page.splitlines() if line.startswith("# TYPE ")}
    assert wanted - exposed == set()


def test_every_query_of_the_dashboard_returns_data(cluster: Cluster, png: bytes, tmp_path: Path):
    with prometheus(cluster, tmp_path) as url:
        use_everything(cluster, png)  # series that begin here have to be seen without, then with, more to have a rate
        wait_until(lambda: scraped(url) == 4 + 1, "every replica and the balancer have been scraped", 30)
        time.sleep(2 * SCRAPE_S)
        use_everything(cluster, png)
        time.sleep(2 * SCRAPE_S)
        empty = [(title, query) for title, query in QUERIES if not ask(url, query)]
        assert empty == []
        alerts = httpx2.get(f"{url}/api/v1/rules").json()["data"]["groups"]
    health = {rule["name"]: rule["health"] for group in alerts for rule in group["rules"]}
    assert set(health.values()) == {"ok"}, health


@contextmanager
def prometheus(cluster: Cluster, folder: Path) -> Iterator[str]:
    """Run Prometheus on the shipped configuration, but for how targets are found and how often they are asked.

    Its discovery by DNS asks the machine's own resolver, which knows no replica on loopback.
    """
    server = program("prometheus", "prometheus")
    port = free_port("127.0.0.1")
    targets = {
        "bijou": [f"{r.host}:{r.port}" for r in (*cluster.replicas, cluster.broken)],
        "haproxy": [cluster.balancer.statistics.removeprefix("http://")],
        "prometheus": [f"127.0.0.1:{port}"],
    }
    configuration: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    for job in configuration["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": targets[job["job_name"]]}]
    configuration["global"] |= dict.fromkeys(configuration["global"], f"{SCRAPE_S}s")
    configuration["rule_files"] = [str(PROMETHEUS / name) for name in configuration["rule_files"]]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    arguments = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [server, *arguments], stdout=output, stderr=output, env=os.environ | {"GOMAXPROCS": "1"}
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/-/ready"), "Prometheus is ready", 30)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def use_everything(cluster: Cluster, png: bytes) -> None:
    """Requests that touch every metric: answers, refusals, and clients that go away."""
    for replica in cluster.replicas:
        for _ in range(2):
            stream = httpx2.post(f"{replica.url}/encode?quality=50", content=png, timeout=60).content
            httpx2.post(f"{replica.url}/decode", content=stream, timeout=60)
        refused = httpx2.post(f"{replica.url}/encode", content=png, headers={"Content-Encoding": "gzip"}, timeout=60)
        assert refused.status_code == 415
        leave_early(replica.host, replica.port)
    httpx2.post(f"{cluster.balancer.url}/encode", content=png, timeout=60)


def leave_early(host: str, port: int) -> None:
    """Send half a request and go."""
    with socket.create_connection((host, port), timeout=5) as client:
        client.sendall(b"POST /encode HTTP/1.1\r\nHost: bijou\r\nContent-Length: 100000\r\n\r\n" + b"\x89PNG")
        time.sleep(0.1)


def scraped(url: str) -> int:
    """Targets of the service and the balancer that have answered."""
    return len(ask(url, 'up{job=~"bijou|haproxy"} == 1'))


def ask(url: str, query: str) -> list[Any]:
    """The result of an instant query, with a window of some scrapes where Grafana puts its own."""
    query = query.replace("$__rate_interval", f"{8 * SCRAPE_S}s")
    answer = httpx2.get(f"{url}/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    results: list[Any] = answer["data"]["result"]
    return results
