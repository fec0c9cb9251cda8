"""The service `bots`: runs the chat platforms that have their tokens, and starts one alone again when it fails."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from bots.platform import ChatPlatform
from core import registry
from core.types import Mention

if TYPE_CHECKING:
    from bots.handler import ChatHandler
    from core.app import Kvasir

logger = logging.getLogger(__name__)

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 60.0
_OF_PEOPLE = frozenset({"terminal"})
"""Platforms that a person starts, not this service."""


async def serve(kvasir: Kvasir, handler: ChatHandler) -> None:
    """Run every platform whose `open(kvasir)` gives one, until cancelled."""
    platforms = []
    for name in registry.names("kvasir.platforms"):
        if name not in _OF_PEOPLE:
            platform = registry.load("kvasir.platforms", name).open(kvasir)
            if platform is not None:
                platforms.append(platform)
    async with asyncio.TaskGroup() as group:
        for platform in platforms:
            group.create_task(_keep_running(platform, handler), name=f"platform-{platform.name}")


async def _keep_running(platform: ChatPlatform, handler: ChatHandler) -> None:
    wait = _FIRST_WAIT
    while True:
        try:
            async with asyncio.TaskGroup() as answers:
                async for event in platform.events():
                    wait = _FIRST_WAIT
                    if isinstance(event, Mention):
                        answers.create_task(handler.on_mention(platform, event))
                    else:
                        answers.create_task(handler.on_thumb(event))
            return
        except Exception:
            logger.exception("%s stopped; it is started again in %.0f s", platform.name, wait)
        await asyncio.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT)
