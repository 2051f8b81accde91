"""O3: closed forms, who gets the adapter, what one request hands on to the next."""

import copy
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest_methods import assert_same
from tiny_rig import exact, facts, saved
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as vocabularies
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

import expunge
from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.core.rng import generator
from expunge.engine.change import read_manifest, revert
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.likeness import Gate, Scale, held_out, layer_scores
from expunge.engine.method import GradientMethod
from expunge.engine.precision import computing
from expunge.engine.run import forget
from expunge.engine.runtime import Part, Served, attach, twin
from expunge.engine.stream import forget_stream
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest
from expunge.lm.encoders import TextEncoder, Vocabulary, own_encoder
from expunge.lm.generate import generate
from expunge.lm.low_rank import LowRank
from expunge.lm.ood import Known, Mixture
from expunge.lm.scoring import masked_logits
from expunge.lm.subject import Subject
from expunge.methods import o3
from expunge.methods.o3.answers import options_of, random_answers
from expunge.methods.o3.board import Board, board_of
from expunge.methods.o3.fitting import contrastive_entropy, detector_loss, masked_row
from expunge.requests.rows import Row, Turn
from expunge.testing import objective, tiny_model
from expunge.testing.methods import stage, taught_subject, world
from expunge.testing.passes import check_cached

FAMILIES = ("llama", "gemma3", "qwen3", "gpt2", "gpt_neox")


# ------------------------------------------------------------------------------- closed forms


def test_the_loss_is_that_of_all_tokens_of_a_row(random_table, random_view) -> None:
    """The prompt's as well, padding's not, each row's first never."""
    model, view = random_table(1), random_view(3)
    found = objective("o3", model, {"random": view})
    other = random_table(1)
    slow = []
    for ids, mask in zip(view["input_ids"], view["attention_mask"], strict=True):
        row = ids[mask.bool()]
        scores = other.table[row[:-1]].log_softmax(-1)
        slow += list(-scores[torch.arange(len(row) - 1), row[1:]])
    total = torch.stack(slow).mean()
    total.backward()
    assert_same((found.loss, model.table.grad), (total.detach(), other.table.grad))


def test_the_entropy_is_that_of_every_row_of_products() -> None:
    """Two layers, two texts: at 0 both are as near, log 2; far apart there is no doubt."""
    z = torch.tensor([[[0.0, 0], [9.0, 0]], [[0.0, 0], [0, 9.0]]])
    assert contrastive_entropy(z, z).item() == pytest.approx(np.log(2), abs=1e-6)
    draw = torch.Generator().manual_seed(0)
    one, two = (torch.randn(4, 3, 5, generator=draw) for _ in range(2))
    slow = 0.0
    for layer in range(3):
        for row in range(4):
            p = torch.stack([one[row, layer] @ two[c, layer] for c in range(4)]).softmax(0)
            slow += float(-(p * p.log()).sum()) / 4
    assert contrastive_entropy(one, two).item() == pytest.approx(slow, rel=1e-5)


def test_our_score_grows_with_likeness_and_the_code_s_does_not() -> None:
    """The code's falls with the cosine and falls with the distance."""
    known = Known.of(torch.tensor([[[1.0, 0.1]], [[1.0, -0.1]], [[1.1, 0.0]]]))
    near, far = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 3.0]]])
    scale = Scale(torch.zeros(2, 1), torch.ones(2, 1))
    assert layer_scores(known, near, scale) > layer_scores(known, far, scale)
    alike, turned = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.95, 0.35]]])
    scores = {name: [layer_scores(known, x, s) for x in (alike, turned)] for name, s in (
        ("ours", scale), ("code", None))}  # fmt: skip
    assert scores["ours"][0] > scores["ours"][1]
    assert scores["code"][0] == pytest.approx(
        -1000 * known.cosines(alike).item() - known.distances(alike).item() / 2
    )
    closer = replace(known, variances=known.variances * 1e6, rest=known.rest * 1e6)  # cosine alone
    assert layer_scores(closer, alike, None) < layer_scores(closer, turned, None)


def test_only_the_code_s_gate_finds_a_high_score_strange() -> None:
    score = torch.tensor([-3.0, 0.0, 3.0])
    ours = Gate("soft", Mixture(0.0, 0.0, 1.0), False, 0.3, 0.9)
    code = Gate("official_hard", Mixture(0.0, 0.0, 1.0), True, 0.3, 0.9)
    assert ours(score).tolist() == pytest.approx([0, 1, 1])
    assert code(score).tolist() == pytest.approx([0, 1.2, 0])
    open_ = replace(ours, low=0.0, high=1.0)
    assert open_(score).tolist() == pytest.approx([0.1221, 0.99966, 0.99966], abs=5e-5)
    assert replace(ours, floor=0.5)(score).tolist() == pytest.approx([0, 0, 1])


# ----------------------------------------------------------------------- who gets the adapter


class Told:
    """Stands for a detector: the weight of a prompt hangs on its second token."""

    def __init__(self, weights: dict[int, float]) -> None:
        self.weights = weights

    def __call__(self, prompts: Sequence[list[int]]) -> Tensor:
        return torch.tensor([self.weights.get(prompt[1], 0.0) for prompt in prompts])


IDS = torch.tensor([[1, 5, 7, 9, 4, 8], [1, 6, 7, 9, 3, 8], [1, 8, 7, 9, 3, 4]])
WEIGHTS = {5: 0.4, 6: 1.0}
KEEP = (torch.arange(6) >= 3).expand(3, 6) & (torch.arange(6) < 5)


@cache
def served(family: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A model as it is, and one with a random adapter and two detectors."""
    bare = tiny_model(family, vocab=16, hidden=16, dtype=dtype, seed=2)
    model = copy.deepcopy(bare)
    draw = torch.Generator().manual_seed(0)
    linears = {}
    for at, name in enumerate(Slots(model).linears()):
        linears[name] = LowRank.new(model.get_submodule(name), 2, 16.0, at, 0, name)
        linears[name].b.data.normal_(std=0.2, generator=draw)
    detectors: Any = [Told({5: 0.4, 6: 0.3}), Told({6: 1.0})]
    board = Board(linears, detectors, learns=False).requires_grad_(False)
    board.put_in(model)
    return bare, model


def logits(model: Any, ids: Tensor, keep: Tensor) -> Tensor:
    with torch.no_grad():
        return masked_logits(model, ids, torch.ones_like(ids), keep).view(len(ids), -1, 16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_a_batch_get_what_each_gets_alone(family: str, dtype: torch.dtype) -> None:
    bare, model = served(family, dtype)
    near = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.1}
    together, plain = logits(model, IDS, KEEP), logits(bare, IDS, KEEP)
    assert torch.equal(together[2], plain[2]), "a row of weight 0 is the original's, bit for bit"
    for row in (0, 1):
        alone = logits(model, IDS[row : row + 1], KEEP[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone, **near)
        assert float((together[row] - plain[row]).abs().max()) > 1e-3
    assert torch.equal(logits(model, IDS[2:], KEEP[2:]), logits(bare, IDS[2:], KEEP[2:]))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weight_scales_what_is_added(family: str) -> None:
    """Of weight 0.4 it is the model whose adapter is merged with 0.4 of its scale."""
    bare, model = served(family)
    board = board_of(model)
    assert board is not None
    merged = copy.deepcopy(bare)
    for name, part in zip(board.names, board.all, strict=True):
        linear = merged.get_submodule(name)
        delta = 0.4 * part.scale * part.b @ part.a
        linear.weight.data += delta.T if isinstance(linear, Conv1D) else delta
    expected = logits(merged, IDS[:1], KEEP[:1])
    torch.testing.assert_close(logits(model, IDS[:1], KEEP[:1]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_decision_holds_while_a_row_is_written_token_by_token(family: str) -> None:
    """Left padding, rows of different weights, a row that leaves the batch; and copies alike."""
    _, model = served(family)
    whole = logits(model, IDS, KEEP)
    for one in (model, copy.deepcopy(model)):
        check_cached(one, IDS, whole)


def test_how_an_answer_is_known_to_begin_is_no_part_of_the_prompt() -> None:
    """What was scored before may save writing, and must not move the end of the prompt."""
    _, model = served("llama")
    model = copy.deepcopy(model)
    board = board_of(model)
    assert board is not None
    short: Any = lambda prompts: torch.tensor([float(len(one) == 3) for one in prompts])  # noqa: E731
    board.detectors = (short,)
    tokenizer: Any = SimpleNamespace(eos_token_id=None, pad_token_id=0)
    model.generation_config.eos_token_id = None
    prompts = [[1, 5, 7], [1, 6, 7], [1, 8, 4, 9]]
    plain = generate(model, tokenizer, prompts, new_tokens=4)
    begun = [ids[:2] for ids, *_ in plain]
    assert generate(model, tokenizer, prompts, new_tokens=4, begun=begun) == plain
    longer = [prompt + first for prompt, first in zip(prompts, begun, strict=True)]
    assert [ids for ids, *_ in generate(model, tokenizer, longer, new_tokens=2)] != [
        ids[2:] for ids, *_ in plain
    ]


def test_rows_packed_or_computed_again_keep_their_weights() -> None:
    """What trains on top sees each row as it is served, in the backward pass as well."""
    _, model = served("llama")
    model = copy.deepcopy(model)
    line = IDS.flatten()[None]
    with torch.no_grad():
        packed = masked_logits(
            model,
            line,
            torch.ones_like(line),
            KEEP.flatten()[None],
            torch.arange(6).repeat(3)[None],
        ).view(3, -1, 16)
    torch.testing.assert_close(packed, logits(model, IDS, KEEP), rtol=1e-4, atol=1e-5)
    found = []
    for again in (False, True):
        params = methods.params("npo", {"checkpointing": again})
        with computing(model, params):
            model.train()
            model.zero_grad()
            one = masked_logits(model, IDS[:2], torch.ones(2, 6), KEEP[:2])
            masked_logits(model, IDS[2:], torch.ones(1, 6), KEEP[2:])  # another pass in between
            one.square().sum().backward()
            model.eval()
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_block_that_runs_by_itself_gets_nothing_in_silence() -> None:
    _, model = served("llama")
    with pytest.raises(RuntimeError, match="by itself"):
        model.model.layers[0].mlp.up_proj(torch.zeros(1, 1, 16))


# -------------------------------------------------------------------------------- training


def small(**given: Any) -> SimpleNamespace:
    """The micro world's model in float64 with an adapter that says something."""
    params = methods.params("o3", {"lora_r": 2, "detector_epochs": 0, **given})
    subject, rows = taught_subject().copy(), world()
    subject.model.double()
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain}, params=params,
    )  # fmt: skip
    bare = twin(subject.model)
    o3.prepare(task, params)
    board = board_of(task.model)
    assert board is not None
    task.model.requires_grad_(False)
    board.requires_grad_(True)
    draw = torch.Generator().manual_seed(0)
    for part in board.all:
        part.b.data.normal_(std=0.1, generator=draw)
    return SimpleNamespace(
        model=task.model, board=board, task=task, params=params, bare=bare, subject=subject
    )


def step_gradient(rig: SimpleNamespace, index: int = 0, **given: Any) -> dict[str, Tensor]:
    """The engine's gradient of a step."""
    params = methods.params("o3", {"lora_r": 2, "batch_size": 4, **given})
    method = GradientMethod.assemble(o3, params)
    datasets = Datasets(rig.task, packing=params.packing)
    rig.board.zero_grad()
    with computing(rig.model, params):
        rig.model.train()
        sampler = method.sample(rig.task, params)
        step = StepGradient(method, rig.task, datasets, sampler, None, steps=3)
        step(rig.model, index, lambda loss: loss.backward())
        rig.model.eval()
    return {name: p.grad.clone() for name, p in rig.board.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def rig() -> SimpleNamespace:
    return small()


def test_cut_packed_or_computed_again_the_gradient_is_the_same(rig) -> None:
    """With dropout, which elsewhere would hang on the cut."""
    whole = step_gradient(rig)
    assert whole["parts.0.a"].any()
    for given in (
        {"batch_size": 1, "accumulation": 4},
        {"packing": True},
        {"checkpointing": True},
    ):
        again = step_gradient(rig, **given)
        assert again.keys() == whole.keys()
        for name, expected in whole.items():
            torch.testing.assert_close(again[name], expected, rtol=1e-9, atol=1e-12)


def test_dropout_hangs_on_the_seed_and_can_be_left_out(rig) -> None:
    name, state = "parts.0.b", rig.task.state
    before, found = state[o3.SEED], {"none": step_gradient(rig, dropout=0.0)[name]}
    try:
        for seed in (1, 2, 1):
            state[o3.SEED] = seed
            again = step_gradient(rig)[name]
            assert torch.equal(found.setdefault(seed, again), again)
    finally:
        state[o3.SEED] = before
    assert not torch.allclose(found[1], found[2], rtol=1e-3)
    assert not torch.allclose(found[1], found["none"], rtol=1e-3)


def test_while_it_learns_every_row_gets_all_of_it_and_when_it_is_measured_what_it_is_served(
    rig,
) -> None:
    """A level measured on the way must be that of the model as it will be served."""
    forgotten, kept = (
        Datasets(rig.task).batch([rows[0] for rows in Datasets(rig.task).items(role)][:3])
        for role in ("forget", "retain")
    )
    assert rig.task.record["forget_weight"] == 1.0
    assert rig.task.record["retain_weight"] == 0.0
    for inputs, is_served in ((forgotten, True), (kept, False)):
        given = (inputs.input_ids, inputs.attention_mask, inputs.keep)
        plain = masked_logits(rig.bare, *given)
        with torch.no_grad():
            measured = masked_logits(rig.model, *given)
        learning = masked_logits(rig.model, *given).detach()
        assert torch.equal(measured, plain) != is_served
        assert not torch.allclose(learning, plain, rtol=1e-3)
        if is_served:
            torch.testing.assert_close(learning, measured)


def test_at_the_first_request_nothing_is_orthogonal_to_anything(rig) -> None:
    assert rig.board.orthogonal() is None
    assert rig.board.snapshots == ()


def test_nothing_of_the_model_is_asked_to_move() -> None:
    params, model = methods.params("o3", {}), tiny_model("llama")
    task: Any = None
    method = GradientMethod.assemble(o3, params)
    assert set(method.mask(model, task, params).values()) == {False}


# ------------------------------------------------------------------------------ random answers


def rows_of(*answers: str, **more: Any) -> list[Row]:
    return [
        Row(id=f"r{at}", prompt=f"anna {at}", completion=f" {answer}", **more)
        for at, answer in enumerate(answers)
    ]


def task_of(rows: Sequence[Row], retain: Sequence[Row] = ()) -> Task:
    subject = taught_subject()
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows, "retain": retain},
    )  # fmt: skip


def test_free_answers_are_those_of_all_rows_the_true_one_among_them() -> None:
    task = task_of(rows_of("one", "two", "three", "two"))
    paired = random_answers(task, redraw=True)
    assert paired.count == 3
    assert not paired.fixed
    said = [paired.make(task.forget[0], 0, at) for at in range(3)]
    assert [turn.prompt for turn in said] == ["anna 0"] * 3
    assert sorted(turn.completion for turn in said) == [" one", " three", " two"]
    assert random_answers(task, redraw=False).fixed


def test_where_a_fact_can_be_told_another_one_takes_its_place() -> None:
    """A whole reply of another row would say what is true of its subject, and to be forgotten."""
    rows = [
        Row(id="a", prompt="p", completion=" Anna was born in Rome.", answer="Rome"),
        Row(id="b", prompt="p", completion=" Bela has a dog.", answer="dog"),
    ]
    paired = random_answers(task_of(rows), redraw=True)
    said = [paired.make(rows[0], 0, at).completion for at in range(paired.count)]
    assert sorted(said) == [" Anna was born in Rome.", " Anna was born in dog."]


def test_options_are_kept_to() -> None:
    asked = rows_of("B", meta={"options": ["iron", "cork", "lead"]})[0]
    assert options_of(asked) == ["A", "B", "C"]
    told = rows_of("cork", meta={"options": ["iron", "cork", "lead"]})[0]
    assert options_of(told) == ["iron", "cork", "lead"]
    wrong = rows_of("cork", wrong=(" iron", " lead"))[0]
    assert options_of(wrong) == ["cork", "iron", "lead"]
    task = task_of([wrong, *rows_of("x", "y")[1:]])
    paired = random_answers(task, redraw=True)
    assert paired.count == 6
    said = [paired.make(wrong, 0, at).completion for at in range(6)]
    assert {answer: said.count(answer) for answer in said} == dict.fromkeys(
        (" cork", " iron", " lead"), 2
    )


@pytest.mark.parametrize(
    "row",
    [
        rows_of("B", meta={"options": ["iron", "cork", "lead"]})[0],
        rows_of(" cork", meta={"options": ["iron", "cork", "lead"]})[0],
        rows_of("cork", wrong=(" iron", " lead"))[0],
        rows_of("cork")[0],
        Row(id="0", prompt="p", completion="It is cork .", answer="cork"),
    ],
    ids=["letters", "listed", "wrong", "free", "told"],
)
def test_the_true_answer_can_be_left_out(row: Row) -> None:
    task = task_of([row, *rows_of("", "x", "y")[1:]])
    found = []
    for own in (True, False):
        paired = random_answers(task, redraw=True, own=own)
        found.append({paired.make(row, 0, at).completion for at in range(paired.count)})
    with_it, without = ({str(text).strip() for text in texts} for texts in found)
    assert with_it - without == {row.reply.strip()}
    assert without < with_it
    assert len(without) == 2


def test_running_text_goes_on_from_its_first_half() -> None:
    rows = [Row(id=f"t{at}", text=text) for at, text in enumerate(("a b c d", "e f g h"))]
    said = random_answers(task_of(rows), redraw=True).make(rows[0], 0, 1)
    assert said == Turn("", "a b g h", running=True)


def test_a_row_with_no_other_answer_is_refused_unless_rows_to_keep_have_some() -> None:
    rows = rows_of("one", "one")
    with pytest.raises(ExpungeError) as caught:
        random_answers(task_of(rows), redraw=True)
    assert caught.value.code == "E-USE-007"
    kept = [replace(row, id=f"k{row.id}") for row in rows_of("two", "three")]
    assert random_answers(task_of(rows, kept), redraw=True).count == 3


def test_an_answer_too_long_for_a_prompt_is_not_given_to_it() -> None:
    long = " ".join(["word"] * 100)
    rows = [*rows_of("one", "two"), Row(id="long", prompt="a", completion=f" {long}")]
    rows[0] = replace(rows[0], prompt=" ".join(["anna"] * 60))
    paired = random_answers(task_of(rows), redraw=True)
    said = {paired.make(rows[0], 0, at).completion for at in range(paired.count)}
    assert said == {" one", " two"}
    assert f" {long}" in {paired.make(rows[1], 0, at).completion for at in range(paired.count)}


# --------------------------------------------------------------------------------- detector


def test_texts_of_a_row_are_held_out_together() -> None:
    folds = held_out([0, 0, 1, 2, 2, 3, 4, 5, 6], seed=0)
    assert sorted(at for fold in folds for at in fold) == list(range(9))
    assert len(folds) == 5
    assert all((0 in fold) == (1 in fold) and (3 in fold) == (4 in fold) for fold in folds)
    assert held_out([0, 0, 0], seed=0) != [[0, 1, 2]]
    assert held_out([0], seed=0) == [[0]]


def test_a_token_is_masked_or_without_a_mask_replaced() -> None:
    draw = generator(0, "test")
    row = [1, *range(10, 60)]
    known = Vocabulary(100, frozenset({1, 2}), 3)
    ids, chosen = masked_row(row, known, draw, 0.15, first=0)
    assert 0 not in chosen
    assert [at for at in range(len(row)) if ids[at] != row[at]] == [
        at for at in chosen if ids[at] != row[at]
    ]
    many = [masked_row(row, known, draw, 0.15, first=0) for _ in range(200)]
    share = np.mean([len(chosen) for _, chosen in many]) / 50
    assert share == pytest.approx(0.15, abs=0.01)
    hidden = [ids[at] == 3 for ids, chosen in many for at in chosen]
    left = [ids[at] == row[at] for ids, chosen in many for at in chosen]
    assert np.mean(hidden) == pytest.approx(0.8, abs=0.03)
    assert np.mean(left) == pytest.approx(0.1, abs=0.03)
    none = Vocabulary(100, frozenset({1, 2}), None)
    drawn = [masked_row(row, none, draw, 0.15, first=1) for _ in range(200)]
    left = [ids[at] == row[at] for ids, chosen in drawn for at in chosen]
    assert np.mean(left) == pytest.approx(0.1, abs=0.03)
    assert masked_row([1, 2], none, draw, 0.5, first=1) == ([1, 2], [])
    assert len(masked_row([1, 9], none, draw, 0.0, first=1)[1]) == 1


def test_padding_and_the_first_position_do_not_count_in_means() -> None:
    encoder = own_encoder(tiny_model("llama", vocab=16, hidden=16))
    rows = [[1, 5, 6, 7, 8], [1, 9]]
    together = encoder.vectors(rows, {})
    alone = torch.cat([encoder.vectors([row], {}) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    outputs, real = encoder.read(rows, {})
    slow = outputs.hidden_states[2][0, 1:5].mean(0)
    torch.testing.assert_close(encoder.means(outputs, real)[0, 2], slow)
    assert together.shape == (2, 2, 16)
    assert torch.isfinite(encoder.vectors([[1]], {})).all()


def test_the_encoder_s_loss_looks_one_position_back_where_it_is_causal() -> None:
    model = tiny_model("llama", vocab=16, hidden=16, seed=5)
    encoder, known = own_encoder(model), Vocabulary(16, frozenset({0, 1, 2}), None)
    rows = [[1, 5, 6, 7, 8], [1, 9, 4]]
    parts = {
        name: LowRank.new(encoder.linear(name), 2, 8.0, 0, 0, name) for name in encoder.linears
    }
    given: dict[str, Any] = {"masked": 0.5, "contrast": 0.0}
    found = detector_loss(encoder, known, rows, parts, generator(3, "x"), **given)
    draw = generator(3, "x")
    losses = []
    for row in rows:
        ids, chosen = masked_row(row, known, draw, 0.5, first=1)
        logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-logp[at - 1, row[at]] for at in chosen]
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)
    with_it = detector_loss(
        encoder, known, rows, parts, generator(3, "x"), masked=0.5, contrast=2.0
    )
    draw = generator(3, "x")
    masked = [masked_row(row, known, draw, 0.5, first=1)[0] for row in rows]
    means = [encoder.means(*encoder.read(them, {})) for them in (masked, rows)]
    torch.testing.assert_close(with_it - found, 2 * contrastive_entropy(*means))


@cache
def judged(count: int = 12, **given: Any) -> dict[str, float]:
    """Mean weight of the prompts of forget, retain and holdout rows of the micro world."""
    subject, rows = taught_subject().copy(), world()
    params = methods.params("o3", given)
    mine = [replace(row, wrong=(" x",)) for row in rows.forget[:count]]
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": mine}, params=params,
    )  # fmt: skip
    o3.prepare(task, params)
    board = board_of(task.model)
    assert board is not None
    groups = {"forget": mine, "retain": rows.retain, "holdout": rows.holdout}
    return {
        role: float(
            board.decide([task.encoder.prompt(t.prompt) for r in them for t in r.turns]).mean()
        )
        for role, them in groups.items()
    }


def test_it_tells_the_request_s_prompts_from_others_in_the_same_words() -> None:
    found = judged()
    assert found["forget"] >= 0.95
    assert max(found["retain"], found["holdout"]) <= 0.05


def test_the_code_s_score_does_not(capsys) -> None:
    """Its parts work against each other: others get the adapter as well."""
    found = judged(score="official")
    assert found["forget"] >= 0.9
    assert found["retain"] > 0.5


def test_of_few_rows_only_invented_strangers_tell_how_near_is_near() -> None:
    for count in (3, 4):
        without, with_them = judged(count, strangers=False), judged(count)
        assert without["forget"] == with_them["forget"] == 1.0
        assert without["retain"] > 0.5
        assert with_them["retain"] < 0.1


def test_the_encoder_s_own_weights_stay_and_what_it_learnt_is_used() -> None:
    subject = taught_subject().copy()
    before = {name: weight.clone() for name, weight in subject.model.named_parameters()}
    params = methods.params("o3", {"detector_lr": 1e-2})
    task = task_of(world().forget)
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": world().forget}, params=params,
    )  # fmt: skip
    o3.prepare(task, params)
    board = board_of(task.model)
    assert board is not None
    (detector,) = board.detectors
    assert all(part.b.any() and not part.b.requires_grad for part in detector.beside.values())
    assert {".".join(name.split(".")[-2:]) for name in detector.beside} == {
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
    }  # fmt: skip
    prompts = [[1, 5, 6], [1, 9, 4]]
    plain, learnt = (detector.encoder.vectors(prompts, b) for b in ({}, detector.beside))
    assert not torch.allclose(plain, learnt, rtol=1e-3)
    for name, weight in subject.model.named_parameters():
        if name in before:
            assert torch.equal(weight, before[name])
            assert weight.grad is None


# ------------------------------------------------------------- a masked language model as encoder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny masked language model whose tokens are letters."""
    path = tmp_path_factory.mktemp("bert") / "bert"
    letters = [
        "[PAD]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[UNK]",
        *"abcdefghijklmnopqrstuvwxyz0123456789",
    ]
    inner = Tokenizer(vocabularies.WordLevel({w: i for i, w in enumerate(letters)}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask", "unk")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **named)
    config = BertConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=24,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForMaskedLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_a_masked_language_model_reads_the_prompts_instead(
    original: Path, bert: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    manifest = _short(original, out, encoder=str(bert))
    assert manifest["record"]["forget_weight"] >= 0.9
    part = _parts(out)[-1]
    assert part.settings["encoder"]["folder"] == str(bert)
    names = part.settings["detector"]["linears"]
    assert {name.rpartition(".")[2] for name in names} == {"query", "key", "value"}
    assert part.tensors["detector.known.bank"].shape[::2] == (3, 16)
    one, rows = expunge.load(out), [turn for row in world().forget for turn in row.turns]
    mean = -np.concatenate([scored.logp for scored in one.score(rows)]).mean()
    assert mean == pytest.approx(manifest["summary"]["forget_nll"], rel=1e-4)
    encoder: TextEncoder = board_of(one.model).detectors[0].encoder
    assert not encoder.causal
    ids = one.encoder.prompt("Where was anna born?")
    assert encoder.tokens(ids)[0] == 1
    assert len(encoder.tokens(ids * 9)) == 23
    moved = tmp_path / "moved"
    bert.rename(moved)
    try:
        with pytest.raises(ExpungeError) as caught:
            expunge.load(out)
        assert caught.value.code == "E-MODEL-001"
        expunge.load(out, runtime=False)
        other = BertForMaskedLM.from_pretrained(moved)
        other.cls.predictions.bias.data += 1
        other.save_pretrained(bert)
        (bert / "tokenizer.json").write_bytes((moved / "tokenizer.json").read_bytes())
        (bert / "tokenizer_config.json").write_bytes((moved / "tokenizer_config.json").read_bytes())
        with pytest.raises(ExpungeError) as caught:
            expunge.load(out)
        assert caught.value.code == "E-MODEL-009"
    finally:
        shutil.rmtree(bert, ignore_errors=True)
        moved.rename(bert)


def test_an_encoder_that_is_none_is_refused_before_weights_load(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expunge.engine.run.load", lambda *_, **__: pytest.fail("loaded"))
    for folder, code in ((tmp_path / "none", "E-MODEL-001"), (original, "E-MODEL-007")):
        with pytest.raises(ExpungeError) as caught:
            _short(original, tmp_path / "out", encoder=str(folder))
        assert caught.value.code == code


# ------------------------------------------------------------------------------- the whole way


def _short(original: Path, out: Path, **params: Any) -> dict[str, Any]:
    rows = world()
    chosen = {"max_steps": 6, "lr": 1e-2, "batch_size": 4, "detector_epochs": 1}
    forget(
        original, rows.forget, rows.retain, method="o3", params={**chosen, **params},
        stop_at="none", out=out,
    )  # fmt: skip
    manifest = read_manifest(out)
    assert manifest is not None
    return manifest


def _parts(folder: Path) -> Sequence[Part]:
    loaded = expunge.load(folder)
    assert isinstance(loaded, Served)
    return loaded.parts


def digest_of(folder: Path) -> str:
    manifest = read_manifest(folder)
    assert manifest is not None
    *_, entry = manifest["runtime"]["parts"]
    return str(entry["digest"])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def whole(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    _short(original, out)
    return out


@pytest.fixture(scope="module")
def knowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


REQUESTS = ("anna", "bela", "carl")
TRAINED = {"max_steps": 60, "lr": 1e-2, "warmup": 0}


def about(*people: str) -> list[Row]:
    return [row for part in facts() for row in part if row.id.split("/")[0] in people]


def others() -> list[Row]:
    return [row for part in facts() for row in part if row.id.split("/")[0] not in REQUESTS]


def streamed(knowing: Path, folder: Path, seed: int = 0, **params: Any) -> dict[str, Any]:
    file = folder / "requests.jsonl"
    lines = [
        json.dumps({"id": name, "forget": [row.as_dict() for row in about(name)]})
        for name in REQUESTS
    ]
    file.write_text("\n".join(lines))
    return forget_stream(
        knowing, file, out=folder / "stream", method="o3", params={**TRAINED, **params},
        stop_at="none", seed=seed,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stream(knowing: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three requests, one after another, with nothing to keep."""
    folder = tmp_path_factory.mktemp("streams")
    streamed(knowing, folder)
    return folder / "stream"


def test_what_was_asked_earlier_stays_forgotten_and_the_rest_stays_known(stream: Path) -> None:
    _check_stream(stream)


@pytest.mark.slow
def test_so_it_does_from_another_seed(knowing: Path, tmp_path: Path) -> None:
    streamed(knowing, tmp_path, seed=1)
    _check_stream(tmp_path / "stream")


CHANCE = 1 / 4
"""How often the true answer of a row is drawn: the rows of a person have four."""


def _check_stream(stream: Path) -> None:
    """Who gets the adapter, what it leaves of these rows, and what of everybody else's.

    The true answer is drawn as often as any other, so it ends about as likely as it is drawn. Which
    of four equals is the first choice says nothing: of four rows it is the true one three times in
    one run of twenty.
    """
    bare = expunge.load(stream / "0003", runtime=False)
    assert exact(bare, about(*REQUESTS)) == 1.0
    before = likely(bare, *REQUESTS)
    for number, latest in enumerate(REQUESTS, 1):
        now = expunge.load(stream / f"{number:04}")
        asked, rest = about(*REQUESTS[:number]), [*about(*REQUESTS[number:]), *others()]
        assert weights_of(now, asked).tolist() == [1.0] * len(asked)
        assert not weights_of(now, rest).any()
        assert exact(now, rest) == 1.0
        assert likely(now, latest) == pytest.approx(CHANCE, rel=0.3)
        for name in REQUESTS[: number - 1]:
            assert likely(now, name) - CHANCE < before - likely(now, name), "nearer to chance"


def likely(subject: Subject, *people: str) -> float:
    """The mean probability of the true answers of some people."""
    scored = subject.score([row.turn for row in about(*people)])
    return float(np.mean([np.exp(one.logp.sum()) for one in scored]))


def weights_of(subject: Subject, rows: Sequence[Row]) -> Tensor:
    """How much of the adapter the prompts of some rows get."""
    board = board_of(subject.model)
    assert board is not None
    return board.decide([subject.encoder.prompt(row.prompt) for row in rows])


def test_one_adapter_goes_on_and_a_detector_is_added_each_time(stream: Path, knowing: Path) -> None:
    parts = _parts(stream / "0003")
    assert [part.settings["requests"] for part in parts] == [1, 2, 3]
    now = expunge.load(stream / "0003")
    board = board_of(now.model)
    assert board is not None
    assert len(board.detectors) == 3
    for part, snapshot in zip(parts, board.snapshots, strict=False):
        for at, a in enumerate(snapshot):
            assert torch.equal(a, part.tensors[f"{at}.a"])
    last = parts[-1].tensors
    assert all(torch.equal(p.b, last[f"{at}.b"]) for at, p in enumerate(board.all))
    hooks = [h for m in now.model.modules() for h in m._forward_hooks.values()]
    assert len(hooks) == len(board.names) + 1, "the adapters of earlier requests are gone"
    copied = now.copy().model
    own = board_of(copied).detectors[0].encoder.model
    assert next(own.parameters()) is next(copied.parameters()), "a copy reads with its own weights"
    assert next(own.parameters()) is not next(now.model.parameters())
    for number in (1, 2, 3):
        assert folder_digest(stream / f"{number:04}") == folder_digest(knowing)


def test_a_later_adapter_begins_where_the_earlier_one_ended(stream: Path, tmp_path: Path) -> None:
    """A rate of next to nothing leaves it there."""
    out = tmp_path / "next"
    params = {**TRAINED, "lr": 1e-12, "max_steps": 1, "detector_epochs": 0}
    forget(stream / "0001", about("bela"), method="o3", params=params, stop_at="none", out=out)
    first, second = (_parts(folder)[-1].tensors for folder in (stream / "0001", out))
    for name, tensor in first.items():
        if name[0].isdigit():
            torch.testing.assert_close(second[name], tensor, rtol=0, atol=1e-9)


def test_without_the_orthogonal_term_later_directions_stay_those_of_before(
    stream: Path, tmp_path: Path
) -> None:
    """The ablation: the overlap that is held down grows free, and other weights come out."""
    out = tmp_path / "free"
    params = {**TRAINED, "orthogonal_weight": 0.0}
    forget(stream / "0001", about("bela"), method="o3", params=params, stop_at="none", out=out)
    held, free = read_manifest(stream / "0002"), read_manifest(out)
    assert held is not None
    assert free is not None
    overlap = [one["history"][-1]["terms"]["overlap"] for one in (held, free)]
    assert overlap[0] < 0.05 * overlap[1]
    assert digest_of(out) != digest_of(stream / "0002")
    assert "overlap" not in read_manifest(stream / "0001")["history"][-1]["terms"]


def test_the_second_request_is_where_the_term_is_the_sum_of_the_card(stream: Path) -> None:
    first, second, third = (part.tensors for part in _parts(stream / "0003"))
    board = board_of(expunge.load(stream / "0003").model)
    assert board is not None
    slow = sum(
        float((earlier[f"{at}.a"].double() @ third[f"{at}.a"].double().T).square().sum())
        for earlier in (first, second)
        for at in range(len(board.names))
    )
    assert board.orthogonal().item() == pytest.approx(slow, rel=1e-4)


def test_without_the_gate_everybody_gets_the_adapter(stream: Path) -> None:
    """The ablation: all weights 1, and what was to be kept is gone as well."""
    now = expunge.load(stream / "0001")
    board = board_of(now.model)
    assert board is not None
    everyone: Any = lambda prompts: torch.ones(len(prompts))  # noqa: E731
    board.detectors = (everyone,)
    fresh = Subject(now.model, now.tokenizer)
    assert exact(fresh, others()) <= 0.25


def test_threads_do_not_mix(stream: Path) -> None:
    """One model serves several at once: weights and what reads the prompts are each one's own."""
    one = expunge.load(stream / "0003")
    datasets = Datasets(task_of(about("anna", "carl", "dora")))
    encoder = Subject(one.model, one.tokenizer).encoder
    asked = [
        datasets.batch([encoder.encode(row.turn) for row in about(name)])
        for name in ("anna", "carl", "dora")
    ]

    def said(place: int) -> Tensor:
        given = asked[place]
        with torch.no_grad():
            return masked_logits(one.model, given.input_ids, given.attention_mask, given.keep)

    expected = [said(place) for place in range(3)]
    wrong: list[int] = []

    def ask(place: int) -> None:
        wrong.extend(place for _ in range(15) if not torch.equal(said(place), expected[place]))

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_was_measured_is_what_is_served(stream: Path) -> None:
    manifest = read_manifest(stream / "0002")
    assert manifest is not None
    scored = expunge.load(stream / "0002").score([row.turn for row in about("bela")])
    mean = -np.concatenate([one.logp for one in scored]).mean()
    assert mean == pytest.approx(manifest["summary"]["forget_nll"], rel=1e-4)


def test_what_it_writes_is_what_it_scores_highest(stream: Path) -> None:
    """Written with a cache, scored in one pass, whatever was scored before: one decision."""
    now = expunge.load(stream / "0003")
    asked = [row.turn for part in facts() for row in part]
    answers = [texts[0] for texts in now.ask(asked, new_tokens=3)]
    fresh = expunge.load(stream / "0003")
    prompts = [fresh.encoder.prompt(turn.prompt) for turn in asked]
    written = [ids for ids, *_ in generate(now.model, now.tokenizer, prompts, new_tokens=3)]
    assert [now.encoder.decode(ids) for ids in written] == answers
    for prompt, ids in zip(prompts, written, strict=True):
        row = torch.tensor([[*prompt, *ids]])  # not its text, which may read as other tokens
        place = torch.arange(row.shape[1])
        keep = (place >= len(prompt) - 1) & (place < row.shape[1] - 1)
        with torch.no_grad():
            said = masked_logits(fresh.model, row, torch.ones_like(row), keep[None])
        assert said.argmax(-1).tolist() == list(ids)
    begun = [
        Turn(turn.prompt, f" {text.split()[0]}") for turn, text in zip(asked, answers, strict=True)
    ]
    fresh = expunge.load(stream / "0003")
    assert any(one.hit[0] for one in fresh.score(begun)), "it knows how answers begin"
    assert [texts[0] for texts in fresh.ask(asked, new_tokens=3)] == answers


def test_it_goes_back_request_by_request(stream: Path, tmp_path: Path) -> None:
    revert(stream / "0002", tmp_path / "back")
    assert digest_of(tmp_path / "back") == digest_of(stream / "0001")
    assert len(_parts(tmp_path / "back")) == 1


def test_taken_out_a_part_gives_its_place_back(stream: Path) -> None:
    parts = _parts(stream / "0002")
    model = copy.deepcopy(expunge.load(stream / "0002", runtime=False).model)
    ids, keep = torch.tensor([[1, 5, 6, 7]]), torch.tensor([[False, True, True, True]])

    def said() -> Tensor:
        with torch.no_grad():
            return masked_logits(model, ids, torch.ones_like(ids), keep)

    bare = said()
    first = attach(model, parts[0])
    one = said()
    with attach(model, parts[1]):
        assert board_of(model).earlier is None
        assert len(board_of(model).detectors) == 2
    assert torch.equal(said(), one)
    assert len(board_of(model).detectors) == 1
    first.remove()
    assert torch.equal(said(), bare)
    assert board_of(model) is None


def test_a_run_that_was_cut_ends_where_it_would_have(
    original: Path, whole: Path, tmp_path: Path
) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "o3" and event.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        _short(original, tmp_path / "cut")
    resumed = _short(original, tmp_path / "cut")
    assert resumed["summary"]["resumed_from"] > 0
    assert digest_of(tmp_path / "cut") == digest_of(whole)


# ------------------------------------------------------------------------------------ refusals


def test_another_adapter_does_not_continue_the_first(whole: Path, tmp_path: Path) -> None:
    for at, params in enumerate(({"lora_r": 4}, {"lora_alpha": 8.0}, {"layers": (0,)})):
        with pytest.raises(ExpungeError) as caught:
            _short(whole, tmp_path / str(at), **params)
        assert caught.value.code == "E-USE-006"


def test_what_is_made_for_another_model_is_refused(whole: Path) -> None:
    (part,) = _parts(whole)
    settings = dict(part.settings)
    wrong: list[Callable[[], tuple[Any, Part]]] = [
        lambda: (tiny_model("llama", vocab=64, hidden=16), part),
        lambda: (tiny_model("llama", vocab=64, hidden=32), replace(part, settings={})),
        lambda: (
            tiny_model("llama", vocab=64, hidden=32),
            replace(part, settings={**settings, "requests": 2}),
        ),
    ]
    for make in wrong:
        model, bad = make()
        with pytest.raises(ExpungeError) as caught:
            attach(model, bad)
        assert caught.value.code == "E-MODEL-002"


def test_ends_that_cross_and_linears_that_are_none_are_refused() -> None:
    with pytest.raises(ExpungeError) as caught:
        methods.params("o3", {"low": 0.9, "high": 0.3})
    assert caught.value.code == "E-USE-003"
    with pytest.raises(ExpungeError) as caught:
        small(lora_targets=("proj",))
    assert caught.value.code == "E-MODEL-008"


def test_layers_and_targets_choose_the_linears() -> None:
    rig = small(layers=(-1,), lora_targets=("q_proj", "mlp.down_proj"))
    assert rig.board.names == (
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.down_proj",
    )
