"""The methods of the Web API, each a plain function on the workspace of the token."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.fakes.slack.faults import Faults
from tests.fakes.slack.world import JSON, Channel, Clock, Message, SlackError, Workspace, check_blocks


@dataclass
class Call:
    """One call as it came in; `args` are those of query, form and JSON together."""

    method: str
    args: JSON
    workspace: Workspace
    clock: Clock
    faults: Faults
    url: str
    at: float = 0

    def channel(self, key: str = "channel") -> Channel:
        return self.workspace.channel(str(self.args.get(key, "")))

    def own(self, ts_key: str = "ts") -> Message:
        """The message meant, which must be the bot's."""
        message = self.channel().find(str(self.args.get(ts_key, "")))
        if message.bot_id != self.workspace.bot_id or message.ephemeral_to:
            raise SlackError("cant_update_message" if self.method == "chat.update" else "cant_delete_message")
        return message


def _check(call: Call, blocks: list[JSON]) -> None:
    if any(block["type"] in call.workspace.unknown_blocks for block in blocks):
        raise SlackError("invalid_blocks")
    check_blocks(blocks)


def auth_test(call: Call) -> JSON:
    workspace = call.workspace
    return {
        "url": call.url,
        "team": workspace.name,
        "user": "kvasir",
        "team_id": workspace.id,
        "user_id": workspace.bot_user,
        "bot_id": workspace.bot_id,
        "is_enterprise_install": False,
    }


def team_info(call: Call) -> JSON:
    return {"team": {"id": call.workspace.id, "name": call.workspace.name, "domain": call.workspace.name.lower()}}


# ---------------------------------------------------------------- messages
def _posted(call: Call, channel: Channel) -> Message:
    workspace, args = call.workspace, call.args
    if workspace.bot_user not in channel.members:
        raise SlackError("not_in_channel")
    text, markdown = str(args.get("text") or ""), str(args.get("markdown_text") or "")
    blocks = list(args.get("blocks") or ())
    if markdown and (text or blocks):
        raise SlackError("markdown_text_conflict")
    if len(markdown) > 12_000:
        raise SlackError("msg_too_long")
    if not (text or markdown or blocks):
        raise SlackError("no_text")
    if text and not text.strip() and not blocks:
        raise SlackError("no_text")
    _check(call, blocks)
    thread_ts = str(args.get("thread_ts") or "")
    if thread_ts and not channel.thread(thread_ts):
        raise SlackError("thread_not_found")
    return Message(
        ts=call.clock.ts(),
        channel=channel.id,
        user=workspace.bot_user,
        bot_id=workspace.bot_id,
        text=text[:40_000],
        blocks=[{"type": "markdown", "text": markdown}] if markdown else blocks,
        thread_ts=thread_ts,
        metadata=dict(args.get("metadata") or {}),
        unfurl=(_true(args.get("unfurl_links", True)), _true(args.get("unfurl_media", True))),
    )


def _true(value: object) -> bool:
    return value not in (False, "0", "false", 0)


def chat_post_message(call: Call) -> JSON:
    name = str(call.args.get("channel", ""))
    channel = call.workspace.im(name) if name in call.workspace.people else call.channel()
    message = _posted(call, channel)
    channel.messages.append(message)
    if message.thread_ts:
        channel.status.setdefault(message.thread_ts, []).append("")
    return {"channel": channel.id, "ts": message.ts, "message": message.as_json()}


def chat_post_ephemeral(call: Call) -> JSON:
    channel, person = call.channel(), str(call.args.get("user", ""))
    if person not in channel.members:
        raise SlackError("user_not_in_channel")
    message = _posted(call, channel)
    message.ephemeral_to = person
    channel.messages.append(message)
    return {"message_ts": message.ts}


def chat_update(call: Call) -> JSON:
    message, args = call.own(), call.args
    if message.streaming == "in_progress":
        raise SlackError("streaming_state_conflict")
    if len(str(args.get("text") or "")) > 4000:
        raise SlackError("msg_too_long")
    text, markdown, blocks = str(args.get("text") or ""), str(args.get("markdown_text") or ""), args.get("blocks")
    if markdown and (text or blocks):
        raise SlackError("markdown_text_conflict")
    if len(markdown) > 12_000:
        raise SlackError("msg_too_long")
    if not (text or markdown or blocks):
        raise SlackError("no_text")
    _check(call, list(blocks or ()))
    message.history.append(message.body)
    message.text = text
    if markdown:
        message.blocks = [{"type": "markdown", "text": markdown}]
    elif blocks is not None:
        message.blocks = list(blocks)
    message.chunks = []
    message.metadata = dict(args.get("metadata") or message.metadata)
    return {"channel": message.channel, "ts": message.ts, "text": text, "message": message.as_json()}


def chat_delete(call: Call) -> JSON:
    message = call.own()
    if message.streaming == "in_progress":
        raise SlackError("cant_delete_message")
    message.deleted = True
    return {"channel": message.channel, "ts": message.ts}


def chat_get_permalink(call: Call) -> JSON:
    message = call.channel().find(str(call.args.get("message_ts", "")))
    link = f"https://acme.slack.com/archives/{message.channel}/p{message.ts.replace('.', '')}"
    return {"channel": message.channel, "permalink": link}


# ---------------------------------------------------------------- streams
def _chunks(call: Call, before: int) -> list[JSON]:
    chunks = list(call.args.get("chunks") or ())
    if text := call.args.get("markdown_text"):
        chunks.append({"type": "markdown_text", "text": str(text)})
    for chunk in chunks:
        if chunk.get("type") not in ("markdown_text", "task_update", "plan_update", "blocks"):
            raise SlackError("invalid_chunks")
        if chunk["type"] == "task_update":
            _check_task(chunk)
        check_blocks(chunk.get("blocks", ()))
    if before + sum(len(chunk["text"]) for chunk in chunks if chunk["type"] == "markdown_text") > 12_000:
        raise SlackError("msg_too_long")
    return chunks


def _check_task(chunk: JSON) -> None:
    if not chunk.get("id") or chunk.get("status") not in ("pending", "in_progress", "complete", "error"):
        raise SlackError("invalid_chunks")
    if any(len(str(chunk.get(key) or "")) > 256 for key in ("title", "details", "output")):
        raise SlackError("invalid_chunks")


def chat_start_stream(call: Call) -> JSON:
    workspace, channel, args = call.workspace, call.channel(), call.args
    if workspace.bot_user not in channel.members:
        raise SlackError("not_in_channel")
    root = str(args.get("thread_ts") or "")
    if not root:
        raise SlackError("invalid_arguments")
    if not channel.thread(root):
        raise SlackError("thread_not_found")
    if channel.kind != "im":
        for key in ("recipient_team_id", "recipient_user_id"):
            if not args.get(key):
                raise SlackError(f"missing_{key}")
    message = Message(
        ts=call.clock.ts(),
        channel=channel.id,
        user=workspace.bot_user,
        bot_id=workspace.bot_id,
        thread_ts=root,
        chunks=_chunks(call, 0),
        streaming="in_progress",
        stream_started=time.monotonic(),
        unfurl=(False, False),
    )
    channel.messages.append(message)
    channel.status.setdefault(root, []).append("")
    return {"channel": channel.id, "ts": message.ts}


def _streaming(call: Call) -> Message:
    message, faults = call.own(), call.faults
    old = time.monotonic() - message.stream_started > faults.stream_seconds
    if message.streaming == "in_progress" and (old or message.appends >= faults.stream_appends):
        message.streaming = "expired"
    if message.streaming != "in_progress":
        raise SlackError("message_not_in_streaming_state")
    return message


def chat_append_stream(call: Call) -> JSON:
    message = _streaming(call)
    chunks = _chunks(call, len(message.body))
    if not chunks:
        raise SlackError("invalid_arguments")
    message.history.append(message.body)
    message.chunks += chunks
    message.appends += 1
    return {"channel": message.channel, "ts": message.ts}


def chat_stop_stream(call: Call) -> JSON:
    message = _streaming(call)
    chunks, blocks = _chunks(call, len(message.body)), list(call.args.get("blocks") or ())
    _check(call, blocks)
    message.chunks += chunks
    message.blocks = blocks
    message.metadata = dict(call.args.get("metadata") or {})
    message.streaming = "completed"
    if status := call.args.get("session_status"):
        _set_session(call.channel(), message.thread_ts, str(status))
    return {"channel": message.channel, "ts": message.ts, "message": message.as_json()}


# ---------------------------------------------------------------- reactions and conversations
def reactions_add(call: Call) -> JSON:
    message = call.channel().find(str(call.args.get("timestamp", "")))
    users = message.reactions.setdefault(str(call.args["name"]), [])
    if call.workspace.bot_user in users:
        raise SlackError("already_reacted")
    users.append(call.workspace.bot_user)
    return {}


def reactions_remove(call: Call) -> JSON:
    message = call.channel().find(str(call.args.get("timestamp", "")))
    users = message.reactions.get(str(call.args["name"]), [])
    if call.workspace.bot_user not in users:
        raise SlackError("no_reaction")
    users.remove(call.workspace.bot_user)
    return {}


def reactions_get(call: Call) -> JSON:
    return {"type": "message", "message": call.channel().find(str(call.args.get("timestamp", ""))).as_json()}


def _page(call: Call, messages: list[Message]) -> JSON:
    args = call.args
    oldest, latest = str(args.get("oldest") or "0"), str(args.get("latest") or "9")
    inclusive = _true(args.get("inclusive", False))
    kept = [m for m in messages if oldest < m.ts < latest or (inclusive and m.ts in (oldest, latest))]
    start, limit = int(args.get("cursor") or 0), int(args.get("limit") or 100)
    page = [message.as_json() for message in kept[start : start + limit]]
    if not _true(args.get("include_all_metadata", False)):
        page = [{key: value for key, value in message.items() if key != "metadata"} for message in page]
    more = start + limit < len(kept)
    return {
        "messages": page,
        "has_more": more,
        "response_metadata": {"next_cursor": str(start + limit) if more else ""},
    }


def conversations_replies(call: Call) -> JSON:
    thread = call.channel().thread(str(call.args.get("ts", "")))
    if not thread:
        raise SlackError("thread_not_found")
    return _page(call, thread)


def conversations_history(call: Call) -> JSON:
    roots = [m for m in call.channel().visible() if m.thread_ts in ("", m.ts)]
    return _page(call, roots[::-1])


def conversations_info(call: Call) -> JSON:
    channel = call.channel()
    kind = {"channel": "is_channel", "group": "is_private", "im": "is_im"}[channel.kind]
    about: JSON = {"id": channel.id, "name": channel.id.lower(), "is_private": channel.kind != "channel", kind: True}
    if channel.kind == "im":
        about["user"] = next(iter(channel.members - {call.workspace.bot_user}), "")
    return {"channel": about | {"is_member": call.workspace.bot_user in channel.members}}


def conversations_members(call: Call) -> JSON:
    return {"members": sorted(call.channel().members), "response_metadata": {"next_cursor": ""}}


def conversations_open(call: Call) -> JSON:
    return {"channel": {"id": call.workspace.im(str(call.args.get("users", ""))).id}}


def users_info(call: Call) -> JSON:
    person = str(call.args.get("user", ""))
    if person not in call.workspace.people:
        raise SlackError("user_not_found")
    name = call.workspace.people[person]
    profile = {"display_name": name, "real_name": name.title()}
    about: JSON = {
        "id": person,
        "team_id": call.workspace.id,
        "name": name,
        "real_name": name.title(),
        "profile": profile,
    }
    guest = person in call.workspace.guests
    about |= {"is_admin": person in call.workspace.admins, "is_restricted": guest, "is_ultra_restricted": False}
    return {"user": about | {"is_bot": False, "deleted": False, "locale": "en-US"}}


# ---------------------------------------------------------------- views, threads of agents, files
def views_open(call: Call) -> JSON:
    if not str(call.args.get("trigger_id", "")).startswith("trigger-"):
        raise SlackError("invalid_trigger_id")
    view = {"id": f"V{len(call.workspace.modals) + 1}", **call.args["view"]}
    check_blocks([block for block in view.get("blocks", ()) if block["type"] != "input"])
    if len(view.get("title", {}).get("text", "")) > 24:
        raise SlackError("invalid_arguments")
    call.workspace.modals.append(view)
    return {"view": view}


def views_publish(call: Call) -> JSON:
    view = call.args["view"]
    if len(view.get("blocks", ())) > 100:
        raise SlackError("invalid_blocks")
    for block in view.get("blocks", ()):
        if block["type"] in ("markdown", "table", "context_actions"):  # for messages only
            raise SlackError("invalid_blocks")
        check_blocks([block])
    call.workspace.homes[str(call.args["user_id"])] = view
    return {"view": view}


def threads_set_status(call: Call) -> JSON:
    channel, root = call.channel("channel_id"), str(call.args.get("thread_ts", ""))
    if not channel.thread(root):
        raise SlackError("thread_not_found")
    channel.status.setdefault(root, []).append(str(call.args.get("status", "")))
    return {}


def sessions_set_status(call: Call) -> JSON:
    channel, root = call.channel("channel_id"), str(call.args.get("thread_ts", ""))
    if not channel.thread(root):
        raise SlackError("thread_not_found")
    _set_session(channel, root, str(call.args.get("status", "")))
    return {"status": channel.sessions[root]}


def _set_session(channel: Channel, root: str, status: str) -> None:
    if status not in ("active", "processing", "suspended", "closed"):
        raise SlackError("invalid_arguments")
    channel.sessions[root] = status


def threads_set_suggested_prompts(call: Call) -> JSON:
    channel, prompts = call.channel("channel_id"), list(call.args.get("prompts") or ())
    if not 1 <= len(prompts) <= 4:
        raise SlackError("invalid_arguments")
    channel.prompts = prompts
    return {}


def threads_set_title(call: Call) -> JSON:
    call.channel("channel_id")
    return {}


def files_info(call: Call) -> JSON:
    name = str(call.args.get("file", ""))
    if name not in call.workspace.files:
        raise SlackError("file_not_found")
    return {"file": call.workspace.files[name][0]}


METHODS: Final[dict[str, tuple[Callable[[Call], Any], str]]] = {
    "auth.test": (auth_test, ""),
    "team.info": (team_info, ""),
    "chat.postMessage": (chat_post_message, "chat:write"),
    "chat.postEphemeral": (chat_post_ephemeral, "chat:write"),
    "chat.update": (chat_update, "chat:write"),
    "chat.delete": (chat_delete, "chat:write"),
    "chat.getPermalink": (chat_get_permalink, ""),
    "chat.startStream": (chat_start_stream, "chat:write"),
    "chat.appendStream": (chat_append_stream, "chat:write"),
    "chat.stopStream": (chat_stop_stream, "chat:write"),
    "reactions.add": (reactions_add, "reactions:write"),
    "reactions.remove": (reactions_remove, "reactions:write"),
    "reactions.get": (reactions_get, "reactions:read"),
    "agents.sessions.setStatus": (sessions_set_status, "chat:write"),
    "conversations.replies": (conversations_replies, "channels:history"),
    "conversations.history": (conversations_history, "channels:history"),
    "conversations.info": (conversations_info, "channels:read"),
    "conversations.members": (conversations_members, "channels:read"),
    "conversations.open": (conversations_open, "im:write"),
    "users.info": (users_info, "users:read"),
    "views.open": (views_open, ""),
    "views.publish": (views_publish, ""),
    "assistant.threads.setStatus": (threads_set_status, "chat:write"),
    "assistant.threads.setSuggestedPrompts": (threads_set_suggested_prompts, "assistant:write"),
    "assistant.threads.setTitle": (threads_set_title, "assistant:write"),
    "files.info": (files_info, "files:read"),
}
"""Method -> (what it does, the scope it needs)."""
