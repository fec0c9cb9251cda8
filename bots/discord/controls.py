"""What stands under a message to be pressed, and the window that asks for a reason: as Discord's components."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from bots.platform import Controls
from core.texts import tell
from core.types import JSON

TEMPLATE: Final = r"kvasir:(?P<control>stop|up|down|again|human|share|resolved)(?::(?P<about>[\w:]{1,80}))?"
"""Custom ids of our buttons; `about`: what the message itself does not say."""
_WHY: Final = "kvasir:why:"
_ABOUT: Final = re.compile(rf"{_WHY}(?:a:(?P<answer>\w{{1,64}})|p:(?P<post>[\w:]{{1,60}}))")
_REASON: Final = "reason"
_LONGEST_REASON: Final = 1000
_ROW, _BUTTON, _TEXT_INPUT, _LABEL = 1, 2, 4, 18
_GREY: Final = 2
_THUMBS: Final = {"up": "👍", "down": "👎"}
_ICONS: Final = {"stop": "⏹️", "again": "🔄", "human": "🙋", "share": "📣", "resolved": "✅"}


@dataclass(frozen=True, slots=True)
class Rated:
    """What a window asked the reason for: the answer's own id, or the message it stands in."""

    answer_id: str = ""
    post: str = ""


def rows(controls: Controls) -> list[JSON]:
    """One row of buttons, or none."""
    wanted = [("stop", controls.stop), ("up", controls.rate), ("down", controls.rate), ("again", controls.again)]
    wanted += [("human", controls.human), ("share", controls.share)]
    buttons = [button(name, controls.answer_id if name in {"up", "down", "share"} else "") for name, on in wanted if on]
    return [row(*buttons)] if buttons else []


def row(*buttons: JSON) -> JSON:
    return {"type": _ROW, "components": list(buttons)}


def button(control: str, about: str = "") -> JSON:
    custom_id = f"kvasir:{control}:{about}" if about else f"kvasir:{control}"
    made: JSON = {"type": _BUTTON, "style": _GREY, "custom_id": custom_id}
    if control in _THUMBS:
        return {**made, "emoji": {"name": _THUMBS[control]}}
    return {**made, "emoji": {"name": _ICONS[control]}, "label": tell(f"control_{control}")}


def why(rated: Rated) -> JSON:
    """The window after a 👎."""
    field: JSON = {
        "type": _TEXT_INPUT,
        "custom_id": _REASON,
        "style": 2,
        "required": False,
        "max_length": _LONGEST_REASON,
    }
    title = tell("ask_reason_title")
    label: JSON = {"type": _LABEL, "label": title, "description": tell("ask_reason_hint"), "component": field}
    about = f"a:{rated.answer_id}" if rated.answer_id else f"p:{rated.post}"
    return {"title": title, "custom_id": _WHY + about, "components": [label]}


def reason_of(data: JSON) -> tuple[Rated, str] | None:
    """What a window brought back; None: it is none of ours."""
    found = re.fullmatch(
        rf"{_WHY}(?:a:(?P<answer>\w{{1,64}})|p:(?P<post>[\w:]{{1,60}}))", str(data.get("custom_id", ""))
    )
    if found is None:
        return None
    said = " ".join(_typed(data.get("components") or [])).strip()
    return Rated(found["answer"] or "", found["post"] or ""), said[:_LONGEST_REASON]


def _typed(components: list[Any]) -> list[str]:
    """What stands in the fields of a window, however deep."""
    texts: list[str] = []
    for one in components:
        if one.get("custom_id") == _REASON:
            texts.append(str(one.get("value") or ""))
        inner = [one["component"]] if one.get("component") else []
        texts += _typed([*inner, *(one.get("components") or [])])
    return texts
