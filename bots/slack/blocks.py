"""Slack's blocks for what we say: plain functions from our words to its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bots.platform import Controls
from bots.rendering import mrkdwn
from bots.rendering import slack as rendering
from bots.rendering.parts import Part
from bots.slack.events import ACTION, RATE, SHARE, WHY
from core.outbound import visible
from core.texts import spoken, tell
from core.types import JSON, Finished

NOTHING: Final = Controls()
_MOST_SECTIONS: Final = 20
"""Of the home tab."""


def escaped(text: str) -> str:
    """Text for places that read Slack's own markup."""
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def message(text: str, controls: Controls, *, plain: bool = False) -> JSON:
    """Text and blocks of a message that says what a renderer wrote; nothing in it is shown with a preview.

    `plain`: with the blocks that every workspace knows.
    """
    said = _sections(text) if plain else [{"type": "markdown", "text": text}]
    return {
        "text": mrkdwn.notification(text),
        "blocks": [*said, *under(controls, plain=plain)],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _sections(text: str) -> list[JSON]:
    """CommonMark in the blocks that every place knows."""
    parts = mrkdwn.render(text, language=spoken()).parts
    return [{"type": "section", "text": {"type": "mrkdwn", "text": part.text}} for part in parts]


def sentence(text: str) -> JSON:
    """A message with words of ours, in CommonMark."""
    return message(rendering.render(text, language=spoken()).parts[0].text, NOTHING)


def whole(finished: Finished) -> Sequence[Part]:
    """An answer with its sources and notice."""
    return rendering.render(finished.text, sources=finished.sources, notice=finished.notice, language=spoken()).parts


def tail(finished: Finished) -> str:
    """What stands below the text of an answer."""
    if not (finished.sources or finished.notice):
        return ""
    below = rendering.render("", sources=finished.sources, notice=finished.notice, language=spoken())
    return f"\n\n{below.parts[0].text}"


def under(controls: Controls, *, plain: bool = False) -> list[JSON]:
    """The blocks with what can be pressed."""
    blocks: list[JSON] = []
    votes = (("positive", "up"), ("negative", "down")) if controls.rate else ()
    labelled = [(side, tell(f"control_{name}"), f"{name}:{controls.answer_id}") for side, name in votes]
    if controls.rate and not plain:
        sides = {f"{side}_button": {"text": _plain(label), "value": value} for side, label, value in labelled}
        blocks.append(
            {"type": "context_actions", "elements": [{"type": "feedback_buttons", "action_id": RATE, **sides}]}
        )
    buttons = [button(f"{RATE}:{side}", label, value) for side, label, value in labelled] if plain else []
    pressed = [name for name in ("stop", "again", "human") if getattr(controls, name)]
    buttons += [button(f"{ACTION}{name}", tell(f"control_{name}")) for name in pressed]
    if controls.share:
        buttons.append(button(SHARE, tell("control_share"), controls.answer_id))
    if buttons:
        blocks.append({"type": "actions", "elements": buttons})
    return blocks


def button(action: str, label: str, value: str = "") -> JSON:
    made: JSON = {"type": "button", "action_id": action, "text": _plain(label)}
    return made | {"value": value} if value else made


def call(text: str, people: Sequence[str], post: str) -> JSON:
    """A message that calls users and groups, by id, below the answer `post`, and that can be marked as solved."""
    named = " ".join(f"<!subteam^{who}>" if who.startswith("S") else f"<@{who}>" for who in people)
    said = f"{named} {escaped(text)}".strip()
    return {
        "text": said,
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": said[:3000]}},
            {"type": "actions", "elements": [button(f"{ACTION}resolved", tell("control_resolved"), post)]},
        ],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def solved(text: str) -> JSON:
    """A message that called for help, after it came; `text` is as it was sent."""
    said = f"{text}\n✓ {escaped(tell('control_resolved'))}"
    return {"text": said, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": said[:3000]}}]}


def private(text: str) -> JSON:
    """The answer to a command or shortcut, for one person's eyes."""
    return {"response_type": "ephemeral", **sentence(text)}


def shared(finished: Finished, user: str) -> list[JSON]:
    """An answer for all, with the name of who shared it; in several messages where it is long."""
    said = [message(part.text, NOTHING) for part in whole(finished)]
    who = {"type": "mrkdwn", "text": tell("slack_shared", who=f"<@{user}>")}
    said[-1]["blocks"].append({"type": "context", "elements": [who]})
    return said


def why_window(private: str) -> JSON:
    """The window that asks what was wrong with an answer."""
    return {
        "type": "modal",
        "callback_id": WHY,
        "private_metadata": private,
        "title": _plain(tell("ask_reason_title"), 24),
        "submit": _plain(tell("ask_reason_send"), 24),
        "close": _plain(tell("ask_reason_close"), 24),
        "blocks": [
            {
                "type": "input",
                "block_id": "reason",
                "optional": True,
                "label": _plain(tell("ask_reason_hint")),
                "element": {
                    "type": "plain_text_input",
                    "action_id": "reason",
                    "multiline": True,
                    "max_length": 2000,
                },
            }
        ],
    }


def home(guide: str, kbs: str) -> JSON:
    """The home tab: what Kvasir can do here, and what can be asked; both in CommonMark, which a tab does not take."""
    told = f"{guide}\n\n**{tell('slack_home_kbs')}**\n\n{kbs}"
    header = {"type": "header", "text": _plain("Kvasir", 150)}
    return {"type": "home", "blocks": [header, *_sections(told)[:_MOST_SECTIONS]]}


def _plain(text: str, most: int = 75) -> JSON:
    return {"type": "plain_text", "text": text if len(text) <= most else text[: most - 1] + "…"}


def prompts(kbs: Sequence[str]) -> list[JSON]:
    """Questions to begin with, for the page of direct messages: at most four."""
    asked = [tell("slack_prompt", kb=name) for name in kbs[:4]]
    return [{"title": question[:75], "message": question} for question in asked]
