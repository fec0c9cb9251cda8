"""Markdown of models and documents as HTML that can do nothing: no raw HTML, no images, no links but allowed ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from core.outbound import safe_markdown


class _Renderer(RendererHTML):
    def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        tokens[idx].attrSet("rel", "noopener noreferrer nofollow")
        tokens[idx].attrSet("target", "_blank")
        return self.renderToken(tokens, idx, options, env)


def to_html(markdown: str, allowed_urls: Collection[str] = ()) -> str:
    """The text as HTML, for a page that trusts it no further than its Content-Security-Policy."""
    allowed = frozenset(allowed_urls)
    reader = MarkdownIt("commonmark", {"html": False, "linkify": False}, renderer_cls=_Renderer)
    reader.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline"])
    reader.validateLink = lambda url: url in allowed  # type: ignore[method-assign]  # its documented hook
    html: str = reader.render(safe_markdown(markdown, allowed))
    return html
