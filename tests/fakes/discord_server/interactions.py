"""Interactions: what the bot answers to buttons, commands and modals, and how soon."""

from __future__ import annotations

import time
from uuid import uuid4

from aiohttp import web

from core.types import JSON
from tests.fakes.discord_server import limits
from tests.fakes.discord_server.limits import Refused, check, unknown
from tests.fakes.discord_server.rest import Rest, answer, read_body
from tests.fakes.discord_server.telling import Teller
from tests.fakes.discord_server.world import Flag, Interaction, Message


def token() -> str:
    """One that nobody can guess."""
    return uuid4().hex


class Interactions:
    """The routes whose key is an interaction's token instead of the bot's."""

    def __init__(self, teller: Teller, rest: Rest) -> None:
        self._teller = teller
        self._world = teller.world
        self._rest = rest
        self.deadline = 3.0
        """Seconds in which an interaction must be answered first."""
        self.life = 900.0
        """Seconds in which more can be said to it."""

    def routes(self) -> list[web.RouteDef]:
        route, hook = self._rest.route, "/api/v10/webhooks/{application}/{token}"
        callback = "/api/v10/interactions/{interaction}/{token}/callback"
        return [
            route("POST", callback, self._callback, open=True),
            route("POST", hook, self._follow_up, open=True),
            route("GET", f"{hook}/messages/{{message}}", self._response, open=True),
            route("PATCH", f"{hook}/messages/{{message}}", self._edit_response, open=True),
            route("DELETE", f"{hook}/messages/{{message}}", self._delete_response, open=True),
        ]

    async def _callback(self, request: web.Request) -> web.StreamResponse:
        interaction = self._world.interactions.get(request.match_info["token"])
        if interaction is None or str(interaction.id) != request.match_info["interaction"]:
            raise unknown("interaction", 10062)
        if interaction.answered is not None:
            raise Refused(400, 40060, "Interaction has already been acknowledged.")
        if time.monotonic() - interaction.at > self.deadline:
            raise unknown("interaction", 10062)
        body, files = await read_body(request)
        kind, data = body["type"], body.get("data") or {}
        message = self._first_answer(interaction, kind, data, files)
        interaction.answered = kind
        self._teller.touch()
        if "with_response" not in request.query:
            return answer()
        document: JSON = {"interaction": {"id": str(interaction.id), "type": interaction.kind}}
        if message is not None:
            document["interaction"] |= {"response_message_id": str(message.id)}
            document["resource"] = {"type": kind, "message": self._rest.shown(message)}
        return answer(document)

    def _first_answer(
        self, interaction: Interaction, kind: int, data: JSON, files: list[tuple[str, str, bytes]]
    ) -> Message | None:
        if kind in {4, 5}:
            loading = kind == 5
            interaction.original = self._respond(interaction, data, files, loading=loading)
        elif kind in {6, 7}:
            if interaction.message is None:
                raise limits.invalid("type", "There is no message to update.")
            interaction.original = interaction.message
            if kind == 7:
                limits.check_message({"content": interaction.message.content, **data})
                self._rest.write(interaction.message, data, files)
                self._teller.changed(interaction.message)
        elif kind == 8:
            interaction.choices = data["choices"]
            check(len(data["choices"]) <= 25, "choices", "Must be 25 or fewer in length.")
            return None
        elif kind == 9:
            if interaction.kind == 5:
                raise limits.invalid("type", "A modal cannot follow a modal.")
            limits.check_modal(data)
            interaction.modal = data
            return None
        else:
            raise limits.invalid("type", "Value must be one of (4, 5, 6, 7, 8, 9).")
        return interaction.original

    def _respond(
        self, interaction: Interaction, data: JSON, files: list[tuple[str, str, bytes]], *, loading: bool = False
    ) -> Message:
        limits.check_message(data, has_more=loading or bool(files))
        message = Message(self._world.new_id(), interaction.channel, self._world.bot)
        self._rest.write(message, data, files)
        if message.flags & Flag.EPHEMERAL:
            message.seen_only_by = interaction.user
        if loading:
            message.flags |= Flag.LOADING
        interaction.responses.append(message)
        self._teller.said(message)
        return message

    async def _follow_up(self, request: web.Request) -> web.StreamResponse:
        interaction = self._live(request)
        body, files = await read_body(request)
        original = interaction.original
        if original is not None and original.flags & Flag.LOADING:
            limits.check_message(body, has_more=bool(files))
            return answer(self._fill(original, body, files))
        return answer(self._rest.shown(self._respond(interaction, body, files)))

    async def _response(self, request: web.Request) -> web.StreamResponse:
        return answer(self._rest.shown(self._response_of(request)))

    async def _edit_response(self, request: web.Request) -> web.StreamResponse:
        message = self._response_of(request)
        if message.flags & Flag.LOADING:
            body, files = await read_body(request)
            limits.check_message(body, has_more=bool(files))
            return answer(self._fill(message, body, files))
        return answer(await self._rest.rewrite(request, message))

    def _fill(self, message: Message, body: JSON, files: list[tuple[str, str, bytes]]) -> JSON:
        """Put something into a message that only says «is thinking…»; who sees it was decided before."""
        kept = message.flags & Flag.EPHEMERAL
        self._rest.write(message, body, files)
        message.flags = (message.flags & ~(Flag.LOADING | Flag.EPHEMERAL)) | kept
        self._teller.changed(message)
        return self._rest.shown(message)

    async def _delete_response(self, request: web.Request) -> web.StreamResponse:
        self._teller.deleted(self._response_of(request))
        return answer()

    def _live(self, request: web.Request) -> Interaction:
        interaction = self._world.interactions.get(request.match_info["token"])
        if interaction is None or interaction.answered is None:
            raise Refused(404, 10015, "Unknown Webhook")
        if time.monotonic() - interaction.at > self.life:
            raise Refused(401, 50027, "Invalid Webhook Token")
        return interaction

    def _response_of(self, request: web.Request) -> Message:
        interaction = self._live(request)
        wanted = request.match_info["message"]
        responses = {str(one.id): one for one in interaction.responses}
        if interaction.original is not None:
            responses |= {"@original": interaction.original, str(interaction.original.id): interaction.original}
        message = responses.get(wanted)
        if message is None or message.deleted:
            raise unknown("Message", 10008)
        return message
