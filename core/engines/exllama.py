"""What both ExLlama engines offer in forms."""

from __future__ import annotations

from core.inference.sections import Preset


def presets_for(name: str, title: str) -> tuple[Preset, ...]:
    """Settings for a start: as they are, for a small card, for many people, for answers that quote."""
    return (
        Preset(name, "", {}, needs_key=False),
        Preset(
            f"{name}-small-card",
            f"{title} · small card / 显存较小",
            {"cache": "q4", "context_size": 8192, "chunk_size": 1024, "parallel": 2},
            needs_key=False,
        ),
        Preset(
            f"{name}-many-people",
            f"{title} · many people / 多人同时",
            {"cache": "q8", "context_size": 8192, "cache_size": 65_536, "parallel": 16},
            needs_key=False,
        ),
        Preset(
            f"{name}-quotes",
            f"{title} · answers that quote / 答案多引用原文",
            {"ngram_draft": True, "parallel": 2},
            needs_key=False,
        ),
    )
