"""What Kvasir makes on a Weaviate server: the names, the collections, and what an object of each holds.

For each profile (embedder, analyzer, splitter: the fingerprint) one collection of chunks, and for all of them one of
notes and of documents without a chunk; in both each index is a tenant of its own, with its own statistics, and gone at
once when it is dropped.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any, Final

from core.settings import WeaviateSettings
from core.types import Generation

if TYPE_CHECKING:
    from weaviate.collections.classes.config import Property

VECTOR: Final = "content"
"""Name of the only vector of a chunk."""
_IDS: Final = uuid.UUID("5f5f0f5e-5f0c-5b1e-9d0a-6b7661736972")
_FORMAT: Final = 1
KEY_DIGITS: Final = 32


def chunks_name(settings: WeaviateSettings, generation: Generation) -> str:
    """Of the collection that holds the chunks of all indexes with the generation's profile."""
    profile = json.dumps([_FORMAT, generation.fingerprint, generation.dimension])
    digest = hashlib.blake2b(profile.encode(), digest_size=8).hexdigest()
    return f"{settings.prefix}_{generation.dimension}_{digest}"


def documents_name(settings: WeaviateSettings) -> str:
    return f"{settings.prefix}_Documents{_FORMAT}"


def chunk_id(generation: Generation, document: str, number: int, content_hash: str, edition: str) -> uuid.UUID:
    """The same for the same chunk of the same edition: what is written twice is there once."""
    return _id([generation.kb_id, document, number, content_hash, generation.id, edition])


def document_id(generation: Generation, document: str, edition: str) -> uuid.UUID:
    return _id([generation.kb_id, document, generation.id, edition])


def _id(parts: list[Any]) -> uuid.UUID:
    # JSON keeps the parts apart; ("a", "bc") and ("ab", "c") must not meet.
    return uuid.uuid5(_IDS, json.dumps(parts, ensure_ascii=False))


def document_key(document: str) -> str:
    """Stands for the document's id in filters, whatever characters that has."""
    return hashlib.blake2b(document.encode(), digest_size=KEY_DIGITS // 2).hexdigest()


def chunks_config(settings: WeaviateSettings, generation: Generation) -> dict[str, Any]:
    from weaviate.classes.config import Configure, DataType, VectorDistances

    own = [
        _text("edition", filterable=True),
        _property("number", DataType.INT, index_filterable=True),
        _text("tokens", filterable=True, searchable=True),
        _property("labels", DataType.TEXT_ARRAY, index_filterable=True, index_searchable=False, **_field()),
        *(_text(name) for name in ("document", "name", "title", "text", "headings", "locator", "content_hash")),
        *of_first(),
    ]
    vectors = None
    if generation.dimension:
        vectors = Configure.Vectors.self_provided(
            name=VECTOR,
            vector_index_config=Configure.VectorIndex.hnsw(
                distance_metric=VectorDistances.COSINE, quantizer=Configure.VectorIndex.Quantizer.rq(bits=8)
            ),
        )
    return {"name": chunks_name(settings, generation), "properties": own, "vector_config": vectors, **_common(settings)}


def of_first() -> list[Property]:
    """What only the first chunk of a document has: what is noted of the document.

    Collections of earlier versions lack it, and their documents have an object of their own.
    """
    from weaviate.classes.config import DataType

    sizes = [_property(name, DataType.INT, index_filterable=name == "length") for name in ("chunks", "length")]
    return [_text("key", filterable=True), _text("noted"), *sizes]


def documents_config(settings: WeaviateSettings) -> dict[str, Any]:
    from weaviate.classes.config import DataType

    own = [
        *(_text(name, filterable=True) for name in ("kind", "edition", "key")),
        *(
            _text(name)
            for name in ("document", "name", "title", "metadata", "content_hash", "digest", "state", "born", "dead")
        ),
        *(_property(name, DataType.INT, index_filterable=True) for name in ("chunks", "tokens")),
        _property("since", DataType.NUMBER, index_filterable=False),
    ]
    return {"name": documents_name(settings), "properties": own, "vector_config": None, **_common(settings)}


def _common(settings: WeaviateSettings) -> dict[str, Any]:
    from weaviate.classes.config import Configure, ReplicationDeletionStrategy, StopwordsPreset

    return {
        "multi_tenancy_config": Configure.multi_tenancy(
            enabled=True, auto_tenant_creation=False, auto_tenant_activation=True
        ),
        "inverted_index_config": Configure.inverted_index(
            bm25_k1=1.2, bm25_b=0.75, stopwords_preset=StopwordsPreset.NONE
        ),
        "replication_config": Configure.replication(
            factor=settings.replication_factor, deletion_strategy=ReplicationDeletionStrategy.TIME_BASED_RESOLUTION
        ),
    }


def _text(name: str, *, filterable: bool = False, searchable: bool = False) -> Property:
    from weaviate.classes.config import DataType, Tokenization

    how = {"tokenization": Tokenization.WHITESPACE} if searchable else _field()
    return _property(name, DataType.TEXT, index_filterable=filterable, index_searchable=searchable, **how)


def _field() -> dict[str, Any]:
    from weaviate.classes.config import Tokenization

    return {"tokenization": Tokenization.FIELD}


def _property(name: str, kind: Any, **how: Any) -> Property:
    from weaviate.classes.config import Property

    return Property(name=name, data_type=kind, **how)
