"""Discord's REST API and gateway on loopback, for the unmodified discord.py."""

from tests.fakes.discord_server.server import TOKEN, Call, DiscordServer, Fault
from tests.fakes.discord_server.world import Channel, Interaction, Kind, Message, Permission, User

__all__ = ["TOKEN", "Call", "Channel", "DiscordServer", "Fault", "Interaction", "Kind", "Message", "Permission", "User"]
