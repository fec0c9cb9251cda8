"""EML: who wrote what to whom, and the text; attachments are named, not opened."""

from __future__ import annotations

from email import policy
from email.errors import MessageError
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Final

from core.loaders.decoding import decode
from core.loaders.html_page import read_html
from core.loaders.options import Options, problem, sentence
from core.loaders.outline import Outline
from core.types import Metadata, Parsed

_HEADERS: Final = ("From", "To", "Cc", "Date")
_MAX_PARTS: Final = 200


class MailLoader:
    def __init__(self, options: Options) -> None:
        self._limit = options.limit

    def load(self, data: bytes, name: str) -> Parsed:
        try:
            message = BytesParser(_class=EmailMessage, policy=policy.default).parsebytes(data)
            return self._read(message)
        except (MessageError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            # the standard parser meets hostile headers with all of these
            raise problem("damaged", kind="EML") from error

    def _read(self, message: EmailMessage) -> Parsed:
        headers = {key: " ".join(str(message.get(key, "")).split())[:1000] for key in (*_HEADERS, "Subject")}
        if not any(headers.values()):
            raise problem("damaged", kind="EML")
        outline = Outline()
        subject = headers["Subject"]
        outline.heading(1, subject)
        outline.paragraph("\n".join(f"{key}: {headers[key]}" for key in _HEADERS if headers[key]))
        texts, pages, attached = _parts(message)
        for text in texts or pages:
            if texts:
                for paragraph in text.split("\n\n"):
                    outline.paragraph(paragraph)
            else:
                read_html(text, outline, limit=self._limit)
        notes = (sentence("note_attachments", names=", ".join(attached[:20])),) if attached else ()
        metadata: Metadata = {key.lower(): headers[key] for key in ("From", "Date") if headers[key]}
        return Parsed(outline.sections(), subject[:300], metadata, notes)


def _parts(message: EmailMessage) -> tuple[list[str], list[str], list[str]]:
    """Plain texts, HTML pages, and names of attachments."""
    texts: list[str] = []
    pages: list[str] = []
    attached: list[str] = []
    for number, part in enumerate(message.walk()):
        if number > _MAX_PARTS:
            break
        name = part.get_filename()
        if name or part.get_content_disposition() == "attachment":
            attached.append(" ".join(str(name or part.get_content_type()).split())[:100])
            continue
        kind = part.get_content_type()
        body = part.get_payload(decode=True)
        if isinstance(body, bytes) and kind in ("text/plain", "text/html"):
            text, _ = decode(body, str(part.get_content_charset() or ""))
            (texts if kind == "text/plain" else pages).append(text)
    return [text for text in texts if text.strip()], pages, attached
