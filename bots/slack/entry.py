"""What the entry point names; the client library is imported only when Slack is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bots.slack.platform import Slack
    from core.app import Kvasir
    from core.settings import SlackSettings


def open_platform(kvasir: Kvasir) -> Slack | None:
    """Slack, where its tokens are set."""
    if not is_on(kvasir.settings.slack):
        return None
    from bots.slack.platform import Slack

    return Slack(kvasir)


def is_on(settings: SlackSettings) -> bool:
    """A token of one workspace or the keys to be installed in many; and a way by which events come."""
    return bool((settings.bot_token or settings.client_id) and (settings.app_token or settings.signing_secret))
