"""The console: SQLAdmin for looking through what is kept, and the pages of every journey, in one frame.

SQLAdmin only reads here. Of its routes there are the lists, the details and the export; those that log in, change,
import, and serve files that a column names are not there at all. Whatever changes something goes through the API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from sqladmin import Admin
from sqladmin.authentication import AuthenticationBackend
from sqladmin.authorization import AuthorizationBackend
from sqladmin.i18n import gettext, ngettext, set_locale
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from admin.auth import is_guest
from admin.console.chinese import LOCALE, install
from admin.console.pages import GROUPS, PAGES, Page
from admin.console.records import RECORDS, label_of
from core.access import Action, Identity
from core.app import Kvasir
from core.texts import spoken, tell

PATH: Final = "/console"
_ROOT: Final = Path(__file__).resolve().parent.parent
_KEPT: Final = frozenset({"list", "details", "export"})
"""SQLAdmin's routes that stay."""


def add_console(app: FastAPI, kvasir: Kvasir) -> None:
    """Serve the console below `/console/`."""
    install()
    console = Console(
        app,
        engine=kvasir.db.engine.execution_options(kvasir_read=True),
        base_url=PATH,
        title="Kvasir",
        templates_dir=str(_ROOT / "templates"),
        middlewares=[Middleware(_Speaking)],
        authentication_backend=_Login(),
        authorization_backend=_Rights(),
    )
    console.admin.state.kvasir = kvasir
    console.serve()


class Console(Admin):
    """SQLAdmin with our pages, our frame, and no route that changes anything."""

    def serve(self) -> None:
        """Add pages and record lists."""
        environment = self.templates.env
        environment.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]
        environment.globals |= {"menu": _menu, "tell": tell, "language": spoken, "label_of": label_of}
        routes = [route for route in self.admin.router.routes if getattr(route, "name", "") in _KEPT]
        pages = [Route("/", self._first, name="index")]
        pages += [Route(f"/{page.name}", self._page(page), name=f"page-{page.name}") for page in PAGES]
        self.admin.router.routes = [*pages, *routes]
        for view in RECORDS:
            self.add_view(view)

    @staticmethod
    @override
    def _find_decorated_funcs(*_: Any) -> None:
        """Lists have no routes of their own; to look through all members of each for some is half of a start."""

    async def _first(self, request: Request) -> Response:
        """The first page that the caller may see."""
        pages = [page for page in PAGES if _may(request, page.action)]
        if not pages:
            raise HTTPException(403, tell("not_allowed"))
        return RedirectResponse(f"{PATH}/{pages[0].name}", 303)

    def _page(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        has_style = (_ROOT / "static" / "css" / "console" / f"{page.name}.css").is_file()

        async def show(request: Request) -> Response:
            if not _may(request, page.action):
                raise HTTPException(403, tell("not_allowed"))
            title = tell(f"page_{page.name}")
            context = {"page": page, "title": title, "has_style": has_style}
            response = await self.templates.TemplateResponse(request, "console/page.html", context)
            response.headers["cache-control"] = "no-store"
            return response

        return show


class _Speaking:
    """Has SQLAdmin's own words in the language that the guard found."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        set_locale(LOCALE if spoken() == "zh" else "en")
        await self._app(scope, receive, send)


class _Login(AuthenticationBackend):
    """Those whom the gate let in with an account; SQLAdmin's own login and its cookie are not used."""

    def __init__(self) -> None:
        self.middlewares: list[Middleware] = []

    async def authenticate(self, request: Request) -> Response | bool:
        identity = _identity(request)
        if identity is None or is_guest(identity):
            raise HTTPException(403, tell("not_allowed"))
        return True

    async def get_user_id(self, request: Request) -> str | None:
        identity = _identity(request)
        return identity.person.key if identity else None


class _Rights(AuthorizationBackend):
    """Records are for those who may read everything anyway."""

    @override
    def has_permission(self, request: Request, identity: str, action: str, obj: Any = None) -> bool:
        return action in ("list", "details", "export") and _may(request, Action.PEOPLE)


def _identity(request: Request) -> Identity | None:
    return getattr(request.state, "identity", None)


def _may(request: Request, action: Action) -> bool:
    identity = _identity(request)
    kvasir: Kvasir = request.app.state.kvasir
    if identity is None or is_guest(identity):
        return False
    return kvasir.accounts.may(identity, action, private=False, granted=True, edits=True)


@dataclass(frozen=True, slots=True)
class Link:
    title: str
    address: str
    icon: str
    is_here: bool


@dataclass(frozen=True, slots=True)
class Links:
    title: str
    links: Sequence[Link]
    folded: bool | None = None
    """Whether it is closed; None: it cannot be."""


def _menu(request: Request) -> Sequence[Links]:
    """What the caller may see, in its groups."""
    here = request.url.path
    groups = []
    for name in GROUPS:
        pages = [page for page in PAGES if page.group == name and _may(request, page.action)]
        links = [
            Link(tell(f"page_{page.name}"), f"{PATH}/{page.name}", page.icon, here == f"{PATH}/{page.name}")
            for page in pages
        ]
        groups.append(Links(tell(f"group_{name}"), links))
    if _may(request, Action.PEOPLE):
        records = [
            Link(gettext(view.name_plural), f"{PATH}/{view.identity}/list", view.icon, f"/{view.identity}/" in here)
            for view in RECORDS
        ]
        groups.append(Links(gettext("Records"), records, folded=not any(link.is_here for link in records)))
    return [group for group in groups if group.links]
