"""The gates of all targets: one pass of one frozen encoder, and small products for each of them."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.calibration import threshold
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.inside import needed
from expunge.engine.guarding.targets import Target
from expunge.requests.rows import Row
from expunge.requests.scope import placebo

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.engine.likeness import Likeness
    from expunge.guards.o3_serve import Params
    from expunge.lm.encoders import Source, TextEncoder
    from expunge.lm.subject import Subject

GUARD = "o3-serve"

STRANGERS = 20
"""Rows about invented subjects."""

_log = logging.getLogger(__name__)

Ids = Sequence[int]


class Likely:
    """A rung that knows the prompts of each target by their hidden states.

    Its scores are the weights w of the adapter, its threshold is the cut below which w is 0; the
    guard sets it itself.

    Args:
        params: The guard's parameters.
        means: What it may use.
    """

    name = "likeness"
    is_calibrated = False

    def __init__(self, params: "Params", means: Means) -> None:
        self.params, self.means = params, means
        self.least = 0.0 if params.official else params.low
        self._cut = self.least
        self._gates: dict[str, Likeness] = {}

    @property
    def threshold(self) -> float:
        """The cut; between ``low`` and ``high``. Of the code's table none.

        Were it higher, prompts of the targets would pass under it with those that are like them.
        """
        return self._cut

    @threshold.setter
    def threshold(self, cut: float) -> None:
        if not self.params.official:
            self._cut = min(max(cut, self.params.low), self.params.high)

    def key(self, target: Target) -> dict[str, Any]:
        """The gate of a target, as plain values: arrays and nothing that could run.

        Raises:
            ExpungeError: ``E-SERVE-005`` for a target without rows.
        """
        from expunge.engine.likeness import How, fitted

        if not target.rows:
            raise ExpungeError(
                "E-SERVE-005",
                f"The guard {GUARD} knows a target by the prompts of its rows; this one has none.",
                "rows that hold what must not come out.",
                "Give rows, or add the target to a guard that goes by names, such as lexical.",
            )
        params = self.params
        texts = [self._prompts_of(row) for row in target.rows]
        rows = [at for at, own in enumerate(texts) for _ in own]
        strangers = placebo(target.rows, STRANGERS, self.means.seed) if params.strangers else []
        others = [prompt for row in strangers for prompt in self._prompts_of(row)]
        how = How(
            score=params.score, nu=params.nu, low=0.0, high=1.0,
            gate="official_hard" if params.official else "soft",
        )  # fmt: skip
        made = fitted(
            self._vectors([prompt for own in texts for prompt in own]), rows, how, self.means.seed,
            self._vectors(others) if others else None,
        )  # fmt: skip
        arrays = {name: _plain(tensor) for name, tensor in made.tensors.items()}
        return {"read_by": self._reader, "settings": made.settings, "arrays": arrays}

    def add(self, id: str, key: Mapping[str, Any]) -> None:
        """Take a target's gate in.

        Raises:
            ExpungeError: ``E-MODEL-009`` for a gate that was fitted with another encoder.
        """
        from expunge.engine.likeness import Likeness

        subject = needed(self.means, GUARD)
        if key["read_by"] != self._reader:
            raise ExpungeError(
                "E-MODEL-009",
                f"A gate that was fitted with the encoder {str(key['read_by'])[:16]}.",
                f"{self._reader[:16]}, which reads the prompts here.",
                "Serve the model the guard was fitted to, or fit it again.",
            )
        tensors = {name: _tensor(one) for name, one in key["arrays"].items()}
        self._gates[id] = Likeness.read(key["settings"], tensors, subject.model.device)

    def remove(self, id: str) -> None:
        """Leave a target out."""
        self._gates.pop(id, None)

    def scores(self, text: str, most: int) -> list[tuple[str, float]]:
        """The targets whose gates give a text any weight."""
        if not self._gates:
            return []
        subject = needed(self.means, GUARD)
        (found,) = self.weights([subject.encoder.prompt(text)])
        ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        return [(id, weight) for id, weight in ranked if weight > 0][:most]

    def weights(self, prompts: Sequence[Ids]) -> list[dict[str, float]]:
        """For each prompt the weight that each target's gate gives it; one pass of the encoder."""
        import torch

        gates = dict(self._gates)
        if not gates or not prompts:
            return [{} for _ in prompts]
        with torch.no_grad():
            vectors = self._vectors(prompts)
            told = torch.stack([gate(vectors) for gate in gates.values()], 1).tolist()
        return [dict(zip(gates, row, strict=True)) for row in told]

    def calibrate(self, retain: Sequence[Row]) -> None:
        """Put the cut where texts to be let through get no weight, by the highest of all gates.

        Args:
            retain: Rows whose prompts are to be let through; without any the cut stays as it is.
        """
        if self.params.official or not retain or not self._gates:
            return
        prompts = [prompt for row in retain for prompt in self._prompts_of(row)]
        highest = [max(one.values()) for one in self.weights(prompts)]
        self.threshold, _ = threshold(highest, self.params.false_triggers)
        over = sum(weight > self.threshold for weight in highest) / len(highest)
        if over > self.params.false_triggers:
            _log.warning("o3-serve: %.1f%% of the prompts to be let through fire", 100 * over)

    def _prompts_of(self, row: Row) -> list[list[int]]:
        """What a row is asked by, in all its wordings; running text also as a whole."""
        encoder = needed(self.means, GUARD).encoder
        asked = [encoder.prompt(turn.prompt, turn.running) for turn in row.turns]
        if row.text is not None:
            asked.append(encoder.encode(row.training).ids)
        return asked

    def _vectors(self, prompts: Sequence[Ids]) -> "Tensor":
        """[n, L, d]; of a prompt longer than the model its end, which is what it is asked."""
        most = self._bare.encoder.max_length
        return self._encoder.vectors([prompt[-most:] for prompt in prompts], {}).float()

    @property
    def _bare(self) -> "Subject":
        from expunge.engine.runtime import without_parts

        return without_parts(needed(self.means, GUARD))

    @cached_property
    def _source(self) -> "Source":
        from expunge.lm.encoders import SELF, Source, inspect_encoder

        folder, tokenizer = self.params.encoder, self._bare.tokenizer
        if folder == SELF:
            return Source()
        words: Any = tokenizer
        return Source(folder, inspect_encoder(folder).digest, words.backend_tokenizer.to_str())

    @cached_property
    def _reader(self) -> str:
        """Names what reads the prompts."""
        return self._source.digest or self._bare.digest

    @cached_property
    def _encoder(self) -> "TextEncoder":
        from expunge.engine.runtime import twin
        from expunge.lm.encoders import SELF, load_encoder, own_encoder

        if self._source.folder == SELF:
            return own_encoder(twin(self._bare.model, bare=True))
        return load_encoder(self._source, self._bare.model.device)[0]


def _plain(tensor: "Tensor") -> dict[str, Any]:
    array = np.ascontiguousarray(tensor.detach().cpu().float().numpy(), dtype="<f4")
    return {"shape": list(tensor.shape), "data": array.tobytes().hex()}


def _tensor(told: Mapping[str, Any]) -> "Tensor":
    import torch

    numbers = np.frombuffer(bytes.fromhex(told["data"]), dtype="<f4")
    return torch.from_numpy(numbers.reshape(told["shape"]).copy())
