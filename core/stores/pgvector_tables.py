"""The tables of the `pgvector` store, and how texts and vectors are written in them."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core.types import Generation, Vector

CHUNK_BITS: Final = 20
"""A chunk's id is its document's number shifted by so many bits, plus its own number."""
LAST_CHUNK: Final = (1 << CHUNK_BITS) - 1
MOST_INDEXED_DIMENSIONS: Final = 4000
"""Longer vectors are searched exactly: pgvector makes no index of them."""

SCHEMA: Final = """
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.generations (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text COLLATE "C" NOT NULL UNIQUE,
    kb text NOT NULL,
    fingerprint text NOT NULL,
    dimension integer NOT NULL,
    documents bigint NOT NULL DEFAULT 0,
    chunks bigint NOT NULL DEFAULT 0,
    words bigint NOT NULL DEFAULT 0,
    indexed boolean NOT NULL DEFAULT false
);
CREATE SEQUENCE IF NOT EXISTS {schema}.numbers;
CREATE TABLE IF NOT EXISTS {schema}.documents (
    number bigint PRIMARY KEY,
    generation bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    title text COLLATE "C" NOT NULL,
    content_hash text COLLATE "C" NOT NULL,
    chunks integer NOT NULL,
    words bigint NOT NULL,
    metadata text COLLATE "C" NOT NULL,
    UNIQUE (generation, key)
);
CREATE TABLE IF NOT EXISTS {schema}.metadata (
    document bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    text text COLLATE "C",
    number double precision,
    PRIMARY KEY (document, key)
);
CREATE TABLE IF NOT EXISTS {schema}.chunks (
    id bigint PRIMARY KEY,
    text text COLLATE "C" NOT NULL,
    tokens text COLLATE "C" NOT NULL,
    headings text COLLATE "C" NOT NULL,
    locator text COLLATE "C" NOT NULL,
    content_hash text COLLATE "C" NOT NULL
);
CREATE TABLE IF NOT EXISTS {schema}.entries (
    id bigint PRIMARY KEY,
    generation bigint NOT NULL,
    document bigint NOT NULL,
    length integer NOT NULL,
    terms bigint[] NOT NULL,
    counts smallint[] NOT NULL,
    vector halfvec
);
CREATE INDEX IF NOT EXISTS entries_generation ON {schema}.entries (generation);
CREATE INDEX IF NOT EXISTS entries_terms ON {schema}.entries USING gin (terms) WITH (fastupdate = off);
"""
"""`entries` are what a search reads: distinct terms with their counts, and the vector, of each chunk."""

I64 = NDArray[np.int64]


def salted(generation: Generation, terms: bytes) -> I64:
    """Terms as the table has them: another number in each index, so that one look-up finds those of one index only."""
    salt = np.uint64(int(generation.id, 16) & 0xFFFF_FFFF_FFFF_FFFF)
    return (np.frombuffer(terms, "<u8") ^ salt).view(np.int64)


def kept(text: str) -> str:
    """As PostgreSQL can keep it, which takes no NUL; prefixes stay prefixes."""
    return text.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01") if "\x01" in text or "\x00" in text else text


def given(text: str) -> str:
    """What was `kept`."""
    return text.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01") if "\x01" in text else text


def encode_vector(vector: Vector) -> bytes:
    """PostgreSQL's binary form of a `halfvec`."""
    return struct.pack(">HH", len(vector), 0) + vector.astype(">f2").tobytes()


def decode_vector(data: Any) -> Vector:
    return np.frombuffer(data, ">f2", offset=4).astype(np.float32)
