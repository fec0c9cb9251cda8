"""`python -m tests.fakes.slack`: this Slack alone, until it is interrupted; it says where Kvasir finds it."""

from __future__ import annotations

import asyncio
import logging

from tests.fakes.slack.server import SlackServer

logger = logging.getLogger("slack")


async def serve() -> None:
    async with SlackServer() as slack:
        logger.info("KVASIR_SLACK__BASE_URL=%s", slack.base_url)
        logger.info("KVASIR_SLACK__BOT_TOKEN=%s", slack.workspace.token)
        logger.info("KVASIR_SLACK__APP_TOKEN=%s", slack.app_token)
        await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(serve())
