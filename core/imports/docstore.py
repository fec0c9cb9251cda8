"""The texts of LangChain's indexes for FAISS: `index.pkl`, read without unpickling, and the head of `index.faiss`.

A pickle is a program; loading one runs it. This reader goes through the operations one by one and knows only those by
which LangChain writes down its documents: texts, numbers, lists, dictionaries, and the names of two classes, of which
nothing is ever imported or made. Whatever else a file wants to do is refused.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from core.errors import KvasirError, UserError
from core.imports.pieces import MOST_CHARACTERS, Piece
from core.texts import tell

_LARGEST: Final = 512 << 20
_MOST_OPERATIONS: Final = 50_000_000
_STORES: Final = frozenset(
    {"langchain.docstore.in_memory InMemoryDocstore", "langchain_community.docstore.in_memory InMemoryDocstore"}
)
_DOCUMENTS: Final = frozenset(
    {
        "langchain.docstore.document Document",
        "langchain.schema Document",
        "langchain.schema.document Document",
        "langchain_core.documents Document",
        "langchain_core.documents.base Document",
    }
)
_MAKERS: Final = frozenset({"copyreg _reconstructor", "copy_reg _reconstructor"})
_PLAIN: Final = frozenset({"builtins object", "__builtin__ object", "builtins set", "__builtin__ set"})
_ALLOWED: Final = _STORES | _DOCUMENTS | _MAKERS | _PLAIN
_HEADS: Final = {b"IxF2": "IndexFlatL2", b"IxFI": "IndexFlatIP", b"IxFl": "IndexFlat"}


class Refused(KvasirError):
    """It is not what LangChain writes."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A name of a class; only that."""

    name: str


@dataclass(slots=True, eq=False)
class _Noted:
    """An object as the file describes it."""

    name: str
    state: dict[Any, Any] = field(default_factory=dict)


_MARK: Final = object()


def pieces(path: Path) -> list[Piece]:
    """In the order of the index. Raises UserError with what is wrong with the file."""
    try:
        if path.stat().st_size > _LARGEST:
            raise Refused(tell("import_large", most=_LARGEST >> 20))
        with path.open("rb") as file:
            return _pieces(_read(file))
    except Refused as error:
        raise UserError(tell("import_pickle_refused", file=path.name, reason=error)) from error
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, MemoryError) as error:
        raise UserError(tell("import_damaged", file=path.name, reason=type(error).__name__)) from error


def vectors_in(path: Path) -> tuple[int, int] | None:
    """(how many, dimension), as the head of `index.faiss` says; None for kinds of index that are not known here."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return None
    if len(head) < 16 or head[:4] not in _HEADS:
        return None
    dimension, count = struct.unpack("<iq", head[4:16])
    return count, dimension


def _pieces(found: Any) -> list[Piece]:
    if not isinstance(found, tuple) or not found or not isinstance(found[0], _Noted) or found[0].name not in _STORES:
        raise Refused(tell("import_no_docstore"))
    documents = found[0].state.get("_dict")
    if not isinstance(documents, dict):
        raise Refused(tell("import_no_docstore"))
    order = found[1] if len(found) > 1 and isinstance(found[1], dict) else {}
    places = sorted(place for place in order if isinstance(place, int))
    wanted = dict.fromkeys([*(order[place] for place in places if order[place] in documents), *documents])
    result, size = [], 0
    for key in wanted:
        text, source = _document(documents[key])
        size += len(text)
        if size > MOST_CHARACTERS:
            raise Refused(tell("import_large", most=MOST_CHARACTERS >> 20))
        result.append(Piece(text, source))
    return result


def _document(noted: Any) -> tuple[str, str]:
    if not isinstance(noted, _Noted) or noted.name not in _DOCUMENTS:
        raise Refused(tell("import_no_docstore"))
    fields = noted.state.get("__dict__", noted.state)
    text, metadata = fields.get("page_content"), fields.get("metadata") or {}
    source = metadata.get("source", "") if isinstance(metadata, dict) else ""
    if not isinstance(text, str):
        raise Refused(tell("import_no_docstore"))
    return _whole(text), _whole(source) if isinstance(source, str) else ""


def _whole(text: str) -> str:
    """Without half characters."""
    return text.encode("utf-8", "replace").decode()


def _read(file: BinaryIO) -> Any:
    """What the pickle describes, of names, notes and plain data."""
    machine = _Machine()
    for number, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if operation.name == "STOP":
            return machine.pop()
        work = _OPERATIONS.get(operation.name)
        if work is None or number > _MOST_OPERATIONS:
            raise Refused(tell("import_operation", name=operation.name))
        work(machine, argument)
    raise ValueError("no end")


class _Machine:
    """The stack and the memory of a pickle, for what is allowed."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("mark")
        return value

    def since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                found = self.stack[place + 1 :]
                del self.stack[place:]
                return found
        raise ValueError("no mark")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def name(self, name: str) -> None:
        if name not in _ALLOWED:
            raise Refused(tell("import_name", name=name[:100]))
        self.push(_Name(name))

    def top(self, kind: type | tuple[type, ...]) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise Refused(tell("import_no_docstore"))
        return self.stack[-1]

    def fill(self, pairs: Iterator[tuple[Any, Any]]) -> None:
        target = self.top(dict)
        for key, value in pairs:
            if not isinstance(key, str | int | float):
                raise Refused(tell("import_no_docstore"))
            target[key] = value


def _keep(machine: _Machine, place: Any) -> None:
    machine.memory[len(machine.memory) if place is None else place] = machine.stack[-1]


def _fetch(machine: _Machine, place: Any) -> None:
    machine.push(machine.memory[place])


def _set_items(machine: _Machine, _argument: Any) -> None:
    found = machine.since_mark()
    machine.fill(zip(found[::2], found[1::2], strict=True))


def _set_item(machine: _Machine, _argument: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.fill(iter([(key, value)]))


def _append(machine: _Machine, _argument: Any) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _appends(machine: _Machine, _argument: Any) -> None:
    found = machine.since_mark()
    machine.top(list).extend(found)


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def work(machine: _Machine, _argument: Any) -> None:
        machine.push(tuple([machine.pop() for _ in range(count)][::-1]))

    return work


def _stack_global(machine: _Machine, _argument: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise Refused(tell("import_no_docstore"))
    machine.name(f"{module} {name}")


def _new(machine: _Machine, _argument: Any) -> None:
    arguments, name = machine.pop(), machine.pop()
    if not isinstance(name, _Name) or name.name in _MAKERS | _PLAIN or arguments != ():
        raise Refused(tell("import_no_docstore"))
    machine.push(_Noted(name.name))


def _reduce(machine: _Machine, _argument: Any) -> None:
    """Only as objects and sets were written down by older pickles."""
    arguments, name = machine.pop(), machine.pop()
    if not isinstance(name, _Name) or not isinstance(arguments, tuple):
        raise Refused(tell("import_no_docstore"))
    if name.name in _MAKERS and len(arguments) == 3 and isinstance(arguments[0], _Name):
        machine.push(_Noted(arguments[0].name))
    elif name.name.endswith(" set") and len(arguments) == 1 and isinstance(arguments[0], list):
        machine.push(list(arguments[0]))
    else:
        raise Refused(tell("import_name", name=name.name))


def _build(machine: _Machine, _argument: Any) -> None:
    state = machine.pop()
    if isinstance(state, tuple) and len(state) == 2:  # with what is in slots
        state = {**(state[0] or {}), **(state[1] or {})}
    if not isinstance(state, dict):
        raise Refused(tell("import_no_docstore"))
    machine.top(_Noted).state.update(state)


def _nothing(_machine: _Machine, _argument: Any) -> None:
    """Says how the file is written, and no more."""


def _push(value: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _argument: machine.push(value())


def _argument(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


_OPERATIONS: Final[Mapping[str, Callable[[_Machine, Any], None]]] = {
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"), _argument),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT"), _argument),
    **dict.fromkeys(("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"), _keep),
    **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), _fetch),
    "MARK": _push(lambda: _MARK),
    "NONE": _push(lambda: None),
    "NEWTRUE": _push(lambda: True),
    "NEWFALSE": _push(lambda: False),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), _push(list)),
    "EMPTY_DICT": _push(dict),
    "EMPTY_TUPLE": _push(tuple),
    "TUPLE": lambda machine, _argument: machine.push(tuple(machine.since_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda machine, _argument: machine.push(machine.since_mark())),
    "APPEND": _append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _appends),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "GLOBAL": lambda machine, argument: machine.name(argument),
    "STACK_GLOBAL": _stack_global,
    "NEWOBJ": _new,
    "REDUCE": _reduce,
    "BUILD": _build,
}
"""What is known; e.g. the operations for persistent ids, extensions and instances are not."""
