"""The tables of the documentation that the code knows better; `python -m tests.docs_tables` writes them anew."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from core.settings import Field_, fields

ROOT = Path(__file__).parent.parent


def settings_table() -> str:
    """Every setting with its variable, default and sentence, a table for each section."""
    parts = []
    for section, found in groupby(sorted(fields(), key=lambda f: "." in f.path), key=_section):
        rows = [f"| `{field.variable}` | {_default(field.default)} | {field.description} |" for field in found]
        parts += ["", f"**{section or 'general'}**", "", "| variable | default | what it is |", "|---|---|---|", *rows]
    return "\n".join(parts[1:])


def _section(field: Field_) -> str:
    return field.path.rpartition(".")[0]


def _default(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def between(text: str, mark: str) -> str:
    """What stands between `<!-- mark -->` and `<!-- /mark -->`."""
    return text.partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0].strip()


def replaced(text: str, mark: str, table: str) -> str:
    head, _, rest = text.partition(f"<!-- {mark} -->")
    _, _, tail = rest.partition(f"<!-- /{mark} -->")
    return f"{head}<!-- {mark} -->\n\n{table}\n\n<!-- /{mark} -->{tail}"


def main() -> None:
    page = ROOT / "README.md"
    page.write_text(replaced(page.read_text(encoding="utf-8"), "settings", settings_table()), encoding="utf-8")


if __name__ == "__main__":
    main()
