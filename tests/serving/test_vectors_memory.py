"""What the drivers of vectors do where memory does not suffice, or a card fails; without their libraries."""

from __future__ import annotations

import numpy as np
import pytest

from core.serving.driver import CannotLoad, OutOfMemory, Poisoned
from core.serving.drivers.sentence_transformers import in_batches, normal
from core.serving.drivers.torch_device import device_of, guarded

FULL = "CUDA out of memory. Tried to allocate 20.00 MiB."


def test_smaller_batches_are_tried_before_memory_is_said_to_lack() -> None:
    tried: list[int] = []

    def run(size: int) -> str:
        tried.append(size)
        if size > 2:
            raise RuntimeError(FULL)
        return "rows"

    assert in_batches(run, 32) == "rows"
    assert tried == [32, 8, 2]


def test_one_text_that_does_not_fit_ends_the_model() -> None:
    def run(size: int) -> str:
        raise RuntimeError(FULL)

    with pytest.raises(OutOfMemory, match="smaller `batch`"):
        in_batches(run, 4)


def test_a_card_that_fails_poisons_the_process() -> None:
    with pytest.raises(Poisoned, match="device-side assert"), guarded():
        raise RuntimeError("CUDA error: device-side assert triggered")


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), guarded():
        raise RuntimeError("shapes do not match")


def test_vectors_are_of_length_one_and_made_of_numbers() -> None:
    rows = normal([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(rows, [[0.6, 0.8], [1.0, 0.0]], rtol=1e-6)
    with pytest.raises(CannotLoad, match="float32 or bfloat16"):
        normal([[float("nan"), 1.0]])


class _Cuda:
    def __init__(self, there: bool) -> None:
        self.cuda = self
        self._there = there

    def is_available(self) -> bool:
        return self._there


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_the_device_is_what_is_wanted_and_there(wanted: str, there: bool, found: str) -> None:
    assert device_of({"device": wanted}, _Cuda(there)) == found


def test_a_card_that_is_not_there_is_not_replaced_in_silence() -> None:
    with pytest.raises(CannotLoad, match="`auto` or `cpu`"):
        device_of({"device": "cuda"}, _Cuda(False))
