"""Voices beside a model: heard alike however the rows are read; small models cut, told, written."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.engine.assistants import Ensemble, ensemble_of
from expunge.engine.first_pass import FirstPass
from expunge.engine.forward import Inputs
from expunge.engine.small_models import (
    blocks_of,
    built,
    cut,
    fitting,
    settings_of,
    stored_type,
    weights_of,
    write,
)
from expunge.engine.sources import Counting, Frozen, Live
from expunge.engine.start import logits_of
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.engine.world import World
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest
from expunge.lm.folder import inspect_folder
from expunge.lm.hooks import forward_to
from expunge.lm.prefixes import can_share, new_cache
from expunge.testing import tiny_model
from expunge.testing.methods import taught_subject, world

FAMILIES = ("llama", "gemma3", "qwen3", "gpt2", "gpt_neox")
LENGTH = 9
CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-5}


@dataclass(frozen=True)
class Sum:
    """Adds what the voices say, halved."""

    factor: float = 0.5

    @property
    def is_silent(self) -> bool:
        return self.factor == 0

    def __call__(self, own: Tensor, said: Mapping[str, Tensor]) -> Tensor:
        return own + self.factor * torch.stack(list(said.values())).sum(0)


def ids(rows: int = 3, length: int = LENGTH, seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(4, 60, (rows, length), generator=draw)


def voices(model: PreTrainedModel) -> dict[str, PreTrainedModel]:
    """One cut out of the model, one of another family and width."""
    return {"own": cut(model, 2), "other": tiny_model("llama", vocab=64, hidden=16, seed=7)}


def served(family: str, **given: Any) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A model with voices, and the same without."""
    bare = tiny_model(family, vocab=64, layers=3, seed=2, **given)
    model = copy.deepcopy(bare)
    Ensemble(model, voices(bare), Sum()).put_in(model)
    return model, bare


def slowly(bare: PreTrainedModel, rows: Tensor) -> Tensor:
    """What the ensemble says of whole rows without padding, model by model."""
    said = [voice(input_ids=rows).logits for voice in (bare, *voices(bare).values())]
    return said[0] + 0.5 * (said[1] + said[2])


# -------------------------------------------------------------------------------- small models


@torch.no_grad()
@pytest.mark.parametrize("family", [*FAMILIES, "llama_tied", "gemma2", "phi3"])
def test_what_is_cut_out_is_head_and_norm_over_a_lower_block(family: str) -> None:
    model = tiny_model(family, vocab=64, layers=4)
    before = model(input_ids=ids()).logits
    small, slots = cut(model, 2), Slots(model)
    said = slots.head(slots.final_norm(forward_to(model, 1, input_ids=ids())))
    cap = getattr(model.config, "final_logit_softcapping", None)
    torch.testing.assert_close(
        small(input_ids=ids()).logits, said if cap is None else cap * (said / cap).tanh(), **CLOSE
    )
    assert len(Slots(small)) == 2
    assert len(Slots(model)) == 4
    assert torch.equal(model(input_ids=ids()).logits, before)
    own = {id(weight) for weight in model.parameters()}
    assert all(id(weight) in own for weight in small.parameters())


@torch.no_grad()
@pytest.mark.parametrize("family", [*FAMILIES, "llama_tied"])
def test_told_in_plain_values_it_is_the_same_model(family: str) -> None:
    small = cut(tiny_model(family, vocab=64, layers=4, seed=3), 2)
    state = torch.get_rng_state()
    told = settings_of(small)
    again = built(told, weights_of(small, torch.float32), small)
    assert torch.equal(again(input_ids=ids()).logits, small(input_ids=ids()).logits)
    assert torch.equal(torch.get_rng_state(), state)
    assert "_name_or_path" not in told
    assert not any(weight.requires_grad for weight in again.parameters())


def test_weights_that_are_not_its_own_are_refused() -> None:
    small = cut(tiny_model("llama", vocab=64, layers=4), 2)
    told, weights = settings_of(small), weights_of(small, torch.float32)
    fewer = {name: one for name, one in weights.items() if "layers.1" not in name}
    for wrong in (fewer, {**weights, "more": torch.zeros(1)}):
        with pytest.raises(ValueError, match="another model"):
            built(told, wrong, small)


def test_weights_are_told_in_the_type_they_were_stored_in() -> None:
    weights = list(tiny_model("llama", vocab=64).parameters())
    assert stored_type(weights) == torch.float32
    rounded = [weight.detach().bfloat16().float() for weight in weights]
    assert stored_type(rounded) == torch.bfloat16
    assert stored_type([weight.double() for weight in weights]) == torch.float64


@pytest.mark.parametrize(
    ("depth", "blocks"), [(2, 1), (4, 1), (8, 2), (16, 4), (28, 7), (32, 8), (80, 8)]
)
def test_where_nothing_is_said_it_is_eight_blocks_or_a_quarter(depth: int, blocks: int) -> None:
    assert blocks_of(None, depth) == blocks
    assert blocks_of(depth - 1, depth) == depth - 1


@pytest.mark.parametrize(("asked", "depth"), [(4, 4), (9, 4), (0, 4), (None, 1)])
def test_all_blocks_or_none_are_refused(asked: int | None, depth: int) -> None:
    with pytest.raises(ExpungeError) as caught:
        blocks_of(asked, depth)
    assert caught.value.code == "E-USE-003"


def test_written_it_loads_with_other_libraries(tmp_path: Path) -> None:
    subject, rows = taught_subject(), world()
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget}, folder=tmp_path / "made",
    )  # fmt: skip
    small = cut(subject.model, 1)
    told, weights = settings_of(small), weights_of(small, torch.bfloat16)
    write(replace(task, world=World(rank=1, size=2)), "second", told, weights)
    write(replace(task, folder=None), "nowhere", told, weights)
    assert not task.record
    write(task, "small", told, weights)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "made" / "small")
    with torch.no_grad():
        said = loaded.float()(input_ids=ids()).logits
        expected = built(told, weights, subject.model)(input_ids=ids()).logits
    torch.testing.assert_close(said, expected, **CLOSE)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made" / "small")
    assert tokenizer.get_vocab() == subject.tokenizer.get_vocab()
    assert task.record["small"] == {
        "folder": "made/small", "digest": folder_digest(tmp_path / "made" / "small")
    }  # fmt: skip
    assert not inspect_folder(tmp_path / "made" / "small").problems
    assert [one.name for one in (tmp_path / "made").iterdir()] == ["small"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro world's model; small ones that fit, have other tokens, are too short."""
    root = tmp_path_factory.mktemp("folders")
    tokenizer = world().tokenizer
    made = {"large": (2, 128, 0), "fits": (1, 128, 0), "wide": (1, 128, 8), "short": (1, 64, 0)}
    for name, (layers, positions, more) in made.items():
        size = len(tokenizer) + more
        model = tiny_model("llama", vocab=size, layers=layers, positions=positions)
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    model = tiny_model("llama", vocab=len(tokenizer), layers=1, positions=128)
    model.save_pretrained(root / "renamed")
    added = copy.deepcopy(tokenizer)
    added.add_tokens(["unheard-of"])
    added.save_pretrained(root / "renamed")
    return root


@pytest.mark.parametrize(
    ("small", "codes"),
    [
        ("fits", []),
        ("wide", ["E-MODEL-011"]),
        ("renamed", ["E-MODEL-011"]),
        ("short", ["E-USE-006"]),
        ("absent", ["E-MODEL-001"]),
    ],
)
def test_a_small_model_that_does_not_fit_is_found_without_weights(
    folders: Path, small: str, codes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expunge.lm.load._model", lambda *_: pytest.fail("weights were loaded"))
    problems = fitting(inspect_folder(folders / "large"), str(folders / small), None)
    assert [problem.code for problem in problems] == codes
    assert not fitting(inspect_folder(folders / "absent"), str(folders / small), None)


def test_blocks_that_are_not_there_are_found_without_weights(folders: Path) -> None:
    large = inspect_folder(folders / "large")
    assert not fitting(large, None, None)
    assert [one.code for one in fitting(large, None, 2)] == ["E-USE-003"]


# --------------------------------------------------------------------- how the voices are heard


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_heard_alike_at_once_piece_by_piece_and_alone(family: str) -> None:
    model, bare = served(family)
    expected = slowly(bare, ids())
    assert not torch.allclose(expected, bare(input_ids=ids()).logits, atol=1e-2)
    for one in (model, copy.deepcopy(model)):
        torch.testing.assert_close(one(input_ids=ids(), use_cache=False).logits, expected, **CLOSE)
        cache = new_cache(one)
        pieces = [
            one(input_ids=piece, past_key_values=cache, use_cache=True).logits
            for piece in (ids()[:, :4], *ids()[:, 4:].split(1, 1))
        ]
        torch.testing.assert_close(torch.cat(pieces, 1), expected, **CLOSE)
        first = one(input_ids=ids()[:, :5])
        more = one(input_ids=ids()[:, 5:], past_key_values=first.past_key_values)
        torch.testing.assert_close(more.logits, expected[:, 5:], **CLOSE)
    for row in ids():
        alone = model(input_ids=row[None]).logits[0]
        torch.testing.assert_close(alone, slowly(bare, row[None])[0], **CLOSE)
    assert can_share(model)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_are_heard_as_they_are_alone(family: str, side: str) -> None:
    model, bare = served(family)
    lengths = (LENGTH, 4, 6)
    rows, mask = ids(), torch.zeros(3, LENGTH, dtype=torch.long)
    for row, length in enumerate(lengths):
        real = slice(LENGTH - length, None) if side == "left" else slice(0, length)
        mask[row, real] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    said = model(input_ids=rows, attention_mask=mask, position_ids=positions).logits
    for row in range(3):
        real = mask[row].bool()
        torch.testing.assert_close(said[row, real], slowly(bare, rows[row, real][None])[0], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_the_cache_may_be_picked_dropped_and_repeated(family: str) -> None:
    model, bare = served(family)
    expected, cache = slowly(bare, ids()), new_cache(model)
    model(input_ids=ids()[:, :5], past_key_values=cache, use_cache=True)
    chosen = torch.tensor([2, 0, 2])
    cache.batch_select_indices(chosen)
    more = model(input_ids=ids()[chosen, 5:7], past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(more, expected[chosen, 5:7], **CLOSE)
    cache.batch_repeat_interleave(2)
    twice = chosen.repeat_interleave(2)
    more = model(input_ids=ids()[twice, 7:], past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(more, expected[twice, 7:], **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_the_library_writes_what_whole_passes_choose(family: str) -> None:
    model, bare = served(family)
    written = model.generate(ids(), max_new_tokens=5, do_sample=False, pad_token_id=0)
    chosen = slowly(bare, written).argmax(-1)[:, LENGTH - 1 : -1]
    ended = (written[:, LENGTH:] == 2).cumsum(1) - (written[:, LENGTH:] == 2).long() > 0
    assert torch.equal(written[:, LENGTH:][~ended], chosen[~ended])
    plain = bare.generate(ids(), max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert not torch.equal(written, plain)


@torch.no_grad()
def test_voices_speak_where_the_model_does_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, bare = served("gpt_neox")
    expected, shapes = slowly(bare, ids()), []
    rule = Sum.__call__
    monkeypatch.setattr(
        Sum, "__call__", lambda self, own, said: (
            shapes.extend(one.shape for one in said.values()), rule(self, own, said)
        )[1],
    )  # fmt: skip
    keep = torch.zeros(3, LENGTH, dtype=torch.bool)
    keep[0, 2], keep[2, 7] = True, True
    found = model(input_ids=ids(), logits_to_keep=keep).logits
    torch.testing.assert_close(found.reshape(2, 64), expected[keep], **CLOSE)
    last = model(input_ids=ids(), logits_to_keep=1).logits
    torch.testing.assert_close(last, expected[:, -1:], **CLOSE)
    assert [shape[-2] for shape in shapes] == [2, 2, 1, 1]


@torch.no_grad()
def test_in_half_precision_the_sum_is_taken_in_float32() -> None:
    model, bare = served("llama_tied", dtype=torch.bfloat16)
    said = model(input_ids=ids()).logits
    assert said.dtype == torch.float32
    parts = [one(input_ids=ids()).logits.float() for one in (bare, *voices(bare).values())]
    torch.testing.assert_close(said, parts[0] + 0.5 * (parts[1] + parts[2]), rtol=1e-2, atol=1e-2)
    cache = new_cache(model)
    for place in range(LENGTH):
        one = model(input_ids=ids()[:, place : place + 1], past_key_values=cache, use_cache=True)
    torch.testing.assert_close(one.logits[:, 0], said[:, -1], rtol=3e-2, atol=3e-2)


@torch.no_grad()
def test_under_autocast_voices_compute_as_the_model_does() -> None:
    model, _ = served("llama")
    types: list[torch.dtype] = []
    ensemble = next(h.ensemble for h in model._forward_hooks.values() if hasattr(h, "ensemble"))
    for name in ("own", "other"):
        ensemble.voice(name).get_output_embeddings().register_forward_hook(
            lambda *given: types.append(given[2].dtype)
        )
    plain = type(model).forward

    def inside(*args: Any, **named: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plain(model, *args, **named)

    model.forward = inside  # as `expunge.engine.precision` does: hooks of the model run outside
    model(input_ids=ids())
    assert types == [torch.bfloat16] * 2
    del model.forward
    model(input_ids=ids())
    assert types[2:] == [torch.float32] * 2


@torch.no_grad()
def test_a_silent_rule_asks_nobody_and_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tiny_model("llama", vocab=64, layers=3)
    model = copy.deepcopy(bare)
    Ensemble(model, voices(bare), Sum(0.0)).put_in(model)
    monkeypatch.setattr(FirstPass, "__call__", lambda *_, **__: pytest.fail("a voice was asked"))
    assert torch.equal(model(input_ids=ids()).logits, bare(input_ids=ids()).logits)


@torch.no_grad()
def test_taken_out_nothing_is_left() -> None:
    bare = tiny_model("llama", vocab=64, layers=3)
    model = copy.deepcopy(bare)
    own = tiny_model("llama", vocab=64, hidden=16)
    ensemble = Ensemble(model, {"own": own}, Sum(), own={"own": own})
    ensemble.put_in(model, named=True)
    assert ensemble_of(model) is ensemble
    moving = {name for name, _ in model.named_parameters()}
    assert len(moving) > len(list(bare.parameters()))
    ensemble.take_out(model)
    assert ensemble_of(model) is None
    assert model.state_dict().keys() == bare.state_dict().keys()
    assert torch.equal(model(input_ids=ids()).logits, bare(input_ids=ids()).logits)


@torch.no_grad()
def test_logits_of_hidden_states_from_outside_are_left_as_they_are() -> None:
    """They are of no known token: what would be added is what some other text is answered."""
    model, bare = served("llama")
    handed = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    model(input_ids=ids())  # a pass before it, of which nothing may be left
    assert torch.equal(logits_of(model, handed), logits_of(bare, handed))
    forward_to(model, 0, input_ids=ids())  # one that ends early, likewise
    assert torch.equal(logits_of(model, handed), logits_of(bare, handed))


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_loss_that_is_asked_for_is_of_what_is_said(family: str) -> None:
    model, bare = served(family)
    found = model(input_ids=ids(), labels=ids()).loss
    said = slowly(bare, ids())[:, :-1].reshape(-1, 64)
    expected = torch.nn.functional.cross_entropy(said, ids()[:, 1:].reshape(-1))
    torch.testing.assert_close(found, expected, **CLOSE)
    with pytest.raises(RuntimeError, match="by name"):
        model(input_ids=ids(), return_dict=False)


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="of 32 tokens, the model of 64"):
        Ensemble(tiny_model("llama", vocab=64), {"one": tiny_model("llama", vocab=32)}, Sum())


def test_gradients_flow_into_what_learns_and_nowhere_else() -> None:
    model = tiny_model("llama", vocab=64).requires_grad_(False)
    learner, still = (tiny_model("llama", vocab=64, hidden=16, seed=seed) for seed in (1, 2))
    ensemble = Ensemble(
        model, {"learner": learner, "still": still}, Sum(), own={"learner": learner},
        learns={"learner"},
    )  # fmt: skip
    ensemble.put_in(model, named=True)
    said = model(input_ids=ids(), use_cache=False).logits
    said.square().sum().backward()
    assert all(weight.grad is None for weight in still.parameters())
    found = {name: weight.grad for name, weight in learner.named_parameters()}
    learner.zero_grad()
    fixed = said.detach() - 0.5 * learner(input_ids=ids()).logits.detach()
    (fixed + 0.5 * learner(input_ids=ids()).logits).square().sum().backward()
    for name, weight in learner.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, **CLOSE)
    with pytest.raises(RuntimeError, match="without a cache"):
        model(input_ids=ids(), use_cache=True)


# -------------------------------------------------------------------- views through another model


def test_a_view_through_another_model_is_of_the_same_rows() -> None:
    model = tiny_model("llama", vocab=64)
    model.beside = tiny_model("llama", vocab=64, hidden=16, seed=4)
    rows = ids()
    inputs = Inputs.from_labels(rows, torch.ones_like(rows), rows.clone(), torch.arange(3))
    weights = torch.tensor([0.0, 1.0, 2.0])
    view = View(inputs, Live(model), weights=weights).through(lambda one: one.beside)
    with torch.no_grad():
        expected = model.beside(input_ids=rows).logits[inputs.keep]
    torch.testing.assert_close(view.logits, expected, **CLOSE)
    view.logits.sum().backward()
    assert all(
        weight.grad is None for name, weight in model.named_parameters() if "beside" not in name
    )
    assert model.beside.lm_head.weight.grad.any()
    frozen = View(inputs, Frozen(model)).through(lambda one: one.beside)
    assert not frozen.logits.requires_grad
    torch.testing.assert_close(frozen.logits, expected, **CLOSE)
    counted = View(inputs, Counting(64, 32, 2)).through(lambda _: pytest.fail("looked for"))
    assert counted.is_counted
    assert not counted.logits.any()


def test_nothing_is_noted_where_nothing_is_asked_for() -> None:
    """A pass without notes keeps a zero for each position, so rows can be picked all the same."""
    model = tiny_model("llama", vocab=64)
    first, cache = FirstPass(model, cut(model, 1)), new_cache(model)
    with torch.no_grad():
        for part in (ids()[:, :4], ids()[:, 4:]):
            model(input_ids=part, past_key_values=cache, use_cache=True)
            said, noted = first({"input_ids": part, "past_key_values": cache}, logits_to_keep=1)
            assert said.logits.shape[1] == 1
    assert noted.shape == (3, LENGTH, 1)
    assert not noted.any()
