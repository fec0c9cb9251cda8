"""Slack's blocks for what we say: plain functions from our words to its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bots.platform import Controls
from bots.rendering import slack as rendering
from bots.rendering.parts import Part
from bots.slack.events import ACTION, RATE, SHARE, WHY
from core.outbound import visible
from core.texts import spoken, tell
from core.types import JSON, Finished

NOTHING: Final = Controls()
_FALLBACK: Final = 300
"""Characters of a message that stand in notifications."""
_LONGEST_HOME: Final = 5000


def escaped(text: str) -> str:
    """Text for places that read Slack's own markup."""
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def message(text: str, controls: Controls) -> JSON:
    """Text and blocks of a message that says what a renderer wrote; nothing in it is shown with a preview."""
    words = " ".join(text.split())
    return {
        "text": words if len(words) <= _FALLBACK else words[: _FALLBACK - 1] + "…",
        "blocks": [{"type": "markdown", "text": text}, *under(controls)],
        "unfurl_links": False,
        "unfurl_media": False,
    }


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


def under(controls: Controls) -> list[JSON]:
    """The blocks with what can be pressed."""
    blocks: list[JSON] = []
    if controls.rate:
        feedback = {
            "type": "feedback_buttons",
            "action_id": RATE,
            "positive_button": {"text": _plain(tell("control_up")), "value": f"up:{controls.answer_id}"},
            "negative_button": {"text": _plain(tell("control_down")), "value": f"down:{controls.answer_id}"},
        }
        blocks.append({"type": "context_actions", "elements": [feedback]})
    pressed = [name for name in ("stop", "again", "human") if getattr(controls, name)]
    buttons = [button(f"{ACTION}{name}", tell(f"control_{name}")) for name in pressed]
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
    """The home tab: what Kvasir can do here, and what can be asked; both as Markdown."""
    told = [guide, f"**{tell('slack_home_kbs')}**\n\n{kbs}"]
    said = [{"type": "markdown", "text": sentence(part[:_LONGEST_HOME])["blocks"][0]["text"]} for part in told]
    return {"type": "home", "blocks": [{"type": "header", "text": _plain("Kvasir", 150)}, *said]}


def _plain(text: str, most: int = 75) -> JSON:
    return {"type": "plain_text", "text": text if len(text) <= most else text[: most - 1] + "…"}


def prompts(kbs: Sequence[str]) -> list[JSON]:
    """Questions to begin with, for the page of direct messages: at most four."""
    asked = [tell("slack_prompt", kb=name) for name in kbs[:4]]
    return [{"title": question[:75], "message": question} for question in asked]
