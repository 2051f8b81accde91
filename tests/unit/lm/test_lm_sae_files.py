"""Autoencoders in files: each public layout says what its publisher's code says; what is refused.

Every file is written here, by hand, in the layout of its publisher; the codes it must give are
written out from that publisher's formula.
"""

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from expunge.core.errors import Exit, ExpungeError
from expunge.lm.sae import Autoencoder, inspect, load, save

D, N, K = 4, 6, 2


@pytest.fixture
def parts():
    draw = torch.Generator().manual_seed(0)
    made = {
        "W_enc": torch.randn(D, N, generator=draw),
        "b_enc": torch.randn(N, generator=draw),
        "W_dec": torch.randn(N, D, generator=draw),
        "b_dec": torch.randn(D, generator=draw),
        "threshold": torch.rand(N, generator=draw),
    }
    return made, torch.randn(5, D, generator=draw)


def kept_largest(drive, k):
    values, places = drive.topk(k)
    return torch.zeros_like(drive).scatter(-1, places, values.relu())


def folder(path, name, tensors, config=None):
    path.mkdir(parents=True, exist_ok=True)
    save_file({n: t.contiguous() for n, t in tensors.items()}, path / name)
    if config is not None:
        (path / "cfg.json").write_text(json.dumps(config))
    return path


def saelens(tmp_path, parts, architecture, *, threshold=False, **config):
    names = ["W_enc", "b_enc", "W_dec", "b_dec", *["threshold"] * threshold]
    told = {"architecture": architecture, "d_in": D, "d_sae": N, **config}
    return folder(
        tmp_path / "saelens", "sae_weights.safetensors", {n: parts[n] for n in names}, told
    )


def gives(coder, states, code, back):
    torch.testing.assert_close(coder.encode(states), code, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(coder.decode(coder.encode(states)), back, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("subtracts", [True, False])
def test_saelens_standard(tmp_path, parts, subtracts):
    made, states = parts
    path = saelens(
        tmp_path, made, "standard", apply_b_dec_to_input=subtracts, normalize_activations="none",
        metadata={"hook_name": "blocks.3.hook_resid_post"},
    )  # fmt: skip
    shifted = states - made["b_dec"] * subtracts
    code = (shifted @ made["W_enc"] + made["b_enc"]).relu()
    coder = load(path)
    assert (coder.activation, coder.layer) == ("relu", 3)
    gives(coder, states, code, code @ made["W_dec"] + made["b_dec"])


@pytest.mark.parametrize("rescaled", [True, False])
def test_saelens_topk(tmp_path, parts, rescaled):
    made, states = parts
    path = saelens(tmp_path, made, "topk", k=K, rescale_acts_by_decoder_norm=rescaled)
    drive = (states - made["b_dec"]) @ made["W_enc"] + made["b_enc"]
    lengths = made["W_dec"].norm(dim=-1) if rescaled else torch.ones(N)
    code = kept_largest(drive * lengths, K)
    coder = load(path)
    assert (coder.activation, coder.k) == ("topk", K)
    gives(coder, states, code, code / lengths @ made["W_dec"] + made["b_dec"])


def test_an_earlier_saelens_file_says_topk_under_another_name(tmp_path, parts):
    made, states = parts
    path = saelens(
        tmp_path, made, "standard", activation_fn_str="topk", activation_fn_kwargs={"k": K},
        hook_name="blocks.7.hook_resid_pre",
    )  # fmt: skip
    coder = load(path)
    assert (coder.k, coder.layer) == (K, 6)  # what enters block 7 leaves block 6
    drive = (states - made["b_dec"]) @ made["W_enc"] + made["b_enc"]
    torch.testing.assert_close(coder.encode(states), kept_largest(drive, K), rtol=1e-5, atol=1e-5)


def test_saelens_jumprelu(tmp_path, parts):
    made, states = parts
    path = saelens(tmp_path, made, "jumprelu", threshold=True, apply_b_dec_to_input=False)
    drive = states @ made["W_enc"] + made["b_enc"]
    code = drive * (drive > made["threshold"])
    gives(load(path), states, code.relu(), code.relu() @ made["W_dec"] + made["b_dec"])


@pytest.mark.parametrize("compressed", [True, False])
def test_gemma_scope(tmp_path, parts, compressed):
    made, states = parts
    write = np.savez_compressed if compressed else np.savez
    write(tmp_path / "params.npz", **{name: t.numpy() for name, t in made.items()})
    drive = states @ made["W_enc"] + made["b_enc"]
    code = drive.relu() * (drive > made["threshold"])
    for path in (tmp_path, tmp_path / "params.npz"):
        coder = load(path, width=D)
        assert (coder.activation, coder.layer) == ("jumprelu", None)
        gives(coder, states, code, code @ made["W_dec"] + made["b_dec"])


def test_sparsify(tmp_path, parts):
    made, states = parts
    tensors = {
        "encoder.weight": made["W_enc"].T, "encoder.bias": made["b_enc"],
        "W_dec": made["W_dec"], "b_dec": made["b_dec"],
    }  # fmt: skip
    config = {"k": K, "d_in": D, "activation": "topk", "skip_connection": False}
    path = folder(tmp_path / "layers.10", "sae.safetensors", tensors, config)
    code = kept_largest((states - made["b_dec"]) @ made["W_enc"] + made["b_enc"], K)
    coder = load(path)
    assert (coder.k, coder.layer) == (K, 10)
    gives(coder, states, code, code @ made["W_dec"] + made["b_dec"])


@pytest.mark.parametrize("k", [K, None])
def test_two_linear_layers(tmp_path, parts, k):
    made, states = parts
    tensors = {
        "encoder.weight": made["W_enc"].T, "encoder.bias": made["b_enc"],
        "decoder.weight": made["W_dec"].T, "decoder.bias": made["b_dec"],
    }  # fmt: skip
    path = folder(tmp_path / "a", "model.safetensors", tensors, {"k": k} if k else None)
    drive = states @ made["W_enc"] + made["b_enc"]
    code = kept_largest(drive, K) if k else drive.relu()
    gives(load(path), states, code, code @ made["W_dec"] + made["b_dec"])
    del tensors["decoder.bias"]
    other = folder(tmp_path / "b", "model.safetensors", tensors | {"bias": made["b_dec"]})
    code = ((states - made["b_dec"]) @ made["W_enc"] + made["b_enc"]).relu()
    gives(load(other), states, code, code @ made["W_dec"] + made["b_dec"])
    del tensors["encoder.bias"]
    code = (states @ made["W_enc"]).relu()
    gives(
        load(folder(tmp_path / "c", "x.safetensors", tensors)), states, code, code @ made["W_dec"]
    )


@pytest.mark.parametrize("activation", ["topk", "relu", "jumprelu"])
def test_what_is_saved_is_read_back(tmp_path, parts, activation):
    made, states = parts
    coder = Autoencoder(
        made["W_enc"].T, made["b_enc"], made["W_dec"], made["b_dec"],
        K if activation == "topk" else 0, activation,
        made["threshold"] if activation == "jumprelu" else None, layer=2,
    )  # fmt: skip
    save(coder, tmp_path / "own.safetensors")
    again = load(tmp_path / "own.safetensors")
    for name in ("encoder", "bias", "decoder", "centre"):
        assert torch.equal(getattr(again, name), getattr(coder, name))
    gives(again, states, coder.encode(states), coder.decode(coder.encode(states)))
    assert (again.activation, again.k, again.layer) == (activation, coder.k, 2)


def refused(call, code, *words):
    with pytest.raises(ExpungeError) as error:
        call()
    assert error.value.code == code
    for word in words:
        assert word in str(error.value)
    return error.value


@pytest.mark.parametrize("name", ["ae.pt", "sae.pth", "sae.bin", "sae.pkl", "sae.pickle", "x.ckpt"])
def test_pickled_files_are_refused_by_name_and_never_opened(tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("it was opened",)

    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    for path in (tmp_path, tmp_path / name):
        error = refused(lambda path=path: load(path), "E-MODEL-003", name)
        assert error.exit_code == Exit.UNSAFE


def test_arrays_of_objects_are_refused(tmp_path, parts):
    made, _ = parts
    arrays = {name: t.numpy() for name, t in made.items()} | {"extra": np.array([{}], dtype=object)}
    np.savez(tmp_path / "params.npz", **arrays)
    error = refused(lambda: load(tmp_path), "E-MODEL-003", "extra")
    assert error.exit_code == Exit.UNSAFE


def test_a_file_that_holds_other_bytes_than_it_says_is_refused(tmp_path, parts):
    made, _ = parts
    np.savez(tmp_path / "params.npz", **{name: t.numpy() for name, t in made.items()})
    whole = (tmp_path / "params.npz").read_bytes()
    (tmp_path / "params.npz").write_bytes(whole[: len(whole) // 2])
    refused(lambda: load(tmp_path), "E-MODEL-010")
    with zipfile.ZipFile(tmp_path / "params.npz", "w") as archive:
        archive.writestr("W_enc.npy", b"no array")
    refused(lambda: load(tmp_path), "E-MODEL-010")
    (tmp_path / "params.npz").unlink()
    (tmp_path / "sae.safetensors").write_bytes(b"\xff" * 64)
    refused(lambda: load(tmp_path), "E-MODEL-010")


def test_shapes_that_do_not_fit_are_found_before_weights_load(tmp_path, parts, monkeypatch):
    made, _ = parts
    monkeypatch.setattr("expunge.lm.sae.files.load_file", lambda *_: pytest.fail("loaded"))
    path = saelens(tmp_path, made | {"W_dec": torch.zeros(N - 1, D)}, "standard")
    refused(lambda: load(path), "E-MODEL-010", "W_dec")
    whole = saelens(tmp_path, made, "standard", hook_name="blocks.3.hook_resid_post")
    error = refused(lambda: load(whole, width=8), "E-USE-006", "4 channels", "8")
    assert error.exit_code == Exit.BAD_INPUT
    refused(lambda: load(whole, width=D, layer=2), "E-USE-006", "layer=3")
    assert inspect(whole).width == D


def test_numbers_that_are_not_finite_are_refused(tmp_path, parts):
    made, _ = parts
    path = saelens(tmp_path, made | {"b_enc": torch.full((N,), torch.nan)}, "standard")
    refused(lambda: load(path), "E-MODEL-010", "finite")


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"architecture": "gated"}, "gated"),
        ({"normalize_activations": "layer_norm"}, "layer_norm"),
        ({"normalize_activations": "expected_average_only_in"}, "expected_average_only_in"),
        ({"reshape_activations": "hook_z"}, "hook_z"),
        ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor"),
        ({"hook_name": "blocks.3.hook_mlp_out"}, "hook_mlp_out"),
        ({"architecture": "topk", "k": N + 1}, "7 largest"),
        ({"architecture": "topk"}, "0 largest"),
        ({"architecture": "jumprelu"}, "threshold"),
    ],
)
def test_settings_that_would_make_another_function_are_refused(tmp_path, parts, config, word):
    made, _ = parts
    path = saelens(tmp_path, made, config.pop("architecture", "standard"), **config)
    refused(lambda: load(path), "E-MODEL-007", word)


def test_transcoders_and_unknown_layouts_are_refused(tmp_path, parts):
    made, _ = parts
    tensors = {
        "encoder.weight": made["W_enc"].T, "encoder.bias": made["b_enc"],
        "W_dec": made["W_dec"], "b_dec": made["b_dec"],
    }  # fmt: skip
    for name, more, config in (
        ("a", {"W_skip": torch.zeros(D, D)}, {"k": K}), ("b", {}, {"k": K, "transcode": True})
    ):  # fmt: skip
        path = folder(tmp_path / name, "sae.safetensors", tensors | more, config)
        refused(lambda path=path: load(path), "E-MODEL-007")
    odd = folder(tmp_path / "c", "sae.safetensors", {"up": torch.zeros(2, 2)})
    refused(lambda: load(odd), "E-MODEL-007", "up")
    bare = folder(tmp_path / "d", "sae.safetensors", {n: made[n] for n in made if n != "threshold"})
    refused(lambda: load(bare), "E-MODEL-007", "settings")


def test_nothing_and_too_much_are_named(tmp_path, parts):
    made, _ = parts
    refused(lambda: load(tmp_path / "nowhere"), "E-DATA-001", "nowhere")
    for name in ("one", "two"):
        folder(tmp_path, f"{name}.safetensors", made)
    refused(lambda: load(tmp_path), "E-DATA-001", "2 files")
