"""What Kvasir asks of a worker besides answers: to load, how it is, to leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from core.serving.driver import Card
from core.serving.pipes import PipeTransport
from core.serving.plan import Trouble

_CONNECT_SECONDS: Final = 5.0
_LOAD_SILENCE: Final = 180.0
"""While it loads, a worker says something every few seconds, but where a library holds Python's lock."""
_LONGEST: Final = 300

Report = Callable[[str, float], None]


class LoadFailed(Exception):
    """`trouble` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.key)
        self.trouble = trouble


class Lost(Exception):
    """The worker does not answer."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a worker is: a socket of this machine, or a server."""

    name: str = "worker"
    """What it is called where there is no server."""
    path: str = ""
    url: str = ""
    key: str = field(default="", repr=False)

    @property
    def base(self) -> str:
        return f"http://{self.name}" if self.path else self.url

    @property
    def host(self) -> str:
        """As a person is told it."""
        return urlsplit(self.base).netloc.rpartition("@")[2]

    def transport(self) -> httpx2.AsyncHTTPTransport:
        """A way there, for as many requests at a time as are wanted."""
        if self.path:
            return PipeTransport(self.path)
        return httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=None), trust_env=False)

    def client(self) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx2.AsyncClient(
            base_url=self.base, headers=headers, transport=self.transport(), timeout=_CONNECT_SECONDS, trust_env=False
        )


async def load(client: httpx2.AsyncClient, report: Report) -> Card:
    """The card of the model when it is loaded; joins a load that is under way. Raises LoadFailed, or Lost."""
    timeout = httpx2.Timeout(_LOAD_SILENCE, connect=_CONNECT_SECONDS)
    try:
        async with client.stream("POST", "/admin/load", json={}, timeout=timeout) as response:
            if response.status_code != httpx2.codes.OK:
                said = _said((await response.aread())[:4096]) or str(response.status_code)
                raise LoadFailed(Trouble("worker_cannot_load", {"said": said}, is_final=True))
            async for line in response.aiter_lines():
                if line.startswith("data:") and (card := _heard(json.loads(line[5:]), report)) is not None:
                    return card
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise Lost(str(error)) from error
    raise Lost("the stream ended")


async def health(client: httpx2.AsyncClient, seconds: float) -> dict[str, Any]:
    """Raises Lost."""
    try:
        response = await client.get("/health", timeout=seconds)
        document = response.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise Lost(str(error)) from error
    if response.status_code not in (httpx2.codes.OK, httpx2.codes.SERVICE_UNAVAILABLE):
        raise Lost(f"status {response.status_code}")
    return document if isinstance(document, dict) else {}


async def unload(client: httpx2.AsyncClient, drain_seconds: float) -> bool:
    """Ask it to end when its last answer has ended, or so many seconds are over; whether it heard."""
    try:
        response = await client.post("/admin/unload", json={"drain_seconds": drain_seconds})
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return False
    return response.status_code == httpx2.codes.ACCEPTED


def _heard(event: dict[str, Any], report: Report) -> Card | None:
    if event.get("error"):
        key = "worker_too_large" if event.get("cause") == "out_of_memory" else "worker_cannot_load"
        trouble = Trouble(key, {"said": str(event["error"])[:_LONGEST]}, is_final=event.get("cause") != "failed")
        raise LoadFailed(trouble)
    if event.get("card"):
        return _card(event["card"])
    report(str(event.get("stage") or "load"), int(event["done"]) / max(1, int(event["total"])))
    return None


def _card(document: dict[str, Any]) -> Card:
    return Card(
        model=str(document["id"]),
        context_size=int(document["context_size"]),
        parallel=int(document["parallel"]),
        features=frozenset(map(str, document["features"])),
        details=dict(document["details"]),
        dimension=int(document["dimension"]),
        max_tokens=int(document["max_tokens"]),
        fingerprint=str(document["fingerprint"]),
    )


def _said(body: bytes) -> str:
    """The sentence of an error in OpenAI's form."""
    try:
        return str(json.loads(body)["error"]["message"])[:_LONGEST]
    except (ValueError, KeyError, TypeError):
        return ""
