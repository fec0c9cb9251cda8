"""Slash commands and the commands of a message's menu, in English and Chinese."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import discord
from discord import app_commands
from discord.app_commands import Choice, locale_str

from bots.commands import NAMES
from bots.discord import events
from core.texts import say

if TYPE_CHECKING:
    from bots.discord.desk import Desk

_LONGEST: Final = 4000
_LONGEST_CHOICE: Final = 100
_MOST_CHOICES: Final = 25
_SET: Final = tuple(name for name in NAMES if name not in {"help", "status", "reset"})
_WHO: Final = re.compile(r"<@(?P<role>&)?!?(?P<id>\d{1,20})>")


class Chinese(app_commands.Translator):
    """Gives what `locale_str`s say in Chinese: each names its text."""

    async def translate(
        self,
        string: locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,  # noqa: ARG002 - the library gives it
    ) -> str | None:
        key = string.extras.get("key")
        if key is None or locale not in {discord.Locale.chinese, discord.Locale.taiwan_chinese}:
            return None
        return say(str(key), "zh")


def _word(key: str) -> locale_str:
    return locale_str(say(key, "en"), key=key)


def ids_in(name: str, arguments: str) -> str:
    """Helpers as Discord's ids (roles with `&`), managers as keys of ours; all else as it was typed."""
    if name not in {"helpers", "managers"}:
        return arguments.strip()

    def said(found: re.Match[str]) -> str:
        if name == "managers":
            return f" {events.NAME}:{found['id']} "
        return f" {found['role'] or ''}{found['id']} "

    return " ".join(_WHO.sub(said, arguments).split())


def add(tree: app_commands.CommandTree[Any], desk: Desk) -> None:
    """Everything that can be done without a mention."""
    tree.add_command(_ask(desk, "ask"))
    group = app_commands.Group(name="kvasir", description=_word("discord_command_kvasir"))
    group.add_command(_ask(desk, "ask"))
    for name in ("help", "status", "reset"):
        group.add_command(_simple(desk, name))
    group.add_command(_kb(desk))
    group.add_command(_setting(desk))
    tree.add_command(group)
    _add_menu(tree, desk)


def _ask(desk: Desk, name: str) -> app_commands.Command[Any, Any, Any]:
    @app_commands.command(name=name, description=_word("discord_command_ask"))
    @app_commands.describe(question=_word("discord_option_question"), kb=_word("discord_option_kb"))
    @app_commands.autocomplete(kb=_kb_names(desk))
    async def ask(
        interaction: discord.Interaction[Any], question: app_commands.Range[str, 1, _LONGEST], kb: str = ""
    ) -> None:
        kbs = (kb.strip(),) if kb.strip() else ()
        await desk.ask(interaction, desk.question(interaction, question, kbs=kbs))

    return ask


def _kb_names(desk: Desk) -> Callable[[discord.Interaction[Any], str], Coroutine[Any, Any, list[Choice[str]]]]:
    """Offers names while the last one in a list is typed."""

    async def names(interaction: discord.Interaction[Any], typed: str) -> list[Choice[str]]:
        before, comma, last = typed.rpartition(",")
        whole = [f"{before}{comma}{' ' * bool(comma)}{name}" for name in await desk.kb_names(interaction, last)]
        return [Choice(name=value, value=value) for value in whole if len(value) <= _LONGEST_CHOICE][:_MOST_CHOICES]

    return names


def _simple(desk: Desk, name: str) -> app_commands.Command[Any, Any, Any]:
    @app_commands.command(name=name, description=_word(f"discord_command_{name}"))
    async def simple(interaction: discord.Interaction[Any]) -> None:
        await desk.command(interaction, name)

    return simple


def _kb(desk: Desk) -> app_commands.Command[Any, Any, Any]:
    @app_commands.command(name="kb", description=_word("discord_command_kb"))
    @app_commands.describe(names=_word("discord_option_kbs"))
    @app_commands.autocomplete(names=_kb_names(desk))
    async def kb(interaction: discord.Interaction[Any], names: str = "") -> None:
        await desk.command(interaction, "kb", names)

    return kb


def _setting(desk: Desk) -> app_commands.Command[Any, Any, Any]:
    @app_commands.command(name="set", description=_word("discord_command_set"))
    @app_commands.describe(what=_word("discord_option_what"), value=_word("discord_option_value"))
    @app_commands.choices(what=[Choice(name=name, value=name) for name in _SET])
    async def setting(
        interaction: discord.Interaction[Any], what: Choice[str], value: app_commands.Range[str, 1, _LONGEST]
    ) -> None:
        await desk.command(interaction, what.value, value)

    return setting


def _add_menu(tree: app_commands.CommandTree[Any], desk: Desk) -> None:
    @tree.context_menu(name=_word("discord_menu_ask"))
    async def ask_about(interaction: discord.Interaction[Any], message: discord.Message) -> None:
        from bots.discord.listener import name_of

        me = interaction.application_id
        text = events.readable(message.content, me, None, name_of(message))
        await desk.ask(interaction, desk.question(interaction, text, files=events.files_of(message)))

    @tree.context_menu(name=_word("discord_menu_keep"))
    async def keep(interaction: discord.Interaction[Any], message: discord.Message) -> None:
        await desk.keep(interaction, message)
