"""Commands about Kvasir in a channel: what answers there, and how. Questions are no commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from bots.inbox import Inbox
from core.access import Action
from core.errors import NotAllowed, UserError
from core.texts import tell
from core.types import Command, Place

if TYPE_CHECKING:
    from core.app import Kvasir
    from core.chats.channels import ChannelSettings

NAMES: Final = ("help", "status", "kb", "model", "prompt", "mode", "language", "feedback", "followups", "managers",
                "helpers", "askers", "digest", "reset")  # fmt: skip
"""What may follow `/kvasir`, besides `ask`; the first three are commands of their own on Telegram and Discord."""
_DEFAULT: Final = "default"
_ON: Final = {"on": True, "off": False, "yes": True, "no": False, "开": True, "关": False}
_LONGEST_PROMPT: Final = 8000


class Commands:
    """Runs them; each gives the sentences to show to whoever asked. Raises UserError or NotAllowed with a sentence."""

    def __init__(self, kvasir: Kvasir, inbox: Inbox) -> None:
        self._kvasir = kvasir
        self._inbox = inbox

    async def run(self, command: Command) -> str:
        place = replace(command.place, thread="")
        match command.name.lower():
            case "" | "help" | "start":
                return tell("chat_help")
            case "status":
                return await self._status(command, place)
            case "kb" if not command.arguments.strip():
                return await self._kbs(command, place)
            case "reset":
                await self._check_may(command, place)
                await self._kvasir.channels.clear(place)
                await self._note(command, place, "channel.reset", {})
                return tell("chat_reset")
            case name if name in NAMES:
                await self._check_may(command, place)
                changes = _changes(name, command.arguments.strip())
                await self._kvasir.channels.change(
                    place, command.person.key, name=command.channel_name or None, **changes
                )
                await self._note(command, place, "channel.change", changes)
                return f"{tell('chat_changed')}\n\n{await self._status(command, place)}"
            case name:
                raise UserError(tell("chat_command_unknown", name=name[:40]))

    async def _note(self, command: Command, place: Place, action: str, changes: Mapping[str, Any]) -> None:
        at = f"{place.platform}:{place.workspace}:{place.channel}"
        await self._kvasir.audit.note(command.person, action, kind="channel", object=at, changes=changes)

    async def _check_may(self, command: Command, place: Place) -> None:
        channel = await self._kvasir.channels.get(place)
        if not (command.may_manage or command.person.key in channel.managers):
            raise NotAllowed(tell("chat_not_manager"))

    async def _status(self, command: Command, place: Place) -> str:
        channel = await self._kvasir.channels.get(place)
        usable = await self._usable(command, channel)
        default = self._kvasir.settings.channels.default_kb
        kbs = channel.kbs or ((default,) if default else tuple(usable))
        shown = [name for name in kbs if name in usable]
        lines = [
            tell("chat_status_kbs", kbs=", ".join(shown) or "–"),
            tell("chat_status_model", model=channel.engine or self._kvasir.models.default("engine")),
            tell("chat_status_mode", mode=tell(f"chat_mode_{channel.mode}")),
            tell("chat_status_follow_ups", value=_on_off(channel.follow_ups)),
            tell("chat_status_feedback", value=_on_off(channel.feedback)),
        ]
        if channel.askers:
            lines.append(tell("chat_status_askers", people=", ".join(channel.askers)))
        if channel.digest != "off":
            lines.append(tell("chat_status_digest", digest=channel.digest))
        if waiting := await self._inbox.waiting():
            lines.append(tell("chat_status_waiting", count=waiting))
        if not self._kvasir.embedder_state.ready and self._kvasir.embedder_state.reason:
            lines.append(tell("keyword_only", reason=self._kvasir.embedder_state.reason))
        return "\n".join(f"- {line}" for line in lines)

    async def _kbs(self, command: Command, place: Place) -> str:
        channel = await self._kvasir.channels.get(place)
        usable = await self._usable(command, channel)
        if not usable:
            return tell("no_kb_yet")
        return "\n".join(f"- {name}" + (" ✓" if name in channel.kbs else "") for name in usable)

    async def _usable(self, command: Command, channel: ChannelSettings) -> Sequence[str]:
        """Names the person may hear here: a private one only where nobody else reads, and who was let in."""
        found = []
        for kb in await self._kvasir.knowledge.names():
            may = self._kvasir.accounts.may(command.person, Action.ASK, private=kb.private)
            if not may and not kb.private:
                may = kb.name in channel.kbs
            elif not may and command.alone:
                may = await self._kvasir.grants.is_granted(kb.name, command.person.key, member=command.person.member)
            if may:
                found.append(kb.name)
        return found


def _changes(name: str, value: str) -> dict[str, Any]:
    """What a command changes, as `Channels.change` takes it; None sets it back."""
    if not value:
        raise UserError(tell("chat_needs_value", name=name))
    back = value.lower() in (_DEFAULT, "默认")
    words = tuple(word for word in value.replace(",", " ").split() if word)
    match name:
        case "kb":
            return {"kbs": None if back else tuple(part.strip() for part in value.split(",") if part.strip())}
        case "model":
            return {"engine": None if back else value}
        case "prompt":
            if len(value) > _LONGEST_PROMPT:
                raise UserError(tell("chat_prompt_long", most=_LONGEST_PROMPT))
            return {"instructions": None if back else value}
        case "mode" | "language" | "digest":
            return {name: None if back else value.lower()}
        case "managers" | "helpers" | "askers":
            return {name: None if back else words}
    if not back and value.lower() not in _ON:
        raise UserError(tell("chat_on_or_off", name=name))
    return {"follow_ups" if name == "followups" else name: None if back else _ON[value.lower()]}


def _on_off(value: bool) -> str:
    return tell("chat_on") if value else tell("chat_off")
