"""What a worker is to run, and what went wrong with one."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from core.inference import sections
from core.inference.sections import Kind
from core.settings import LocalModelSettings, Settings
from core.texts import say
from core.types import Language

_OURS: Final = frozenset({"base_url", "api_key", "queue", "start_timeout_seconds", "stall_seconds", "alone", "process"})
"""What is said to whoever runs the worker, and makes no other model of it."""
_VECTORS_STALL: Final = 900.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A model to be run in a process of its own, or the worker elsewhere that runs it."""

    kind: str
    """The driver's."""
    values: Mapping[str, Any]
    """The adapter's settings, as plain JSON."""
    data_dir: Path
    python: str = ""
    """Python of another environment; empty: this one."""
    queue: int = 32
    start_seconds: float = 600.0
    stall_seconds: float = 60.0
    pause_seconds: float = 1.0
    """Before the second life; longer before each that follows."""
    alone: bool = False
    memory: int = 0
    """Bytes that it will take; 0: nobody knows."""
    on_gpu: bool = False
    base_url: str = ""
    api_key: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The same for all processes of a house that are to share it."""
        told = json.dumps([self.kind, self.values, self.python, socket.gethostname()], sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def plan_of(
    settings: Settings, kind: Kind, adapter: str, *, driver: str = "", memory: int = 0, on_gpu: bool = False
) -> Plan:
    """The plan of an adapter's settings; `driver` where it is called otherwise than the adapter."""
    section = sections.section_of(kind, adapter)
    values = getattr(settings, section) if section else None
    names = {one.name for one in sections.fields_of(kind, adapter)} - _OURS
    given = {name: sections.plain(getattr(values, name)) for name in sorted(names)}
    shared = values if isinstance(values, LocalModelSettings) else _of_vectors(values)
    return Plan(
        kind=driver or adapter,
        values=given,
        data_dir=settings.data_dir,
        python=settings.worker.pythons.get(adapter, ""),
        queue=shared.queue + shared.parallel,  # a model may take fewer at a time than it is set to
        start_seconds=shared.start_timeout_seconds,
        stall_seconds=shared.stall_seconds,
        alone=bool(getattr(values, "alone", shared.alone)),
        memory=memory,
        on_gpu=on_gpu,
        base_url=shared.base_url.strip().rstrip("/").removesuffix("/v1"),
        api_key=shared.api_key.get_secret_value(),
    )


def _of_vectors(values: Any) -> LocalModelSettings:
    """For embedders and rerankers, whose section has little of it; one step of theirs can be many long texts."""
    url, key = getattr(values, "base_url", ""), getattr(values, "api_key", SecretStr(""))
    return LocalModelSettings(base_url=url, api_key=key, stall_seconds=_VECTORS_STALL)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a worker is not there."""

    key: str
    """Of its sentence in `core/texts.py`."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Plain ones, and other troubles."""
    is_final: bool = False
    """Trying again does not help."""

    @property
    def plain(self) -> dict[str, str]:
        """Its values as text."""
        return {name: _said(value, "en") for name, value in self.values.items()}

    def say(self, language: Language) -> str:
        return say(self.key, language, **{name: _said(value, language) for name, value in self.values.items()})


def _said(value: Any, language: Language) -> str:
    return value.say(language) if isinstance(value, Trouble) else str(value)
