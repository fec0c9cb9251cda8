"""Learns what people call the channels where they ask, for those who look after them."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Final

from bots.errors import DeliveryError, Limited
from bots.intake import Intake
from bots.platform import Messenger
from core.chats.places import Places
from core.db.tables import now
from core.errors import KvasirError

logger = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 20.0
_SETTLED: Final = timedelta(minutes=2)
_MOST: Final = 10
"""Channels that are asked for at a time, so that answers have the platform's limits to themselves."""


async def learn_names(places: Places, messenger: Messenger, intake: Intake) -> None:
    """Ask the platform for the names of channels, a few at a time, until cancelled."""
    done: datetime | None = None
    while True:
        heard = intake.heard_at
        if heard is not None and heard != done and messenger.connected:
            try:
                more = await _learn(places, messenger)
                if not more and now() - heard > _SETTLED:  # before, it may not be written down yet where that was
                    done = heard
            except KvasirError as error:
                logger.info("the names of channels could not be kept: %s", error)
            except Exception:
                logger.exception("the names of channels could not be learned")
                done = heard
        await asyncio.sleep(_LOOK_SECONDS)


async def _learn(places: Places, messenger: Messenger) -> bool:
    """Whether there may be more."""
    nameless = await places.nameless(messenger.name, limit=_MOST)
    for place in nameless:
        try:
            name = await messenger.called(place)
        except Limited:
            return True
        except DeliveryError as error:
            logger.debug("a channel of %s has no name for us: %s", messenger.name, error)
            name = ""
        await places.name(place, name)
    return len(nameless) == _MOST
