"""What Slack sends an app, as plain data; shapes as documented and as the client library reads them."""

from __future__ import annotations

import secrets
import time
import uuid

from tests.fakes.slack.world import JSON, Channel, Message, Workspace

APP = "A1"


def event(workspace: Workspace, inner: JSON) -> JSON:
    """The envelope of the Events API; every call makes another event id."""
    authorization = {
        "enterprise_id": None,
        "team_id": workspace.id,
        "user_id": workspace.bot_user,
        "is_bot": True,
        "is_enterprise_install": False,
    }
    return {
        "token": "verification",
        "team_id": workspace.id,
        "api_app_id": APP,
        "type": "event_callback",
        "event": inner,
        "event_id": f"Ev{uuid.uuid4().hex[:10].upper()}",
        "event_time": int(time.time()),
        "authorizations": [authorization],
        "is_ext_shared_channel": False,
    }


def said(workspace: Workspace, channel: Channel, message: Message, *, mention: bool = False) -> JSON:
    """A message, as `app_mention` or as `message`."""
    inner: JSON = {
        "type": "app_mention" if mention else "message",
        "user": message.user,
        "text": message.text,
        "ts": message.ts,
        "event_ts": message.ts,
        "channel": channel.id,
        "team": workspace.id,
        "client_msg_id": str(uuid.uuid4()),
    }
    if not mention:
        inner["channel_type"] = channel.kind
    if message.thread_ts:
        inner["thread_ts"] = message.thread_ts
    if message.files:
        inner["files"] = message.files
        if not mention:
            inner["subtype"] = "file_share"
    if message.bot_id:
        inner["bot_id"] = message.bot_id
    return inner


def changed(channel: Channel, message: Message, before: str) -> JSON:
    now = message.as_json() | {"text": message.text, "edited": {"user": message.user, "ts": message.ts}}
    return {
        "type": "message",
        "subtype": "message_changed",
        "channel": channel.id,
        "channel_type": channel.kind,
        "ts": f"{message.ts}1",
        "event_ts": f"{message.ts}1",
        "message": now,
        "previous_message": now | {"text": before},
    }


def gone(channel: Channel, message: Message) -> JSON:
    return {
        "type": "message",
        "subtype": "message_deleted",
        "channel": channel.id,
        "channel_type": channel.kind,
        "ts": f"{message.ts}2",
        "event_ts": f"{message.ts}2",
        "deleted_ts": message.ts,
        "previous_message": message.as_json(),
    }


def reaction(message: Message, person: str, name: str, *, added: bool) -> JSON:
    return {
        "type": "reaction_added" if added else "reaction_removed",
        "user": person,
        "reaction": name,
        "item": {"type": "message", "channel": message.channel, "ts": message.ts},
        "item_user": message.user,
        "event_ts": f"{time.time():.6f}",
    }


def stopped(channel: Channel, root: str, person: str, streams: list[str]) -> JSON:
    return {
        "type": "agent_session_stopped",
        "user": person,
        "channel": channel.id,
        "thread_ts": root,
        "streaming_message_ts": streams,
        "event_ts": f"{time.time():.6f}",
    }


def home_opened(workspace: Workspace, person: str, tab: str) -> JSON:
    return {
        "type": "app_home_opened",
        "user": person,
        "channel": workspace.im(person).id,
        "tab": tab,
        "event_ts": f"{time.time():.6f}",
    }


def _who(workspace: Workspace, person: str) -> JSON:
    name = workspace.people.get(person, person.lower())
    return {
        "user": {"id": person, "username": name, "name": name, "team_id": workspace.id},
        "team": {"id": workspace.id, "domain": workspace.name.lower()},
        "api_app_id": APP,
        "token": "verification",
        "enterprise": None,
        "is_enterprise_install": False,
    }


def trigger() -> str:
    return f"trigger-{secrets.token_hex(6)}"


def clicked(workspace: Workspace, message: Message, person: str, element: JSON, response_url: str) -> JSON:
    action = {key: element[key] for key in ("action_id", "value", "text") if key in element}
    container = {
        "type": "message",
        "message_ts": message.ts,
        "channel_id": message.channel,
        "is_ephemeral": bool(message.ephemeral_to),
    }
    payload: JSON = {
        "type": "block_actions",
        **_who(workspace, person),
        "container": container | ({"thread_ts": message.thread_ts} if message.thread_ts else {}),
        "trigger_id": trigger(),
        "channel": {"id": message.channel, "name": message.channel.lower()},
        "response_url": response_url,
        "actions": [{"type": element["type"], "block_id": "b1", "action_ts": f"{time.time():.6f}", **action}],
    }
    if not message.ephemeral_to:
        payload["message"] = message.as_json()
    return payload


def submitted(workspace: Workspace, view: JSON, person: str, values: JSON) -> JSON:
    return {
        "type": "view_submission",
        **_who(workspace, person),
        "trigger_id": trigger(),
        "view": {**view, "team_id": workspace.id, "state": {"values": values}, "hash": "1.1"},
        "response_urls": [],
    }


def shortcut(workspace: Workspace, message: Message, person: str, callback_id: str, response_url: str) -> JSON:
    return {
        "type": "message_action",
        **_who(workspace, person),
        "callback_id": callback_id,
        "trigger_id": trigger(),
        "response_url": response_url,
        "action_ts": f"{time.time():.6f}",
        "message_ts": message.ts,
        "channel": {"id": message.channel, "name": message.channel.lower()},
        "message": message.as_json(),
    }


def command(
    workspace: Workspace, channel: Channel, person: str, name: str, text: str, response_url: str
) -> dict[str, str]:
    return {
        "token": "verification",
        "team_id": workspace.id,
        "team_domain": workspace.name.lower(),
        "channel_id": channel.id,
        "channel_name": "directmessage" if channel.kind == "im" else channel.id.lower(),
        "user_id": person,
        "user_name": workspace.people.get(person, person.lower()),
        "command": name,
        "text": text,
        "api_app_id": APP,
        "is_enterprise_install": "false",
        "response_url": response_url,
        "trigger_id": trigger(),
    }
