"""A question's vector, as every store takes it."""

from __future__ import annotations

from asyncio import Future

import numpy as np

from core.errors import ConfigError
from core.ports import QueryVector
from core.texts import tell
from core.types import Generation, Vector


async def asked_vector(generation: Generation, vector: QueryVector) -> Vector | None:
    """The vector once it is there, where the index has any. Raises ConfigError for one of another length."""
    if generation.dimension == 0:
        return None
    found = await vector if isinstance(vector, Future) else vector
    if found is None:
        return None
    if found.shape != (generation.dimension,):
        raise ConfigError(tell("store_wrong_vectors", expected=generation.dimension, found=found.shape))
    return found.astype(np.float32, copy=False)
