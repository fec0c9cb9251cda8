"""pip and the builder of graphs, forked from a process that has imported what they need: `tests/processes.py`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from core.embedders.child import run_child
from tests.processes import fork_programs

_LATE: Final = (
    *("pip._internal.cli.main", "pip._internal.cli.main_parser", "pip._internal.cli.autocompletion"),
    *("pip._internal.commands.download", "pip._internal.resolution.resolvelib.resolver", "pip._vendor.truststore"),
    *("pip._internal.metadata.importlib", "pip._vendor.distro", "onnx", "core.embedders.safetensors"),
)
"""What they import: most of their time."""


@pytest.fixture(scope="module")
def forked_builder() -> Iterator[None]:
    """Those that this process starts; those of other processes are started anew."""
    with pytest.MonkeyPatch.context() as patch:
        fork_builder(patch)
        yield


def fork_builder(patch: pytest.MonkeyPatch) -> None:
    """They know the way to our modules without being told; with it they would be started anew."""

    async def run(*arguments: Any, variables: Mapping[str, str], **options: Any) -> tuple[int, str]:
        told = {name: value for name, value in variables.items() if name != "PYTHONPATH"}
        return await run_child(*arguments, variables=told, **options)

    fork_programs(patch, _LATE)
    patch.setattr("core.embedders.fetch.run_child", run)


def start_anew(patch: pytest.MonkeyPatch) -> None:
    """From now on, as they are outside of tests."""
    patch.setattr("asyncio.unix_events.subprocess", subprocess)
