"""Posts what waits in the outbox for a platform that this process runs; each message at most once."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from bots.errors import DeliveryError, Gone, Limited, Refused
from bots.platform import Messenger
from core.chats.outbox import SEND_SECONDS, Outbox, Posting
from core.errors import KvasirError
from core.texts import speaking, tell, text_language

logger = logging.getLogger(__name__)

_LONGEST_PAUSE: Final = 60.0
_REFUSED: Final = (Refused, Gone)
"""What surely means that nothing was posted."""


async def deliver(outbox: Outbox, messenger: Messenger, mail: asyncio.Event) -> None:
    """Post one message after the other until cancelled; `mail` says that there may be some."""
    while True:
        await mail.wait()
        mail.clear()
        if not (messenger.connected or messenger.standing_by):  # as long as something waits, that is said again
            continue
        try:
            while (posting := await outbox.claim(messenger.name)) is not None:
                pause = await _post(outbox, messenger, posting)
                await asyncio.sleep(min(pause, _LONGEST_PAUSE))
        except KvasirError as error:
            logger.warning("messages for %s wait: %s", messenger.name, error)
        except Exception:
            logger.exception("messages for %s wait", messenger.name)


async def _post(outbox: Outbox, messenger: Messenger, posting: Posting) -> float:
    """Post it, and write down what came of it; gives the seconds to wait before the next."""
    name = messenger.name.capitalize()
    language = text_language(posting.text)
    with speaking(language):
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await messenger.post(posting.place, posting.text)
        except Limited as error:
            await outbox.put_back(posting)
            return error.seconds
        except _REFUSED as error:
            await outbox.failed(posting, tell("outbox_refused", platform=name, reason=error))
        except (DeliveryError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            await outbox.failed(posting, tell("outbox_unheard", platform=name, reason=reason))
        except Exception as error:  # the outermost place of one message: what became of it is unknown, and said at once
            logger.exception("a message could not be posted on %s", messenger.name)
            await outbox.failed(posting, tell("outbox_unheard", platform=name, reason=type(error).__name__))
        else:
            await outbox.sent(posting)
    return 0.0
