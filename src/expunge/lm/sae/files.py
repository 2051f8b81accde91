"""Autoencoders in files: our own, and those of the layouts in `layouts`.

Which layout a file has is read off names and shapes of its tensors, before any of them is loaded.
Our own files are SAELens' with the settings in the header. Pickled files are refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from expunge.core.atomic import replacing
from expunge.core.errors import ExpungeError
from expunge.lm.headers import PICKLED, read_header, read_json
from expunge.lm.sae.coder import Autoencoder
from expunge.lm.sae.layouts import Kept, assembled, broken, described
from expunge.lm.sae.npz import read_npz, read_npz_header

NAMES = ("sae_weights.safetensors", "sae.safetensors", "params.npz")
"""What the publishers call their files, in a folder that has no other."""

CONFIG = "cfg.json"


def inspect(path: str | Path) -> Kept:
    """What an autoencoder is, from the header of its file and its settings.

    Args:
        path: The file, or the folder that holds it.

    Raises:
        ExpungeError: ``E-DATA-001`` where nothing is, ``E-MODEL-003`` for pickled weights,
            ``E-MODEL-007`` for a layout or a setting that is not known, ``E-MODEL-010`` for a
            broken file, ``E-MODEL-002`` for broken settings.
    """
    file = _file(Path(path))
    is_npz = file.suffix.lower() == ".npz"
    shapes = read_npz_header(file) if is_npz else _shapes(file)
    return described(file, shapes, _config(file, is_npz))


def load(path: str | Path, *, width: int | None = None, layer: int | None = None) -> Autoencoder:
    """Read an autoencoder, in float32.

    Args:
        path: The file, or the folder that holds it.
        width: Channels of the states it is to read, where that is known.
        layer: The block it is to read, likewise.

    Raises:
        ExpungeError: As `inspect`; ``E-USE-006`` where it does not fit, before weights load.
    """
    kept = inspect(path)
    refuse_unfit(kept, width=width, layer=layer)
    is_npz = kept.file.suffix == ".npz"
    tensors = {
        name: tensor.float()
        for name, tensor in (read_npz(kept.file) if is_npz else load_file(kept.file)).items()
        if tensor.is_floating_point()
    }
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise broken(kept.file, "it holds numbers that are not finite")
    return assembled(kept, tensors)


def refuse_unfit(kept: Kept, *, width: int | None, layer: int | None) -> None:
    """Refuse an autoencoder of other states.

    Raises:
        ExpungeError: ``E-USE-006``.
    """
    if width is not None and kept.width != width:
        raise ExpungeError(
            "E-USE-006",
            f"The autoencoder {kept.file} reads states of {kept.width} channels, the model has "
            f"{width}.",
            "an autoencoder of this very model.",
            "Give another --set sae=FILE, or leave it out to train one.",
        )
    if layer is not None and kept.layer is not None and kept.layer != layer:
        raise ExpungeError(
            "E-USE-006",
            f"The autoencoder {kept.file} reads block {kept.layer}, and block {layer} was asked "
            "for.",
            "the block it was trained on.",
            f"Use --set layer={kept.layer}, or leave layer out.",
        )


def save(coder: Autoencoder, file: str | Path) -> None:
    """Write an autoencoder as a safetensors file that `load` reads."""
    tensors = {
        "W_enc": coder.encoder.T, "b_enc": coder.bias, "W_dec": coder.decoder, "b_dec": coder.centre
    }  # fmt: skip
    if coder.threshold is not None:
        tensors["threshold"] = coder.threshold
    hook = None if coder.layer is None else f"blocks.{coder.layer}.hook_resid_post"
    config = {
        "architecture": "standard" if coder.activation == "relu" else coder.activation,
        "d_in": coder.width,
        "d_sae": coder.latents,
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "metadata": {"hook_name": hook},
    } | ({"k": coder.k} if coder.activation == "topk" else {})
    told = {"cfg": json.dumps(config, sort_keys=True)}
    with replacing(file) as temporary:
        save_file(
            {n: t.detach().float().cpu().contiguous() for n, t in tensors.items()},
            temporary,
            metadata=told,
        )


def _file(path: Path) -> Path:
    """The file itself.

    Raises:
        ExpungeError: ``E-DATA-001``, ``E-MODEL-003``.
    """
    found = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    pickled = [one for one in found if _is_pickled(one)]
    known = [one for one in found if one.suffix.lower() in (".safetensors", ".npz")]
    named = [one for one in known if one.name in NAMES] or known
    if len(named) == 1:
        return named[0]
    if pickled and not named:
        raise _pickled(pickled[0].name)
    what = f"{len(named)} files of weights in {path}" if named else f"no autoencoder at {path}"
    raise ExpungeError(
        "E-DATA-001",
        f"There is {what}.",
        f"a .safetensors or .npz file, or a folder with one of them ({', '.join(NAMES)}).",
        "Name the file itself with --set sae=FILE.",
    )


def _is_pickled(file: Path) -> bool:
    return file.suffix.lower() in PICKLED and file.suffix.lower() != ".npz"


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in read_header(file).items()}


def _config(file: Path, is_npz: bool) -> Mapping[str, Any]:
    """The settings: in the header of our own files, else beside the file; none without any."""
    if not is_npz:
        with safe_open(file, "pt") as opened:
            own = (opened.metadata() or {}).get("cfg")
        if own is not None:
            try:
                found = json.loads(own)
            except ValueError as error:
                raise broken(file, "the settings in its header are no JSON") from error
            return found if isinstance(found, dict) else {}
    beside = file.with_name(CONFIG)
    return read_json(beside) if beside.is_file() else {}


def _pickled(name: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-003",
        f"The autoencoder {name} is pickled, which can run code when opened.",
        "a .safetensors file, or an .npz file of plain numbers.",
        "Ask the publisher for safetensors, or convert the file on a machine you can lose.",
    )
