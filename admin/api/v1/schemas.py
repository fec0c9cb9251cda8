"""What OpenAI's clients send: what changes nothing here is ignored, what would change the answer is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from core.answering.sampling import NUMBERS
from core.texts import tell

MOST_INPUTS: Final = 2048
LONGEST_INPUT: Final = 32_768


def _refused(key: str, **values: Any) -> PydanticCustomError:
    return PydanticCustomError("refused", "{sentence}", {"sentence": tell(key, **values)})


def _nothing(value: Any) -> Any:
    """Refuses what asks for something that is not done here."""
    if value and value not in ("none", {"type": "text"}, ["text"]):
        raise _refused("api_unsupported")


def _one(value: Any) -> Any:
    if value not in (None, 1):
        raise _refused("api_unsupported")


Refused = Annotated[Any, AfterValidator(_nothing)]
One = Annotated[Any, AfterValidator(_one)]


def _joined(content: Any) -> Any:
    """The text of a content's parts, which must be text all."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        raise _refused("api_only_text")
    return "\n".join(part["text"] for part in content)


def _without_nul(text: str) -> str:
    return text.replace("\0", "")


Content = Annotated[str, BeforeValidator(_joined), AfterValidator(_without_nul)]


def _role(role: Any) -> Any:
    if role in ("tool", "function"):
        raise _refused("api_only_text")
    return "system" if role == "developer" else role


class Message(BaseModel):
    model_config = ConfigDict(frozen=True)

    role: Annotated[Literal["system", "user", "assistant"], BeforeValidator(_role)]
    content: Content = ""
    tool_calls: Refused = None
    function_call: Refused = None


def _asking(messages: list[Message]) -> list[Message]:
    if messages[-1].role != "user" or not messages[-1].content.strip():
        raise _refused("api_last_message")
    return messages


def _words(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


class StreamOptions(BaseModel):
    include_usage: bool | None = None


class Asked(BaseModel):
    """What chats and plain completions have in common."""

    model_config = ConfigDict(frozen=True)

    model: Annotated[str, Field(min_length=1, max_length=1000)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[
        Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=4)] | None,
        BeforeValidator(_words),
    ] = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    n: One = None
    logprobs: Refused = None

    @property
    def longest(self) -> int | None:
        return self.max_tokens

    @property
    def with_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def samplers(self) -> dict[str, Any]:
        """What is asked for of the drawing of words: fields of `Sampling`."""
        asked = {name: getattr(self, name) for name in NUMBERS} | {"max_tokens": self.longest}
        asked["stop"] = tuple(self.stop) if self.stop else None
        return {name: value for name, value in asked.items() if value is not None}


class Chat(Asked):
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000), AfterValidator(_asking)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    tools: Refused = None
    functions: Refused = None
    response_format: Refused = None
    modalities: Refused = None
    audio: Refused = None

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


def _one_prompt(prompt: Any) -> Any:
    prompt = prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt
    if not isinstance(prompt, str) or not prompt.strip():
        raise _refused("api_one_prompt")
    return prompt


class Text(Asked):
    prompt: Annotated[str, BeforeValidator(_one_prompt), AfterValidator(_without_nul)]
    best_of: One = None
    echo: Refused = None
    suffix: Refused = None


def _texts(given: Any) -> Any:
    texts = given if isinstance(given, list) else [given]
    if any(isinstance(text, (int, list)) for text in texts):
        raise _refused("api_token_arrays")
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise _refused("api_inputs_empty")
    if len(texts) > MOST_INPUTS:
        raise _refused("api_inputs_many", most=MOST_INPUTS)
    for n, text in enumerate(texts, 1):
        if len(text) > LONGEST_INPUT:
            raise _refused("api_input_long", n=n, most=LONGEST_INPUT)
    return texts


class Embed(BaseModel):
    model_config = ConfigDict(frozen=True)

    model: Annotated[str, Field(min_length=1, max_length=1000)]
    input: Annotated[list[str], BeforeValidator(_texts)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
