"""Three replicas behind the shipped HAProxy, and a fourth whose golden check fails; started once for all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from service import codec
from tests.deploy.names import NameServer
from tests.deploy.processes import Balancer, Replica, balancer, free_port, program, wait_until

HOSTS = ("127.0.0.11", "127.0.0.12", "127.0.0.13")
BROKEN_HOST = "127.0.0.14"


@dataclass(frozen=True)
class Cluster:
    """What the tests talk to.

    Attributes:
        balancer: The one address clients know.
        replicas: Those that serve.
        broken: The one whose model does not reproduce its golden stream.
        dns: Address of the name server that knows all four as `bijou`.
    """

    balancer: Balancer
    replicas: list[Replica]
    broken: Replica
    dns: str

    def wait_whole(self) -> None:
        """Return once all replicas get requests."""
        wait_until(lambda: self.balancer.up() == self.addresses(), "all replicas are up", 30)

    def addresses(self) -> set[str]:
        """host:port of the replicas that serve."""
        return {f"{r.host}:{r.port}" for r in self.replicas}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Started once; a test that stops a replica starts it again."""
    program("haproxy", "haproxy")
    folder = tmp_path_factory.mktemp("cluster")
    port = free_port(*HOSTS, BROKEN_HOST)
    replicas = [Replica(host, port, folder / f"{host}.log") for host in HOSTS]
    settings = {"BIJOU_MODELS_FOLDER": str(damaged_models(folder / "models"))}
    broken = Replica(BROKEN_HOST, port, folder / "broken.log", settings)
    with ExitStack() as stack:
        names = stack.enter_context(NameServer("bijou", [*HOSTS, BROKEN_HOST]))
        for replica in (*replicas, broken):
            stack.callback(replica.kill)
            replica.start()
        front = stack.enter_context(balancer(names.address, port, folder / "haproxy.log"))
        for replica in replicas:
            replica.wait_ready()
        broken.wait_alive()
        whole = Cluster(front, replicas, broken, names.address)
        whole.wait_whole()
        yield whole


def damaged_models(folder: Path) -> Path:
    """A copy of the shipped models in which one golden stream is another stream: whole, but not what comes out."""
    shutil.copytree(codec.artifact.SHIPPED, folder)
    for golden in folder.glob("*/golden"):
        shutil.copyfile(golden / "q50.bij", golden / "q90.bij")
    return folder
