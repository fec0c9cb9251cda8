"""A server on loopback that speaks OpenAI's chat completions on the wire, with every fault real ones have shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

TEXT = "Annual leave is 28 days a year. 年假为 28 天 [1]."
Handler = Callable[["Exchange"], Any]


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Exchange:
    """One request, and the means to answer it byte by byte."""

    server: LlmServer
    request: Request
    writer: asyncio.StreamWriter

    async def head(self, status: int, kind: str = "text/event-stream", **headers: str) -> None:
        lines = [
            f"HTTP/1.1 {status} Whatever",
            f"content-type: {kind}",
            "transfer-encoding: chunked",
            "connection: close",
        ]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await self.writer.drain()

    async def send(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self.writer.drain()

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def json(self, status: int, document: Any, **headers: str) -> None:
        await self.head(status, "application/json", **headers)
        await self.send(json.dumps(document).encode())
        await self.end()

    async def chunks(self, text: str, pause: float = 0) -> None:
        for word in pieces(text):
            await self.send(event(word))
            if pause:
                await asyncio.sleep(pause)

    async def done(self, *, mark: bool = True) -> None:
        await self.send(event("", finish="stop"))
        if mark:
            await self.send(b"data: [DONE]\n\n")
        await self.end()


def pieces(text: str) -> list[str]:
    """The text in small pieces, which joined give it back."""
    return [text[start : start + 4] for start in range(0, len(text), 4)]


def event(text: str, finish: str | None = None, **delta: str) -> bytes:
    content = {"content": text} if text else {}
    document = {"choices": [{"index": 0, "delta": {**content, **delta}, "finish_reason": finish}]}
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


@dataclass
class LlmServer:
    """Answers every request in the way its mode names; `requests` keeps what was asked."""

    mode: str = "ok"
    text: str = TEXT
    base_url: str = ""
    requests: list[Request] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The client closed its connection before the answer was complete."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            request = await _read(reader)
            self.requests.append(request)
            self.asked.set()
            watch = asyncio.create_task(self._watch(reader, task))
            try:
                await self._answer(Exchange(self, request, writer))
            finally:
                watch.cancel()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            self.gone.set()
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _watch(self, reader: asyncio.StreamReader, task: asyncio.Task[None]) -> None:
        """Ends the answer when the client hangs up while it runs."""
        await reader.read(1)  # nothing comes before the answer is complete but the end
        self.gone.set()
        task.cancel()

    async def _answer(self, exchange: Exchange) -> None:
        if exchange.request.method == "GET" and self.mode == "ok":
            await exchange.json(200, {"object": "list", "data": [{"id": "tiny"}]})
            return
        await MODES[self.mode](exchange)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def llm_server(mode: str = "ok", text: str = TEXT) -> AsyncIterator[LlmServer]:
    fake = LlmServer(mode, text)
    listener = await asyncio.start_server(fake.accept, "127.0.0.1", 0)
    fake.base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield fake
    finally:
        listener.close()
        await fake.close()
        await listener.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Request:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").strip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, json.loads(body) if body else {})


# ---------------------------------------------------------------- what can happen
async def ok(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.send(b": welcome\n\n" + event("", role="assistant"))
    await exchange.chunks(exchange.server.text)
    await exchange.send(b'data: {"choices": [], "usage": {"total_tokens": 7}}\n\n')
    await exchange.done()


async def slow(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.chunks(exchange.server.text, pause=0.02)
    await exchange.done()


async def stall_before_headers(exchange: Exchange) -> None:
    await asyncio.sleep(60)


async def stall_before_first_token(exchange: Exchange) -> None:
    await exchange.head(200)
    while True:
        await exchange.send(b": still thinking\n\n")
        await asyncio.sleep(0.02)


async def stall_after_first_token(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.send(event("Annual "))
    while True:
        await exchange.send(b": keep-alive\n\n")
        await asyncio.sleep(0.02)


async def break_mid_stream(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.send(event("Annual leave "))
    transport = exchange.writer.transport
    transport.abort()
    raise ConnectionResetError


async def break_before_headers(exchange: Exchange) -> None:
    if len(exchange.server.requests) > 1:
        await ok(exchange)
        return
    exchange.writer.transport.abort()
    raise ConnectionResetError


async def split_utf8(exchange: Exchange) -> None:
    """Every byte comes alone."""
    await exchange.head(200)
    whole = b"".join(event(word) for word in pieces(exchange.server.text)) + event("", finish="stop")
    for byte in whole + b"data: [DONE]\n\n":
        await exchange.send(bytes([byte]))
    await exchange.end()


async def crlf(exchange: Exchange) -> None:
    await exchange.head(200)
    for word in pieces(exchange.server.text):
        await exchange.send(event(word).replace(b"\n", b"\r\n").replace(b"data: ", b"event: message\r\nid: 1\r\ndata:"))
    await exchange.send(b"data:[DONE]\r\n\r\n")
    await exchange.end()


async def no_blank_lines(exchange: Exchange) -> None:
    await exchange.head(200)
    for word in pieces(exchange.server.text):
        await exchange.send(event(word).replace(b"\n\n", b"\n"))
    await exchange.send(b"data: [DONE]\n")
    await exchange.end()


async def no_done(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.chunks(exchange.server.text)
    await exchange.done(mark=False)


async def not_streamed(exchange: Exchange) -> None:
    message = {"role": "assistant", "content": exchange.server.text}
    await exchange.json(200, {"choices": [{"message": message, "finish_reason": "stop"}]})


async def reasoning(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.send(event("", reasoning_content="SECRET THOUGHT"))
    await exchange.chunks(exchange.server.text)
    await exchange.done()


async def think_tags(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.chunks("<think>\nSECRET THOUGHT\n</think>\n\n" + exchange.server.text)
    await exchange.done()


async def only_reasoning(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.send(event("", reasoning_content="SECRET THOUGHT"))
    await exchange.done()


async def content_parts(exchange: Exchange) -> None:
    await exchange.head(200)
    for word in pieces(exchange.server.text):
        part = {"choices": [{"delta": {"content": [{"type": "text", "text": word}]}}]}
        await exchange.send(b"data: " + json.dumps(part).encode() + b"\n\n")
    await exchange.done()


async def error_as_200(exchange: Exchange) -> None:
    await exchange.json(200, {"error": {"message": "The model is overloaded", "code": "server_error"}})


async def error_in_stream(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.send(event("Annual leave "))
    await exchange.send(b'data: {"error": {"message": "CUDA out of memory"}}\n\ndata: [DONE]\n\n')
    await exchange.end()


ENDED = {"error": {"message": "Memory ran out.", "code": "worker_ended"}}


async def worker_ended(exchange: Exchange) -> None:
    await exchange.json(503, ENDED)


async def worker_ended_in_stream(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.send(b"data: " + json.dumps(ENDED).encode() + b"\n\n")
    await exchange.end()


async def wrong_key(exchange: Exchange) -> None:
    key = exchange.request.headers.get("authorization", "")
    await exchange.json(401, {"error": {"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"}})


async def wrong_key_as_200(exchange: Exchange) -> None:
    await exchange.json(200, {"code": "InvalidApiKey", "message": "Invalid API-key provided."})


async def no_model(exchange: Exchange) -> None:
    await exchange.json(404, {"error": {"message": "The model `tiny` does not exist", "code": "model_not_found"}})


async def too_long(exchange: Exchange) -> None:
    message = "This model's maximum context length is 4096 tokens, you asked for 9000"
    await exchange.json(400, {"error": {"message": message, "code": "context_length_exceeded"}})


async def busy(exchange: Exchange) -> None:
    await exchange.json(429, {"error": {"message": "Rate limit reached"}})


async def busy_for_long(exchange: Exchange) -> None:
    await exchange.json(429, {"error": {"message": "Rate limit reached"}}, retry_after="3600")


async def busy_then_ok(exchange: Exchange) -> None:
    if len(exchange.server.requests) == 1:
        await exchange.json(429, {"error": {"message": "Rate limit reached"}}, retry_after="0.2")
    else:
        await ok(exchange)


async def failing(exchange: Exchange) -> None:
    await exchange.json(500, {"error": "engine died"})


async def failing_then_ok(exchange: Exchange) -> None:
    if len(exchange.server.requests) == 1:
        await failing(exchange)
    else:
        await ok(exchange)


async def moved(exchange: Exchange) -> None:
    await exchange.json(307, {}, location="http://elsewhere.example/v1/chat/completions")


async def garbage(exchange: Exchange) -> None:
    await exchange.head(200, "text/html")
    await exchange.send(b"<html><body>Welcome to the router's login page</body></html>")
    await exchange.end()


async def garbage_event(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.send(b"data: {not json at all\n\n")
    await exchange.end()


async def empty(exchange: Exchange) -> None:
    await exchange.head(200)
    await exchange.end()


async def endless(exchange: Exchange) -> None:
    await exchange.head(200)
    while True:
        await exchange.send(event("again and again "))
        await asyncio.sleep(0)


async def huge_line(exchange: Exchange) -> None:
    await exchange.head(200)
    for _ in range(40):
        await exchange.send(b"x" * 65536)
    await exchange.end()


async def wants_completion_tokens(exchange: Exchange) -> None:
    if "max_tokens" in exchange.request.body:
        message = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
        await exchange.json(400, {"error": {"message": message}})
    else:
        await ok(exchange)


async def wants_no_system(exchange: Exchange) -> None:
    if exchange.request.body["messages"][0]["role"] == "system":
        await exchange.json(400, {"error": {"message": "System role not supported"}})
    else:
        await ok(exchange)


async def echo(exchange: Exchange) -> None:
    """Says back all it was given."""
    await exchange.head(200)
    await exchange.chunks("\n".join(message["content"] for message in exchange.request.body["messages"]))
    await exchange.done()


async def counted(exchange: Exchange) -> None:
    """Counts at the end where it is asked to, and was cut at its limit."""
    await exchange.head(200)
    await exchange.chunks(exchange.server.text)
    await exchange.send(event("", finish="length"))
    if exchange.request.body.get("stream_options", {}).get("include_usage"):
        usage = {"prompt_tokens": 17, "completion_tokens": 9, "total_tokens": 26}
        await exchange.send(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
    await exchange.send(b"data: [DONE]\n\n")
    await exchange.end()


async def counted_in_the_choice(exchange: Exchange) -> None:
    """As Moonshot."""
    await exchange.head(200)
    await exchange.chunks(exchange.server.text)
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 17, "completion_tokens": 9}}
    await exchange.send(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\ndata: [DONE]\n\n")
    await exchange.end()


async def counted_with_every_piece(exchange: Exchange) -> None:
    """As Gemini; a count that is none comes too."""
    await exchange.head(200)
    for number, word in enumerate(pieces(exchange.server.text)):
        usage = {"prompt_tokens": 17, "completion_tokens": number}
        chunk = {"choices": [{"delta": {"content": word}}], "usage": usage}
        await exchange.send(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    last = {"choices": [], "usage": {"prompt_tokens": "many", "completion_tokens": -1}}
    await exchange.send(b"data: " + json.dumps(last).encode() + b"\n\n")
    await exchange.done()


async def said_once_more(exchange: Exchange) -> None:
    """As MiniMax: the last event has the whole text."""
    await exchange.head(200)
    await exchange.chunks(exchange.server.text)
    message = {"role": "assistant", "content": exchange.server.text}
    last = {
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 17, "completion_tokens": 9},
        "base_resp": {"status_code": 0, "status_msg": ""},
    }
    await exchange.send(b"data: " + json.dumps(last).encode() + b"\n\n")
    await exchange.end()


async def wrong_key_in_base_resp(exchange: Exchange) -> None:
    await exchange.json(200, {"base_resp": {"status_code": 1004, "status_msg": "login fail: carry the secret key"}})


async def error_as_list(exchange: Exchange) -> None:
    """As Gemini."""
    error = {"code": 400, "message": "Invalid JSON payload received. Unknown name", "status": "INVALID_ARGUMENT"}
    await exchange.head(400, "application/json")
    await exchange.send(json.dumps([{"error": error}], indent=2).encode())
    await exchange.end()


async def counts_for_nobody(exchange: Exchange) -> None:
    if "stream_options" in exchange.request.body:
        await exchange.json(400, {"error": {"message": "Unrecognized request argument: stream_options"}})
    else:
        await ok(exchange)


MODES: dict[str, Handler] = {
    function.__name__: function
    for function in (
        *(ok, slow, stall_before_headers, stall_before_first_token, stall_after_first_token, break_mid_stream),
        *(break_before_headers, split_utf8, crlf, no_blank_lines, no_done, not_streamed, reasoning, think_tags),
        *(only_reasoning, content_parts, error_as_200, error_in_stream, wrong_key, wrong_key_as_200, no_model),
        *(too_long, busy, busy_for_long, busy_then_ok, failing, failing_then_ok, moved, garbage, garbage_event),
        *(empty, endless, huge_line, wants_completion_tokens, wants_no_system, echo),
        *(counted, counted_in_the_choice, counted_with_every_piece, said_once_more, wrong_key_in_base_resp),
        *(error_as_list, counts_for_nobody, worker_ended, worker_ended_in_stream),
    )
}
