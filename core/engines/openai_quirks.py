"""Where OpenAI-compatible servers differ from each other, by provider; found by name or by address.

| provider | what differs |
|---|---|
| openai | wants `max_completion_tokens`; counts tokens when asked |
| azure | the same, and the key in the header `api-key` |
| dashscope | temperature below 2; counts when asked |
| zhipu | temperature and top_p strictly between 0 and 1, one stop word, no seed |
| moonshot | temperature up to 1; counts unasked, inside the choice |
| volcano | counts when asked; no seed |
| qianfan | temperature and top_p above 0, up to 1; counts when asked; no seed |
| minimax | the same without stop words; says all once more at the end, and errors as `base_resp` with status 200 |
| baichuan | temperature up to 1; no stop words, no seed |
| gemini | counts when asked; no seed; errors as a list of one |
| deepseek, ollama, vllm, tabbyapi, llama-server | counts when asked |
| generic | nothing that we send; it is not asked to count |

Counting is asked for by `stream_options`, which several servers refuse; penalties and message names are never sent.
What a model of a server refuses beyond that is learned from its first refusal, see `adapted`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from core.inference.sections import Preset
from core.types import Sampling, Turn


@dataclass(frozen=True, slots=True)
class Quirks:
    limit_key: str = "max_tokens"
    key_header: str = "Authorization"
    temperature: tuple[float, float] | None = (0.0, 2.0)
    """Least and greatest value it takes; None: never sent."""
    top_p: tuple[float, float] | None = (0.0, 1.0)
    stop_words: int = 4
    seed: bool = True
    penalties: bool = True
    """It takes `frequency_penalty` and `presence_penalty`."""
    more: tuple[str, ...] = ()
    """Further samplers that it takes, by name."""
    system_role: bool = True
    """False: instructions go in front of the first user message."""
    asks_usage: bool = False
    """It takes `stream_options`, and counts the tokens then."""


_PENALTIES: Final = ("frequency_penalty", "presence_penalty")
_OPEN: Final = ("top_k", "min_p", "repetition_penalty")
"""What servers of open models take beside OpenAI's samplers."""

PROVIDERS: Final[dict[str, Quirks]] = {
    "generic": Quirks(more=_OPEN),
    "openai": Quirks(limit_key="max_completion_tokens", asks_usage=True),
    "azure": Quirks(limit_key="max_completion_tokens", key_header="api-key", asks_usage=True),
    "dashscope": Quirks(temperature=(0.0, 1.99), asks_usage=True),
    "zhipu": Quirks(temperature=(0.01, 0.99), top_p=(0.01, 0.99), stop_words=1, seed=False, penalties=False),
    "deepseek": Quirks(asks_usage=True),
    "moonshot": Quirks(temperature=(0.0, 1.0)),
    "volcano": Quirks(seed=False, asks_usage=True),
    "qianfan": Quirks(temperature=(0.01, 1.0), top_p=(0.01, 1.0), seed=False, asks_usage=True),
    "minimax": Quirks(temperature=(0.01, 1.0), top_p=(0.01, 1.0), stop_words=0, seed=False, asks_usage=True),
    "baichuan": Quirks(temperature=(0.0, 1.0), stop_words=0, seed=False),
    "gemini": Quirks(seed=False, asks_usage=True),
    "ollama": Quirks(asks_usage=True),
    "vllm": Quirks(asks_usage=True, more=_OPEN),
    "tabbyapi": Quirks(asks_usage=True, more=_OPEN),
    "llama-server": Quirks(asks_usage=True, more=("top_k", "min_p")),
}


def _preset(name: str, title: str, url: str, *models: str, needs_key: bool = True, **values: Any) -> Preset:
    return Preset(name, title, {"base_url": url, "provider": name, **values}, needs_key, models)


PRESETS: Final[tuple[Preset, ...]] = (
    _preset("openai", "OpenAI", "https://api.openai.com/v1", context_size=128_000),
    _preset("azure", "Azure OpenAI", "https://YOUR-RESOURCE.openai.azure.com/openai/v1", context_size=128_000),
    _preset(
        "dashscope", "DashScope / 通义千问", "https://dashscope.aliyuncs.com/compatible-mode/v1",
        "qwen-plus", "qwen-max", context_size=32_000,
    ),
    _preset("zhipu", "Zhipu / 智谱 GLM", "https://open.bigmodel.cn/api/paas/v4", "glm-4-plus", context_size=128_000),
    _preset("deepseek", "DeepSeek", "https://api.deepseek.com/v1", "deepseek-chat", context_size=64_000),
    _preset("moonshot", "Moonshot / Kimi", "https://api.moonshot.cn/v1", context_size=128_000),
    _preset(
        "volcano", "Volcano Ark / 火山方舟 豆包", "https://ark.cn-beijing.volces.com/api/v3",
        "doubao-seed-1-6-250615", context_size=128_000,
    ),
    _preset(
        "qianfan", "Qianfan / 百度千帆", "https://qianfan.baidubce.com/v2",
        "ernie-4.5-turbo-32k", context_size=32_000,
    ),
    _preset("minimax", "MiniMax", "https://api.minimaxi.com/v1", "MiniMax-M2", context_size=128_000),
    _preset("baichuan", "Baichuan / 百川", "https://api.baichuan-ai.com/v1", "Baichuan4-Turbo", context_size=32_000),
    _preset(
        "gemini", "Google Gemini", "https://generativelanguage.googleapis.com/v1beta/openai",
        "gemini-2.5-flash", context_size=128_000,
    ),
    _preset("ollama", "Ollama", "http://127.0.0.1:11434/v1", "qwen3", "llama3.2", needs_key=False),
    _preset("vllm", "vLLM", "http://127.0.0.1:8000/v1", needs_key=False),
    _preset("tabbyapi", "TabbyAPI", "http://127.0.0.1:5000/v1"),
    _preset("llama-server", "llama.cpp (llama-server)", "http://127.0.0.1:8080/v1", needs_key=False),
    _preset("generic", "OpenAI-compatible", "", needs_key=False),
)  # fmt: skip
"""In the order of a list to choose from; what is written large in an address is to be filled in."""

_HOSTS: Final[tuple[tuple[str, str], ...]] = (
    ("api.openai.com", "openai"),
    (".azure.com", "azure"),
    (".aliyuncs.com", "dashscope"),
    (".bigmodel.cn", "zhipu"),
    ("api.z.ai", "zhipu"),
    ("api.deepseek.com", "deepseek"),
    ("api.moonshot.cn", "moonshot"),
    ("api.moonshot.ai", "moonshot"),
    (".volces.com", "volcano"),
    ("qianfan.baidubce.com", "qianfan"),
    ("api.minimax.chat", "minimax"),
    ("api.minimax.io", "minimax"),
    ("api.minimaxi.com", "minimax"),
    ("api.baichuan-ai.com", "baichuan"),
    ("generativelanguage.googleapis.com", "gemini"),
)
_OLLAMA_PORT: Final = 11434


def provider_of(base_url: str) -> str:
    """The provider behind an address; `generic` where it is nobody we know."""
    address = urlsplit(base_url)
    host = address.hostname or ""
    for ending, name in _HOSTS:
        if host == ending or (ending.startswith(".") and host.endswith(ending)):
            return name
    return "ollama" if address.port == _OLLAMA_PORT else "generic"


def request_body(model: str, turns: tuple[Turn, ...], sampling: Sampling, quirks: Quirks) -> dict[str, Any]:
    """The JSON of a streamed chat completion."""
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(turns, quirks),
        "stream": True,
        quirks.limit_key: sampling.max_tokens,
    }
    if sampling.temperature is not None and quirks.temperature:
        body["temperature"] = _within(sampling.temperature, quirks.temperature)
    if sampling.top_p is not None and quirks.top_p:
        body["top_p"] = _within(sampling.top_p, quirks.top_p)
    if quirks.asks_usage:
        body["stream_options"] = {"include_usage": True}
    if sampling.stop and quirks.stop_words:
        body["stop"] = list(sampling.stop[: quirks.stop_words])
    if sampling.seed is not None and quirks.seed:
        body["seed"] = sampling.seed
    for name in (*(_PENALTIES if quirks.penalties else ()), *quirks.more):
        if (value := getattr(sampling, name)) is not None:
            body[name] = value
    return body


def adapted(quirks: Quirks, refusal: str) -> Quirks | None:
    """The quirks that a server's refusal (HTTP 400) teaches; None where it teaches nothing."""
    text = refusal.lower()
    if ("stream_options" in text or "include_usage" in text) and quirks.asks_usage:
        return replace(quirks, asks_usage=False)
    if "max_completion_tokens" in text and quirks.limit_key != "max_completion_tokens":
        return replace(quirks, limit_key="max_completion_tokens")
    if "max_tokens" in text and "max_completion_tokens" not in text and quirks.limit_key != "max_tokens":
        return replace(quirks, limit_key="max_tokens")
    if "temperature" in text and quirks.temperature:
        return replace(quirks, temperature=None)
    if "top_p" in text and quirks.top_p:
        return replace(quirks, top_p=None)
    if "seed" in text and quirks.seed:
        return replace(quirks, seed=False)
    if any(name in text for name in _PENALTIES) and quirks.penalties:
        return replace(quirks, penalties=False)
    if refused := [name for name in quirks.more if name in text]:
        return replace(quirks, more=tuple(name for name in quirks.more if name not in refused))
    if "system" in text and "role" in text and quirks.system_role:
        return replace(quirks, system_role=False)
    return None


def _messages(turns: tuple[Turn, ...], quirks: Quirks) -> list[dict[str, str]]:
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    if quirks.system_role or not messages or messages[0]["role"] != "system":
        return messages
    instructions, rest = messages[0]["content"], messages[1:]
    if rest and rest[0]["role"] == "user":
        rest[0] = {"role": "user", "content": f"{instructions}\n\n{rest[0]['content']}"}
        return rest
    return [{"role": "user", "content": instructions}, *rest]


def _within(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
