"""What Discord refuses, with the code it gives."""

from __future__ import annotations

from typing import Any

from core.types import JSON
from tests.fakes.discord_server.world import Flag, embed_text, walk


class Refused(Exception):
    """A request that Discord does not carry out."""

    def __init__(self, status: int, code: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body: JSON = {"message": message, "code": code, **more}


def unknown(what: str, code: int) -> Refused:
    return Refused(404, code, f"Unknown {what}")


def missing_permission() -> Refused:
    return Refused(403, 50013, "Missing Permissions")


def length(text: str) -> int:
    """In the stricter of the two ways it may be counted: UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2


def invalid(where: str, why: str) -> Refused:
    inner: JSON = {"_errors": [{"code": "BASE_TYPE_BAD_LENGTH", "message": why}]}
    for key in reversed(where.split(".")):
        inner = {key: inner}
    return Refused(400, 50035, "Invalid Form Body", errors=inner)


def check(condition: bool, where: str, why: str) -> None:
    if not condition:
        raise invalid(where, why)


def check_message(body: JSON, *, has_more: bool = False) -> None:
    """Raises `Refused` for a message that is too long, malformed or, unless it `has_more` (files, say), empty."""
    content, embeds, components = body.get("content") or "", body.get("embeds") or [], body.get("components") or []
    if body.get("flags", 0) & Flag.COMPONENTS_V2:
        check(not content and not embeds, "content", "Cannot be used with components v2")
        shown = sum(length(part["content"]) for part in walk(components) if part.get("type") == 10)
        check(shown <= 4000, "components", "Must be 4000 or fewer in length.")
        check(len(list(walk(components))) <= 40, "components", "Must be 40 or fewer components.")
    else:
        check(len(components) <= 5, "components", "Must be 5 or fewer in length.")
        check(all(row.get("type") == 1 for row in components), "components", "Must be action rows.")
    check(length(content) <= 2000, "content", "Must be 2000 or fewer in length.")
    check(len(str(body.get("nonce") or "")) <= 25, "nonce", "Must be 25 or fewer in length.")
    _check_embeds(embeds)
    _check_components(components)
    if not (content.strip() or embeds or components or has_more):
        raise Refused(400, 50006, "Cannot send an empty message")


def _check_embeds(embeds: list[JSON]) -> None:
    check(len(embeds) <= 10, "embeds", "Must be 10 or fewer in length.")
    for embed in embeds:
        check(length(embed.get("description") or "") <= 4096, "embeds.0.description", "Must be 4096 or fewer.")
        check(length(embed.get("title") or "") <= 256, "embeds.0.title", "Must be 256 or fewer in length.")
        check(len(embed.get("fields", [])) <= 25, "embeds.0.fields", "Must be 25 or fewer in length.")
        for pair in embed.get("fields", []):
            check(1 <= length(pair["name"]) <= 256, "embeds.0.fields.name", "Must be between 1 and 256.")
            check(1 <= length(pair["value"]) <= 1024, "embeds.0.fields.value", "Must be between 1 and 1024.")
    total = sum(length(embed_text(embed)) for embed in embeds)
    check(total <= 6000, "embeds", "Embed size exceeds maximum size of 6000")


def _check_components(components: list[JSON]) -> None:
    ids = [part["custom_id"] for part in walk(components) if "custom_id" in part]
    check(len(ids) == len(set(ids)), "components", "Component custom id cannot be duplicated")
    for part in walk(components):
        if part.get("type") == 1:
            check(1 <= len(part["components"]) <= 5, "components", "Must be between 1 and 5 in length.")
        if part.get("type") == 2:
            named = part.get("label") or part.get("emoji")
            check(bool(named) and length(part.get("label") or "") <= 80, "components.label", "Must be 80 or fewer.")
            check(("custom_id" in part) != ("url" in part), "components", "A custom id or a url is needed.")
        if "custom_id" in part:
            check(1 <= length(part["custom_id"]) <= 100, "components.custom_id", "Must be between 1 and 100.")


def check_modal(data: JSON) -> None:
    check(1 <= length(data.get("title", "")) <= 45, "title", "Must be between 1 and 45 in length.")
    check(1 <= length(data.get("custom_id", "")) <= 100, "custom_id", "Must be between 1 and 100 in length.")
    check(1 <= len(data.get("components", [])) <= 5, "components", "Must be between 1 and 5 in length.")
    for part in walk(data["components"]):
        if part.get("type") == 4 or part.get("type") == 18:
            check(length(part.get("label") or "") <= 45, "components.label", "Must be 45 or fewer in length.")
            check(length(part.get("placeholder") or "") <= 100, "components.placeholder", "Must be 100 or fewer.")


def check_commands(commands: list[JSON]) -> None:
    names = [(command.get("type", 1), command["name"]) for command in commands]
    check(len(names) == len(set(names)), "commands", "Application command names must be unique")
    check(len([one for one in commands if one.get("type", 1) == 1]) <= 100, "commands", "Must be 100 or fewer.")
    for command in commands:
        slash = command.get("type", 1) == 1
        check(1 <= length(command["name"]) <= 32, "name", "Must be between 1 and 32 in length.")
        check(not slash or command["name"] == command["name"].lower(), "name", "Must be lower case.")
        check(slash == bool(command.get("description")), "description", "Wanted by slash commands alone.")
        _check_options(command.get("options", []))


def _check_options(options: list[JSON]) -> None:
    check(len(options) <= 25, "options", "Must be 25 or fewer in length.")
    for option in options:
        check(1 <= length(option["name"]) <= 32, "options.name", "Must be between 1 and 32 in length.")
        check(1 <= length(option.get("description") or "") <= 100, "options.description", "Must be 1 to 100.")
        check(len(option.get("choices", [])) <= 25, "options.choices", "Must be 25 or fewer in length.")
        _check_options(option.get("options", []))
