"""The git executable, kept on a short leash: no configuration of the machine, no hooks, no other hosts, limits."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from core import egress
from core.errors import ConfigError, TooLarge, Unavailable
from core.sources.visit import Visit
from core.texts import tell

_OLDEST: Final = (2, 37)
"""The first that can be told the address of a host."""
_LOOK: Final = 0.3
_MAX_OUTPUT: Final = 64 << 20
_MAX_COMPLAINT: Final = 20_000
_CONFIG: Final[Mapping[str, str]] = {
    "core.hooksPath": os.devnull,
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "http.followRedirects": "false",  # also keeps the alternates of a server out, which may name any host
    "http.lowSpeedLimit": "500",
    "http.lowSpeedTime": "60",
    "http.proxy": "",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "protocol.version": "2",
    "submodule.recurse": "false",
    "transfer.bundleURI": "false",
}


def executable() -> str:
    """Where git is. Raises ConfigError where there is none."""
    found = shutil.which("git")
    if found is None:
        raise ConfigError(tell("git_missing"))
    return found


class Git:
    """Runs git on one repository of one host, in a folder that is thrown away."""

    def __init__(self, folder: Path, environment: Mapping[str, str], url: str) -> None:
        self.url = url
        self.folder = folder
        self._environment = environment

    @classmethod
    async def meet(cls, folder: Path, url: str, visit: Visit, user: str, token: str) -> Git:
        """Looks the host up once; git connects to that address alone. Raises as `egress.fetch`, and ConfigError."""
        address = await egress.address_of(url, private_hosts=visit.private_hosts)
        parsed = egress.parse(url)
        config = dict(_CONFIG)
        host, port = parsed.raw_host.decode("ascii"), parsed.port or (443 if parsed.scheme == "https" else 80)
        shown = f"[{address}]" if address.version == 6 else str(address)
        config["http.curloptResolve"] = f"{host}:{port}:{shown}"
        if token:
            login = base64.b64encode(f"{user or 'git'}:{token}".encode()).decode("ascii")
            config["http.extraHeader"] = f"Authorization: Basic {login}"
        made = cls(folder, _environment(folder, config), str(parsed))
        version = re.search(rb"(?<![0-9])([0-9]++)\.([0-9]+)", await made.run("version", seconds=20))
        if version is None or (int(version[1]), int(version[2])) < _OLDEST:
            raise ConfigError(tell("git_old", least=".".join(str(part) for part in _OLDEST)))
        return made

    def inside(self, name: str) -> Git:
        """The same in a folder below."""
        return Git(self.folder / name, self._environment, self.url)

    async def run(self, *words: str, seconds: float, most: int = _MAX_OUTPUT) -> bytes:
        """What it prints. Raises Unavailable where it fails or takes too long, TooLarge where its folder grows past
        `most` bytes.
        """
        async with self._started(*words) as process:
            try:
                async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                    watch = group.create_task(self._watch(most))
                    complaint = group.create_task(_read(process.stderr, _MAX_COMPLAINT))
                    printed = await _read(process.stdout, _MAX_OUTPUT)
                    await process.wait()
                    watch.cancel()
            except TimeoutError as error:
                raise Unavailable(tell("git_slow", seconds=f"{seconds:g}")) from error
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        if process.returncode:
            raise Unavailable(_meaning(complaint.result().decode("utf-8", "replace")))
        await self._check_size(most)
        return printed

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[BlobReader]:
        """Reads files of the repository, one after the other."""
        async with self._started("cat-file", "--batch") as process:
            yield BlobReader(process)

    @asynccontextmanager
    async def _started(self, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            executable(),
            *words,
            cwd=self.folder,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if words[0] != "cat-file" else asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with those that it started
            await asyncio.shield(process.wait())
            process._transport.close()  # type: ignore[attr-defined]  # its pipes, which asyncio leaves to the collector

    async def _watch(self, most: int) -> None:
        while True:
            await self._check_size(most)
            await asyncio.sleep(_LOOK)

    async def _check_size(self, most: int) -> None:
        if await asyncio.to_thread(_size, self.folder) > most:
            raise TooLarge(tell("git_large", most=most >> 20))


class BlobReader:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def read(self, sha: str) -> bytes:
        """Raises Unavailable."""
        to_git, from_git = self._process.stdin, self._process.stdout
        assert to_git is not None  # noqa: S101  as it was started
        assert from_git is not None  # noqa: S101
        try:
            async with asyncio.timeout(60):
                to_git.write(f"{sha}\n".encode("ascii"))
                await to_git.drain()
                head = (await from_git.readline()).split()
                if len(head) != 3 or head[1] != b"blob":
                    raise Unavailable(tell("git_failed", reason=sha))
                data = await from_git.readexactly(int(head[2]) + 1)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise Unavailable(tell("git_failed", reason=type(error).__name__)) from error
        return data[:-1]


def _environment(folder: Path, config: Mapping[str, str]) -> dict[str, str]:
    """Nothing of ours: neither proxies nor secrets; what is secret in `config` is on no command line."""
    pairs: dict[str, str] = {}
    for number, (key, value) in enumerate(config.items()):
        pairs |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": "https:http",
        "GIT_ASKPASS": "true",
        "GIT_CONFIG_COUNT": str(len(config)),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        **pairs,
    }


def _meaning(complaint: str) -> str:
    """What git's complaint means to a person."""
    lowered = complaint.lower()
    if any(words in lowered for words in ("could not read username", "authentication failed", "403", "401")):
        return tell("git_login_needed")
    if "remote branch" in lowered and "not found" in lowered:
        return tell("git_no_branch")
    lines = [line for line in complaint.splitlines() if line.startswith(("fatal:", "error:"))] or [complaint]
    reason = "".join(char for char in lines[-1] if char.isprintable()).partition(":")[2].strip() or "?"
    return tell("git_failed", reason=re.sub(r"(?<!\S)\S*?://\S*+", "…", reason[:4000])[:200])


async def _read(stream: asyncio.StreamReader | None, most: int) -> bytes:
    """All of it, of which `most` bytes are kept."""
    kept = bytearray()
    while stream is not None and (piece := await stream.read(1 << 16)):
        kept += piece[: most - len(kept)]
    return bytes(kept)


def _size(folder: Path) -> int:
    size = 0
    for where, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                size += Path(where, name).stat().st_size
    return size
