"""What the anchor says of known rows: computed once, looked up ever after, kept over restarts.

A row is known by its tokens, whatever view or wording it stands in, and for each row the positions
that some term looks at are remembered. A value is handed out for these tokens and positions only.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from expunge.core.atomic import replacing
from expunge.core.canonical import canonical
from expunge.data.encode import IGNORED, Encoded
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.slots.sample import Sampler
from expunge.lm.digest import tensors_digest

Places = NDArray[np.bool_]
"""[n], true where a row's position *predicts* something a term looks at."""

Wanted = dict[bytes, Places]
"""Token ids of a row, as bytes of int64 -> its places."""


class Table:
    """Values of rows: for each its places and, end to end, one value a place.

    Args:
        wanted: The rows.
        packed: [M, ...], values at all places, rows in the order of `ordered`.
    """

    def __init__(self, wanted: Wanted, packed: Tensor) -> None:
        counts = [int(places.sum()) for _, places in ordered(wanted)]
        self._rows = {
            ids: (places, values)
            for (ids, places), values in zip(
                ordered(wanted), torch.split(packed, counts), strict=True
            )
        }

    def of(self, inputs: Inputs) -> Tensor | None:
        """[N, ...] on the device of ``inputs``, or None when a row or a place is not known."""
        parts = []
        for ids, asked in rows_of(inputs):
            places, values = self._rows.get(ids, _UNKNOWN)
            if len(places) != len(asked) or bool((asked & ~places).any()):
                return None
            parts.append(values[torch.from_numpy(asked[places])])
        return torch.cat(parts).to(inputs.targets.device)


_UNKNOWN: tuple[Places, Tensor] = (np.zeros(0, dtype=bool), torch.zeros(0))


def drawn(datasets: Datasets, sampler: Sampler, steps: int, widths: Mapping[str, bool]) -> Wanted:
    """The rows that the planned steps draw, each once.

    Args:
        datasets: Makes the rows.
        sampler: Whose draws.
        steps: Steps planned.
        widths: View -> whether all real positions are looked at, or only the supervised ones.
    """
    wanted: Wanted = {}
    seen: set[tuple[str, int]] = set()
    for step in range(steps):
        draw = sampler.draw(step)
        for view, wide in widths.items():
            for item in datasets.drawn(view, draw):
                if (view, item.row) not in seen:
                    seen.add((view, item.row))
                    ids = np.array(item.ids, dtype=np.int64).tobytes()
                    places = _places(item, wide)
                    wanted[ids] = wanted[ids] | places if ids in wanted else places
    return wanted


def ordered(wanted: Wanted) -> list[tuple[bytes, Places]]:
    """The rows by length, which is how they are computed and kept."""
    return sorted(wanted.items(), key=lambda row: (len(row[0]), row[0]))


def rows_of(inputs: Inputs) -> Iterator[tuple[bytes, Places]]:
    """Token ids and predicting positions of each row of a batch, without the padding."""
    batch = (inputs.input_ids, inputs.attention_mask.bool(), inputs.keep)
    for ids, real, keep in zip(*(part.cpu().numpy() for part in batch), strict=True):
        yield ids[real].tobytes(), keep[real]


def computed(
    wanted: Wanted, datasets: Datasets, values_of: Callable[[Inputs], Tensor | None], batch: int
) -> Tensor | None:
    """[M, ...] on the CPU: ``values_of`` every row; None as soon as that is None."""
    rows, parts = ordered(wanted), []
    for start in range(0, len(rows), batch):
        values = values_of(_inputs(rows[start : start + batch], datasets))
        if values is None:
            return None
        parts.append(values.cpu())
    return torch.cat(parts) if parts else None


def key_of(about: Mapping[str, object], wanted: Wanted) -> str:
    """A hash of all that values depend on.

    Args:
        about: Weights, kind of values, precision ...: plain JSON values.
        wanted: The rows.
    """
    versions = {name: version(name) for name in ("torch", "transformers")}
    hasher = hashlib.sha256(canonical({**about, "versions": versions}))
    for ids, places in ordered(wanted):
        hasher.update(hashlib.sha256(ids).digest() + hashlib.sha256(places.tobytes()).digest())
    return hasher.hexdigest()


def keep(file: Path, key: str, values: Tensor) -> None:
    """Write values for a restarted run."""
    named = {"values": values.contiguous()}
    with replacing(file) as temporary:
        save_file(named, temporary, metadata={"key": key, "digest": tensors_digest(named)})


def kept(file: Path, key: str) -> Tensor | None:
    """The values that lie in ``file``, or None when they are others, incomplete or altered."""
    try:
        with safe_open(file, framework="pt") as stored:
            said = stored.metadata() or {}
            values: Tensor = stored.get_tensor("values")
    except (OSError, SafetensorError):
        return None
    whole = said.get("digest") == tensors_digest({"values": values})
    return values if whole and said.get("key") == key else None


def _places(item: Encoded, wide: bool) -> Places:
    if wide:
        return np.ones(len(item.ids), dtype=bool)
    return np.array([*(label != IGNORED for label in item.labels[1:]), False])


def _inputs(rows: Sequence[tuple[bytes, Places]], datasets: Datasets) -> Inputs:
    ids = [np.frombuffer(tokens, dtype=np.int64).tolist() for tokens, _ in rows]
    inputs = datasets.batch([Encoded(tokens, tokens, [], row=-1) for tokens in ids])
    keep = torch.zeros_like(inputs.keep)
    for row, (_, places) in enumerate(rows):
        keep[row, : len(places)] = torch.from_numpy(places)
    return replace(inputs, keep=keep, targets=inputs.input_ids.roll(-1, dims=1)[keep])
