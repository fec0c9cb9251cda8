"""What comes from Slack: it is stored before Slack hears that it arrived, and what cannot be stored comes again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from slack_bolt.adapter.socket_mode.async_internals import run_async_bolt_app, send_async_response
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.response import BoltResponse
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest

from bots.commands import NAMES
from bots.errors import DeliveryError, Gone, Refused
from bots.platform import Intake
from bots.slack import blocks, events
from bots.slack.people import People
from bots.slack.saying import Saying
from bots.slack.socket import Handle
from bots.slack.workspaces import quiet
from core.errors import KvasirError
from core.texts import speaking, tell, text_language
from core.types import JSON, Command, Deleted, Mention, Place, Press, Thumb

if TYPE_CHECKING:
    from bots.slack.platform import Slack

logger = logging.getLogger(__name__)

_REST_SECONDS: Final = 1.0
_DIRECT: Final = "D"
"""Ids of direct messages begin with it."""

Personal = TypeVar("Personal", bound=Mention | Thumb | Press | Command)


class Incoming:
    """`group` owns what is done after an acknowledgement."""

    def __init__(self, slack: Slack, intake: Intake, group: asyncio.TaskGroup) -> None:
        self._slack = slack
        self._intake = intake
        self._group = group
        self._people = People()
        self._saying = Saying(slack)
        self._handling: set[asyncio.Task[Any]] = set()

    def app(self) -> AsyncApp:
        """Bolt checks signatures, finds the workspace, and drops what we did ourselves; the rest is ours."""
        secret = self._slack.settings.signing_secret

        # Functions, since Bolt gives arguments by name and cannot do so to methods.
        async def authorize(team_id: str | None, enterprise_id: str | None) -> AuthorizeResult | None:
            return await self._authorize(team_id or "", enterprise_id)

        async def take(body: JSON) -> BoltResponse:
            return await self._take(body)

        app = AsyncApp(
            name="kvasir",
            logger=quiet,
            client=self._slack.workspaces.client(),
            signing_secret=secret.get_secret_value() if secret else "",
            authorize=authorize,  # type: ignore[arg-type]  # None is «not installed», the library says
            attaching_function_token_enabled=False,
            attaching_conversation_kwargs_enabled=False,
        )
        app.use(take)
        return app

    def handler(self, app: AsyncApp) -> Handle:
        """For Socket Mode: what is not status 200 is not acknowledged."""

        async def handle(client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
            begun = asyncio.get_running_loop().time()
            task = asyncio.current_task()
            if task is not None:
                self._handling.add(task)
                task.add_done_callback(self._handling.discard)
            await send_async_response(client, request, await run_async_bolt_app(app, request), begun)

        return handle

    async def rest(self) -> None:
        """Let what just came be stored; the library begins a task for it and keeps hold of none."""
        if self._handling:
            await asyncio.wait(self._handling, timeout=_REST_SECONDS)
        left = list(self._handling)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _authorize(self, team: str, enterprise_id: str | None) -> AuthorizeResult | None:
        try:
            about = (await self._slack.workspaces.get(team)).installation
        except Refused:
            return None
        return AuthorizeResult(
            enterprise_id=enterprise_id,
            team_id=about.team,
            bot_user_id=about.bot_user,
            bot_id=about.bot_id,
            bot_token=about.token,
        )

    async def _take(self, body: JSON) -> BoltResponse:
        """Called by a global middleware of Bolt: it runs before the acknowledgement, and nothing runs after it."""
        try:
            if body.get("type") == "event_callback":
                await self._event(body)
                return _done()
            if body.get("type") == "app_rate_limited":
                logger.warning("Slack holds events of workspace %s back: there are too many", body.get("team_id"))
                return _done()
            if "command" in body:
                return await self._command(body)
            await self._interaction(body)
            return _done()
        except events.Unreadable:
            logger.exception("something from Slack has a shape that we do not know, and is left")
            return _done()
        except Refused as error:
            logger.info("something from Slack cannot be dealt with: %s", error)
            return _done()
        except (KvasirError, DeliveryError) as error:
            logger.warning("something from Slack could not be taken in, and comes again: %s", error)
            return BoltResponse(status=503, body="")

    # ------------------------------------------------------------ events
    async def _event(self, body: JSON) -> None:
        inner, team = body.get("event") or {}, events.team_of(body)
        match inner.get("type"):
            case "tokens_revoked" if not (inner.get("tokens") or {}).get("bot"):
                logger.debug("tokens of people were revoked; we keep none")
            case "app_uninstalled" | "tokens_revoked":
                await self._slack.workspaces.forget(team)
                self._people.forget(team)
            case "app_home_opened":
                place = events.place_of(team, str(inner.get("channel", "")))
                self._later(self._opened(place, str(inner.get("user", "")), str(inner.get("tab", ""))))
            case _:
                workspace = await self._slack.workspaces.get(team)
                event = events.event_of(inner, team, workspace.bot_user)
                match event:
                    case Deleted():
                        await self._intake.take(event)
                    case Thumb(value=0):
                        await self._bring(await self._left_over(event, team), team)
                    case Mention() | Thumb():
                        await self._bring(event, team)
                    case Press():
                        self._later(self._bring(event, team))

    async def _left_over(self, thumb: Thumb, team: str) -> Thumb:
        """A reaction was removed: the person's other thumb, where it stands, counts now."""
        place = thumb.place or Place(events.NAME)
        args = {"channel": place.channel, "timestamp": thumb.post, "full": "true"}
        try:
            told = await self._slack.call_in(team, "reactions.get", args, reads=True)
        except (Gone, Refused) as error:
            logger.info("the other reactions cannot be read: %s", error)
            return thumb
        user = thumb.person.key.rpartition(":")[2]
        for reaction in (told.get("message") or {}).get("reactions") or ():
            value = events.thumb_value(str(reaction.get("name", "")))
            if value and user in (reaction.get("users") or ()):
                return replace(thumb, value=value)
        return thumb

    async def _bring(self, event: Mention | Thumb | Press, team: str) -> None:
        """Hand an event on; what there is to say goes to the person alone."""
        try:
            whole = await self._with_person(event, team)
        except DeliveryError:
            if not (isinstance(event, Mention) and event.trigger in ("heard", "thread")):
                raise
            whole = event  # nobody has asked us: it is no reason to have every message sent again
        sentence = await self._intake.take(whole)
        if sentence:
            self._later(self._saying.whisper(whole.place, whole.person, sentence))

    async def _with_person(self, event: Personal, team: str) -> Personal:
        """The event with what Slack knows of the person. Raises a DeliveryError where it does not say."""
        workspace = await self._slack.workspaces.get(team)
        home = event.extra.get("team", team) if isinstance(event, Mention) else team
        known = await self._people.known(workspace.web, event.person, home)
        person = replace(event.person, name=known.name, member=known.member)
        if isinstance(event, Press | Command):
            manages = known.admin or event.place.channel.startswith(_DIRECT)
            return replace(event, person=person, may_manage=manages)
        return replace(event, person=person)

    async def _opened(self, place: Place, user: str, tab: str) -> None:
        """The app's own page was opened: show what Kvasir can do here, or suggest what to ask."""
        person = events.person_of(place.workspace, user)
        asked = await self._with_person(Command("kb", "", place, person, alone=True), place.workspace)
        kbs = await self._intake.take(asked)
        if tab == "messages":
            await self._saying.suggest(place, kbs)
        else:
            await self._saying.show_home(place, user, await self._intake.take(replace(asked, name="help")), kbs)

    # ------------------------------------------------------------ commands, shortcuts, buttons
    async def _command(self, body: JSON) -> BoltResponse:
        asked = events.command_of(body, NAMES)
        whole = await self._with_person(asked, asked.place.workspace)
        sentence = await self._intake.take(whole)
        if isinstance(whole, Mention) and not sentence:
            sentence = _searching(whole)
        return BoltResponse(status=200, body=blocks.private(sentence)) if sentence else _done()

    async def _interaction(self, body: JSON) -> None:
        team = events.team_of(body)
        url = str(body.get("response_url", ""))
        match body.get("type"):
            case "message_action":
                workspace = await self._slack.workspaces.get(team)
                event = events.shortcut_of(body, workspace.bot_user)
                if isinstance(event, Mention):
                    self._later(self._slack.respond(url, blocks.private(_searching(event))))
                    await self._bring(event, team)
                elif event is not None:
                    self._later(self._bring(event, team))
            case "view_submission" if (body.get("view") or {}).get("callback_id") == events.WHY:
                reason = events.reason_of(body)
                if reason.reason:
                    await self._bring(reason, team)
            case "block_actions":
                await self._pressed(body, team, url)

    async def _pressed(self, body: JSON, team: str, url: str) -> None:
        action = (body.get("actions") or [{}])[0]
        if action.get("action_id") == events.SHARE:
            place = events.place_of(team, str((body.get("channel") or {}).get("id", "")))
            user = str((body.get("user") or {}).get("id", ""))
            self._later(self._saying.share(str(action.get("value", "")), place, user, url))
            return
        match events.button_of(body):
            case Thumb() as thumb:
                await self._bring(thumb, team)
                if thumb.value < 0:
                    self._later(self._saying.ask_why(team, str(body.get("trigger_id", "")), thumb))
            case Press() as press:  # may take longer than Slack waits for us
                self._later(self._press(press, body, team, url))

    async def _press(self, press: Press, body: JSON, team: str, url: str) -> None:
        await self._bring(press, team)
        if press.control == "resolved":
            await self._saying.resolved(str((body.get("message") or {}).get("text", "")), url)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it after the acknowledgement; what fails there is logged, and nothing more."""

        async def do() -> None:
            try:
                await work
            except (DeliveryError, KvasirError) as error:
                logger.info("something could not be shown in Slack: %s", error)
            except Exception:
                logger.exception("something could not be shown in Slack")

        doing = do()
        try:
            task = self._group.create_task(doing)
        except RuntimeError:  # we are stopping
            doing.close()
            work.close()
        else:
            task.add_done_callback(lambda _: work.close())  # it may be cancelled before it begins


def _done() -> BoltResponse:
    return BoltResponse(status=200, body="")


def _searching(mention: Mention) -> str:
    with speaking(text_language(mention.text)):
        return tell("searching")
