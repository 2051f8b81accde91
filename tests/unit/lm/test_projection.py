from dataclasses import replace

import numpy as np
import pytest
import torch

from expunge.lm.arch import Slots
from expunge.lm.hooks import capture, evaluating
from expunge.lm.lens import lens
from expunge.lm.projection import (
    Aim,
    _ends,
    aims,
    candidates,
    changes,
    choose_layers,
    levels,
    middle,
    report,
)
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row
from expunge.testing.micro import micro_world
from expunge.testing.tiny import tiny_model

WORLD = micro_world()


def subject_of(family: str = "llama", layers: int = 4, seed: int = 0) -> Subject:
    model = tiny_model(family, vocab=len(WORLD.tokenizer), layers=layers, positions=64, seed=seed)
    return Subject(model, WORLD.tokenizer, batch_size=4)


def test_ranks_by_hand_and_ties_are_no_find() -> None:
    scores = torch.tensor([[5.0, 4.0, 4.0, 1.0, 0.0]] * 5)
    top, bottom = _ends(scores, torch.arange(5), 2)
    assert top.tolist() == [True, False, False, False, False]
    assert bottom.tolist() == [False, False, False, True, True]
    top, bottom = _ends(scores, torch.arange(5), 3)
    assert top.tolist() == [True, True, True, False, False]
    assert not _ends(torch.zeros(1, 5), torch.tensor([0]), 4).any()


def test_changes_are_differences_of_probabilities_by_hand() -> None:
    logits = [torch.tensor([[0.0, np.log(3.0)]]), torch.tensor([[0.0, 0.0]])]
    assert torch.cat(list(changes(iter(logits)))).tolist() == [
        pytest.approx([0.25, -0.25], abs=1e-6)
    ]
    assert list(levels(iter(logits))) == logits


def test_the_aim_is_the_first_token_of_the_value_in_its_sentence() -> None:
    row = next(row for row in WORLD.forget if row.meta["attribute"] == "city")
    decode, subject = WORLD.tokenizer.decode, subject_of()
    at_value, at_prompt = aims(subject, [row], "value"), aims(subject, [row], "prompt")
    for turn, value, prompt in zip(row.turns, at_value, at_prompt, strict=True):
        first = row.value.split()[0]
        said = turn.completion.partition(row.value)[0].rstrip()
        assert decode(value.token) == decode(prompt.token) == f" {first}"
        assert decode(value.before).removeprefix("<bos>") == f"{turn.prompt}{said}"
        assert decode(prompt.before).removeprefix("<bos>") == turn.prompt


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_candidates_are_the_ends_of_the_lens_at_each_block(family: str) -> None:
    subject, k, layers = subject_of(family), 30, [0, 2, -1]
    tried = aims(subject, WORLD.forget[:5], "value")
    found = candidates(subject, tried, layers, levels, k)
    for at, aim in enumerate(tried):
        with evaluating(subject.model), capture(subject.model, layers) as seen:
            logits = subject.model(torch.tensor([aim.before])).logits[0, -1]
        for place, layer in enumerate(layers):
            with torch.no_grad():
                read = lens(subject.model, seen[layer])[0, -1]
            rank = int((read > read[aim.token]).sum())
            assert found[0, place, at] == (rank < k)
            assert found[1, place, at] == (len(read) - 1 - rank < k)
        rank = int((logits > logits[aim.token]).sum())
        assert found[0, 2, at] == (rank < k)
    assert found.any()
    assert not found.all()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_blocks_that_do_nothing_read_the_same_everywhere_and_change_nothing(family: str) -> None:
    subject = subject_of(family)
    for layer in range(4):
        for slot in ("mlp_out", "attention_out"):
            for weight in Slots(subject.model).module(layer, slot).parameters():
                weight.data.zero_()
    tried = aims(subject, WORLD.forget[:5], "value")
    found = candidates(subject, tried, range(4), levels, 40)
    assert (found == found[:, -1:]).all()
    assert not candidates(subject, tried, range(4), changes, 40).any()


def test_layers_are_chosen_where_the_original_knows_most() -> None:
    original = subject_of(layers=14)
    row = WORLD.retain[0]
    (aim, *_) = aims(original, [replace(row, paraphrases=())], "value")
    with torch.no_grad():
        states: dict[int, torch.Tensor] = {}
        with capture(original.model, range(14)) as seen:
            original.model(torch.tensor([aim.before]))
        for layer in range(14):
            logits = lens(original.model, seen[layer])[0, -1]
            states[layer] = logits.softmax(-1)[aim.token]
    best = sorted(range(1, 13), key=lambda layer: -float(states[layer]))[:5]
    scene = Scene(retain=[replace(row, paraphrases=())], neighbour=(), seed=0, original=original)
    attacked = [subject_of(layers=14, seed=seed) for seed in (1, 2)]
    for subject in (*attacked, original):
        chosen = choose_layers(subject, scene, middle(14), at="value", most=5)
        assert chosen == sorted(best)
    alone = replace(scene, original=None)
    spread = choose_layers(attacked[0], alone, middle(14), at="value", most=5)
    assert spread == [1, 4, 7, 9, 12]
    other = replace(scene, original=subject_of(layers=3))
    assert choose_layers(attacked[0], other, middle(14), at="value", most=5) == spread
    assert choose_layers(attacked[0], scene, middle(14), at="value", most=12) == middle(14)


def test_rows_without_answer_and_running_text_are_read_and_long_ones_left_out() -> None:
    subject = subject_of()
    rows = [
        replace(WORLD.forget[0], answer=None, subject=None, names=(), paraphrases=()),
        Row(id="text", text=WORLD.forget[1].prompt + WORLD.forget[1].reply),
        Row(id="long", prompt="Where? " * 60, completion=" x"),
        Row(id="talk", messages=tuple({"role": r, "content": "a"} for r in ("user", "assistant"))),
    ]
    leak = report(subject, rows, [1], levels, at="value", k=4, bottom=True)
    assert set(leak.per_row) == {rows[0].id, "text"}
    assert "2 of 4 rows cannot be read" in leak.note
    assert report(subject, (), [1], levels, at="value", k=4, bottom=True).per_row == {}
    assert isinstance(aims(subject, rows[:1], "prompt")[0], Aim)
