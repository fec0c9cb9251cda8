"""The same as Discord writes it in JSON."""

from __future__ import annotations

from core.types import JSON
from tests.fakes.discord_server.world import (
    ALL_PERMISSIONS,
    Attachment,
    Channel,
    Flag,
    Guild,
    Interaction,
    Kind,
    Message,
    User,
    World,
    moment,
)

MESSAGE_CONTENT = 1 << 15
"""The privileged intent without which the text of other people's messages is empty."""


def user(one: User) -> JSON:
    return {
        "id": str(one.id),
        "username": one.name.lower(),
        "global_name": one.name,
        "discriminator": "0",
        "avatar": None,
        "bot": one.bot,
        "public_flags": 0,
    }


def member(one: User, *, with_user: bool = True) -> JSON:
    document: JSON = {
        "roles": [str(role) for role in one.roles],
        "joined_at": moment(one.id).isoformat(),
        "nick": None,
        "avatar": None,
        "deaf": False,
        "mute": False,
        "pending": False,
        "flags": 0,
        "permissions": str(one.permissions),
    }
    if with_user:
        document["user"] = user(one)
    return document


def channel(one: Channel, world: World) -> JSON:
    if one.kind == Kind.DM:
        recipients = [user(one.owner)] if one.owner else []
        return {"id": str(one.id), "type": 1, "last_message_id": None, "recipients": recipients, "flags": 0}
    if one.kind == Kind.THREAD:
        return thread(one, world)
    document: JSON = {
        "id": str(one.id),
        "type": int(one.kind),
        "guild_id": str(one.guild.id) if one.guild else None,
        "name": one.name,
        "position": 0,
        "topic": None,
        "nsfw": False,
        "parent_id": None,
        "last_message_id": str(max(one.messages)) if one.messages else None,
        "rate_limit_per_user": 0,
        "flags": 0,
        "permissions": str(int(ALL_PERMISSIONS) & ~one.denied),
        "permission_overwrites": [{"id": str(world.bot.id), "type": 1, "allow": "0", "deny": str(one.denied)}],
    }
    if one.kind == Kind.FORUM:
        document |= {"available_tags": [], "default_reaction_emoji": None, "default_forum_layout": 0}
    return document


def thread(one: Channel, world: World) -> JSON:
    made = moment(one.id).isoformat()
    document: JSON = {
        "id": str(one.id),
        "type": int(one.kind),
        "guild_id": str(one.guild.id) if one.guild else None,
        "parent_id": str(one.parent.id) if one.parent else None,
        "owner_id": str(one.owner.id) if one.owner else "0",
        "name": one.name,
        "last_message_id": str(max(one.messages)) if one.messages else None,
        "message_count": len(one.messages),
        "total_message_sent": len(one.messages),
        "member_count": 1,
        "rate_limit_per_user": 0,
        "flags": 0,
        "applied_tags": [],
        "permissions": str(int(ALL_PERMISSIONS)),
        "thread_metadata": {
            "archived": one.archived,
            "locked": one.locked,
            "auto_archive_duration": 4320,
            "archive_timestamp": made,
            "create_timestamp": made,
        },
    }
    if one.bot_joined:
        document["member"] = {
            "id": str(one.id),
            "user_id": str(world.bot.id),
            "join_timestamp": made,
            "flags": 0,
        }
    return document


def guild(one: Guild, world: World) -> JSON:
    everyone = {"id": str(one.id), "name": "@everyone", "managed": False}
    own = {"id": str(one.bot_role), "name": world.bot.name, "managed": True, "tags": {"bot_id": str(world.bot.id)}}
    role: JSON = {
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "position": 0,
        "mentionable": False,
        "permissions": str(int(ALL_PERMISSIONS)),
        "flags": 0,
    }
    return {
        "id": str(one.id),
        "name": one.name,
        "icon": None,
        "owner_id": str(world.ann.id) if hasattr(world, "ann") else None,
        "preferred_locale": "en-US",
        "features": [],
        "emojis": [],
        "stickers": [],
        "member_count": len(one.members),
        "large": False,
        "unavailable": False,
        "joined_at": moment(one.id).isoformat(),
        "roles": [role | everyone, role | own],
        "members": [member(world.bot)],
        "channels": [channel(each, world) for each in one.channels],
        "threads": [thread(each, world) for each in world.threads(one) if not each.archived],
        "voice_states": [],
        "presences": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
    }


def attachment(one: Attachment) -> JSON:
    return {
        "id": str(one.id),
        "filename": one.name,
        "size": len(one.data),
        "url": one.url,
        "proxy_url": one.url,
        "content_type": one.kind,
    }


def message(one: Message, world: World, *, content: bool, nested: bool = False) -> JSON:
    """`content`: whether the bot may read what it is neither mentioned in nor wrote."""
    open_book = content or one.author is world.bot or one.channel.kind == Kind.DM or world.mentions_bot(one)
    document: JSON = {
        "id": str(one.id),
        "channel_id": str(one.channel.id),
        "type": 19 if one.reference else 0,
        "author": user(one.author),
        "content": one.content if open_book else "",
        "embeds": one.embeds if open_book else [],
        "components": one.components if open_book else [],
        "attachments": [attachment(each) for each in one.attachments] if open_book else [],
        "mentions": [user(each) | {"member": member(each, with_user=False)} for each in one.mentions],
        "mention_roles": [str(role) for role in one.mention_roles],
        "mention_everyone": "everyone" in one.pinged,
        "timestamp": moment(one.id).isoformat(),
        "edited_timestamp": one.edited.isoformat() if one.edited else None,
        "tts": False,
        "pinned": False,
        "flags": one.flags,
    }
    if one.reactions:
        document["reactions"] = [_reaction(emoji, who, world) for emoji, who in one.reactions.items()]
    if one.nonce is not None:
        document["nonce"] = one.nonce
    if one.thread is not None:
        document["thread"] = thread(one.thread, world)
    if one.reference is not None:
        document["message_reference"] = {
            "type": 0,
            "message_id": str(one.reference.id),
            "channel_id": str(one.reference.channel.id),
        }
        if not nested:
            replied = one.reference
            document["referenced_message"] = (
                None if replied.deleted else message(replied, world, content=content, nested=True)
            )
    return document


def event(one: Message, world: World, *, content: bool) -> JSON:
    """A message as the gateway says it: with its server and its author's membership."""
    document = message(one, world, content=content)
    if one.channel.guild is not None:
        document["guild_id"] = str(one.channel.guild.id)
        if not one.flags & Flag.EPHEMERAL:
            document["member"] = member(one.author, with_user=False)
    return document


def interaction(one: Interaction, world: World) -> JSON:
    document: JSON = {
        "id": str(one.id),
        "application_id": str(world.bot.id),
        "type": one.kind,
        "token": one.token,
        "version": 1,
        "locale": one.user.locale,
        "data": one.data,
        "channel_id": str(one.channel.id),
        "channel": channel(one.channel, world),
        "app_permissions": str(int(ALL_PERMISSIONS)),
        "attachment_size_limit": 10 * 1024 * 1024,
        "authorizing_integration_owners": {"0": str(one.channel.guild.id if one.channel.guild else 0)},
        "context": 1 if one.channel.kind == Kind.DM else 0,
        "entitlements": [],
    }
    if one.channel.guild is None:
        document["user"] = user(one.user)
    else:
        document["guild_id"] = str(one.channel.guild.id)
        document["guild"] = {"id": str(one.channel.guild.id), "locale": "en-US", "features": []}
        document["guild_locale"] = "en-US"
        document["member"] = member(one.user)
    if one.message is not None:
        document["message"] = message(one.message, world, content=True)
    return document


def _reaction(emoji: str, who: list[int], world: World) -> JSON:
    return {
        "emoji": {"id": None, "name": emoji},
        "count": len(who),
        "count_details": {"burst": 0, "normal": len(who)},
        "me": world.bot.id in who,
        "me_burst": False,
        "burst_colors": [],
    }
