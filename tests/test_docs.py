"""Every setting, command, platform and route has its line in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from admin.app import create_app
from core import registry
from core.app import Kvasir
from core.cli.main import app
from core.settings import load
from tests.admin.handler import EchoHandler
from tests.docs_tables import ROOT, between, settings_table


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_setting_stands_in_the_readme() -> None:
    told = between(page("README.md"), "settings")
    assert told == settings_table(), (
        "settings have changed: run `python -m tests.docs_tables` at the top of the repository"
    )


def commands() -> list[str]:
    """`kvasir kb list` and so on, for every command there is."""
    found = []

    def walk(command: typer.core.TyperCommand | typer.core.TyperGroup, words: str) -> None:
        if isinstance(command, typer.core.TyperGroup):
            for name, inner in command.commands.items():
                walk(inner, f"{words} {name}")  # type: ignore[arg-type]  # all of ours are made by typer
        else:
            found.append(words)

    walk(typer.main.get_command(app), "kvasir")  # type: ignore[arg-type]  # as above
    return found


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_every_command_stands_in_the_readme(readme: str) -> None:
    rows = [line for line in page(readme).splitlines() if line.startswith("| `kvasir ")]
    told = {word for row in rows for word in _told(row)}
    assert len(commands()) > 20
    assert [command for command in commands() if command not in told] == []
    assert sorted(told - set(commands())) == []


def _told(row: str) -> list[str]:
    """The commands that a row names, e.g. `kvasir kb list\\|create`."""
    found = []
    for code in re.findall(r"`kvasir ([^`]*)`", row.replace("\\|", "|")):
        words = code.split()
        subs = words[1].split("|") if len(words) > 1 and re.fullmatch(r"[a-z][a-z-]*(\|[a-z-]+)*", words[1]) else []
        found += [f"kvasir {words[0]} {sub}" for sub in subs] or [f"kvasir {words[0]}"]
    return found


def test_every_platform_stands_in_the_readme_of_bots() -> None:
    rows = re.findall(r"^\| ([a-z]+) \|", page("bots/README.md"), re.MULTILINE)
    assert sorted({*registry.names("kvasir.platforms"), "web"}) == sorted(set(rows) - {"platform", "module"})


@pytest.mark.anyio
async def test_every_route_stands_in_the_readme_of_admin(tmp_path: Path) -> None:
    served = set()
    async with Kvasir.open(load(data_dir=tmp_path / "data", embedder={"kind": "none"})) as kvasir:
        for route in iter_route_contexts(create_app(kvasir, EchoHandler(kvasir)).routes):
            mounted = isinstance(getattr(route, "original_route", route), Mount)
            path = f"{route.path}/…" if mounted else route.path
            served |= {f"{method} {path}" for method in set(route.methods or {"GET"}) - {"HEAD"}}
    told = re.findall(r"^\| `([A-Z]+ [^`]+)` \| .+ \|$", page("admin/README.md"), re.MULTILINE)
    assert sorted(told) == sorted(served)


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_what_a_readme_points_to_is_there(readme: str) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", page(readme))
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_both_readmes_have_the_same_headings() -> None:
    levels = [re.findall(r"^(#+) ", page(name), re.MULTILINE) for name in ("README.md", "README.zh-CN.md")]
    assert levels[0] == levels[1]
    for mark in ("numbers", "verified"):
        assert all(f"<!-- {mark} -->" in page(name) for name in ("README.md", "README.zh-CN.md"))


def test_the_changelog_names_this_version() -> None:
    version = re.search(r'^version = "([^"]+)"', page("pyproject.toml"), re.MULTILINE)
    assert version
    assert f"## {version[1]}" in page("CHANGELOG.md")
    fragments = [path for path in (ROOT / ".changes").glob("*.md") if path.name != "README.md"]
    assert [path.name for path in fragments if not path.read_text(encoding="utf-8").strip()] == []
