"""Vectors as text, for entries that are JSON."""

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any
from zlib import compress, decompress

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]


def packed(vectors: Any) -> dict[str, Any]:
    """Vectors [n, d] in single precision; zeros take no room."""
    import numpy as np

    told = np.ascontiguousarray(vectors, dtype="<f4")
    return {"shape": list(told.shape), "data": b64encode(compress(told.tobytes(), 6)).decode()}


def unpacked(told: Any) -> "Vectors":
    """The vectors that `packed` was given."""
    import numpy as np

    data = decompress(b64decode(told["data"]))
    return np.frombuffer(data, dtype="<f4").reshape(told["shape"]).astype(np.float32)
