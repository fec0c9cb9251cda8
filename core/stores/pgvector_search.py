"""Search in the `pgvector` store: both legs and their statistics, in one unchanging view of the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.analyzer import term
from core.stores.pgvector_filters import Parameters, condition
from core.stores.pgvector_tables import LAST_CHUNK, given, salted
from core.stores.postings import K1, B, idf
from core.stores.writing import headings_of, locator_of
from core.types import Chunk, Filter, Generation, Hit, SearchResult, Vector

CHUNK: Final = "c.id, c.text, c.tokens, c.content_hash, c.headings, c.locator"


@dataclass(frozen=True, slots=True)
class Wanted:
    vector: Vector | None
    tokens: Sequence[str]
    limit: int
    filter: Filter | None


@dataclass(frozen=True, slots=True)
class _Index:
    number: int
    dimension: int
    chunks: int
    words: int
    indexed: bool


async def search(connection: Any, schema: str, generation: Generation, wanted: Wanted) -> SearchResult:
    row = await connection.fetchrow(
        f"SELECT number, dimension, chunks, words, indexed FROM {schema}.generations WHERE key = $1",  # noqa: S608 - ours
        generation.id,
    )
    if row is None:
        return SearchResult((), 0, dict.fromkeys(wanted.tokens, 0))
    index = _Index(*row)
    vector = wanted.vector
    terms = {token: _term(generation, token) for token in wanted.tokens}
    frequencies = await _frequencies(connection, schema, terms)
    weights = {terms[token]: (K1 + 1) * idf(index.chunks, found) for token, found in frequencies.items() if found}
    scores = await _by_words(connection, schema, index, weights, wanted)
    ids = set(scores)
    if vector is not None:
        nearest = await _by_vector(connection, schema, index, vector, wanted)
        scores |= await _scores(connection, schema, index, weights, sorted(nearest - ids))
        ids |= nearest
    hits = await _hits(connection, schema, sorted(ids), vector, scores if frequencies else None)
    return SearchResult(tuple(hits), index.chunks, frequencies)


def chunk_of(row: int, text: str, tokens: str, content_hash: str, headings: str, locator: str) -> Chunk:
    """From the columns `CHUNK`."""
    kept = (given(text), given(tokens), given(content_hash))
    return Chunk(row & LAST_CHUNK, *kept, headings_of(headings), locator_of(locator))


def _term(generation: Generation, token: str) -> int:
    return int(salted(generation, term(token))[0])


async def _frequencies(connection: Any, schema: str, terms: Mapping[str, int]) -> dict[str, int]:
    if not terms:
        return {}
    rows = await connection.fetch(
        f"SELECT (SELECT count(*) FROM {schema}.entries e WHERE e.terms @> ARRAY[a.term])"  # noqa: S608 - ours
        " FROM unnest($1::bigint[]) WITH ORDINALITY AS a (term, place) ORDER BY a.place",
        list(terms.values()),
    )
    return {token: row[0] for token, row in zip(terms, rows, strict=True)}


def _scored(schema: str, index: _Index, weights: Mapping[int, float], parameters: Parameters) -> str:
    """Chunks with their BM25, `WHERE` to go on; `OFFSET 0` lets PostgreSQL look for a term once, not thrice."""
    terms = parameters.add(list(weights), "bigint[]")
    weighted = parameters.add(list(weights.values()), "float8[]")
    average = max(index.words / max(index.chunks, 1), 1.0)
    plain, long = parameters.add(K1 * (1 - B), "float8"), parameters.add(K1 * B / average, "float8")
    return (
        "SELECT e.id, sum(a.weight * n.count / (n.count + "  # noqa: S608 - names of ours and marks only
        f"{plain} + {long} * e.length)) AS score FROM {schema}.entries e"
        f" CROSS JOIN unnest({terms}, {weighted}) AS a (term, weight)"
        " CROSS JOIN LATERAL (SELECT e.counts[array_position(e.terms, a.term)]::float8 AS count OFFSET 0) n"
        f" WHERE e.terms && {terms} AND n.count IS NOT NULL"
    )


async def _by_words(
    connection: Any, schema: str, index: _Index, weights: Mapping[int, float], wanted: Wanted
) -> dict[int, float]:
    """The best by BM25."""
    if not weights or wanted.limit <= 0:
        return {}
    parameters = Parameters()
    sql = _scored(schema, index, weights, parameters)
    sql += _eligible(schema, index, wanted.filter, parameters)
    limit = parameters.add(wanted.limit, "bigint")
    rows = await connection.fetch(f"{sql} GROUP BY e.id ORDER BY score DESC, e.id LIMIT {limit}", *parameters)
    return {row[0]: row[1] for row in rows}


async def _scores(
    connection: Any, schema: str, index: _Index, weights: Mapping[int, float], ids: Sequence[int]
) -> dict[int, float]:
    """BM25 of these, which the vector found."""
    found = dict.fromkeys(ids, 0.0)
    if weights and ids:
        parameters = Parameters()
        sql = _scored(schema, index, weights, parameters)
        rows = await connection.fetch(
            f"{sql} AND e.id = ANY({parameters.add(list(ids), 'bigint[]')}) GROUP BY e.id", *parameters
        )
        found |= {row[0]: row[1] for row in rows}
    return found


async def _by_vector(connection: Any, schema: str, index: _Index, vector: Vector, wanted: Wanted) -> set[int]:
    """The nearest ones."""
    if wanted.limit <= 0:
        return set()
    parameters = Parameters()
    cast = f"::halfvec({index.dimension})" if index.indexed else ""  # so does the partial index say it
    asked = parameters.add(vector, "halfvec") + cast
    where = _eligible(schema, index, wanted.filter, parameters)
    rows = await connection.fetch(
        f"SELECT e.id FROM {schema}.entries e WHERE e.generation = {index.number}{where}"  # noqa: S608 - ours, and marks
        f" ORDER BY (e.vector{cast}) <#> {asked} LIMIT {parameters.add(wanted.limit, 'bigint')}",
        *parameters,
    )
    return {row[0] for row in rows}


def _eligible(schema: str, index: _Index, filter: Filter | None, parameters: Parameters) -> str:
    if filter is None:
        return ""
    return (
        f" AND e.document IN (SELECT d.number FROM {schema}.documents d"  # noqa: S608 - ours, see `condition`
        f" WHERE d.generation = {index.number} AND ({condition(filter, parameters, schema)}))"
    )


async def _hits(
    connection: Any, schema: str, ids: Sequence[int], vector: Vector | None, scores: Mapping[int, float] | None
) -> list[Hit]:
    if not ids:
        return []
    parameters = Parameters()
    similarity = "NULL" if vector is None else f"-(e.vector <#> {parameters.add(vector, 'halfvec')})"
    rows = await connection.fetch(
        f"SELECT {similarity}, d.key, d.name, d.title, {CHUNK} FROM {schema}.entries e"  # noqa: S608 - ours, and marks
        f" JOIN {schema}.chunks c ON c.id = e.id JOIN {schema}.documents d ON d.number = e.document"
        f" WHERE e.id = ANY({parameters.add(list(ids), 'bigint[]')}) ORDER BY e.id",
        *parameters,
    )
    return [
        Hit(
            given(key),
            given(name),
            given(title),
            chunk_of(*chunk),
            score,
            scores[chunk[0]] if scores is not None else None,
        )
        for score, key, name, title, *chunk in rows
    ]
