"""What people do on the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.types import JSON
from tests.fakes.discord_server import payloads
from tests.fakes.discord_server.interactions import token
from tests.fakes.discord_server.rest import Rest
from tests.fakes.discord_server.telling import Teller
from tests.fakes.discord_server.world import Channel, Interaction, Kind, Message, User, walk


class People:
    """Every method is something a person does; it returns what came of it, and the bot hears of it."""

    def __init__(self, teller: Teller, rest: Rest) -> None:
        self._teller = teller
        self._rest = rest
        self.world = teller.world

    async def until(self, condition: Callable[[], object], within: float = 10.0) -> None:
        """Wait for something on the server to become true; raises TimeoutError."""
        await self._teller.until(condition, within)

    # -------------------------------------------------------------- messages
    def say(
        self,
        user: User,
        channel: Channel,
        text: str,
        *,
        reply_to: Message | None = None,
        ping: bool = True,
        files: Mapping[str, bytes] | None = None,
        age: float = 0,
    ) -> Message:
        """Write a message, `age` seconds ago; a reply pings whom it replies to unless told not to."""
        message = Message(self.world.new_id(age), channel, user, text, reference=reply_to)
        message.allowed_mentions = {"parse": ["users", "roles", "everyone"], "replied_user": ping}
        message.attachments = [
            self._rest.store(channel, name, "text/plain", data) for name, data in (files or {}).items()
        ]
        self._teller.said(message)
        return message

    def mention(self, user: User, channel: Channel, text: str, **more: Any) -> Message:
        """Write to the bot in a channel; takes what `say` takes."""
        return self.say(user, channel, f"<@{self.world.bot.id}> {text}", **more)

    def dm(self, user: User, text: str, **more: Any) -> Message:
        """Write to the bot in private; takes what `say` takes."""
        return self.say(user, self.world.dm_of(user), text, **more)

    def edit(self, message: Message, text: str) -> None:
        message.content = text
        self._teller.changed(message)

    def delete(self, message: Message) -> None:
        self._teller.deleted(message)

    def react(self, user: User, message: Message, emoji: str) -> None:
        self._teller.reacted(message, emoji, user)

    def unreact(self, user: User, message: Message, emoji: str) -> None:
        self._teller.unreacted(message, emoji, user)

    def open_thread(self, user: User, message: Message, name: str) -> Channel:
        """A thread that hangs on a message."""
        return self._teller.open_thread(message.channel, name, user, message)

    def post(self, user: User, forum: Channel, title: str, text: str) -> Channel:
        """A post in a forum; its text is the first message of the thread, and has the thread's id."""
        thread = self._teller.open_thread(forum, title, user)
        first = Message(thread.id, thread, user, text)
        self._teller.said(first)
        return thread

    # -------------------------------------------------------------- interactions
    def click(self, user: User, message: Message, button: str, *, forged: bool = False) -> Interaction:
        """Press the button with this label, emoji or custom id; `forged`: one that is not there."""
        assert message.seen_only_by in {None, user}, f"{user.name} does not see this message"
        custom_id = message.buttons.get(button, button)
        assert forged or custom_id in message.buttons.values(), f"{button} is none of {list(message.buttons)}"
        data = {"custom_id": custom_id, "component_type": 2, "id": 1}
        return self._interact(3, user, message.channel, data, message)

    def slash(self, user: User, channel: Channel, command: str, **options: Any) -> Interaction:
        """Use a slash command, e.g. «kvasir ask»; the bot must have registered it with these options."""
        return self._interact(2, user, channel, self._slash_data(command, options))

    def autocomplete(self, user: User, channel: Channel, command: str, option: str, typed: str) -> Interaction:
        """Type into an option that offers choices; they are in the interaction's `choices`."""
        data = self._slash_data(command, {option: typed})
        for one in walk_options(data.get("options", [])):
            one.update({"focused": True} if one["name"] == option else {})
        return self._interact(4, user, channel, data)

    def context(self, user: User, message: Message, command: str) -> Interaction:
        """Use a command of a message's menu."""
        known = self._command(command, 3)
        shown = payloads.message(message, self.world, content=True)
        resolved = {"messages": {str(message.id): shown}}
        data = {"id": known["id"], "name": command, "type": 3, "target_id": str(message.id), "resolved": resolved}
        return self._interact(2, user, message.channel, data)

    def submit(self, interaction: Interaction, **values: str) -> Interaction:
        """Fill in the modal that an interaction opened; fields by custom id."""
        modal = interaction.modal
        assert modal is not None, "no modal was opened"
        fields = {part["custom_id"]: part for part in walk(modal["components"]) if part.get("type") == 4}
        assert set(values) <= set(fields), f"the modal has {list(fields)}"
        data = {"custom_id": modal["custom_id"], "components": [_filled(one, values) for one in modal["components"]]}
        return self._interact(5, interaction.user, interaction.channel, data, interaction.message)

    def _interact(
        self, kind: int, user: User, channel: Channel, data: JSON, message: Message | None = None
    ) -> Interaction:
        interaction = Interaction(self.world.new_id(), token(), kind, user, channel, data, message)
        self._teller.happened(interaction)
        return interaction

    def _command(self, name: str, kind: int) -> JSON:
        found = [one for one in self.world.commands if one["name"] == name and one.get("type", 1) == kind]
        assert found, f"there is no command {name}"
        return found[0]

    def _slash_data(self, command: str, values: Mapping[str, Any]) -> JSON:
        name, *path = command.split()
        known = self._command(name, 1)
        spec, inner = known, []
        for step in path:
            found = [one for one in spec.get("options", []) if one["name"] == step]
            assert found, f"{command} is no command"
            spec = found[0]
            inner.append(spec)
        types = {one["name"]: one["type"] for one in spec.get("options", [])}
        assert set(values) <= set(types), f"{command} has the options {list(types)}"
        options: list[JSON] = [{"name": key, "type": types[key], "value": value} for key, value in values.items()]
        for one in reversed(inner):
            options = [{"name": one["name"], "type": one["type"], "options": options}]
        return {"id": known["id"], "name": name, "type": 1, "options": options}

    @property
    def direct(self) -> list[Channel]:
        """The private channels."""
        return [one for one in self.world.channels.values() if one.kind == Kind.DM]


def walk_options(options: list[JSON]) -> list[JSON]:
    """Every option, those inside subcommands included."""
    return [one for option in options for one in (option, *walk_options(option.get("options", [])))]


def _filled(component: JSON, values: Mapping[str, str]) -> JSON:
    """A row or label of a modal, with what was typed into its field."""
    if component["type"] == 18:
        return {"type": 18, "id": 1, "component": _filled(component["component"], values)}
    if component["type"] == 1:
        return {"type": 1, "id": 1, "components": [_filled(one, values) for one in component["components"]]}
    typed = values.get(component.get("custom_id", ""), component.get("value", ""))
    return {"type": component["type"], "id": 2, "custom_id": component.get("custom_id", ""), "value": typed}
