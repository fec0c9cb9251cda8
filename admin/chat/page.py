"""The pages people see: four HTML shells without data, and the styles, scripts and icons they load."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG
from typing import Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
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


_KEPT: Final = ("content-type", "etag", "last-modified", "cache-control")


class _Static(StaticFiles):
    """Files of the package, typed by us (a machine's own type table may be wrong) and revalidated by ETag.

    They are small and on this disk: to read one takes a fifth of what handing it to threads does.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"allow": "GET, HEAD"})
        try:
            full_path, found = self.lookup_path(path)
        except (OSError, ValueError):  # no name that a file could have
            raise HTTPException(404) from None
        if found is None or not S_ISREG(found.st_mode):
            raise HTTPException(404)
        response = self.file_response(full_path, found, scope)
        if response.status_code != 200:
            return response
        kept = {name: value for name, value in response.headers.items() if name in _KEPT}
        return Response(Path(full_path).read_bytes(), headers=kept)

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
