"""The Kubernetes manifests, rendered by kustomize: schemas, and what the parts must agree on."""

from __future__ import annotations

import functools
import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.deploy.processes import ROOT, program
from tests.pages import blocks

FOLDER = ROOT / "docker/kubernetes"
VARIANTS = ("base", "gpu", "keda", "monitoring")
KUBERNETES_VERSIONS = ("1.30", "1.34")
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
"""Resources of operators; the schemas of Kubernetes do not know them."""

Resource = dict[str, Any]


@functools.cache
def rendered(variant: str) -> str:
    """What kubectl would apply, as YAML."""
    return kustomized(FOLDER / variant)


def kustomized(folder: Path) -> str:
    kubectl = program("kubectl", "kubectl, 1.27 or newer")
    command = [kubectl, "kustomize", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def resources(variant: str, kind: str = "") -> list[Resource]:
    """The resources of a variant, of one kind or all."""
    return [r for r in yaml.safe_load_all(rendered(variant)) if kind in ("", r["kind"])]


def one(variant: str, kind: str) -> Resource:
    """The one resource of a kind."""
    [resource] = resources(variant, kind)
    return resource


def replicas(variant: str) -> list[Resource]:
    """The Deployments of a variant."""
    return resources(variant, "Deployment")


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_schemas_of_kubernetes_accept_everything(variant: str, version: str):
    try:
        checker = importlib.import_module("kubernetes_validate")
    except ImportError:
        pytest.skip("kubernetes-validate of PyPI is not installed")
    known = [resource for resource in resources(variant) if resource["kind"] not in CUSTOM]
    for resource in known:
        checker.validate(resource, version, strict=True)
    assert bool(known) == (variant != "monitoring")


def test_the_overlay_of_deployment_builds_on_a_checkout_beside_it(tmp_path: Path):
    [overlay] = blocks("docs/deployment.md", "yaml")
    (tmp_path / "kustomization.yaml").write_text(overlay)
    shutil.copytree(FOLDER, tmp_path / "bijou" / FOLDER.relative_to(ROOT))
    found = [r for r in yaml.safe_load_all(kustomized(tmp_path)) if r["kind"] == "Deployment"]
    [container] = found[0]["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.example.com/bijou")
    assert found[0]["metadata"]["namespace"] == "bijou"


@pytest.mark.parametrize("variant", ["base", "gpu", "keda"])
def test_replicas_are_hardened(variant: str):
    for deployment in replicas(variant):
        pod = deployment["spec"]["template"]["spec"]
        [container] = pod["containers"]
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["automountServiceAccountToken"] is False
        assert [(m["mountPath"], m["name"]) for m in container["volumeMounts"]] == [("/tmp", "tmp")]
        assert pod["volumes"] == [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}}]
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_nothing_stops_the_start_of_a_replica():
    """Kubernetes adds a variable per Service, and the service refuses BIJOU_ variables that it does not know."""
    settings = {f"BIJOU_{field.upper()}" for field in Settings.model_fields}
    for deployment in replicas("gpu"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["enableServiceLinks"] is False
        assert {variable["name"] for variable in pod["containers"][0]["env"]} <= settings


@pytest.mark.parametrize("variant", ["base", "gpu"])
def test_a_replica_that_stops_has_time_to(variant: str):
    for deployment in replicas(variant):
        pod = deployment["spec"]["template"]["spec"]
        [container] = pod["containers"]
        env = {variable["name"]: variable["value"] for variable in container["env"]}
        drain_s = int(env["BIJOU_DRAIN_S"]) + Settings().drain_notice_s
        [pre_stop_s] = map(int, re.findall(r"sleep\((\d+)\)", container["lifecycle"]["preStop"]["exec"]["command"][-1]))
        probe = container["readinessProbe"]
        assert pre_stop_s >= probe["periodSeconds"] * probe["failureThreshold"]
        assert pod["terminationGracePeriodSeconds"] >= pre_stop_s + drain_s + 5


def test_probes_ask_what_they_are_for_and_give_a_start_enough_time():
    for deployment in replicas("gpu"):
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        paths = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert {kind: get["path"] for kind, get in paths.items()} == {
            "startup": "/healthz/startup",
            "liveness": "/healthz/live",
            "readiness": "/healthz/ready",
        }
        assert {get["port"] for get in paths.values()} == {port["name"] for port in container["ports"]}
        startup = container["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 60


@pytest.mark.parametrize("variant", ["base", "gpu"])
def test_selectors_find_all_replicas_and_each_deployment_only_its_own(variant: str):
    pods = [deployment["spec"]["template"]["metadata"]["labels"] for deployment in replicas(variant)]
    own = [deployment["spec"]["selector"]["matchLabels"] for deployment in replicas(variant)]
    assert [[matches(selector, labels) for labels in pods] for selector in own] == [
        [row == column for column in range(len(pods))] for row in range(len(pods))
    ]
    shared = [service["spec"]["selector"] for service in resources(variant, "Service")]
    shared.append(one(variant, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    shared.append(one(variant, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])
    assert all(matches(selector, labels) for selector in shared for labels in pods)


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether a selector's labels are all there."""
    return selector.items() <= labels.items()


def test_an_upgrade_never_has_fewer_replicas():
    [deployment] = replicas("base")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "replicas" not in deployment["spec"], "it would undo the autoscaler's number"
    assert one("base", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_autoscalers_go_by_the_queue():
    scaler = one("base", "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] in {deployment["metadata"]["name"] for deployment in replicas("base")}
    assert scaler["minReplicas"] >= 2
    metrics = {m.get("pods", {}).get("metric", {}).get("name") or m["resource"]["name"] for m in scaler["metrics"]}
    assert metrics == {"bijou_queue_requests", "cpu"}
    [rule] = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert rule["name"]["matches"] == "bijou_queue_requests"
    assert resources("keda", "HorizontalPodAutoscaler") == [], "KEDA makes one of its own; two would fight"
    scaled = one("keda", "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == scaler["scaleTargetRef"]["name"]
    [trigger] = scaled["triggers"]
    assert "bijou_queue_requests" in trigger["metadata"]["query"]
    assert scaled["minReplicaCount"] == scaler["minReplicas"]


def test_gpu_replicas_differ_from_the_others_by_their_device_alone():
    cpu, gpu = sorted(replicas("gpu"), key=lambda deployment: len(deployment["metadata"]["name"]))
    images = [d["spec"]["template"]["spec"]["containers"][0].pop("image") for d in (cpu, gpu)]
    assert images == ["bijou:cpu", "bijou:gpu"]
    spec = gpu["spec"]["template"]["spec"]
    limits = spec["containers"][0].pop("resources")["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    cpu["spec"]["template"]["spec"]["containers"][0].pop("resources")
    assert spec.pop("nodeSelector")
    assert spec.pop("tolerations")[0]["key"] == "nvidia.com/gpu"
    assert spec == cpu["spec"]["template"]["spec"]


def test_only_who_may_connects_and_replicas_connect_to_nobody():
    policy = one("base", "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert not policy.get("egress")
    [rule] = policy["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "http"}]


def test_prometheus_finds_every_replica_once():
    monitor = one("monitoring", "ServiceMonitor")["spec"]
    services = resources("base", "Service")
    found = [s for s in services if matches(monitor["selector"]["matchLabels"], s["metadata"]["labels"])]
    [endpoint] = monitor["endpoints"]
    [relabeling] = endpoint["relabelings"]
    kept = [s for s in found if s["metadata"]["name"] == relabeling["regex"]]
    assert relabeling["action"] == "keep"
    assert len(kept) == 1
    assert endpoint["port"] in {port["name"] for port in kept[0]["spec"]["ports"]}


def test_the_operators_alerts_are_the_shipped_ones():
    shipped = yaml.safe_load((ROOT / "docker/prometheus/rules.yml").read_text())["groups"]
    groups = yaml.safe_load((FOLDER / "monitoring/rules.yaml").read_text())["spec"]["groups"]
    expected = [group for group in shipped if group["name"] != "bijou-balancer"]
    assert json.dumps(groups) == json.dumps(expected)
