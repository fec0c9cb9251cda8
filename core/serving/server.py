"""What a worker says over HTTP: OpenAI's dialect, tokens, and how the model is. The only web server of the core."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.serving import requests
from core.serving.dialect import (
    CHAT,
    TEXT,
    Said,
    Shape,
    card_as_json,
    error_object,
    failed,
    job_of,
    new_id,
    packed,
    refused,
)
from core.serving.driver import Broke, Card, Done, Job, Piece, Refused
from core.serving.loop import Full, ModelLoop, Ticket, Told
from core.serving.requests import Asked, AskedVectors, BadRequest
from core.serving.templates import Templates
from core.serving.thread import Computed, Fatal, VectorJob

logger = logging.getLogger(__name__)

LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "worker"})
"""Names by which a worker without a key is asked: a page of the web that names it otherwise is sent away."""
_LARGEST: Final = 32 << 20
_QUIET: Final = 10.0
"""Seconds after which a waiting client gets a sign of life."""
_LOOK: Final = 1.0
"""Seconds in which a job that has room has begun, or was refused."""
_LOAD_TICK: Final = 5.0
_ABOUT_TO_LOAD: Final = 5.0
"""Seconds in which a fresh process is told to load, as a rule."""
_LONG_TEXT: Final = 8000
_RETRY_SECONDS: Final = 2
_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]

Handle = Callable[[Request], Awaitable[Response]]


class Worker:
    """The model and its surface."""

    def __init__(
        self, model: ModelLoop, *, key: str, load_seconds: float, stall_seconds: float, unloaded: Callable[[], None]
    ) -> None:
        self.model = model
        self._key = key.encode()
        self._load_seconds = load_seconds
        self._stall_seconds = stall_seconds
        self._unloaded = unloaded
        self._templates: Templates | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._started = int(time.time())

    def app(self) -> ASGIApp:
        get, post = ["GET"], ["POST"]
        routes = [
            Route("/v1/chat/completions", _guarded(self._chat), methods=post),
            Route("/v1/completions", _guarded(self._completion), methods=post),
            Route("/v1/embeddings", _guarded(self._embeddings), methods=post),
            Route("/v1/rerank", _guarded(self._rerank), methods=post),
            Route("/v1/models", _guarded(self._models), methods=get),
            Route("/v1/model", _guarded(self._model), methods=get),
            Route("/tokenize", _guarded(self._tokenize), methods=post),
            Route("/detokenize", _guarded(self._detokenize), methods=post),
            Route("/admin/load", _guarded(self._load), methods=post),
            Route("/admin/unload", _guarded(self._unload), methods=post),
            Route("/health", _guarded(self._health), methods=get),
        ]
        return _Door(Starlette(routes=routes), self._key)

    # ------------------------------------------------------------ generating
    async def _chat(self, request: Request) -> Response:
        asked = requests.chat(await _body(request))
        card = await self._ready("chat", asked.model)
        prompt = await self._prompt(asked)
        return await self._generate(asked, prompt, card, CHAT)

    async def _completion(self, request: Request) -> Response:
        asked = requests.completion(await _body(request))
        card = await self._ready("completion", asked.model)
        prompt = await self._prompt(asked)
        return await self._generate(asked, prompt, card, TEXT)

    async def _prompt(self, asked: Asked) -> list[int]:
        """Its token ids; long texts take a while, and leave the loop meanwhile."""
        if isinstance(asked.prompt, tuple) and asked.prompt:
            return list(asked.prompt)
        size = sum(len(one.content) for one in asked.messages) + len(asked.prompt)
        if size > _LONG_TEXT:
            return await asyncio.to_thread(self._tokens, asked)
        return self._tokens(asked)

    def _tokens(self, asked: Asked) -> list[int]:
        if self._templates is None:
            self._templates = Templates(self.model.tokenizer)
        if asked.messages:
            return self._templates.tokens(asked.messages, asked.options)
        return self._templates.completion(str(asked.prompt), special=asked.special)

    async def _generate(self, asked: Asked, prompt: list[int], card: Card, shape: Shape) -> Response:
        ticket = self._submit(job_of(asked, prompt, card), asked.user)
        said = Said(card.model, int(time.time()), ticket.work.id, shape, asked.counts)
        try:
            first = await _settled(ticket, asked.is_stream)
        except BaseException:
            ticket.close()
            raise
        if asked.is_stream:
            return _Stream(ticket, said, first)
        return _Whole(ticket, said, first)

    def _submit(self, work: Job | VectorJob, user: str) -> Ticket:
        try:
            return self.model.submit(work, user)
        except Full as error:
            raise BadRequest(
                f"The model is busy: {error.waiting} others wait; ask again in a moment.", code="queue_full", status=429
            ) from error

    # ------------------------------------------------------------ vectors
    async def _embeddings(self, request: Request) -> Response:
        asked = requests.embedding(await _body(request))
        card = await self._ready("embed", asked.model)
        rows = await self._computed(request, VectorJob(new_id("embd"), asked.texts, is_query=asked.is_query), asked)
        data = [
            {"object": "embedding", "index": place, "embedding": packed(row) if asked.is_base64 else row}
            for place, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        return JSONResponse({"object": "list", "data": data, "model": card.model, "usage": usage})

    async def _rerank(self, request: Request) -> Response:
        asked = requests.reranking(await _body(request))
        card = await self._ready("rerank", asked.model)
        rows = await self._computed(request, VectorJob(new_id("rank"), asked.texts, asked.query), asked)
        scores = sorted(((row[0], place) for place, row in enumerate(rows)), key=lambda one: (-one[0], one[1]))
        found = [{"index": place, "relevance_score": score} for score, place in scores[: asked.top_n]]
        return JSONResponse({"id": new_id("rerank"), "model": card.model, "results": found})

    async def _computed(self, request: Request, job: VectorJob, asked: AskedVectors) -> Any:
        ticket = self._submit(job, asked.user)
        with _closing(ticket), _watched(request.receive, ticket):
            while not ticket.is_closed:
                for told in await ticket.take(_QUIET):
                    match told:
                        case Computed():
                            return told.rows
                        case Broke() | Fatal():
                            raise failed(told)
        raise ClientDisconnect

    # ------------------------------------------------------------ what it is, and how
    async def _models(self, _: Request) -> Response:
        card = self.model.card
        entry = {"id": card.model, "object": "model", "created": self._started, "owned_by": "kvasir"} if card else None
        return JSONResponse({"object": "list", "data": [entry] if entry else []})

    async def _model(self, _: Request) -> Response:
        card = self.model.card
        if card is None:
            raise BadRequest("No model is loaded.", code="not_loaded", status=503)
        return JSONResponse(card_as_json(card))

    async def _tokenize(self, request: Request) -> Response:
        body = await _body(request)
        messages, text = requests.messages_or_text(body)
        await self._ready("tokens", "")
        if messages:
            asked = replace(requests.completion({"prompt": "."}), messages=messages, prompt="")
            ids = await self._prompt(asked)
        else:
            special = bool(body.get("parse_special"))
            ids = await asyncio.to_thread(self.model.tokenizer.encode, text, special=special)
        return JSONResponse({"tokens": ids, "count": len(ids)})

    async def _detokenize(self, request: Request) -> Response:
        ids = (await _body(request)).get("tokens")
        if not isinstance(ids, list) or any(type(one) is not int or one < 0 for one in ids):
            raise BadRequest("`tokens` must be a list of token ids.", "tokens")
        await self._ready("tokens", "")
        return JSONResponse({"content": await asyncio.to_thread(self.model.tokenizer.decode, ids)})

    async def _health(self, _: Request) -> Response:
        standing = self.model.standing()
        state = "stalled" if standing.step_age > self._stall_seconds else standing.state
        document = {
            "state": state,
            "stage": standing.stage,
            "done": standing.done,
            "total": standing.total,
            "active": standing.active,
            "queued": standing.queued,
            "last_step_age": round(standing.step_age, 3),
            "error": standing.sentence,
        }
        return JSONResponse(document, 503 if state in ("stalled", "failed") else 200)

    # ------------------------------------------------------------ loading and its end
    async def _load(self, _: Request) -> Response:
        """The load goes on whoever listens; who comes later hears the rest of it."""
        self.model.load()
        return _Events(self._loading())

    async def _loading(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            standing = self.model.standing()
            now = {"state": standing.state, "stage": standing.stage, "done": standing.done, "total": standing.total}
            if standing.state not in ("idle", "loading"):
                break
            yield now
            await self.model.changed(_LOAD_TICK)
        if self.model.card is not None and self.model.fatal is None:
            yield now | {"card": card_as_json(self.model.card)}
        else:
            fatal = self.model.fatal or Fatal("failed", "The model is not there any more.")
            yield now | {"error": fatal.sentence, "cause": fatal.cause}

    async def _unload(self, request: Request) -> Response:
        """Ends the process when the last answer has ended; answers at once."""
        body = await _body(request) if await request.body() else {}
        seconds = body.get("drain_seconds", 60)
        if type(seconds) not in (int, float) or not 0 <= seconds <= 3600:
            raise BadRequest("`drain_seconds` must be a number from 0 to 3600.", "drain_seconds")
        if self._unloading is None:
            self._unloading = asyncio.create_task(self._leave(float(seconds)), name="unload")
        return JSONResponse({"state": "draining"}, 202)

    async def _leave(self, seconds: float) -> None:
        await self.model.drain(seconds)
        self._unloaded()

    async def _ready(self, feature: str, model: str) -> Card:
        """The card of the loaded model, which can do that and goes by that name. Raises BadRequest."""
        state = self.model.state
        if state == "draining":
            raise BadRequest("The model is being unloaded.", code="not_loaded", status=503)
        wait = _ABOUT_TO_LOAD if state == "idle" else self._load_seconds
        if state in ("idle", "loading") and not await self.model.loaded(wait) and not self.model.fatal:
            raise BadRequest("No model is loaded.", code="not_loaded", status=503)
        card = self.model.card
        if self.model.fatal or card is None:
            raise failed(self.model.fatal or Fatal("failed", "The model is not there any more."))
        if model and model != card.model:
            raise BadRequest(
                f"There is no model «{model}» here, but «{card.model}».", code="model_not_found", status=404
            )
        is_vectors = bool(card.features & {"embed", "rerank"})
        if feature not in card.features and (feature != "tokens" or is_vectors):
            raise BadRequest("The model that is loaded does not do this.", code="unsupported", status=404)
        return card


async def serve(worker: Worker, socket: Any) -> None:
    """Serve on a socket that listens already, until cancelled."""
    config = uvicorn.Config(
        worker.app(),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=64 << 10,
    )
    server = _Server(config)
    try:
        await server.serve([socket])
    finally:
        server.should_exit = True


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own matter."""
        yield

    async def main_loop(self) -> None:
        """Until it is cancelled; the library's own wakes up ten times a second to see whether it is to end."""
        await asyncio.get_running_loop().create_future()


# ---------------------------------------------------------------- who may come in
class _Door:
    """Lets in who has the key; without one, who asks for a name of this machine."""

    def __init__(self, app: ASGIApp, key: bytes) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not self._may(dict(scope["headers"])):
            sentence = "The key is missing or wrong." if self._key else "Ask for this worker by a local address."
            await _error(BadRequest(sentence, code="invalid_api_key", status=401))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _may(self, headers: Mapping[bytes, bytes]) -> bool:
        if self._key:
            return secrets.compare_digest(headers.get(b"authorization", b""), b"Bearer " + self._key)
        host = headers.get(b"host", b"").decode("latin-1").lower()
        return (host if host.endswith("]") else host.rpartition(":")[0] or host) in LOCAL_HOSTS


def _guarded(handle: Handle) -> Handle:
    """What goes wrong, as OpenAI says it."""

    async def guarded(request: Request) -> Response:
        try:
            return await handle(request)
        except BadRequest as error:
            return _error(error)
        except Refused as error:
            return _error(refused(error))
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:  # the outermost of a request
            logger.exception("a request failed")
            return _error(BadRequest("The worker failed by an error of its own.", code="failed", status=500))

    return guarded


async def _body(request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":
        raise BadRequest("Send JSON, with the content type application/json.", status=415)
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > _LARGEST:
            raise BadRequest(f"The request is larger than {_LARGEST >> 20} MB.", status=413)
    return requests.document(b"".join(parts))


def _error(error: BadRequest) -> Response:
    headers = {"retry-after": str(_RETRY_SECONDS)} if error.status in (429, 503) else {}
    return JSONResponse({"error": error_object(error)}, error.status, headers)


async def _settled(ticket: Ticket, is_stream: bool) -> list[Told]:
    """What is told first; a refusal is an error with a status of its own. Raises BadRequest."""
    told = await ticket.take(_LOOK)
    for one in told:
        if isinstance(one, Broke) or (isinstance(one, Fatal) and not is_stream):
            raise failed(one)
    return told


class _Whole(Response):
    """An answer in one piece; whoever asked for it can leave while it is written."""

    def __init__(self, ticket: Ticket, said: Said, first: list[Told]) -> None:
        self._ticket = ticket
        self._said = said
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ticket, parts, told = self._ticket, [], self._first
        with _closing(ticket), _watched(receive, ticket):
            while not ticket.is_closed:
                for one in told:
                    match one:
                        case Piece():
                            parts.append(one.text)
                        case Done():
                            await JSONResponse(self._said.whole("".join(parts), one))(scope, receive, send)
                            return
                        case Broke() | Fatal():
                            await _error(failed(one))(scope, receive, send)
                            return
                told = await ticket.take(_QUIET)


class _Stream(Response):
    """An answer as it is written. What fails ends it by an error, and never by `[DONE]`."""

    def __init__(self, ticket: Ticket, said: Said, first: list[Told]) -> None:
        self._ticket = ticket
        self._said = said
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  the port of ASGI
        ticket, told = self._ticket, self._first
        with _closing(ticket), _watched(receive, ticket):
            await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
            await send(_part(self._said.role() or b": begun\n\n"))
            while not ticket.is_closed:
                found, is_end = self._said.written(told)
                if found or is_end:
                    await send(_part(found, more=not is_end))
                if is_end:
                    return
                told = await ticket.take(_QUIET)
                if not told and not ticket.is_closed:
                    await send(_part(b": still here\n\n"))


class _Events(Response):
    """JSON events, one after the other."""

    def __init__(self, events: AsyncIterator[dict[str, Any]]) -> None:
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  the port of ASGI
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        async for event in self._events:
            await send(_part(f"data: {json.dumps(event)}\n\n".encode()))
        await send(_part(b"", more=False))


def _part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


@contextmanager
def _closing(ticket: Ticket) -> Iterator[None]:
    try:
        yield
    finally:
        ticket.close()


@contextmanager
def _watched(receive: Receive, ticket: Ticket) -> Iterator[None]:
    """Closes the ticket when its client leaves."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        ticket.close()

    watching = asyncio.create_task(watch(), name="client")
    try:
        yield
    finally:
        watching.cancel()
