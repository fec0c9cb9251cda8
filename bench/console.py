"""What each page of the console costs the server, with 10,000 documents and 100,000 answers in the database."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from fastapi.routing import iter_route_contexts

from admin.app import create_app
from bench.common import WORDS, quantile
from core.app import Kvasir
from core.db import migrate
from core.db.session import Database
from core.settings import load
from core.types import Role
from tests.admin.handler import EchoHandler

DOCUMENTS, ANSWERS, CONVERSATIONS = 10_000, 100_000, 20_000
DAYS = 180
"""Over which the answers are spread, so that ninety days with the ninety before are all of them."""
BAR = 300.0
MOST = 60.0
"""Seconds for one address."""
ROUNDS = 5
HERE = "http://127.0.0.1:8410"
KBS = ("handbook", "manual", "人事制度", "contracts", "sales")
PASSAGES, PASSAGE_WORDS, PROMPT_WORDS, ANSWER_WORDS = 5, 110, 500, 70


def main() -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder)))


async def measure(folder: Path) -> None:
    path = folder / "kvasir.db"
    database = Database(f"sqlite+aiosqlite:///{path}")
    await migrate.upgrade(database)
    await database.close()
    known = fill(path, DOCUMENTS, ANSWERS, CONVERSATIONS)
    print(f"{DOCUMENTS} documents and {ANSWERS} answers over {DAYS} days; database {path.stat().st_size >> 20} MB\n")
    async with Kvasir.open(load(data_dir=folder, embedder={"kind": "none"})) as kvasir:
        app = create_app(kvasir, EchoHandler(kvasir))
        headers = {"origin": HERE, "accept-language": "en"}
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url=HERE, headers=headers, timeout=120
        ) as browser:
            await kvasir.accounts.create("ann", "correct horse battery", Role.OWNER)
            await browser.post("/api/v1/login", json={"name": "ann", "password": "correct horse battery"})
            found = [await cost(browser, url) for url in addresses(app, known)]
    print("median [least..most] of the time, and of the CPU, in ms; status; address")
    for url, status, took, cpu in sorted(found, key=lambda one: -quantile(one[2], 0.5)):
        over = "  <- over the bar" if quantile(took, 0.5) > BAR else ""
        spent = f"{quantile(took, 0.5):6.0f} [{min(took):.0f}..{max(took):.0f}] {quantile(cpu, 0.5):6.0f}"
        print(f"{spent}  {status}  {url}{over}")
    slow = sum(quantile(took, 0.5) > BAR for _, _, took, _ in found)
    dear = sum(quantile(cpu, 0.5) > BAR for _, _, _, cpu in found)
    print(f"\n{len(found)} addresses; over {BAR:.0f} ms: {slow} by the clock, {dear} by their CPU (bar: none; medians)")


async def cost(browser: httpx2.AsyncClient, url: str) -> tuple[str, int, list[float], list[float]]:
    """The status; the milliseconds of each round but the first, which opens files; and those of CPU."""
    took: list[float] = []
    cpu: list[float] = []
    status = 0
    for number in range(ROUNDS + 1):
        begun, spent = time.perf_counter(), time.process_time()
        async with asyncio.timeout(MOST):
            status = (await browser.get(url)).status_code
        if number:
            took.append((time.perf_counter() - begun) * 1000)
            cpu.append((time.process_time() - spent) * 1000)
    return url, status, took, cpu


def addresses(app: Any, known: dict[str, str]) -> Iterator[str]:
    """Every address that the console reads from, whatever routes there are, and the dear ways to ask some of them."""
    ends = (".json", "/events", "/original", "/export", "/export.md", "/oidc")
    for route in iter_route_contexts(app.routes):
        path = str(route.path)
        if "GET" not in (route.methods or ()) or not path.startswith("/api/v1/") or path.endswith(ends):
            continue
        names = [part[1:-1].partition(":")[0] for part in path.split("/") if part.startswith("{")]
        if all(name in known for name in names):
            yield path.format(**known)
    until = datetime.now(UTC)
    quarter = {"since": f"{until - timedelta(days=90):%Y-%m-%dT%H:%M:%SZ}", "until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}
    for ways in ("statistics", "statistics/by", "statistics/unanswered", "statistics/choices"):
        for narrowed in (quarter, {**quarter, "kb": KBS[2]}, {**quarter, "platform": "slack"}):
            yield f"/api/v1/{ways}?{httpx2.QueryParams(narrowed)}"
    for wanted in ({}, {"text": "refund warranty"}, {"text": "no such words"}, {"rating": "down"}, {"person": "U17"}):
        yield f"/api/v1/records?{httpx2.QueryParams({**quarter, **wanted})}"
    yield f"/api/v1/records?{httpx2.QueryParams({**quarter, 'offset': '10000'})}"
    from admin.console.pages import PAGES
    from admin.console.records import RECORDS

    yield from (f"/console/{page.name}" for page in PAGES)
    for view in RECORDS:
        yield f"/console/{view.identity}/list"
        yield f"/console/{view.identity}/list?search=refund"


# ---------------------------------------------------------------- made on the spot
def fill(path: Path, documents: int, answers: int, conversations: int, seed: int = 7) -> dict[str, str]:
    """Rows as months of use leave them, always the same for a seed; gives some of their names for addresses."""
    made = _Made(seed)
    with closing(sqlite3.connect(path)) as database:
        kbs = made.kbs(database)
        made.documents(database, kbs, documents)
        places = made.conversations(database, conversations)
        made.answers(database, places, answers)
        made.work(database)
        database.execute("PRAGMA optimize")
        database.commit()
        one = database.execute("SELECT id, conversation_id, person FROM answers LIMIT 1").fetchone()
        document = database.execute("SELECT id FROM documents LIMIT 1").fetchone()[0]
        job = database.execute("SELECT id FROM jobs LIMIT 1").fetchone()[0]
    return {"name": KBS[0], "document_id": document, "answer_id": one[0], "record_id": one[1], "person": one[2],
            "job_id": job, "kb": KBS[0]}  # fmt: skip


class _Made:
    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._now = datetime.now(UTC)

    def id(self) -> str:
        return uuid.UUID(int=self._chance.getrandbits(128)).hex

    def text(self, words: int) -> str:
        return " ".join(self._chance.choices(WORDS, k=words))

    def ago(self, days: float) -> str:
        return (self._now - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.%f")

    def kbs(self, database: sqlite3.Connection) -> Sequence[str]:
        kbs = []
        for number, name in enumerate(KBS):
            kb, generation = self.id(), self.id()
            insert(database, "generations", [{
                "id": generation, "kb_id": kb, "fingerprint": "f", "dimension": 0, "embedder": "", "profile": "{}",
                "state": "live", "created_at": self.ago(DAYS),
            }])  # fmt: skip
            insert(database, "knowledge_bases", [{
                "id": kb, "name": name, "description": "", "private": number == 3, "chunk_size": 200,
                "chunk_overlap": 40, "title_enhance": True, "live_generation_id": generation,
                "created_at": self.ago(DAYS), "updated_at": self.ago(1),
            }])  # fmt: skip
            kbs.append(kb)
        return kbs

    def documents(self, database: sqlite3.Connection, kbs: Sequence[str], count: int) -> None:
        insert(database, "documents", [{
            "id": self.id(), "kb_id": kbs[number % len(kbs)], "name": f"{self._chance.choice(WORDS)}/{number:05d}.md",
            "title": self.text(4), "media_type": "text/markdown", "size": 5000, "content_hash": f"{number:064x}",
            "live_hash": f"{number:064x}", "status": "failed" if number % 50 == 0 else "indexed",
            "stage": "stored" if number % 50 == 0 else "live", "chunks": 9, "source": "upload", "meta": "{}",
            "created_at": self.ago(DAYS * (1 - number / count)), "updated_at": self.ago(DAYS * (1 - number / count)),
        } for number in range(count)])  # fmt: skip

    def conversations(self, database: sqlite3.Connection, count: int) -> Sequence[dict[str, Any]]:
        rows = []
        for number in range(count):
            platform = self._chance.choice(("slack", "slack", "discord", "telegram", "web"))
            person = f"{platform}:T1:U{self._chance.randrange(400)}"
            rows.append({
                "id": self.id(), "platform": platform, "workspace": "" if platform == "web" else "T1",
                "channel": person if platform == "web" else f"C{self._chance.randrange(40)}", "thread": str(number),
                "person": person, "title": self.text(5), "created_at": self.ago(DAYS), "updated_at": self.ago(1),
            })  # fmt: skip
        insert(database, "conversations", rows)
        return rows

    def answers(self, database: sqlite3.Connection, places: Sequence[dict[str, Any]], count: int) -> None:
        passages = json.dumps([{
            "n": n, "kb": KBS[0], "document_id": self.id(), "document": "leave.md", "title": "Leave", "chunk": n,
            "text": self.text(PASSAGE_WORDS), "headings": ["Leave"], "score": 0.5, "vector_score": 0.5,
            "locator": {"kind": "", "label": "", "first": None, "last": None}, "keyword_score": 3.1,
            "rerank_score": None, "cited": n == 1,
        } for n in range(1, PASSAGES + 1)])  # fmt: skip
        prompt = json.dumps([{"role": "user", "text": self.text(PROMPT_WORDS)}])
        questions = [self.text(8) for _ in range(5000)]
        for start in range(0, count, 10_000):
            rows, ratings, reviews = [], [], []
            for number in range(start, min(start + 10_000, count)):
                place, at = self._chance.choice(places), self.ago(DAYS * (1 - number / count))
                answered, total = self._chance.random() < 0.85, self._chance.lognormvariate(7, 0.6)
                engine, model = self._chance.choice((("extractive", ""), ("openai", "qwen-72b"), ("openai", "glm-4")))
                question = self._chance.choice(questions)
                row = {
                    "id": self.id(), "conversation_id": place["id"], "person": place["person"], "question": question,
                    "platform": place["platform"], "kbs": json.dumps([self._chance.choice(KBS)]),
                    "standalone_question": question, "text": self.text(ANSWER_WORDS), "state": "complete",
                    "answered": answered, "notice": "", "engine": engine, "model": model, "passages": passages,
                    "prompt": prompt, "evidence": 0.5, "timings": json.dumps({"total": total}), "created_at": at,
                    "workspace": place["workspace"], "channel": place["channel"], "first_token_ms": total / 3,
                    "total_ms": total, "prompt_tokens": 900 if model else None, "answer_tokens": 90 if model else None,
                }  # fmt: skip
                rows.append(row)
                if self._chance.random() < 0.2:
                    value = self._chance.choice((1, 1, -1))
                    ratings.append({"id": self.id(), "answer_id": row["id"], "person": place["person"], "value": value,
                                    "reason": "", "created_at": at, "updated_at": at})  # fmt: skip
                if not answered and self._chance.random() < 0.5:
                    state = self._chance.choice(("new", "working", "solved"))
                    reviews.append({"answer_id": row["id"], "state": state, "labels": "[]", "note": "", "cure": "{}",
                                    "updated_by": "", "created_at": at, "updated_at": at})  # fmt: skip
            for table, some in (("answers", rows), ("ratings", ratings), ("reviews", reviews)):
                insert(database, table, some)

    def work(self, database: sqlite3.Connection) -> None:
        insert(database, "jobs", [{
            "id": self.id(), "kind": "ingest", "payload": json.dumps({"kb": KBS[0]}), "progress": "{}", "attempts": 1,
            "state": self._chance.choice(("done", "done", "done", "failed")), "fence": 1, "cancel_requested": False,
            "created_at": self.ago(number / 20), "finished_at": self.ago(number / 20),
        } for number in range(2000)])  # fmt: skip
        insert(database, "audit", [{
            "id": self.id(), "person": "user:1", "name": "ann", "action": "kbs.change_kb", "kind": "kbs",
            "object": KBS[0], "changes": "{}", "address": "127.0.0.1", "created_at": self.ago(number / 40),
        } for number in range(5000)])  # fmt: skip


def insert(database: sqlite3.Connection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    columns = list(rows[0])
    marks = ", ".join("?" for _ in columns)
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
    database.executemany(statement, [[row[column] for column in columns] for row in rows])
