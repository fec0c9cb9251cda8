"""RTF, by striprtf; headings are not marked in it, so it is paragraphs alone."""

from __future__ import annotations

import re
from collections.abc import Callable

from core.loaders.decoding import decode
from core.loaders.office import real_title
from core.loaders.options import Options, problem
from core.loaders.outline import Outline
from core.types import Parsed

_TITLE = re.compile(r"\{\\info[^{}]{0,200}\{\\title ([^{}]{1,300})\}")


class RtfLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        from striprtf import striprtf  # imported late: few files need it

        source = data.decode("latin-1")
        try:
            convert: Callable[..., str] = striprtf.rtf_to_text
            text = convert(source, encoding="cp1252", errors="replace")
        except (ValueError, LookupError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise problem("damaged", kind="RTF") from error
        outline = Outline()
        for paragraph in text.split("\n"):
            cells = paragraph.strip().strip("|").split("|") if paragraph.count("|") > 1 else [paragraph]
            outline.paragraph(" | ".join(cell.strip() for cell in cells))
            if outline.characters > self._limit:
                break
        match = _TITLE.search(source[:20_000])
        title = decode(match[1].encode("latin-1"))[0] if match and "\\" not in match[1] else ""
        return Parsed(outline.sections(), real_title(title))
