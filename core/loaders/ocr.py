"""Text in pictures, by rapidocr (the `[ocr]` extra; its models come with it)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from core.errors import MissingExtra

_SURE: Final = 0.5
"""Confidence below which a line is noise."""


def picture_reader(begins: Callable[[], None]) -> Callable[[Any], list[str]]:
    """A function from a picture (encoded bytes, or an array of RGB pixels) to its lines in reading order.

    Raises MissingExtra where the extra is not installed; calls `begins` before anything slow.
    """
    try:
        import rapidocr  # noqa: F401  # asked for before the long work is announced
    except ImportError as error:
        raise MissingExtra("Reading pictures", "ocr") from error
    begins()
    engine = _engine()

    def read(picture: Any) -> list[str]:
        found = engine(picture)
        if found.txts is None:
            return []
        return _in_order(
            [
                (box.tolist(), text)
                for box, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
                if score >= _SURE and text.strip()
            ]
        )

    return read


@functools.cache
def _engine() -> Any:
    """Made once in a process: it takes a second and half a gigabyte."""
    from rapidocr import RapidOCR

    logging.getLogger("RapidOCR").setLevel(logging.ERROR)
    return RapidOCR(params={"Global.log_level": "error"})


def _in_order(boxes: Sequence[tuple[Sequence[Sequence[float]], str]]) -> list[str]:
    """Boxes whose middles lie on one height make a line, from left to right."""
    lines: list[tuple[float, float, list[tuple[float, str]]]] = []
    for corners, text in sorted(boxes, key=lambda box: min(corner[1] for corner in box[0])):
        top, bottom = min(corner[1] for corner in corners), max(corner[1] for corner in corners)
        left, middle = min(corner[0] for corner in corners), (top + bottom) / 2
        if lines and lines[-1][0] <= middle <= lines[-1][1]:
            lines[-1][2].append((left, text))
        else:
            lines.append((top, bottom, [(left, text)]))
    return [" ".join(text for _, text in sorted(parts)) for _, _, parts in lines]
