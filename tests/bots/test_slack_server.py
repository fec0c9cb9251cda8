"""Our Slack on loopback, seen by the real client library: what the tests of the adapter stand on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.context.say_stream.async_say_stream import AsyncSayStream
from slack_bolt.context.set_status.async_set_status import AsyncSetStatus
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from tests.fakes.slack import SlackServer
from tests.fakes.slack.faults import Refusal

pytestmark = pytest.mark.anyio
JSON = dict[str, Any]


@pytest.fixture
async def slack() -> AsyncIterator[SlackServer]:
    async with SlackServer() as server:
        yield server


def client(slack: SlackServer) -> AsyncWebClient:
    return AsyncWebClient(slack.workspace.token, base_url=slack.base_url, retry_handlers=[])


@asynccontextmanager
async def connected(app: AsyncApp, slack: SlackServer) -> AsyncIterator[AsyncSocketModeHandler]:
    handler = AsyncSocketModeHandler(app, slack.app_token, ping_interval=0.2)
    logging.getLogger("slack_bolt.AsyncApp").setLevel(logging.CRITICAL)
    await handler.connect_async()  # type: ignore[no-untyped-call]  # the library has no types here
    await slack.delivery.connected()
    try:
        yield handler
    finally:
        tasks = [handler.client.message_processor, handler.client.current_session_monitor]
        receiver = handler.client.message_receiver
        await handler.close_async()  # type: ignore[no-untyped-call]
        await asyncio.gather(*(task for task in (*tasks, receiver) if task is not None), return_exceptions=True)


async def refused(call: Awaitable[Any]) -> str:
    with pytest.raises(SlackApiError) as caught:
        await call
    return str(caught.value.response.get("error"))


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_mention_streams_its_answer_over_socket_mode(slack: SlackServer) -> None:
    app = AsyncApp(client=client(slack))

    @app.event("app_mention")
    async def mentioned(event: JSON, set_status: AsyncSetStatus, say_stream: AsyncSayStream) -> None:
        await set_status("is thinking…")
        stream = await say_stream(buffer_size=8)
        await stream.append(chunks=[{"type": "task_update", "id": "1", "title": "Search", "status": "in_progress"}])
        for word in ("You ", "asked: ", event["text"]):
            await stream.append(markdown_text=word)
        await stream.stop()

    async with connected(app, slack):
        asked = await slack.people.mention("hello")
        await until(lambda: [m for m in slack.channel.answers(asked.ts) if m.streaming == "completed"])
    (answer,) = slack.channel.answers(asked.ts)
    assert answer.body == "You asked: <@UBOT> hello"
    assert answer.tasks["1"]["title"] == "Search"
    assert slack.channel.status[asked.ts] == ["is thinking…", ""]
    (receipt,) = slack.delivery.receipts
    assert receipt.sent == len(receipt.acks) == 1


async def test_everything_people_do_arrives(slack: SlackServer) -> None:
    app, seen = AsyncApp(client=client(slack)), []

    @app.event({"type": "message"})
    async def said(event: JSON) -> None:
        seen.append(f"message {event.get('subtype', '')}")

    for kind in ("app_mention", "reaction_added", "reaction_removed", "app_home_opened"):

        @app.event(kind)
        async def happened(event: JSON) -> None:
            seen.append(event["type"])

    @app.action("vote")
    async def voted(ack: Any, action: JSON, respond: Any) -> None:
        await ack()
        await respond(text="Thanks!", response_type="ephemeral")
        seen.append(f"vote {action['value']}")

    @app.command("/kvasir")
    async def commanded(ack: Any, command: JSON) -> None:
        await ack(f"You said {command['text']}")
        seen.append("command")

    @app.shortcut("ask")
    async def shortcut(ack: Any, shortcut: JSON) -> None:
        await ack()
        await client(slack).views_open(trigger_id=shortcut["trigger_id"], view=MODAL)
        seen.append("shortcut")

    @app.view("why")
    async def submitted(ack: Any, view: JSON) -> None:
        await ack()
        seen.append(f"view {view['state']['values']['b1']['reason']['value']}")

    async with connected(app, slack):
        people = slack.people
        people.pair = True
        asked = await people.mention("hello")
        await people.dm("hi", files=(people.file("a.txt", b"abc"),))
        await people.edit(asked, "changed")
        await people.react(asked, "+1")
        await people.unreact(asked, "+1")
        await people.open_home()
        await client(slack).chat_postMessage(channel="C1", text="Good?", blocks=[VOTE])
        posted = slack.channel.messages[-1]
        await people.click(posted, "Yes")
        await until(lambda: slack.channel.messages[-1].ephemeral_to == "U1")
        answered = await people.command("ask me")
        await people.shortcut(asked, "ask")
        await until(lambda: slack.workspace.modals)
        await people.submit(slack.workspace.modals[0], {"reason": "too long"})
        await people.delete(asked)
        await until(lambda: len(seen) == 12)
    assert answered.answers == [{"text": "You said ask me"}]
    events = ["app_mention", "message ", "reaction_added", "reaction_removed", "app_home_opened"]
    messages = ["message file_share", "message message_changed", "message message_deleted"]
    assert sorted(seen) == sorted([*events, *messages, "vote up:1", "command", "shortcut", "view too long"])


VOTE = {
    "type": "context_actions",
    "elements": [
        {
            "type": "feedback_buttons",
            "action_id": "vote",
            "positive_button": {"text": {"type": "plain_text", "text": "Yes"}, "value": "up:1"},
            "negative_button": {"text": {"type": "plain_text", "text": "No"}, "value": "down:1"},
        }
    ],
}
MODAL = {
    "type": "modal",
    "callback_id": "why",
    "title": {"type": "plain_text", "text": "Why?"},
    "submit": {"type": "plain_text", "text": "Send"},
    "blocks": [
        {
            "type": "input",
            "block_id": "b1",
            "label": {"type": "plain_text", "text": "Reason"},
            "element": {"type": "plain_text_input", "action_id": "reason"},
        }
    ],
}


async def test_what_is_not_acknowledged_comes_again_over_another_connection(slack: SlackServer) -> None:
    app, seen = AsyncApp(client=client(slack)), []

    @app.event("app_mention")
    async def mentioned(event: JSON) -> None:
        seen.append(event["text"])

    slack.delivery.ack_seconds, slack.delivery.retry_pauses = 0.1, (0, 0, 0, 0, 0)
    async with connected(app, slack), connected(app, slack):
        await slack.delivery.connected(2)
        slack.delivery.live[0].silent = True
        await slack.people.mention("one")
        assert len(seen) == 1
        slack.people.copies = 4
        await slack.people.mention("two")
        await until(lambda: seen.count("<@UBOT> two") >= 4)
        slack.people.copies = 1
        async with slack.delivery.holding() as held:
            await slack.people.mention("three")
            await slack.people.mention("four")
            held.reverse()
        await until(lambda: len(seen) >= 7)
    assert seen[-2:] == ["<@UBOT> four", "<@UBOT> three"]


async def test_a_connection_is_refreshed_or_cut_and_comes_back(slack: SlackServer) -> None:
    app = AsyncApp(client=client(slack))

    @app.event("app_mention")
    async def mentioned() -> None:
        pass

    async with connected(app, slack):
        await slack.delivery.live[0].refresh()
        await until(lambda: len(slack.delivery.sockets) == 2 and len(slack.delivery.live) == 1)
        await slack.delivery.live[0].cut()
        await until(lambda: len(slack.delivery.sockets) >= 3 and slack.delivery.live)
        await slack.people.mention("still there?")
        assert slack.delivery.receipts[-1].acks


async def test_signed_http_deliveries(slack: SlackServer) -> None:
    app, seen = AsyncApp(client=client(slack), signing_secret=slack.delivery.signing_secret), []

    @app.event("app_mention")
    async def mentioned(event: JSON) -> None:
        seen.append(event["text"])

    @app.command("/kvasir")
    async def commanded(ack: Any) -> None:
        await ack("Yes?")

    async with listening(app) as url:
        slack.delivery.request_url, slack.delivery.retry_pauses = url, (0, 0, 0)
        await slack.people.mention("one")
        assert (await slack.people.command("help")).answers == [{"text": "Yes?"}]
        slack.delivery.forged = True
        await slack.people.mention("two")
        slack.delivery.forged, slack.delivery.age = False, 310
        await slack.people.mention("three")
    assert seen == ["<@UBOT> one"]
    assert [r.statuses for r in slack.delivery.receipts] == [[200], [200], [401] * 4, [401] * 4]


@asynccontextmanager
async def listening(app: AsyncApp) -> AsyncIterator[str]:
    runner = web.AppRunner(app.web_app("/slack/events"))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/slack/events"
    await runner.cleanup()


async def test_streams_keep_slacks_rules(slack: SlackServer) -> None:
    asked = await slack_said(slack)
    web_client = client(slack)
    here: JSON = {"channel": "C1", "thread_ts": asked}
    who: JSON = {"recipient_team_id": "T1", "recipient_user_id": "U1"}
    assert await refused(web_client.chat_startStream(**here)) == "missing_recipient_team_id"
    started = await web_client.chat_startStream(**here, **who, markdown_text="a")
    ts = str(started["ts"])
    assert await refused(web_client.chat_update(channel="C1", ts=ts, text="b")) == "streaming_state_conflict"
    assert await refused(web_client.chat_delete(channel="C1", ts=ts)) == "cant_delete_message"
    assert await refused(web_client.chat_appendStream(channel="C1", ts=ts, markdown_text="x" * 12_000)) == (
        "msg_too_long"
    )
    slack.faults.stream_appends = 1
    await web_client.chat_appendStream(channel="C1", ts=ts, markdown_text="b")
    for call in (web_client.chat_appendStream, web_client.chat_stopStream):
        assert await refused(call(channel="C1", ts=ts, markdown_text="c")) == "message_not_in_streaming_state"
    await web_client.chat_update(channel="C1", ts=ts, markdown_text="abc")
    (answer,) = slack.channel.answers(asked)
    assert (answer.body, answer.history) == ("abc", ["a", "ab"])


async def slack_said(slack: SlackServer) -> str:
    """Somebody's message, without an event."""
    async with slack.delivery.holding() as held:
        message = await slack.people.say("hello")
        held.clear()
    return message.ts


async def test_people_can_stop_an_agent(slack: SlackServer) -> None:
    asked = await slack_said(slack)
    web_client, here = client(slack), {"channel_id": "C1", "thread_ts": asked}
    assert await refused(web_client.agents_sessions_setStatus(**here, status="thinking")) == "invalid_arguments"
    await web_client.agents_sessions_setStatus(**here, status="processing")
    started = await web_client.chat_startStream(
        channel="C1", thread_ts=asked, recipient_team_id="T1", recipient_user_id="U1", markdown_text="a"
    )
    async with slack.delivery.holding() as held:
        await slack.people.stop(slack.channel.messages[0])
        (stopped, _copies) = held.pop()
    inner: JSON = dict(stopped.payload)["event"]  # type: ignore[assignment]
    assert (inner["type"], inner["streaming_message_ts"]) == ("agent_session_stopped", [started["ts"]])
    assert await refused(web_client.chat_stopStream(channel="C1", ts=str(started["ts"]))) == (
        "message_not_in_streaming_state"
    )


async def test_limits(slack: SlackServer) -> None:
    web_client = client(slack)
    asked = await slack_said(slack)
    long = [{"type": "markdown", "text": "x" * 7000}] * 2
    refusals = {
        "channel_not_found": web_client.chat_postMessage(channel="C9", text="a"),
        "thread_not_found": web_client.chat_postMessage(channel="C1", thread_ts="1.2", text="a"),
        "msg_blocks_too_long": web_client.chat_postMessage(channel="C1", text="a", blocks=long),
        "invalid_blocks": web_client.chat_postMessage(channel="C1", text="a", blocks=[{"type": "divider"}] * 51),
        "msg_too_long": web_client.chat_postMessage(channel="C1", markdown_text="x" * 12_001),
        "cant_update_message": web_client.chat_update(channel="C1", ts=asked, text="mine now"),
        "message_not_found": web_client.chat_update(channel="C1", ts="1.2", text="a"),
        "user_not_in_channel": web_client.chat_postEphemeral(channel="C1", user="U9", text="a"),
        "unknown_method": web_client.api_call("chat.sing"),
    }
    assert {error: await refused(call) for error, call in refusals.items()} == {error: error for error in refusals}
    slack.channel.members.discard("UBOT")
    assert await refused(web_client.chat_postMessage(channel="C1", text="a")) == "not_in_channel"


async def test_faults(slack: SlackServer) -> None:
    web_client, faults = client(slack), slack.faults
    for header in ("1", None, "600"):
        faults.rate_limit("auth.test", header)
        with pytest.raises(SlackApiError) as caught:
            await web_client.auth_test()
        assert (caught.value.response.status_code, caught.value.response.headers.get("Retry-After")) == (429, header)
    faults.refuse("auth.test", Refusal(503, body="<html>Bad gateway</html>"))
    with pytest.raises(SlackApiError):
        await web_client.auth_test()
    faults.off["chat.startStream"] = "feature_not_enabled"
    start = web_client.chat_startStream(channel="C1", thread_ts="1.1", recipient_team_id="T1", recipient_user_id="U1")
    assert await refused(start) == "feature_not_enabled"
    faults.lose_answers("chat.postMessage")
    with pytest.raises(aiohttp.ClientError):
        await web_client.chat_postMessage(channel="C1", text="said all the same")
    assert [message.body for message in slack.channel.messages] == ["said all the same"]
    slack.workspace.scopes.discard("users:read")
    assert await refused(web_client.users_info(user="U1")) == "missing_scope"
    slack.workspace.revoked = "token_revoked"
    assert await refused(web_client.auth_test()) == "token_revoked"


async def test_files_and_what_they_need(slack: SlackServer) -> None:
    file = slack.people.file("note.md", b"# Note", "text/markdown")
    async with aiohttp.ClientSession() as session:
        async with session.get(file["url_private_download"]) as page:
            assert page.content_type == "text/html"
        bearer = {"Authorization": f"Bearer {slack.workspace.token}"}
        async with session.get(file["url_private_download"], headers=bearer) as page:
            assert await page.read() == b"# Note"


@pytest.mark.filterwarnings("ignore:BasicAuth is deprecated")  # slack_sdk still uses aiohttp's
async def test_a_workspace_is_installed(slack: SlackServer) -> None:
    back: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def came_back(request: web.Request) -> web.Response:
        back.set_result(request.query["code"])
        return web.Response(text=request.query["state"])

    app = web.Application()
    app.router.add_get("/back", came_back)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    redirect = f"http://127.0.0.1:{runner.addresses[0][1]}/back"
    query = {"client_id": slack.client_id, "state": "s1", "redirect_uri": redirect}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{slack.url}/oauth/v2/authorize", params=query) as page,
    ):
        assert await page.text() == "s1"
    web_client = AsyncWebClient(base_url=slack.base_url)
    code = await back
    access = await web_client.oauth_v2_access(client_id=slack.client_id, client_secret=slack.client_secret, code=code)
    tested = await AsyncWebClient(str(access["access_token"]), base_url=slack.base_url).auth_test()
    assert (tested["team_id"], tested["user_id"]) == ("T2", "UBOTT2")
    assert await refused(
        web_client.oauth_v2_access(client_id=slack.client_id, client_secret=slack.client_secret, code=code)
    ) == ("invalid_code")
    await runner.cleanup()
