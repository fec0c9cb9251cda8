"""What people do in this Slack: they write, edit, delete, react, click, and use commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fakes.slack import payloads
from tests.fakes.slack.delivery import Delivery, Receipt
from tests.fakes.slack.world import JSON, Channel, Clock, Message, Workspace


@dataclass
class People:
    """The people of one workspace; everything they do is seen in its channels, and delivered to the app."""

    workspace: Workspace
    delivery: Delivery
    clock: Clock
    response_url: Callable[[Workspace, Channel, str, Message | None], str]
    files_url: str = ""
    pair: bool = False
    """Send a mention also as a `message` event, with its own event id."""
    copies: int = 1
    """How often everything is delivered."""

    async def mention(
        self, text: str, *, user: str = "U1", channel: str = "C1", thread_ts: str = "", files: tuple[JSON, ...] = ()
    ) -> Message:
        """«@Kvasir text»."""
        said = f"<@{self.workspace.bot_user}> {text}"
        message = self._post(said, user, channel, thread_ts, files)
        await self._tell(message, mention=True)
        if self.pair:
            await self._tell(message)
        return message

    async def say(
        self, text: str, *, user: str = "U1", channel: str = "C1", thread_ts: str = "", files: tuple[JSON, ...] = ()
    ) -> Message:
        """A message without a mention."""
        message = self._post(text, user, channel, thread_ts, files)
        await self._tell(message)
        return message

    async def dm(self, text: str, *, user: str = "U1", thread_ts: str = "", files: tuple[JSON, ...] = ()) -> Message:
        """A direct message to the bot."""
        return await self.say(text, user=user, channel=self.workspace.im(user).id, thread_ts=thread_ts, files=files)

    async def tell(self, message: Message, *, mention: bool = True) -> Receipt:
        """Deliver a message once more, with another event id."""
        return await self._tell(message, mention=mention)

    async def edit(self, message: Message, text: str) -> Receipt:
        before, message.text = message.text, text
        message.history.append(before)
        return await self._event(payloads.changed(self._channel(message), message, before))

    async def delete(self, message: Message) -> Receipt:
        message.deleted = True
        return await self._event(payloads.gone(self._channel(message), message))

    async def react(self, message: Message, name: str, *, user: str = "U1") -> Receipt:
        message.reactions.setdefault(name, []).append(user)
        return await self._event(payloads.reaction(message, user, name, added=True))

    async def unreact(self, message: Message, name: str, *, user: str = "U1") -> Receipt:
        message.reactions[name].remove(user)
        return await self._event(payloads.reaction(message, user, name, added=False))

    async def open_home(self, *, user: str = "U1", tab: str = "home") -> Receipt:
        return await self._event(payloads.home_opened(self.workspace, user, tab))

    async def stop(self, question: Message, *, user: str = "U1") -> Receipt:
        """Press the stop button that Slack shows while an agent is at work; streams end at once."""
        channel = self._channel(question)
        root = question.thread_ts or question.ts
        assert channel.sessions.get(root) == "processing", "there is no stop button"
        streams = [m for m in channel.answers(root) if m.streaming == "in_progress"]
        for message in streams:
            message.streaming = "completed"
        inner = payloads.stopped(channel, root, user, [message.ts for message in streams])
        return await self._event(inner)

    async def uninstall(self) -> Receipt:
        return await self._event({"type": "app_uninstalled", "event_ts": "1.1"})

    # ------------------------------------------------------------ what must be answered within three seconds
    async def click(self, message: Message, label: str, *, user: str = "U1", **forged: str) -> Receipt:
        """Press the button whose label, action or value holds `label`; `forged` replaces parts of what is sent."""
        found = [e for e in message.elements() if label in f"{_label(e)}\n{e['action_id']}\n{e.get('value', '')}"]
        assert found, f"no button «{label}» among {[_label(e) for e in message.elements()]}"
        url = self.response_url(self.workspace, self._channel(message), user, message)
        payload = payloads.clicked(self.workspace, message, user, {**found[0], **forged}, url)
        return await self.delivery.delivered("interactive", payload, self.copies)

    async def submit(self, view: JSON, values: dict[str, str], *, user: str = "U1") -> Receipt:
        """Send a modal with a text for each of its inputs, by action id."""
        state: JSON = {}
        for block in view["blocks"]:
            if block["type"] == "input":
                element = block["element"]
                value = {"type": element["type"], "value": values.get(element["action_id"])}
                state[block.get("block_id", "b1")] = {element["action_id"]: value}
        return await self.delivery.delivered("interactive", payloads.submitted(self.workspace, view, user, state))

    async def command(
        self, text: str, *, name: str = "/kvasir", user: str = "U1", channel: str = "C1", copies: int = 1
    ) -> Receipt:
        where = self.workspace.channel(channel)
        url = self.response_url(self.workspace, where, user, None)
        payload = payloads.command(self.workspace, where, user, name, text, url)
        return await self.delivery.delivered("slash_commands", payload, copies)

    async def shortcut(self, message: Message, callback_id: str, *, user: str = "U1") -> Receipt:
        url = self.response_url(self.workspace, self._channel(message), user, None)
        payload = payloads.shortcut(self.workspace, message, user, callback_id, url)
        return await self.delivery.delivered("interactive", payload, self.copies)

    # ------------------------------------------------------------ inside
    def file(self, name: str, data: bytes, mimetype: str = "text/plain", **about: object) -> JSON:
        """A file as it stands in a message that shares it."""
        file_id = f"F{len(self.workspace.files) + 1}"
        described: JSON = {
            "id": file_id,
            "name": name,
            "title": name,
            "mimetype": mimetype,
            "size": len(data),
            "mode": "hosted",
            "file_access": "visible",
            "url_private": f"{self.files_url}/{file_id}/{name}",
            "url_private_download": f"{self.files_url}/{file_id}/download/{name}",
            **about,
        }
        self.workspace.files[file_id] = (described, data)
        return described

    def _post(self, text: str, user: str, channel: str, thread_ts: str, files: tuple[JSON, ...]) -> Message:
        where = self.workspace.channel(channel)
        message = Message(self.clock.ts(), where.id, user, text, thread_ts=thread_ts, files=list(files))
        where.messages.append(message)
        return message

    async def _tell(self, message: Message, *, mention: bool = False) -> Receipt:
        return await self._event(payloads.said(self.workspace, self._channel(message), message, mention=mention))

    async def _event(self, inner: JSON) -> Receipt:
        return await self.delivery.delivered("events_api", payloads.event(self.workspace, inner), self.copies)

    def _channel(self, message: Message) -> Channel:
        return self.workspace.channels[message.channel]


def _label(element: JSON) -> str:
    return str(element.get("text", {}).get("text", element.get("accessibility_label", "")))
