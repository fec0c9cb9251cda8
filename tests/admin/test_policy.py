"""Who may do what: every operation of the API with every role, on what is theirs and on what is not.

A new operation without a rule here fails the suite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import httpx2
import pytest

from core.access import Action, may
from core.types import Person, Role
from tests.admin.conftest import PASSWORD, OpenSite, Site
from tests.admin.made_up import body_for
from tests.admin.things import make_things

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Rule:
    kind: Literal["open", "account", "somewhere", "inside", "mine"]
    """For everybody; for accounts; for whose role allows it; in a knowledge base; on what is one's own."""
    action: Action = Action.ASK


OPEN, ACCOUNT, MINE = Rule("open"), Rule("account"), Rule("mine")


def by(action: Action) -> Rule:
    return Rule("somewhere", action)


def inside(action: Action) -> Rule:
    return Rule("inside", action)


ASK, READ, WRITE, MANAGE, REVIEW, CURATE, PEOPLE = Action

RULES: Final[Mapping[str, Rule]] = {
    "health.healthz": OPEN,
    "health.readyz": OPEN,
    "me.set_up": OPEN,
    "me.ways_to_log_in": OPEN,
    "me.log_in": OPEN,
    "people.accept_invitation": OPEN,
    "me.log_out": ACCOUNT,
    "me.me": ACCOUNT,
    "own.": ACCOUNT,
    "own.end_own_login": MINE,
    "own.revoke_own_key": MINE,
    "kbs.list_kbs": by(ASK),
    "kbs.create_kb": by(MANAGE),
    "kbs.import_kb": by(MANAGE),
    "kbs.get_kb": inside(READ),
    "kbs.get_settings": inside(WRITE),
    "kbs.": inside(MANAGE),
    "grants.": inside(MANAGE),
    "generations.list_indexes": inside(WRITE),
    "generations.": inside(MANAGE),
    "documents.list_documents": inside(READ),
    "documents.summary": inside(READ),
    "documents.document": inside(READ),
    "documents.original": inside(READ),
    "documents.chunks": inside(READ),
    "documents.": inside(WRITE),
    "chunks.text": inside(READ),
    "chunks.list_overrides": inside(READ),
    "chunks.": inside(WRITE),
    "bulk.": inside(WRITE),
    "versions.list_versions": inside(READ),
    "versions.version_original": inside(READ),
    "versions.": inside(WRITE),
    "sources.list_sources": by(WRITE),
    "sources.source_kinds": by(WRITE),
    "sources.": inside(WRITE),
    "jobs.list_jobs": by(WRITE),
    "jobs.count_jobs": by(WRITE),
    "jobs.job_events": inside(READ),
    "jobs.": inside(WRITE),
    "conversations.list_conversations": by(ASK),
    "conversations.create_conversation": by(ASK),
    "conversations.": MINE,
    "answers.": MINE,
    "schedules.upcoming": by(WRITE),
    "schedules.": by(MANAGE),
    "connections.": by(MANAGE),
    "channels.": by(MANAGE),
    "models.": by(MANAGE),
    "audit.": by(PEOPLE),
    "people.": by(PEOPLE),
    "persons.": by(PEOPLE),
    "statistics.": by(REVIEW),
    "records.search": by(REVIEW),
    "records.read": inside(REVIEW),
    "records.": by(PEOPLE),
    "reviews.list_reviews": by(REVIEW),
    "reviews.list_reviewers": by(REVIEW),
    "reviews.export_reviews": by(REVIEW),
    "reviews.list_gaps": by(REVIEW),
    "reviews.change_states": by(CURATE),
    "reviews.cure_by_document": inside(WRITE),
    "reviews.cure_by_answer": inside(CURATE),
    "reviews.": inside(REVIEW),
    "curated.list_curated": by(REVIEW),
    "curated.read_curated": inside(REVIEW),
    "curated.": inside(CURATE),
    "playground.": inside(REVIEW),
    "evaluations.list_sets": inside(REVIEW),
    "evaluations.read_set": inside(REVIEW),
    "evaluations.list_questions": inside(REVIEW),
    "evaluations.export_questions": inside(REVIEW),
    "evaluations.list_runs": inside(REVIEW),
    "evaluations.read_run": inside(REVIEW),
    "evaluations.read_outcomes": inside(REVIEW),
    "evaluations.": inside(WRITE),
    "v1.models.list_models": by(ASK),
    "v1.embeddings.embed": by(ASK),
    "v1.": inside(ASK),
}
"""By an operation's id, or its beginning; the longest that fits holds."""

BODIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "bulk.change_documents": {"change": "retry", "all": {}},
    "models.add_model": {"kind": "engine", "name": "echo", "adapter": "scripted", "settings": {}},
    "models.try_settings": {"kind": "engine", "adapter": "scripted", "settings": {}},
    "schedules.create_schedule": {
        "name": "tidy", "kind": "retention", "cron": "0 3 * * *", "settings": {"platform": "slack", "days": 90},
    },
    "sources.create_source": {"kb": "{kb}", "name": "x", "kind": "url", "settings": {"urls": ["https://example.org/"]}},
    "sources.preview_source": {"kb": "{kb}", "kind": "url", "settings": {"urls": ["https://example.org/"]}},
    "records.delete_many": {"ids": ["{record_id}"]},
    "generations.move_index": {"store": "local"},
    "reviews.change_states": {"answers": ["{record_id}"], "state": "working"},
}  # fmt: skip
"""Where the document alone does not tell what fits together."""

QUERIES: Final[Mapping[str, Mapping[str, str]]] = {
    "schedules.upcoming": {"cron": "0 3 * * *"},
}

NOT_CALLED: Final[Mapping[str, str]] = {
    "connections.check_connection": "asks the platform, which cannot be reached here",
    "documents.add_address": "fetches the address, see test_documents_api",
    "evaluations.import_questions": "takes a file of questions, see test_playground_api",
    "sources.preview_source": "fetches from the source, see test_sources_api",
    "sources.preview_source_again": "the same",
    "documents.upload": "takes a stream of files, see test_documents_api",
    "kbs.import_kb": "takes an archive, see test_kbs_api",
}
"""Whose success is seen elsewhere; that they refuse is seen here too."""


@cache
def rule_of(operation: str) -> Rule:
    fitting = [name for name in RULES if operation == name or (name.endswith(".") and operation.startswith(name))]
    assert fitting, f"{operation}: who may do this? Give it a rule in {__name__}."
    return RULES[max(fitting, key=len)]


@dataclass(frozen=True)
class Persona:
    name: str
    person: Person
    browser: httpx2.AsyncClient

    def allowed(self, rule: Rule, *, own: bool) -> bool:
        if rule.kind in ("open", "account", "mine"):
            return True
        if rule.kind == "somewhere":
            return may(self.person, rule.action, private=False, anonymous=False, granted=True, edits=True)
        return may(self.person, rule.action, private=True, anonymous=False, granted=own, edits=own)


@dataclass(frozen=True)
class Operation:
    id: str
    method: str
    path: str
    told: Mapping[str, Any]
    document: Mapping[str, Any]

    def call(self, things: Mapping[str, str], **changed: Any) -> dict[str, Any]:
        path = self.path
        if self.id.startswith("v1."):
            things = {**things, "model": things["kb_model"]}
        for parameter in self.told.get("parameters", ()):
            if parameter["in"] == "path":
                name = parameter["name"].removesuffix(":path")
                path = path.replace(f"{{{parameter['name']}}}", things[self._noun(name)])
        made: dict[str, Any] = {"method": self.method, "url": path}
        query = {
            parameter["name"]: things.get(parameter["name"], things["kb"])
            for parameter in self.told.get("parameters", ())
            if parameter["in"] == "query" and parameter.get("required")
        }
        query |= QUERIES.get(self.id, {})
        if query:
            made["params"] = query
        body = body_for(self.told, self.document, things)
        if self.id in BODIES:
            body = json.loads(
                json.dumps(BODIES[self.id]).replace("{kb}", things["kb"]).replace("{record_id}", things["record_id"])
            )
        return {**made, **({"json": body} if body is not None else {}), **changed}

    def _noun(self, parameter: str) -> str:
        """What a path parameter is called among the things."""
        if parameter == "number" and self.id.startswith("versions."):
            return "version"
        if parameter == "name":
            return {"people": "user", "models": "model"}.get(self.id.partition(".")[0], "kb")
        return {"model_id": "kb_model"}.get(parameter, parameter)


def operations(site: Site) -> list[Operation]:
    document = site.document()
    return [
        Operation(told["operationId"], method.upper(), path, told, document)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    ]


async def test_every_operation_has_a_rule_and_every_rule_an_operation(site: Site) -> None:
    ids = [operation.id for operation in operations(site)]
    used = {name for name in RULES for one in ids if rule_of(one) is RULES[name]}
    for one in ids:
        rule_of(one)
    for name in RULES:
        assert any(one == name or (name.endswith(".") and one.startswith(name)) for one in ids), f"{name} is no more"
    assert used


async def test_every_role_on_what_is_theirs_and_what_is_not(open_site: OpenSite) -> None:
    async with open_site() as site:
        owner = (await site.kvasir.accounts.create("owner", PASSWORD, Role.OWNER)).person
        own, foreign = [await make_things(site, kb, by=owner) for kb in ("own", "foreign")]
        personas = await _personas(site, owner)
        faults = []
        for operation in operations(site):
            rule = rule_of(operation.id)
            faults += await _without_login(site, operation, rule, own)
            for persona in personas:
                if rule.kind == "mine" or not persona.allowed(rule, own=True):
                    faults += await _refused(operation, persona, own)  # so all the more elsewhere
                elif not persona.allowed(rule, own=False):
                    faults += await _refused(operation, persona, foreign)
        assert not faults, "\n".join(faults)


async def test_whoever_may_gets_through(open_site: OpenSite) -> None:
    """Without this, an operation that refuses everybody would look well kept."""
    async with open_site() as site:
        owner = (await site.kvasir.accounts.create("owner", PASSWORD, Role.OWNER)).person
        things = await make_things(site, "own", by=owner)
        personas = await _personas(site, owner)
        limited = [one.name for one in personas if one.name.startswith("limited")]

        async def fresh(number: int) -> Mapping[str, str]:
            made = await make_things(site, f"own{number}", by=owner)
            for name in limited:
                await site.kvasir.people.change(owner, name, rights={made["kb"]: "edit"})
            return made

        faults = []
        for number, operation in enumerate(sorted(operations(site), key=_what_deletes_last)):
            rule = rule_of(operation.id)
            if rule.kind in ("open", "account", "mine") or operation.id in NOT_CALLED:
                continue
            least = next(one for one in personas if one.allowed(rule, own=True))
            answer = await least.browser.request(**operation.call(things))
            if _fails(answer):  # perhaps for what an earlier operation did to them
                things = await fresh(number)
                answer = await least.browser.request(**operation.call(things))
            if _fails(answer):
                faults.append(f"{operation.id} by {least.name}: {answer.status_code} {answer.text[:300]}")
        assert not faults, "\n".join(faults)


def _what_deletes_last(operation: Operation) -> tuple[bool, int]:
    """Parts before what they are parts of."""
    return operation.method == "DELETE", -operation.path.count("/")


def _fails(answer: httpx2.Response) -> bool:
    return answer.status_code in (401, 403, 404, 405, 422, 500, 501)


async def _personas(site: Site, owner: Person) -> list[Persona]:
    """From the least to the most; the first may do what they may in `own` alone."""
    personas = []
    for role in (Role.VIEWER, Role.REVIEWER, Role.EDITOR):
        name = f"limited-{role.value}"
        member = await site.kvasir.people.create(owner, name, PASSWORD, role, everywhere=False, rights={"own": "edit"})
        personas.append(Persona(name, member.user.person, await site.log_in(name)))
    for role in (Role.VIEWER, Role.REVIEWER, Role.EDITOR, Role.ADMIN):
        user = await site.kvasir.accounts.create(role.value, PASSWORD, role)
        personas.append(Persona(role.value, user.person, await site.log_in(role.value)))
    return personas


async def _without_login(site: Site, operation: Operation, rule: Rule, things: Mapping[str, str]) -> list[str]:
    if rule.kind == "open":
        return []
    async with site.client() as nobody:
        answer = await nobody.request(**operation.call(things))
    return [] if answer.status_code == 401 else [f"{operation.id} without a login: {answer.status_code}"]


async def _refused(operation: Operation, persona: Persona, things: Mapping[str, str]) -> list[str]:
    answer = await persona.browser.request(**operation.call(things))
    if answer.status_code in (403, 404):
        return []
    return [f"{operation.id} by {persona.name} on {things['kb']}: {answer.status_code} {answer.text[:200]}"]
