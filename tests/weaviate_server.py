"""A real Weaviate server for tests: that of KVASIR_TEST_WEAVIATE_URL, or `weaviate` from PATH, once a session."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from core.settings import WeaviateSettings
from core.stores.weaviate_server import Server

if TYPE_CHECKING:
    from weaviate import WeaviateAsyncClient

KEY = "a-key-for-tests"
_READY_SECONDS = 120.0


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def raft_ports() -> tuple[int, int]:
    """Two free ports side by side: in a cluster on one machine the second is that of the first and one."""
    while True:
        (first,) = free_ports(1)
        with socket.socket() as second:
            try:
                second.bind(("127.0.0.1", first + 1))
            except (OSError, OverflowError):
                continue
        return first, first + 1


@dataclass
class Node:
    """One server process of our own; it may be killed and started again on the same data."""

    folder: Path
    number: int = 0
    join: str = ""
    raft_join: str = ""
    nodes: int = 1
    ports: list[int] = field(default_factory=lambda: free_ports(2))
    gossip: tuple[int, int] = field(default_factory=raft_ports)
    raft: tuple[int, int] = field(default_factory=raft_ports)
    process: subprocess.Popen[bytes] | None = None
    changed: Mapping[str, str] = field(default_factory=dict)
    """Variables that it gets besides, or other values of them."""

    @property
    def settings(self) -> WeaviateSettings:
        return WeaviateSettings.model_validate(
            {
                "url": f"http://127.0.0.1:{self.ports[0]}",
                "grpc_url": f"127.0.0.1:{self.ports[1]}",
                "api_key": KEY,
                "prefix": f"T{uuid.uuid4().hex[:12]}",
                "search_seconds": 30.0,
            }
        )

    def start(self) -> None:
        program = shutil.which("weaviate")
        assert program is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "--host", "127.0.0.1", "--port", str(self.ports[0]), "--scheme", "http"],
                env=dict(os.environ, **self._environment()), stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip

    def wait(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not self.is_ready():
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "log").read_text(errors="replace")[-3000:]
                raise AssertionError(f"weaviate has not come up:\n{log}")
            time.sleep(0.2)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[0]}/v1/.well-known/ready", timeout=2):
                return True
        except (OSError, urllib.error.URLError):
            return False

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)

    def _environment(self) -> dict[str, str]:
        found = {
            "PERSISTENCE_DATA_PATH": str(self.folder / "data"),
            "DEFAULT_VECTORIZER_MODULE": "none",
            "ENABLE_MODULES": "",
            "CLUSTER_HOSTNAME": f"weaviate-{self.number}",
            "CLUSTER_IN_LOCALHOST": "true",
            "CLUSTER_BIND_ADDR": "127.0.0.1",
            "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
            "CLUSTER_GOSSIP_BIND_PORT": str(self.gossip[0]),
            "CLUSTER_DATA_BIND_PORT": str(self.gossip[1]),
            "RAFT_PORT": str(self.raft[0]),
            "RAFT_INTERNAL_RPC_PORT": str(self.raft[1]),
            "RAFT_BOOTSTRAP_EXPECT": str(self.nodes),
            "GRPC_PORT": str(self.ports[1]),
            "DISABLE_TELEMETRY": "true",
            "AUTOSCHEMA_ENABLED": "false",
            "GO_PROFILING_DISABLE": "true",
            "PROMETHEUS_MONITORING_ENABLED": "false",
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
            "AUTHENTICATION_APIKEY_ENABLED": "true",
            "AUTHENTICATION_APIKEY_ALLOWED_KEYS": KEY,
            "AUTHENTICATION_APIKEY_USERS": "kvasir",
            "AUTHORIZATION_ADMINLIST_ENABLED": "true",
            "AUTHORIZATION_ADMINLIST_USERS": "kvasir",
            "LOG_LEVEL": "warning",
        }
        if self.join:
            found["CLUSTER_JOIN"] = self.join
        if self.raft_join:
            found["RAFT_JOIN"] = self.raft_join
        return found | dict(self.changed)


def why_none() -> str:
    """Why there can be no server; empty where there can."""
    if os.environ.get("KVASIR_TEST_WEAVIATE_URL") or shutil.which("weaviate"):
        return ""
    return "needs `weaviate` on PATH, or the address of a server in KVASIR_TEST_WEAVIATE_URL"


@contextmanager
def one_node(folder: Path, changed: Mapping[str, str] | None = None) -> Iterator[Node]:
    if shutil.which("weaviate") is None:
        pytest.skip("needs `weaviate` on PATH")
    node = Node(folder, changed=changed or {})
    try:
        node.start()
        node.wait()
        yield node
    finally:
        node.kill()


@contextmanager
def any_server(folder: Path) -> Iterator[WeaviateSettings]:
    """Settings for a server that answers; skips where there is none."""
    given = os.environ.get("KVASIR_TEST_WEAVIATE_URL")
    if given:
        found = {"url": given, "prefix": f"T{uuid.uuid4().hex[:12]}", "search_seconds": 30.0}
        for name in ("grpc_url", "api_key"):
            if value := os.environ.get(f"KVASIR_TEST_WEAVIATE_{name.upper()}"):
                found[name] = value
        yield WeaviateSettings.model_validate(found)
        return
    if why := why_none():
        pytest.skip(why)
    with one_node(folder) as node:
        yield node.settings


def with_key(settings: WeaviateSettings) -> WeaviateSettings:
    """The same with the key that the tests' server asks for."""
    key = os.environ.get("KVASIR_TEST_WEAVIATE_API_KEY") if os.environ.get("KVASIR_TEST_WEAVIATE_URL") else KEY
    return settings.model_copy(update={"api_key": SecretStr(key) if key else None})


async def empty(settings: WeaviateSettings, *, collections: bool = False) -> None:
    """Remove every index that was made under the settings' prefix, and with `collections` what it was in."""
    server = Server(settings)

    async def remove(client: WeaviateAsyncClient) -> None:
        for name in await client.collections.list_all():
            if not name.startswith(f"{settings.prefix}_"):
                continue
            if collections:
                await client.collections.delete(name)
            else:
                tenants = client.collections.use(name).tenants
                if found := list(await tenants.get()):
                    await tenants.remove(found)

    try:
        await server.call(remove, 60)
    finally:
        await server.close()
