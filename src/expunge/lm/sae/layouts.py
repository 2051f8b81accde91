"""Layouts in which autoencoders are published: what their names, shapes and settings mean.

    SAELens       W_enc [d, n], b_enc, W_dec [n, d], b_dec (threshold); cfg.json beside it
    Gemma Scope   the same with threshold, as params.npz, without a cfg.json
    sparsify      encoder.weight [n, d], encoder.bias, W_dec [n, d], b_dec; cfg.json with k
    plain         encoder.weight [n, d], decoder.weight [d, n], as `torch.nn.Linear` keeps them

Some subtract b_dec from a state before they encode it and some do not; here all do, and what that
changes is folded into b_enc. Every setting is refused that would make another function of the
weights than the one that is computed here.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.lm.sae.coder import Activation, Autoencoder

HOOKS = (
    (re.compile(r"blocks\.(\d+)\.hook_resid_post"), 0),
    (re.compile(r"blocks\.(\d+)\.hook_resid_pre"), -1),
    (re.compile(r"(?:.*\.)?layers\.(\d+)"), 0),
)
"""Names of the place an autoencoder reads, and what to add to the number for the block's."""

SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "architecture": ("standard", "topk", "jumprelu", None),
    "activation_fn_str": ("relu", "topk", None),
    "activation_fn": ("relu", "topk", None),
    "activation": ("topk", "relu", "jumprelu", None),
    "normalize_activations": ("none", None),
    "reshape_activations": ("none", None),
    "finetuning_scaling_factor": (False, None),
    "transcode": (False, None),
    "skip_connection": (False, None),
}
"""Settings that change what is computed, and the values with which it is what stands here."""

BESIDE = frozenset({"W_skip", "W_gate", "b_gate", "r_mag", "b_mag", "scaling_factor"})
"""Tensors that would have a part in it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An autoencoder in a file, none of its weights loaded.

    Attributes:
        file: Where it is.
        layout: ``saelens``, ``gemma-scope``, ``sparsify`` or ``plain``.
        width: Channels of a state (d).
        latents: Number of latents (n).
        activation: What becomes of the drive.
        k: Latents of a state, at most (topk).
        layer: The block whose output it reads; None where the file does not say.
        config: All settings.
    """

    file: Path
    layout: str
    width: int
    latents: int
    activation: Activation
    k: int
    layer: int | None
    config: Mapping[str, Any]


def described(file: Path, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> Kept:
    """What an autoencoder is, from the shapes of its tensors and its settings.

    Raises:
        ExpungeError: ``E-MODEL-007`` for a layout or a setting that is not known, ``E-MODEL-010``
            for shapes that do not fit one another.
    """
    layout = _layout(file, shapes, config)
    _refuse_other_settings(file, config)
    width, latents = _sizes(file, shapes)
    k = _k(config)
    activation = _activation(file, layout, config, shapes, k)
    if activation == "topk" and not 1 <= k <= latents:
        raise unknown(file, f"it keeps the {k} largest of {latents} latents")
    kept = k if activation == "topk" else 0
    return Kept(
        file, layout, width, latents, activation, kept, _layer(file, layout, config), config
    )


def assembled(kept: Kept, tensors: Mapping[str, Tensor]) -> Autoencoder:
    """The autoencoder, from its tensors in float32."""
    return replace(_READERS[kept.layout](kept, tensors), layer=kept.layer)


def _layout(file: Path, shapes: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    names = set(shapes)
    if beside := names & BESIDE:
        raise unknown(file, f"it has {', '.join(sorted(beside))} besides")
    if {"W_enc", "b_enc", "W_dec", "b_dec"} <= names:
        return "saelens" if config else "gemma-scope"
    if {"encoder.weight", "encoder.bias", "W_dec", "b_dec"} <= names:
        return "sparsify"
    if {"encoder.weight", "decoder.weight"} <= names:
        return "plain"
    raise unknown(file, f"its tensors are called {', '.join(sorted(names)[:6]) or 'nothing'}")


def _sizes(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Width and number of latents, after a look at all shapes.

    Raises:
        ExpungeError: ``E-MODEL-010`` when they do not fit one another.
    """
    name = "W_enc" if "W_enc" in shapes else "encoder.weight"
    first = shapes[name]
    if len(first) != 2 or not all(first):
        raise broken(file, f"{name} has the shape {list(first)}")
    width, latents = first if name == "W_enc" else first[::-1]
    wanted = {
        "W_enc": (width, latents), "encoder.weight": (latents, width),
        "W_dec": (latents, width), "decoder.weight": (width, latents),
        "b_enc": (latents,), "encoder.bias": (latents,), "threshold": (latents,),
        "b_dec": (width,), "decoder.bias": (width,), "bias": (width,),
    }  # fmt: skip
    for name, shape in shapes.items():
        is_scalar = name == "threshold" and shape == ()
        if name in wanted and shape != wanted[name] and not is_scalar:
            raise broken(file, f"{name} has the shape {list(shape)}, not {list(wanted[name])}")
    return width, latents


def _activation(
    file: Path,
    layout: str,
    config: Mapping[str, Any],
    shapes: Mapping[str, Any],
    k: int,
) -> Activation:
    settings = ("architecture", "activation_fn_str", "activation_fn", "activation")
    named = {config.get(name) for name in settings}
    if "jumprelu" in named or layout == "gemma-scope":
        if "threshold" not in shapes:
            raise unknown(file, "it has neither settings nor thresholds")
        return "jumprelu"
    if "topk" in named or layout == "sparsify":
        return "topk"
    return "topk" if k and not named & {"standard", "relu"} else "relu"


def _k(config: Mapping[str, Any]) -> int:
    inner = config.get("activation_fn_kwargs")
    found = config.get("k", inner.get("k") if isinstance(inner, Mapping) else None)
    return found if type(found) is int else 0


def _layer(file: Path, layout: str, config: Mapping[str, Any]) -> int | None:
    """The block that is read, where it can be told.

    Raises:
        ExpungeError: ``E-MODEL-007`` when it reads something else than a block's output.
    """
    metadata = config.get("metadata")
    within = metadata if isinstance(metadata, Mapping) else {}
    hook = within.get("hook_name") or config.get("hook_name") or config.get("hook_point")
    if hook is None and layout == "sparsify" and file.parent.name.startswith("layers."):
        hook = file.parent.name
    if not hook:
        return None
    for pattern, shift in HOOKS:
        found = pattern.fullmatch(str(hook))
        if found and int(found[1]) + shift >= 0:
            return int(found[1]) + shift
    raise unknown(file, f"it reads {hook}, which is not the output of a block")


def _refuse_other_settings(file: Path, config: Mapping[str, Any]) -> None:
    for name, known in SETTINGS.items():
        if config.get(name) not in known:
            raise unknown(file, f"{name} is {config[name]!r}")


def _as_saelens(kept: Kept, tensors: Mapping[str, Tensor]) -> Autoencoder:
    made = Autoencoder(tensors["W_enc"].T, tensors["b_enc"], tensors["W_dec"], tensors["b_dec"])
    subtracts = kept.config.get("apply_b_dec_to_input", kept.layout == "saelens")
    settled = _settled(kept, made if subtracts else _subtracting(made), tensors)
    return _rescaled(settled) if kept.config.get("rescale_acts_by_decoder_norm") else settled


def _as_sparsify(kept: Kept, tensors: Mapping[str, Tensor]) -> Autoencoder:
    encoder, bias = tensors["encoder.weight"], tensors["encoder.bias"]
    return _settled(kept, Autoencoder(encoder, bias, tensors["W_dec"], tensors["b_dec"]), tensors)


def _as_plain(kept: Kept, tensors: Mapping[str, Tensor]) -> Autoencoder:
    """``decoder.bias`` is only added; ``bias`` or ``b_dec`` is subtracted before as well."""
    encoder, decoder = tensors["encoder.weight"], tensors["decoder.weight"].T
    bias = tensors.get("encoder.bias", encoder.new_zeros(kept.latents))
    shared = tensors.get("bias", tensors.get("b_dec"))
    if shared is not None:
        return _settled(kept, Autoencoder(encoder, bias, decoder, shared), tensors)
    added = tensors.get("decoder.bias", encoder.new_zeros(kept.width))
    return _settled(kept, _subtracting(Autoencoder(encoder, bias, decoder, added)), tensors)


_READERS: Mapping[str, Callable[[Kept, Mapping[str, Tensor]], Autoencoder]] = {
    "saelens": _as_saelens,
    "gemma-scope": _as_saelens,
    "sparsify": _as_sparsify,
    "plain": _as_plain,
}


def _subtracting(coder: Autoencoder) -> Autoencoder:
    """The same function, of an autoencoder that does not subtract its centre from a state."""
    moved = coder.encoder.double() @ coder.centre.double()
    return replace(coder, bias=(coder.bias.double() + moved).float())


def _settled(kept: Kept, coder: Autoencoder, tensors: Mapping[str, Tensor]) -> Autoencoder:
    threshold = tensors["threshold"] if kept.activation == "jumprelu" else None
    return replace(
        coder,
        encoder=coder.encoder.contiguous(),
        decoder=coder.decoder.contiguous(),
        k=kept.k,
        activation=kept.activation,
        threshold=None if threshold is None else threshold.expand(kept.latents).contiguous(),
    )


def _rescaled(coder: Autoencoder) -> Autoencoder:
    """Latents measured in the length of what they add, as the largest were chosen in training."""
    lengths = torch.linalg.vector_norm(coder.decoder, dim=1)
    return replace(
        coder,
        encoder=coder.encoder * lengths[:, None],
        bias=coder.bias * lengths,
        decoder=coder.decoder / lengths.clamp(min=1e-12)[:, None],
        threshold=None if coder.threshold is None else coder.threshold * lengths,
    )


def unknown(file: Path, why: str) -> ExpungeError:
    """A layout or setting that is not known."""
    return ExpungeError(
        "E-MODEL-007",
        f"The autoencoder {file} cannot be read: {why}.",
        "a top-k, ReLU or JumpReLU autoencoder of a block's output, in the layout of SAELens, "
        "Gemma Scope, sparsify, or two linear layers.",
        "Give another --set sae=FILE, or leave it out to train one.",
    )


def broken(file: Path, why: str) -> ExpungeError:
    """A file that is not what it says."""
    return ExpungeError(
        "E-MODEL-010",
        f"The autoencoder {file} is broken: {why}.",
        "tensors whose shapes fit one another.",
        "Do not use this file; get it again from a source you trust.",
    )
