"""The API's document, and calls made up from it: no answer is an error of ours, or one that it does not tell of."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from core.access import Scope
from core.types import Role
from tests.admin.conftest import HERE, OpenSite, Site

pytestmark = pytest.mark.anyio

EXAMPLES: Final = int(os.environ.get("KVASIR_TEST_API_EXAMPLES", "2"))
"""Calls made up for each operation; more find more, and take longer."""


async def test_every_operation_has_a_name_a_noun_and_the_errors_it_may_end_with(site: Site) -> None:
    document = site.document()
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    names = [one["operationId"] for one in operations]
    assert len(names) == len(set(names))
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["tags"] == [operation["operationId"].rpartition(".")[0]]
            assert operation.get("description"), operation["operationId"]
            if path.startswith("/api/v1/"):
                assert {"401", "403", "404", "422"} <= set(operation["responses"]), operation["operationId"]
    assert "HTTPValidationError" not in str(document)


# ---------------------------------------------------------------- calls made up from the document
OUTSIDE: Final = {
    "connections.check_connection": "asks the platform, which cannot be reached here",
    "models.test_model": "asks the model's server",
}
"""Operations that are not called, with the reason."""


async def test_no_answer_is_an_error_of_ours_or_untold(open_site: OpenSite) -> None:
    import schemathesis  # late, as the plugin of its name is off: each test process would take half a second for it
    from schemathesis.core.result import Ok

    schemathesis.serializer("application/jsonl")(_lines)
    async with open_site() as site:
        await site.kvasir.accounts.create("ann", "correct horse battery", Role.OWNER)
        await site.kvasir.knowledge.create("hr")
        _, token = await site.kvasir.accounts.create_key("ann", "all", [Scope.ADMIN])
        headers = {"authorization": f"Bearer {token}"}
        document = site.document()
        operations = [
            result.ok()
            for result in schemathesis.openapi.from_dict(document).get_all_operations()
            if isinstance(result, Ok)
        ]
        faults = []
        for operation in operations:
            told = operation.definition.raw
            if told["operationId"] in OUTSIDE:
                continue
            for call in await asyncio.to_thread(_made_up, operation):
                async with site.client(headers=headers) as program:
                    answer = await program.request(**call)
                if fault := _fault(told["responses"], answer):
                    faults.append(f"{told['operationId']}: {fault} to {call}"[:900])
        assert not faults, "\n".join(faults)


def _lines(_context: object, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _made_up(operation: Any) -> list[dict[str, Any]]:
    """Calls that the document allows."""
    from schemathesis import GenerationMode

    calls: list[dict[str, Any]] = []

    @seed(0)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def collect(case: Any) -> None:
        made = case.as_transport_kwargs(base_url=HERE)
        if isinstance(made.get("data"), bytes):
            made["content"] = made.pop("data")
        kept = ("method", "url", "params", "json", "data", "content", "files")
        calls.append({name: value for name, value in made.items() if name in kept and value is not None})

    collect()
    return calls


def _fault(told: dict[str, Any], answer: httpx2.Response) -> str:
    if answer.status_code >= 500 and answer.status_code not in (503, 507):
        return f"{answer.status_code} {answer.text[:300]}"
    if str(answer.status_code) not in told:
        return f"{answer.status_code} is not told of: {answer.text[:300]}"
    kinds = told[str(answer.status_code)].get("content")
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if answer.content and kinds is not None and kind not in kinds:
        return f"{kind} is not told of for {answer.status_code}, only {sorted(kinds)}"
    return ""
