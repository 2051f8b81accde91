"""Answers that share a beginning get the scores they would get alone."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from expunge.data.encode import IGNORED, Encoded
from expunge.lm.hooks import evaluating
from expunge.lm.prefixes import Line, Room, can_share, families, filled, score_all
from expunge.lm.subject import Subject
from expunge.lm.work import Tally
from expunge.requests.rows import Turn
from expunge.testing.tiny import tiny_model, tiny_tokenizer

Make = Callable[..., PreTrainedModel]

LARGE = Room(tokens=1024, stored=16384)


def encoded(prompt: Sequence[int], answer: Sequence[int]) -> Encoded:
    ids = [*prompt, *answer]
    labels = [IGNORED] * len(prompt) + list(answer)
    return Encoded(ids, labels, [(0, 1)] * len(answer), -1)


def related(seed: int = 0, *, prompts: Sequence[int] = (40, 37, 90, 3)) -> list[Encoded]:
    """Five answers to each of some prompts, shuffled, and two rows without relatives."""
    draw = np.random.default_rng(seed)

    def some(count: int) -> list[int]:
        return [int(token) for token in draw.integers(4, 60, count)]

    items = [
        encoded(prompt, some(int(draw.integers(1, 30))))
        for prompt in ([1, *some(length)] for length in prompts)
        for _ in range(5)
    ]
    items += [encoded([1, *some(20)], some(4)), encoded([1], some(9))]
    return [items[i] for i in draw.permutation(len(items))]


def alone(model: PreTrainedModel, item: Encoded) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        logits = model(torch.tensor([item.ids])).logits[0]
    at = [place for place, label in enumerate(item.labels) if label != IGNORED]
    logp = logits.log_softmax(-1)
    targets = torch.tensor([item.ids[place] for place in at])
    before = torch.tensor(at) - 1
    return logp[before, targets].numpy(), (logits[before].argmax(-1) == targets).numpy()


def exactness(family: str) -> float:
    """Gemma 2 takes the softmax of its attention in float32, whatever its weights are."""
    return 1e-5 if family == "gemma2" else 1e-10


@pytest.mark.parametrize("room", [LARGE, Room(tokens=64, stored=200), Room(tokens=1, stored=1)])
def test_scores_are_those_of_each_row_alone(family: str, room: Room, loud: Make) -> None:
    # The sliding windows of gemma2, gemma3 and mistral hold 64 tokens: one prompt is longer.
    model, items = loud(family, vocab=64, dtype=torch.float64), related()
    with evaluating(model):
        scores = score_all(model, items, 0, room)
    assert len({round(float(one.logp[0]), 6) for one in scores}) > 15
    for item, scored in zip(items, scores, strict=True):
        logp, hit = alone(model, item)
        np.testing.assert_allclose(scored.logp, logp, atol=exactness(family))
        assert scored.hit.tolist() == hit.tolist()


def test_every_tiny_family_can_share(family: str, loud: Make) -> None:
    assert can_share(loud(family, vocab=64))


def test_a_shared_prompt_is_run_once(loud: Make) -> None:
    model, items, tally = loud("llama", vocab=64), related(prompts=(60, 60, 60)), Tally()
    with evaluating(model), tally.watching(model):
        score_all(model, items, 0, LARGE)
    tokens = sum(len(item.ids) for item in items)
    assert tally.work.tokens < tokens - 3 * 4 * 60 * 0.8


def test_scores_in_float32_hold_to_the_fifth_place(family: str) -> None:
    model, items = tiny_model(family, vocab=64), related(1)
    with evaluating(model):
        scores = score_all(model, items, 0, LARGE)
    for item, scored in zip(items, scores, strict=True):
        np.testing.assert_allclose(scored.logp, alone(model, item)[0], atol=1e-5)


def test_only_some_tokens_may_be_scored(loud: Make) -> None:
    """What stands after the last scored token is not run, and what stands before may be shared."""
    model = loud("gpt2", vocab=64, dtype=torch.float64)
    whole = encoded([1, *range(5, 35)], range(36, 56))
    parts = []
    for start in (40, 45):
        labels = [IGNORED] * len(whole.ids)
        labels[start : start + 3] = whole.ids[start : start + 3]
        parts.append(Encoded(whole.ids, labels, [(0, 1)] * 3, -1))
    lines = [Line.of(part) for part in parts]
    assert [(len(line.ids), line.free) for line in lines] == [(42, 39), (47, 44)]
    assert [one.shared for one in families(lines)] == [39]
    tally = Tally()
    with evaluating(model), tally.watching(model):
        scores = score_all(model, parts, 0, LARGE)
    assert tally.work.tokens < 60
    for part, scored in zip(parts, scores, strict=True):
        np.testing.assert_allclose(scored.logp, alone(model, part)[0], atol=1e-10)


def lines_of(*rows: tuple[str, int]) -> list[Line]:
    return [Line([ord(c) for c in text], [IGNORED] * len(text), free) for text, free in rows]


def test_relatives_share_what_is_common_and_free_in_all() -> None:
    (one,) = families(lines_of(("abcdefX", 6), ("abcdefY", 4), ("abcdefZ", 6)))
    assert (sorted(one.members), one.shared, one.saved) == ([0, 1, 2], 4, 8)


def test_a_short_common_beginning_does_not_break_up_a_family() -> None:
    rows = [("Q: one? yes", 8), ("Q: two? yes", 8), ("Q: one? no.", 8), ("Q: two? no.", 8)]
    found = sorted((sorted(one.members), one.shared) for one in families(lines_of(*rows)))
    assert found == [([0, 2], 8), ([1, 3], 8)]


def test_examples_in_front_of_many_questions_are_shared() -> None:
    rows = [(f"{'examples ' * 9}{letter}? yes", 84) for letter in "abcdef"]
    (one,) = families(lines_of(*rows))
    assert (len(one.members), one.shared) == (6, 81)


@pytest.mark.parametrize(
    "rows",
    [
        (("abcdef", 0), ("abcdef", 0)),
        (("abcdef", 5), ("uvwxyz", 5)),
        (("a" + 30 * "b", 29), ("a" + 30 * "c", 29)),
        (("abcdef", 5),),
        (),
    ],
    ids=["nothing free", "nothing common", "too little saved", "one row", "no row"],
)
def test_strangers_form_no_family(rows: tuple[tuple[str, int], ...]) -> None:
    assert families(lines_of(*rows)) == []


def test_batches_hold_as_many_rows_as_fit() -> None:
    assert filled([3, 10, 4, 50, 1, 4], 20) == [[3], [1, 2], [5, 0, 4]]
    assert filled([], 20) == []
    assert [len(batch) for batch in filled([7] * 9, 20)] == [2, 2, 2, 2, 1]


def stateful() -> PreTrainedModel:
    """A model whose state is no list of keys and values."""
    config = transformers.MambaConfig(
        vocab_size=64, hidden_size=16, state_size=4, num_hidden_layers=2, eos_token_id=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.MambaForCausalLM(config).eval().double()


def hybrid() -> PreTrainedModel:
    """A model of which only some layers store keys and values."""
    config = transformers.Lfm2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.Lfm2ForCausalLM(config).eval().double()


def stretched() -> PreTrainedModel:
    """A model that turns its keys by angles that depend on the length of the row."""
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config).eval().double()


@pytest.mark.parametrize("make", [stateful, hybrid])
def test_other_models_take_the_plain_way(make: Callable[[], PreTrainedModel]) -> None:
    model, items = make(), related(prompts=(20, 20))
    assert not can_share(model)
    with evaluating(model):
        scores = score_all(model, items, 0, Room(tokens=1, stored=1))
    for item, scored in zip(items, scores, strict=True):
        np.testing.assert_allclose(scored.logp, alone(model, item)[0], atol=1e-10)


def test_a_model_whose_angles_depend_on_the_length_does_not_share() -> None:
    assert not can_share(stretched())


QUESTIONS = (
    "Where does Mr Aen live?",
    "Name the town, please, in which old Mr Ben has been living for years.",
    "",
    "W",
)
ANSWERS = (
    " In Turin.",
    " In Malmo, I think.",
    "?!",
    " No",
    " In Turin, by the sea, or so he says.",
)


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_a_subject_scores_together_what_it_scores_alone(
    name: str, batch_size: int, chat: bool, loud: Make
) -> None:
    """Empty and one-token prompts, answers whose first token begins in the prompt, ranges."""
    tokenizer = tiny_tokenizer([q + a for q in QUESTIONS for a in ANSWERS], chat=chat, vocab=400)
    model = loud(name, vocab=len(tokenizer), dtype=torch.float64)
    turns = [Turn(q, a, running=not q) for q in QUESTIONS for a in ANSWERS]
    turns += [Turn(q, a[1:]) for q in QUESTIONS[:2] for a in ANSWERS]
    turns += [Turn("Where does Mr Aen liv", f"e?{a}") for a in ANSWERS]
    keep = [[(0, 2)] if number % 3 == 0 else () for number in range(len(turns))]
    subject = Subject(model, tokenizer, batch_size=batch_size)
    together = subject.score(turns, keep)
    for turn, ranges, scored in zip(turns, keep, together, strict=True):
        item = subject.encoder.encode(turn, keep=ranges)
        logp, hit = alone(model, item)
        np.testing.assert_allclose(scored.logp, logp, atol=exactness(name))
        assert (scored.hit.tolist(), list(scored.spans)) == (hit.tolist(), item.spans)


def test_a_model_that_finds_all_tokens_equal_hits_none(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = tiny_model("llama", vocab=len(tokenizer))
    with torch.no_grad():
        model.lm_head.weight.zero_()
    (scored,) = Subject(model, tokenizer).score([Turn("Where?", " In Turin.")])
    assert not scored.hit.any()
    np.testing.assert_allclose(scored.logp, -np.log(len(tokenizer)), atol=1e-5)
