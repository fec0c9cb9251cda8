"""The caller: set up, log in, log out, and what the page should know about them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from admin.auth import clear_session, is_guest, local_path, session_token, set_session
from admin.deps import CallerDep, KvasirDep
from admin.schemas import EmbedderOut, EngineOut, Login, Me, Next, SetUp, Ways
from core.access import Action
from core.app import Kvasir
from core.errors import KvasirError
from core.identity.accounts import NewLogin
from core.texts import tell

router = APIRouter()


@router.post("/setup", status_code=201)
async def set_up(given: SetUp, request: Request, response: Response, kvasir: KvasirDep) -> Next:
    """Create the owner with the one-time token, and log them in."""
    user = await kvasir.accounts.set_up(given.token, given.name, given.password)
    login = await kvasir.accounts.open_session(user, user_agent=request.headers.get("user-agent", ""))
    await _begin(login, request, response, kvasir)
    return Next(next="/")


@router.get("/login")
async def ways_to_log_in(kvasir: KvasirDep) -> Ways:
    """Open, as the login page is."""
    label = kvasir.settings.oidc.label or tell("oidc_label")
    return Ways(provider=label if kvasir.oidc.is_on else None)


@router.post("/login")
async def log_in(given: Login, request: Request, response: Response, kvasir: KvasirDep) -> Next:
    """Log in with name and password; the answer sets the cookie of the session."""
    login = await kvasir.accounts.login(
        given.name,
        given.password,
        address=request.client.host if request.client else "",
        user_agent=request.headers.get("user-agent", ""),
    )
    await _begin(login, request, response, kvasir)
    address = request.client.host if request.client else ""
    await kvasir.audit.note(login.user.person, "me.log_in", kind="me", address=address)
    return Next(next=local_path(given.next))


@router.post("/logout", status_code=204)
async def log_out(request: Request, response: Response, _caller: CallerDep, kvasir: KvasirDep) -> None:
    """End this session."""
    await _end_old(request, kvasir)
    clear_session(response, request.scope, kvasir.settings.web)


@router.get("/me")
async def me(request: Request, caller: CallerDep, kvasir: KvasirDep) -> Me:
    """Who the caller is, what they may do, and how this Kvasir is set up."""
    state, web = kvasir.embedder_state, kvasir.settings.web
    engine, trouble = await _engine(kvasir)
    return Me(
        name=caller.person.name,
        role=caller.person.role.value,
        anonymous=is_guest(caller.identity),
        language=kvasir.settings.language,
        can_upload=caller.may(Action.WRITE),
        can_manage=caller.may(Action.MANAGE),
        can_console=not is_guest(caller.identity),
        notice=trouble or ("" if state.ready else tell("keyword_only", reason=state.reason or state.stage)),
        embedder=EmbedderOut.model_validate(state),
        engine=engine,
        version=request.app.version,
        max_file_mb=kvasir.settings.ingest.max_file_mb,
        max_question_chars=web.max_question_chars,
    )


async def _engine(kvasir: Kvasir) -> tuple[EngineOut, str]:
    """The engine, and what is wrong with it."""
    name = kvasir.models.default("engine")
    try:
        info = (await kvasir.engines.get(name)).info
    except KvasirError as error:
        return EngineOut(name=name, is_language_model=False), str(error)
    return EngineOut(name=info.name, is_language_model=info.is_language_model), ""


async def _begin(login: NewLogin, request: Request, response: Response, kvasir: Kvasir) -> None:
    await _end_old(request, kvasir)
    set_session(response, request.scope, kvasir.settings.web, login.token)


async def _end_old(request: Request, kvasir: Kvasir) -> None:
    old = session_token(request.headers, request.scope, kvasir.settings.web)
    if old:
        await kvasir.accounts.logout(old)
