"""The pages people see: four HTML shells without data, and the styles, scripts and icons they load."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_ROOT: Final = Path(__file__).resolve().parent.parent
PAGES: Final = {"/": "chat.html", "/documents": "documents.html", "/login": "login.html", "/setup": "setup.html"}
"""Path -> template. Which of them need a login is decided by the guard, not here."""

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


class _Static(StaticFiles):
    """Files of the package, typed by us (a machine's own type table may be wrong) and revalidated by ETag."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["cache-control"] = "no-cache"
        media_type = _TYPES.get(Path(full_path).suffix)
        if media_type is not None and response.status_code != 304:
            response.headers["content-type"] = media_type
        return response


def add_pages(app: FastAPI) -> None:
    """Serve the pages of `PAGES` and everything below `/static/`."""
    for path, name in PAGES.items():
        _add_page(app, path, (_ROOT / "templates" / name).read_text("utf-8"))
    app.mount("/static", _Static(directory=_ROOT / "static"), name="static")


def _add_page(app: FastAPI, path: str, html: str) -> None:
    async def page(_request: Request) -> HTMLResponse:
        return HTMLResponse(html, headers={"cache-control": "no-store"})

    app.router.routes.append(Route(path, page, methods=["GET", "HEAD"], name=f"page:{path}"))
