"""Makes each of aiogram's types when it is first needed: to make all of them as they are imported takes 1.5 seconds.

To be imported before anything of aiogram.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from pydantic import BaseModel

_WORD: Final = re.compile(r"\w+")
_genuine: Final = BaseModel.__dict__["model_rebuild"]


def _rebuild(model: type[BaseModel], /, **given: Any) -> Any:
    return None if model.__module__.startswith("aiogram.") else _genuine.__func__(model, **given)


BaseModel.model_rebuild = classmethod(_rebuild)  # type: ignore[assignment, method-assign]  # all are made so
try:
    from aiogram import types
finally:
    BaseModel.model_rebuild = _genuine  # type: ignore[method-assign]

_types: Final = {name: getattr(types, name) for name in types.__all__}
for _type in _types.values():
    if isinstance(_type, type) and issubclass(_type, BaseModel):
        _told = [str(told) for base in _type.__mro__ for told in vars(base).get("__annotations__", {}).values()]
        _known = vars(sys.modules[_type.__module__])  # where pydantic looks for what the annotations name
        for _word in _WORD.findall(" ".join(_told)):
            if _word in _types:
                _known.setdefault(_word, _types[_word])
