"""Well-known embedding models that `builtin` runs, as their authors say they are to be used.

All are BERT encoders with absolute positions, published as safetensors. How a folder itself says that it pools goes
before what stands here; the prefixes that stand here go before those of the folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from core.embedders.bert_onnx import Pooling
from core.sections import Preset

_BGE_EN: Final = "Represent this sentence for searching relevant passages: "
_BGE_ZH: Final = "为这个句子生成表示以用于检索相关文章："


@dataclass(frozen=True, slots=True)
class KnownModel:
    repository: str
    """Its name on the hub."""
    languages: str
    dimension: int
    max_tokens: int
    pooling: Pooling = "mean"
    query_prefix: str = ""
    document_prefix: str = ""

    @property
    def name(self) -> str:
        return self.repository.rpartition("/")[2].lower()

    @property
    def preset(self) -> Preset:
        """Ready to be filled into a form; the folder is to be named."""
        values = {"model_dir": f"/PATH/TO/{self.repository.rpartition('/')[2]}", "pooling": self.pooling}
        values |= {"query_prefix": self.query_prefix, "document_prefix": self.document_prefix}
        title = f"{self.repository} · {self.languages} · {self.dimension}d · {self.max_tokens} tokens"
        return Preset(self.name, title, {name: value for name, value in values.items() if value}, needs_key=False)


KNOWN: Final[tuple[KnownModel, ...]] = (
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
    KnownModel("thenlper/gte-small-zh", "中文", 512, 512, "cls"),
    KnownModel("thenlper/gte-base-zh", "中文", 768, 512, "cls"),
    KnownModel("thenlper/gte-large-zh", "中文", 1024, 512, "cls"),
    KnownModel("thenlper/gte-small", "English", 384, 512),
    KnownModel("thenlper/gte-base", "English", 768, 512),
    KnownModel("thenlper/gte-large", "English", 1024, 512),
    KnownModel("intfloat/multilingual-e5-small", "multilingual", 384, 512, "mean", "query: ", "passage: "),
    KnownModel("intfloat/e5-small-v2", "English", 384, 512, "mean", "query: ", "passage: "),
    KnownModel("intfloat/e5-base-v2", "English", 768, 512, "mean", "query: ", "passage: "),
    KnownModel("intfloat/e5-large-v2", "English", 1024, 512, "mean", "query: ", "passage: "),
    KnownModel("sensenova/piccolo-base-zh", "中文", 768, 512, "mean", "查询:", "结果:"),
    KnownModel("sensenova/piccolo-large-zh", "中文", 1024, 512, "mean", "查询:", "结果:"),
    KnownModel("sentence-transformers/all-MiniLM-L6-v2", "English", 384, 256),
    KnownModel("sentence-transformers/all-MiniLM-L12-v2", "English", 384, 128),
    KnownModel("sentence-transformers/multi-qa-MiniLM-L6-cos-v1", "English", 384, 512),
    KnownModel("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", "multilingual", 384, 128),
)

PRESETS: Final[tuple[Preset, ...]] = (
    Preset("default", "", {}, needs_key=False),
    *(model.preset for model in KNOWN),
)
"""In the order of a list to choose from; what is written large in a path is to be filled in."""
