"""All three chat platforms of ours at once, and `kvasir up bots` as a process that talks to them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.fakes.discord_server import DiscordServer
from tests.fakes.slack import SlackServer
from tests.fakes.telegram import TelegramServer, telegram_server

PLATFORMS: Final = ("slack", "discord", "telegram")
LATE: Final = ("bots.telegram.aiogram_later", *(f"bots.{name}.platform" for name in PLATFORMS))
"""What a process with all of them imports when they go on."""
Begin = Callable[..., subprocess.Popen[Any]]
"""`subprocess.Popen`, or what does as it does."""
DOCUMENT: Final = "# Leave\n\nAnnual leave is 28 days a year. Ask your manager before you book a flight.\n"


@dataclass
class Asked:
    """A question on one of the platforms."""

    platform: str
    text: str
    message: Any


@dataclass
class Chats:
    slack: SlackServer
    discord: DiscordServer
    telegram: TelegramServer
    people: int = 20
    """Telegram groups and Slack threads are many; so are those who ask."""
    groups: list[Any] = field(default_factory=list)

    def settings(self) -> dict[str, str]:
        """Environment variables that lead a Kvasir here."""
        return {
            "KVASIR_SLACK__BOT_TOKEN": self.slack.workspace.token,
            "KVASIR_SLACK__APP_TOKEN": self.slack.app_token,
            "KVASIR_SLACK__BASE_URL": self.slack.base_url,
            "KVASIR_DISCORD__TOKEN": self.discord.token,
            "KVASIR_DISCORD__API_BASE": self.discord.api_base,
            "KVASIR_TELEGRAM__TOKEN": self.telegram.token,
            "KVASIR_TELEGRAM__API_BASE": self.telegram.url,
        }

    async def ask(self, platform: str, text: str, number: int = 0, copies: int = 1) -> Asked:
        """Mention the bot; the event is delivered so many times, whether or not anybody listens yet."""
        if platform == "slack":
            self.slack.people.copies = copies
            sent = asyncio.create_task(self.slack.people.mention(text))
            await asyncio.sleep(0)
            message: Any = self.slack.channel.messages[-1]
            sent.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._sending.add(sent)
        elif platform == "discord":
            self.discord.gateway.repeat = copies
            message = self.discord.mention(self.discord.world.ann, self.discord.world.general, text)
        else:
            while len(self.groups) <= number % self.people:
                self.groups.append(self.telegram.group(f"Team {len(self.groups)}"))
            if not self._tess:
                self._tess.append(self.telegram.person("Tess", "tess"))
            message = self.telegram.mention(self.groups[number % self.people], self._tess[0], text)
            update = message.json()
            for _ in range(copies - 1):
                self.telegram.world.mail.put("message", update)
        return Asked(platform, text, message)

    def answers(self, asked: Asked) -> Sequence[str]:
        """What everybody sees as the answer, message by message."""
        message = asked.message
        if asked.platform == "slack":
            channel = self.slack.workspace.channels[message.channel]
            return [one.body for one in channel.answers(message.thread_ts or message.ts) if not one.deleted]
        if asked.platform == "discord":
            return [one.text for one in self.discord.answers(message)]
        return [one.text for one in self.telegram.replies(message)]

    def __post_init__(self) -> None:
        self._sending: set[asyncio.Task[Any]] = set()
        self._tess: list[Any] = []

    async def close(self) -> None:
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)


@asynccontextmanager
async def chats() -> AsyncIterator[Chats]:
    async with SlackServer() as slack, DiscordServer() as discord, telegram_server() as telegram:
        slack.delivery.retry_pauses = (0.0, 1.0, 3.0)
        found = Chats(slack, discord, telegram)
        try:
            yield found
        finally:
            await found.close()


class Process:
    """`kvasir up bots` (or more) on a data directory."""

    def __init__(self, data: Path, settings: dict[str, str], *roles: str, begin: Begin = subprocess.Popen) -> None:
        self._data = data
        self._settings = settings
        self._roles = roles or ("bots",)
        self._begin = begin
        self._process: subprocess.Popen[bytes] | None = None
        self.command = [str(Path(sys.executable).with_name("kvasir"))]

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "KVASIR_DATA_DIR": str(self._data),
            "KVASIR_EMBEDDER__KIND": "none",
            "KVASIR_ANSWER__MIN_EVIDENCE": "0",
            "KVASIR_LOG__LEVEL": "WARNING",
            "KVASIR_LANGUAGE": "en",
            **self._settings,
        }

    def prepare(self) -> None:
        """A knowledge base with one document."""
        folder = self._data.with_name(f"{self._data.name}-documents")
        folder.mkdir()
        Path(folder, "leave.md").write_text(DOCUMENT)
        done = self.run("ingest", str(folder), "--kb", "handbook", "--json")
        assert done.returncode == 0, done.stderr.decode()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """How a command beside it ended."""
        command = [*self.command, *arguments]
        with self._begin(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def start(self) -> None:
        command = [*self.command, "up", *self._roles]
        with Path(self._data.parent, f"{self._data.name}.log").open("ab") as log:
            self._process = self._begin(command, env=self.environment, stdout=log, stderr=log)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever happened, it does not outlive us."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def id(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(30)

    def log(self) -> str:
        return Path(self._data.parent, f"{self._data.name}.log").read_text()
