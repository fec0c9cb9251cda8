"""Opens Telegram where it is configured; its library, which takes seconds to import, is not touched elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bots.platform import Messenger
    from core.app import Kvasir


def open_platform(kvasir: Kvasir) -> Messenger | None:
    """The connection to Telegram; None without a token. Raises ConfigError where the settings cannot be used."""
    token = kvasir.settings.telegram.token
    if token is None or not token.get_secret_value().strip():
        return None
    from bots.telegram import aiogram_later  # noqa: F401  # first
    from bots.telegram.platform import Telegram

    return Telegram(kvasir)
