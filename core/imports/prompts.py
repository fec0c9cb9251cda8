"""What people wrote into Langchain-Chatchat's `prompt_config.py`, read as text: nothing of the file is run."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

from core.errors import UserError
from core.texts import tell

_LARGEST: Final = 1 << 20
_KIND: Final = "knowledge_base_chat"
_SHIPPED: Final = "根据已知信息，简洁和专业的来回答问题"
"""What it came with; Kvasir has instructions of its own for that."""
_BLOCK: Final = re.compile(r"<([^<>/\s]+)>\s*\{\{\s*(?:context|question)\s*\}\}\s*</\1>\s*[、,，]?")
_ORDER: Final = re.compile(r"</?(?:指令|instruction|instructions)>", re.IGNORECASE)


def instructions(path: Path, name: str = "default") -> str:
    """Of the template `knowledge_base_chat`, without where context and question go; empty where it is the shipped one.

    Raises UserError.
    """
    templates = _templates(path)
    if name not in templates:
        raise UserError(tell("import_no_prompt", name=name, names=", ".join(sorted(templates)) or "-"))
    template = templates[name]
    if _SHIPPED in template:
        return ""
    text = _ORDER.sub("", _BLOCK.sub("", template))
    return "\n".join(line for line in text.splitlines() if "{{" not in line and "{%" not in line).strip()


def _templates(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(tell("import_large", most=_LARGEST >> 20))
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise UserError(tell("import_damaged", file=path.name, reason=type(error).__name__)) from error
    found: dict[str, str] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            found.update(_of(statement.targets[0], statement.value))
    return found


def _of(target: ast.expr, value: ast.expr) -> dict[str, str]:
    """From `PROMPT_TEMPLATES = {kind: {…}}` and `PROMPT_TEMPLATES[kind] = {…}`."""
    if isinstance(target, ast.Name) and target.id == "PROMPT_TEMPLATES" and isinstance(value, ast.Dict):
        for key, inner in zip(value.keys, value.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == _KIND:
                return _texts(inner)
    if (
        isinstance(target, ast.Subscript)
        and isinstance(target.value, ast.Name)
        and target.value.id == "PROMPT_TEMPLATES"
        and isinstance(target.slice, ast.Constant)
        and target.slice.value == _KIND
    ):
        return _texts(value)
    return {}


def _texts(value: ast.expr) -> dict[str, str]:
    """A dictionary of texts that are written out."""
    if not isinstance(value, ast.Dict):
        return {}
    return {
        str(key.value): text.value
        for key, text in zip(value.keys, value.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(text, ast.Constant) and isinstance(text.value, str)
    }
