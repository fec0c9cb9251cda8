"""What the libraries of ExLlama raise, as what it means for the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from core.serving.driver import CannotLoad, DriverError, OutOfMemory, Poisoned

_ROOM_HINT: Final = (
    "Set a smaller context_size or cache_size, or a cache of q8, q6 or q4, or take a model with fewer bits."
)
_NO_ROOM: Final = (
    "out of memory", "outofmemory", "insufficient vram", "insufficient space in device", "alloc_failed",
    "cannot allocate",
)  # fmt: skip


def verdict(error: Exception, library: str) -> DriverError:
    """What an exception of a step means for the process."""
    said = first_line(error)
    if _is_no_room(error):
        return OutOfMemory(f"The card's memory ran out. {_ROOM_HINT}")
    return Poisoned(f"{library} failed: {said}")


@contextmanager
def told_apart(library: str, sentence: str) -> Iterator[None]:
    """Whatever the library raises at load, as ours."""
    try:
        yield
    except DriverError:
        raise
    except ModuleNotFoundError as error:
        raise CannotLoad(
            f"«{library}» needs the package {error.name}, which is not installed; install it with: pip install "
            f"'kvasir[{library}]', or name the Python of an environment that has it in worker.pythons."
        ) from error
    except Exception as error:
        if _is_no_room(error):
            raise OutOfMemory(f"{sentence}: it does not fit into the cards' memory. {_ROOM_HINT}") from error
        said = first_line(error)
        if "no kernel image" in said:
            raise CannotLoad(
                f"{sentence}: {library}'s extension was built for another kind of card. Build it for this one: "
                f"kvasir model build --kind {library}"
            ) from error
        raise CannotLoad(f"{sentence}: {said}") from error


def _is_no_room(error: object) -> bool:
    said = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(words in said for words in _NO_ROOM)


def is_cuda(error: object) -> bool:
    """Whether the card, and so everybody, is concerned."""
    said = f"{type(error).__name__} {error}".lower()
    return any(word in said for word in ("cuda", "cublas", "acceleratorerror", "triton", "device-side"))


def first_line(error: object) -> str:
    """What it says, without the advice that follows."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:500]
