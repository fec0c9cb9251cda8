"""What the entry point names: whether Discord is on, before its library is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bots.platform import Messenger
    from core.app import Kvasir


def open_platform(kvasir: Kvasir) -> Messenger | None:
    """None without a token."""
    if kvasir.settings.discord.token is None:
        return None
    from bots.discord.platform import DiscordPlatform

    return DiscordPlatform(kvasir)
