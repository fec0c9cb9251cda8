"""The page for channels has words of its own for every option that a platform has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import admin
from core.chats.channels import FIELDS
from core.settings import DiscordSettings, Section, SlackSettings, TelegramSettings

WORDS = Path(admin.__file__).parent / "static" / "js" / "console" / "words" / "channels.js"


@pytest.mark.parametrize(
    ("platform", "section"), [("slack", SlackSettings), ("discord", DiscordSettings), ("telegram", TelegramSettings)]
)
def test_every_option_has_its_words(platform: str, section: type[Section]) -> None:
    known = set(re.findall(r"^  channels_(\w+):", WORDS.read_text("utf-8"), re.MULTILINE))
    names = section.model_fields.keys()
    assert {name for name in names if not {name, f"{platform}_{name}"} & known} == set()
    assert {f"field_{name}" for name in FIELDS} - known == set()
