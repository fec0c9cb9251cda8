"""What we say in Slack besides answers: sentences for one person, the home tab, windows, shared answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from bots.errors import Refused
from bots.slack import blocks, events
from core.texts import speaking, tell, text_language
from core.types import JSON, Person, Place, Thumb

if TYPE_CHECKING:
    from bots.slack.platform import Slack

_MOST_SHARED: Final = 4
"""Messages that one `response_url` takes, besides the call that removes the original."""
_LISTED: Final = "- "


class Saying:
    """Each method raises a DeliveryError where Slack will not show it."""

    def __init__(self, slack: Slack) -> None:
        self._slack = slack

    async def whisper(self, place: Place | None, person: Person, sentence: str) -> None:
        """A sentence that the person alone sees."""
        if place is None or not place.channel:
            return
        args = {"channel": place.channel, "user": _user(person), **blocks.sentence(sentence)}
        if place.thread and not place.thread.startswith("@"):
            args["thread_ts"] = place.thread
        await self._slack.call_in(place.workspace, "chat.postEphemeral", args)

    async def ask_why(self, team: str, trigger: str, thumb: Thumb) -> None:
        place = thumb.place or Place(events.NAME)
        view = blocks.why_window(f"{thumb.answer_id} {place.channel} {thumb.post}")
        await self._slack.call_in(team, "views.open", {"trigger_id": trigger, "view": view})

    async def resolved(self, text: str, url: str) -> None:
        """Take the button away from a message that called for help."""
        await self._slack.respond(url, {"replace_original": True, **blocks.solved(text)})

    async def share(self, answer_id: str, place: Place, user: str, url: str) -> None:
        """Show the channel an answer that one person has; the private message goes."""
        finished = await self._slack.kvasir.answers.recorded(answer_id)
        if finished is None:
            return
        with speaking(text_language(finished.text)):
            said = blocks.shared(finished, user)
            if not await self._posted(place, said, url):
                await self._slack.respond(url, {**blocks.private(tell("slack_not_shared")), "replace_original": False})
                return
        await self._slack.respond(url, {"delete_original": True})

    async def _posted(self, place: Place, said: Sequence[JSON], url: str) -> bool:
        """Whether all parts stand in the channel; where we are not a member, only few can be sent."""
        try:
            for part in said:
                await self._slack.call_in(place.workspace, "chat.postMessage", {"channel": place.channel, **part})
        except Refused:
            if len(said) > _MOST_SHARED:
                return False
            for part in said:
                await self._slack.respond(url, {**part, "response_type": "in_channel", "replace_original": False})
        return True

    async def show_home(self, place: Place, user: str, guide: str, kbs: str) -> None:
        args = {"user_id": user, "view": blocks.home(guide, kbs)}
        await self._slack.call_in(place.workspace, "views.publish", args)

    async def suggest(self, place: Place, kbs: str) -> None:
        """Questions to begin a conversation with, about the knowledge bases in this list."""
        lines = [line for line in kbs.splitlines() if line.startswith(_LISTED)]
        names = [line.removeprefix(_LISTED).removesuffix(" ✓") for line in lines]
        if names:
            args = {"channel_id": place.channel, "title": tell("slack_home_kbs"), "prompts": blocks.prompts(names)}
            await self._slack.call_in(place.workspace, "assistant.threads.setSuggestedPrompts", args)


def _user(person: Person) -> str:
    return person.key.rpartition(":")[2]
