"""What the browser is sent: pages, scripts, styles and words, read without a browser."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

import admin
from admin.chat.page import PAGES, add_pages

ROOT = Path(admin.__file__).parent
SCRIPTS = sorted((ROOT / "static" / "js").glob("*.js"))
TEMPLATES = sorted((ROOT / "templates").glob("*.html"))
SAMPLE = Path(__file__).parents[2] / "configs" / "sample"

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI(openapi_url=None)
    add_pages(app)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://kvasir") as client:
        yield client


def words() -> dict[str, tuple[str, str]]:
    """The catalogue of `words.js`."""
    source = (ROOT / "static" / "js" / "words.js").read_text("utf-8")
    return {key: (en, zh) for key, en, zh in re.findall(r'^  (\w+): \["(.*)", "(.*)"\],$', source, re.MULTILINE)}


@pytest.mark.parametrize("path", sorted(PAGES))
async def test_pages_are_html_that_nobody_keeps(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', response.text):
        assert (await client.get(asset)).status_code == 200, asset


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/static/js/chat.js", "text/javascript; charset=utf-8"),
        ("/static/css/base.css", "text/css; charset=utf-8"),
        ("/static/img/icons.svg", "image/svg+xml"),
    ],
)
async def test_static_files_have_their_type_and_are_revalidated(
    client: httpx2.AsyncClient, path: str, media_type: str
) -> None:
    first = await client.get(path)
    assert first.headers["content-type"] == media_type
    assert first.headers["cache-control"] == "no-cache"
    again = await client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/js", "/static/js/../../app.py"]
)
async def test_nothing_but_static_files_is_served(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_templates_keep_the_strict_policy(template: Path) -> None:
    html = template.read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))
    assert not re.search(r'(?:src|href)="(?!/|#)', html), "nothing comes from outside"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_never_write_markup(script: Path) -> None:
    source = script.read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", source)
    assert not re.search(r"""["'`]https?://(?!www\.w3\.org/)""", source)
    assert source.count("\n") < 400
    if script.name != "sanitise.js":
        assert "DOMParser" not in source


def test_every_word_is_there_in_both_languages_and_used() -> None:
    catalogue = words()
    source = "".join(path.read_text("utf-8") for path in [*SCRIPTS, *TEMPLATES] if path.name != "words.js")
    asked = set(re.findall(r'\bt\(\s*"(\w+)"', source)) | set(re.findall(r'data-t(?:-\w+)?="(\w+)"', source))
    assert asked <= set(catalogue)
    built = re.compile("|".join(re.findall(r"`(\w+_)\$\{", source)))
    assert {key for key in catalogue if not re.search(rf'"{key}"', source) and not built.match(key)} == set()
    for english, chinese in catalogue.values():
        assert set(re.findall(r"\{\w+\}", english)) == set(re.findall(r"\{\w+\}", chinese)), english
        assert re.search(r"[\u4e00-\u9fff]", chinese), chinese


def test_the_example_questions_are_answered_by_the_sample() -> None:
    lines = (SAMPLE / "questions.jsonl").read_text("utf-8").splitlines()
    known = {json.loads(line)["question"] for line in lines}
    known |= set(json.loads((SAMPLE / "first_question.json").read_text("utf-8")).values())
    examples = [text for key, pair in words().items() if key.startswith("example_sample") for text in pair]
    assert len(examples) == 6
    assert set(examples) <= known
