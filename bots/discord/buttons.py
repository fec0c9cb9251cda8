"""Buttons that need no memory: what was pressed stands in their id, so that they work after any restart."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import discord

from bots.discord.controls import TEMPLATE

if TYPE_CHECKING:
    from bots.discord.client import Bot


class ControlButton(discord.ui.DynamicItem[discord.ui.Button[Any]], template=TEMPLATE):
    """One of our buttons, as it was pressed."""

    def __init__(self, custom_id: str, control: str, about: str) -> None:
        super().__init__(discord.ui.Button(custom_id=custom_id))
        self.control = control
        self.about = about

    @classmethod
    async def from_custom_id(
        cls,
        interaction: discord.Interaction[Any],  # noqa: ARG003 - the library gives it
        item: discord.ui.Item[Any],  # noqa: ARG003 - as above
        match: re.Match[str],
        /,
    ) -> ControlButton:
        return cls(match.string, match["control"], match["about"] or "")

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        bot = cast("Bot", interaction.client)
        await bot.desk.pressed(interaction, self.control, self.about)
