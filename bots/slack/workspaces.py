"""The workspaces that have us: the one of the bot token, or all that installed the app. Their tokens are encrypted."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Final

import aiohttp
from pydantic import SecretStr
from slack_sdk.web.async_client import AsyncWebClient

from bots.errors import Refused, Unreachable
from bots.memory import Memory
from bots.slack.client import DEAD, TIMEOUT, Web
from core.chats.connections import WORKSPACE_KEY
from core.errors import KvasirError
from core.settings import SlackSettings
from core.work.limits import Limits

_KEPT_UNDER: Final = "installation"
_OWN_URL: Final = "https://slack.com/api/"
logger = logging.getLogger(__name__)
quiet: Final = logging.getLogger("kvasir.slack")
"""The client library logs through it: whole requests at DEBUG, of which we want none."""
quiet.setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Installation:
    """What a workspace gave us when it let us in."""

    team: str
    token: str
    bot_user: str
    bot_id: str
    name: str = ""
    app_id: str = ""


@dataclass(frozen=True, slots=True)
class Workspace:
    installation: Installation
    web: Web

    @property
    def bot_user(self) -> str:
        return self.installation.bot_user

    @property
    def bot_id(self) -> str:
        return self.installation.bot_id


class Workspaces:
    def __init__(self, settings: SlackSettings, memory: Memory, limits: Limits | None = None) -> None:
        self._limits = limits
        self._settings = settings
        self._memory = memory
        self._known: dict[str, Workspace] = {}
        self._session: aiohttp.ClientSession | None = None
        self._lock = asyncio.Lock()
        self._refused = asyncio.Event()
        self._dead: dict[str, tuple[str, str]] = {}
        """Workspaces whose token is no good any more: Slack's word for it, and the token."""

    @property
    def is_single(self) -> bool:
        return self._settings.bot_token is not None

    @property
    def base_url(self) -> str:
        return self._settings.base_url or _OWN_URL

    @asynccontextmanager
    async def one_session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Inside, all calls share one session, which keeps connections open; outside, each has one of its own."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session:
            self._session = session
            for workspace in self._known.values():
                workspace.web.client.session = session
            yield session

    def client(self, token: str | None = None) -> AsyncWebClient:
        """A client of the library. It tries nothing twice: what was posted must not be posted again unseen."""
        return AsyncWebClient(
            token,
            base_url=self.base_url,
            timeout=TIMEOUT,
            proxy=self._settings.proxy or None,
            session=self._session,
            retry_handlers=[],
            logger=quiet,
        )

    @asynccontextmanager
    async def any_session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """The shared session where there is one."""
        if self._session is not None and not self._session.closed:
            yield self._session
            return
        async with aiohttp.ClientSession() as session:
            yield session

    async def get(self, team: str) -> Workspace:
        """The workspace. Raises Refused where it does not have us, and Unreachable."""
        found = self._known.get(team)
        if found is not None:
            return found
        async with self._lock:
            if not self.is_single:
                await self._open_kept(team)
            elif not (self._known or self._dead):
                await self._open_single()
        if team not in self._known:
            raise Refused(self._dead.get(team, ("app_not_installed", ""))[0])
        return self._known[team]

    async def all(self) -> Sequence[Workspace]:
        """Every workspace that has us."""
        if self.is_single:
            async with self._lock:
                if not self._known:
                    await self._open_single()
        else:
            for team in await self._memory.all(_KEPT_UNDER):
                async with self._lock:
                    await self._open_kept(team)
        return list(self._known.values())

    async def put(self, installation: Installation) -> None:
        """A workspace let us in, or did so again."""
        kept = json.dumps(asdict(installation))
        await self._memory.put_secret(_KEPT_UNDER, kept, installation.team)
        self._dead.pop(installation.team, None)
        self._known[installation.team] = self._workspace(installation)
        await self._name(installation.team, installation.name)
        logger.info("the workspace %s has let us in", installation.team)

    async def forget(self, team: str) -> None:
        """A workspace has thrown us out."""
        await self._memory.forget(_KEPT_UNDER, team)
        await self._memory.forget(WORKSPACE_KEY, team)
        self.refused(team, Refused("app_uninstalled"))

    def refused(self, team: str, error: Refused) -> None:
        """Slack refused a call; where that is for good, nothing more is tried with this token."""
        if str(error) not in DEAD or team not in self._known:
            return
        self._dead[team] = (str(error), self._known.pop(team).installation.token)
        if self.is_single:
            self._refused.set()  # and whoever runs us says so
        else:
            logger.error("Slack will not have us in workspace %s any more: %s", team, error)

    async def until_refused(self) -> None:
        """Return never; raises Refused when the only workspace has us no more."""
        await self._refused.wait()
        raise Refused(next(why for why, _ in self._dead.values()))

    # ------------------------------------------------------------ inside
    async def _open_single(self) -> None:
        token = (self._settings.bot_token or SecretStr("")).get_secret_value().strip()
        about = await Web(self.client(token)).call("auth.test")
        team, name = str(about["team_id"]), str(about["team"])
        self._known[team] = self._workspace(
            Installation(team, token, str(about["user_id"]), str(about.get("bot_id", "")), name)
        )
        await self._name(team, name)

    async def _open_kept(self, team: str) -> None:
        if team in self._known:
            return
        try:
            kept = await self._memory.get_secret(_KEPT_UNDER, team)
        except KvasirError as error:
            logger.error("the token of workspace %s cannot be read: %s", team, error)
            raise Unreachable("its token cannot be read") from error
        installation = Installation(**json.loads(kept)) if kept is not None else None
        if installation is None or installation.token == self._dead.get(team, ("", ""))[1]:
            return
        self._dead.pop(team, None)
        self._known[team] = self._workspace(installation)
        await self._name(team, installation.name)

    async def _name(self, team: str, name: str) -> None:
        """Keep it for people, who know no ids."""
        if await self._memory.get(WORKSPACE_KEY, team) != name:
            await self._memory.put(WORKSPACE_KEY, name, team)

    def _workspace(self, installation: Installation) -> Workspace:
        web = Web(self.client(installation.token), self._limits, installation.team)
        return Workspace(installation, web)
