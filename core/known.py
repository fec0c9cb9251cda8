"""Well-known embedding models and rerankers, as their authors say they are to be used; found by their name.

All are published as safetensors. A model of another name is used as its folder, its `kvasir.json` and the settings say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Pools: TypeAlias = Literal["mean", "cls", "last"]
Shape: TypeAlias = Literal["bert", "other", "instructor", "onnx"]
"""What can run it: `bert` (absolute positions) everything; `other` not `builtin`; `instructor` only the embedder so
named; `onnx` only `fastembed`, since its weights need code of their own, which is never run."""

_BGE_EN: Final = "Represent this sentence for searching relevant passages: "
_BGE_ZH: Final = "为这个句子生成表示以用于检索相关文章："
_WEB: Final = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"

QUERY_INSTRUCTION: Final = "Represent the question for retrieving supporting documents: "
DOCUMENT_INSTRUCTION: Final = "Represent the document for retrieval: "


_RUN_BY: Final[dict[Shape, tuple[str, ...]]] = {
    "bert": ("builtin", "sentence-transformers"),
    "other": ("sentence-transformers",),
    "instructor": ("instructor",),
    "onnx": (),
}
_FASTEMBED: Final = frozenset(
    {
        "BAAI/bge-small-zh-v1.5",
        "BAAI/bge-small-en-v1.5",
        "BAAI/bge-base-en-v1.5",
        "BAAI/bge-large-en-v1.5",
        "thenlper/gte-base",
        "thenlper/gte-large",
        "jinaai/jina-embeddings-v2-small-en",
        "jinaai/jina-embeddings-v2-base-en",
        "jinaai/jina-embeddings-v2-base-zh",
        "intfloat/multilingual-e5-large",
        "sentence-transformers/all-MiniLM-L6-v2",
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        "sentence-transformers/paraphrase-multilingual-mpnet-base-v2",
        "nomic-ai/nomic-embed-text-v1.5",
        "Qwen/Qwen3-Embedding-0.6B",
        "google/embeddinggemma-300m",
        "Snowflake/snowflake-arctic-embed-xs",
        "Snowflake/snowflake-arctic-embed-s",
        "Snowflake/snowflake-arctic-embed-m",
        "Snowflake/snowflake-arctic-embed-l",
        "mixedbread-ai/mxbai-embed-large-v1",
        "BAAI/bge-reranker-base",
        "BAAI/bge-reranker-v2-m3",
        "jinaai/jina-reranker-v1-tiny-en",
        "jinaai/jina-reranker-v2-base-multilingual",
        "Xenova/ms-marco-MiniLM-L-6-v2",
        "Xenova/ms-marco-MiniLM-L-12-v2",
    }
)
"""Those that fastembed knows by these names."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    repository: str
    """Its name on the hub."""
    languages: str
    dimension: int
    max_tokens: int
    pooling: Pools = "mean"
    query_prefix: str = ""
    document_prefix: str = ""
    shape: Shape = "bert"

    @property
    def folder(self) -> str:
        """What its folder is called as a rule."""
        return self.repository.rpartition("/")[2]

    @property
    def name(self) -> str:
        return self.folder.lower()

    @property
    def adapters(self) -> tuple[str, ...]:
        """The embedders that run it."""
        return (*_RUN_BY[self.shape], *(("fastembed",) if self.repository in _FASTEMBED else ()))

    @property
    def scripts(self) -> tuple[str, ...]:
        """Unicode scripts it knows; `*` for all."""
        if self.languages == "English":
            return ("Latin",)
        return ("Latin", "Han") if "中文" in self.languages else ("*",)

    @property
    def weight(self) -> float:
        """Of its vectors beside keywords, 0..1."""
        return 0.4 if self.languages == "English" else 0.5


@dataclass(frozen=True, slots=True)
class KnownReranker:
    repository: str
    languages: str
    max_tokens: int
    shape: Shape = "bert"

    @property
    def folder(self) -> str:
        return self.repository.rpartition("/")[2]

    @property
    def name(self) -> str:
        return self.folder.lower()

    @property
    def adapters(self) -> tuple[str, ...]:
        """The rerankers that run it."""
        own = {"bert": ("cross-encoder", "sentence-transformers"), "other": ("sentence-transformers",)}
        return (*own.get(self.shape, ()), *(("fastembed",) if self.repository in _FASTEMBED else ()))


KNOWN: Final[tuple[KnownModel, ...]] = (
    KnownModel("BAAI/bge-m3", "multilingual", 1024, 8192, "cls", shape="other"),
    KnownModel("BAAI/bge-small-zh-v1.5", "中文", 512, 512, "cls", _BGE_ZH),
    KnownModel("BAAI/bge-base-zh-v1.5", "中文", 768, 512, "cls", _BGE_ZH),
    KnownModel("BAAI/bge-large-zh-v1.5", "中文", 1024, 512, "cls", _BGE_ZH),
    KnownModel("BAAI/bge-small-en-v1.5", "English", 384, 512, "cls", _BGE_EN),
    KnownModel("BAAI/bge-base-en-v1.5", "English", 768, 512, "cls", _BGE_EN),
    KnownModel("BAAI/bge-large-en-v1.5", "English", 1024, 512, "cls", _BGE_EN),
    KnownModel("moka-ai/m3e-small", "中文", 512, 512),
    KnownModel("moka-ai/m3e-base", "中文, English", 768, 512),
    KnownModel("moka-ai/m3e-large", "中文", 1024, 512),
    KnownModel("shibing624/text2vec-base-chinese", "中文", 768, 128),
    KnownModel("shibing624/text2vec-base-multilingual", "multilingual", 384, 256),
    KnownModel("GanymedeNil/text2vec-large-chinese", "中文", 1024, 512),
    KnownModel("maidalun1020/bce-embedding-base_v1", "中文, English", 768, 512, "cls", shape="other"),
    KnownModel("thenlper/gte-small-zh", "中文", 512, 512, "cls"),
    KnownModel("thenlper/gte-base-zh", "中文", 768, 512, "cls"),
    KnownModel("thenlper/gte-large-zh", "中文", 1024, 512, "cls"),
    KnownModel("thenlper/gte-small", "English", 384, 512),
    KnownModel("thenlper/gte-base", "English", 768, 512),
    KnownModel("thenlper/gte-large", "English", 1024, 512),
    KnownModel("Alibaba-NLP/gte-modernbert-base", "English", 768, 8192, "cls", shape="other"),
    KnownModel("intfloat/multilingual-e5-small", "multilingual", 384, 512, "mean", "query: ", "passage: "),
    KnownModel("intfloat/multilingual-e5-base", "multilingual", 768, 512, "mean", "query: ", "passage: ", "other"),
    KnownModel("intfloat/multilingual-e5-large", "multilingual", 1024, 512, "mean", "query: ", "passage: ", "other"),
    KnownModel("intfloat/multilingual-e5-large-instruct", "multilingual", 1024, 512, "mean", _WEB + " ", "", "other"),
    KnownModel("intfloat/e5-small-v2", "English", 384, 512, "mean", "query: ", "passage: "),
    KnownModel("intfloat/e5-base-v2", "English", 768, 512, "mean", "query: ", "passage: "),
    KnownModel("intfloat/e5-large-v2", "English", 1024, 512, "mean", "query: ", "passage: "),
    KnownModel("sensenova/piccolo-base-zh", "中文", 768, 512, "mean", "查询:", "结果:"),
    KnownModel("sensenova/piccolo-large-zh", "中文", 1024, 512, "mean", "查询:", "结果:"),
    KnownModel("Qwen/Qwen3-Embedding-0.6B", "multilingual", 1024, 32768, "last", _WEB, shape="other"),
    KnownModel("Qwen/Qwen3-Embedding-4B", "multilingual", 2560, 32768, "last", _WEB, shape="other"),
    KnownModel("Qwen/Qwen3-Embedding-8B", "multilingual", 4096, 32768, "last", _WEB, shape="other"),
    KnownModel("jinaai/jina-embeddings-v2-small-en", "English", 512, 8192, shape="onnx"),
    KnownModel("jinaai/jina-embeddings-v2-base-en", "English", 768, 8192, shape="onnx"),
    KnownModel("jinaai/jina-embeddings-v2-base-zh", "中文, English", 768, 8192, shape="onnx"),
    KnownModel(
        "nomic-ai/nomic-embed-text-v1.5", "English", 768, 8192, "mean", "search_query: ", "search_document: ", "other"
    ),
    KnownModel(
        "nomic-ai/modernbert-embed-base", "English", 768, 8192, "mean", "search_query: ", "search_document: ", "other"
    ),
    KnownModel(
        "google/embeddinggemma-300m", "multilingual", 768, 2048, "mean",
        "task: search result | query: ", "title: none | text: ", "other",
    ),
    KnownModel("Snowflake/snowflake-arctic-embed-xs", "English", 384, 512, "cls", _BGE_EN),
    KnownModel("Snowflake/snowflake-arctic-embed-s", "English", 384, 512, "cls", _BGE_EN),
    KnownModel("Snowflake/snowflake-arctic-embed-m", "English", 768, 512, "cls", _BGE_EN),
    KnownModel("Snowflake/snowflake-arctic-embed-l", "English", 1024, 512, "cls", _BGE_EN),
    KnownModel("Snowflake/snowflake-arctic-embed-l-v2.0", "multilingual", 1024, 8192, "cls", "query: ", "", "other"),
    KnownModel("mixedbread-ai/mxbai-embed-large-v1", "English", 1024, 512, "cls", _BGE_EN),
    KnownModel("hkunlp/instructor-base", "English", 768, 512, shape="instructor"),
    KnownModel("hkunlp/instructor-large", "English", 768, 512, shape="instructor"),
    KnownModel("hkunlp/instructor-xl", "English", 768, 512, shape="instructor"),
    KnownModel("sentence-transformers/all-MiniLM-L6-v2", "English", 384, 256),
    KnownModel("sentence-transformers/all-MiniLM-L12-v2", "English", 384, 128),
    KnownModel("sentence-transformers/multi-qa-MiniLM-L6-cos-v1", "English", 384, 512),
    KnownModel("sentence-transformers/all-mpnet-base-v2", "English", 768, 384, shape="other"),
    KnownModel("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", "multilingual", 384, 128),
    KnownModel("sentence-transformers/paraphrase-multilingual-mpnet-base-v2", "multilingual", 768, 128, shape="other"),
    KnownModel("sentence-transformers/LaBSE", "multilingual", 768, 256, "cls", shape="other"),
)  # fmt: skip

RERANKERS: Final[tuple[KnownReranker, ...]] = (
    KnownReranker("BAAI/bge-reranker-base", "中文, English", 512, "other"),
    KnownReranker("BAAI/bge-reranker-large", "中文, English", 512, "other"),
    KnownReranker("BAAI/bge-reranker-v2-m3", "multilingual", 8192, "other"),
    KnownReranker("maidalun1020/bce-reranker-base_v1", "中文, English", 512, "other"),
    KnownReranker("Alibaba-NLP/gte-reranker-modernbert-base", "English", 8192, "other"),
    KnownReranker("mixedbread-ai/mxbai-rerank-base-v1", "English", 512, "other"),
    KnownReranker("cross-encoder/ms-marco-MiniLM-L6-v2", "English", 512),
    KnownReranker("cross-encoder/ms-marco-MiniLM-L12-v2", "English", 512),
    KnownReranker("jinaai/jina-reranker-v2-base-multilingual", "multilingual", 1024, "onnx"),
    KnownReranker("jinaai/jina-reranker-v1-tiny-en", "English", 8192, "onnx"),
    KnownReranker("Xenova/ms-marco-MiniLM-L-6-v2", "English", 512, "onnx"),
    KnownReranker("Xenova/ms-marco-MiniLM-L-12-v2", "English", 512, "onnx"),
)

_BY_NAME: Final = {model.name: model for model in KNOWN}


def known_model(name: str) -> KnownModel | None:
    """The model of that folder or repository name, in whatever case; None where it is not well known."""
    return _BY_NAME.get(name.rpartition("/")[2].lower())
