"""Answer presets: which of their rules holds, and what of it a server hears."""

from __future__ import annotations

import pytest

from core.answering.sampling import normal, parsed, resolved
from core.engines.openai_quirks import PROVIDERS, adapted, request_body
from core.errors import UserError
from core.types import Sampling, Turn

USUAL = Sampling(max_tokens=1000, temperature=0.7)


def test_a_rule_holds_unless_another_is_asked_for_and_a_forced_one_always() -> None:
    rules = ["temperature=0.2", "top_p=0.9!", "max_tokens=300"]
    assert resolved(rules, USUAL, {}) == Sampling(300, 0.2, 0.9)
    assert resolved(rules, USUAL, {"temperature": 1.0, "top_p": 0.1, "seed": 3}) == Sampling(300, 1.0, 0.9, seed=3)


def test_a_stop_is_added_to_those_asked_for_or_takes_their_place() -> None:
    assert resolved(["stop+=END", "stop+=##"], USUAL, {"stop": ("##", "--")}).stop == ("##", "--", "END")
    assert resolved(["stop=END!"], USUAL, {"stop": ("--",)}).stop == ("END",)
    assert resolved(["stop=END"], USUAL, {"stop": ("--",)}).stop == ("--",)
    assert resolved(["stop=END", "stop+=##"], USUAL, {}).stop == ("END", "##")


def test_rules_are_kept_in_one_form_the_last_of_each_name() -> None:
    assert normal([" temperature = 0.20 ", "temperature=.3!", "stop+=END", "stop+=##", "top_k=40"]) == [
        "temperature=0.3!", "stop+=END", "stop+=##", "top_k=40",
    ]  # fmt: skip
    for rule in normal(["seed=7!", "min_p=0.05", "stop=a=b!"]):
        assert normal([rule]) == [rule]
    assert parsed("stop=a=b").value == "a=b"


@pytest.mark.parametrize(
    "rule", ["", "temperature", "heat=1", "temperature=3", "temperature+=1", "top_k=1.5", "seed=-1"]
)
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(UserError):
        normal([rule])


def test_a_server_hears_what_it_takes_and_what_it_refuses_no_second_time() -> None:
    wanted = Sampling(64, top_k=40, min_p=0.1, repetition_penalty=1.1, frequency_penalty=0.5, presence_penalty=-0.5)
    turns = (Turn("user", "?"),)
    for provider, heard in {
        "vllm": {"top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"},
        "openai": {"frequency_penalty", "presence_penalty"},
        "zhipu": set(),
    }.items():
        body = request_body("m", turns, wanted, PROVIDERS[provider])
        assert {name for name in body if name.endswith(("_k", "_p", "_penalty"))} == heard, provider
    taught = adapted(PROVIDERS["generic"], "Unknown parameter: min_p")
    assert taught is not None
    body = request_body("m", turns, wanted, taught)
    assert "min_p" not in body
    assert body["top_k"] == 40
