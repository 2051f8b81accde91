"""Recital: where a text is cut, what a model goes on with, and how close that is to the text."""

from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.data.encode import Encoded, Encoder
from expunge.lm import recited
from expunge.lm.finetune import finetune
from expunge.lm.recited import (
    Recital,
    beamed,
    closeness,
    extraction_likelihood,
    matching_f1,
    overlap,
    recital,
    rescaled,
)
from expunge.requests.rows import Row, Turn
from expunge.testing import tiny_model, tiny_tokenizer

WORDS = [f"w{at}" for at in range(40)]
TEXT = " ".join(WORDS[:24])
OTHER = " ".join(WORDS[39:15:-1])


@pytest.fixture(scope="module")
def learnt() -> Any:
    """A model that knows one text by heart, its tokenizer, and the text and another as recitals."""
    tokenizer = tiny_tokenizer([TEXT, OTHER], kind="word")
    model = tiny_model("llama", vocab=len(tokenizer), hidden=32, layers=2, positions=64)
    row = Row(id="t", text=TEXT)
    finetune(model, tokenizer, [row], steps=120, lr=5e-3, batch_size=1, seed=0)
    encoder = Encoder(tokenizer, 64)
    texts = [
        recital(encoder.encode(Turn("", text, running=True)), tokenizer, 6)
        for text in (TEXT, OTHER)
    ]
    return model, tokenizer, texts


def test_running_text_is_cut_behind_the_prefix_and_short_text_in_half(learnt) -> None:
    _, tokenizer, (text, _) = learnt
    assert len(text.prefix) == 6
    assert len(text.prefix + text.rest) == 25  # <bos> and the words, the end is no part of it
    item = Encoder(tokenizer, 64).encode(Turn("", TEXT, running=True))
    assert len(recital(item, tokenizer, 50).prefix) == 12


def test_a_question_is_the_whole_prefix(learnt) -> None:
    _, tokenizer, _ = learnt
    item = Encoder(tokenizer, 64).encode(Turn("w0 w1 w2", " w3 w4"))
    cut = recital(item, tokenizer, 1)
    assert (len(cut.prefix), len(cut.rest)) == (4, 2)
    assert Encoder(tokenizer, 64).decode(cut.rest).split() == ["w3", "w4"]


def test_the_overlap_is_a_share_of_what_was_said() -> None:
    assert overlap([1, 2, 3, 9], [1, 2, 3, 4], 2) == pytest.approx(2 / 3)
    assert overlap([1, 2, 1, 2], [1, 2], 2) == pytest.approx(2 / 3)  # said twice, counted twice
    assert overlap([1, 2], [1, 2, 3], 3) == 0.0
    assert overlap([], [1], 1) == 0.0


def test_likelihood_is_1_of_a_text_known_by_heart_and_0_of_an_unknown_one(learnt) -> None:
    model, tokenizer, texts = learnt
    known, unknown = extraction_likelihood(model, tokenizer, texts, n=4, last=50)
    assert known == 1.0
    assert unknown == pytest.approx(0.0, abs=0.05)


def test_likelihood_equals_a_slow_loop_over_breaks(learnt) -> None:
    model, tokenizer, texts = learnt
    ids = texts[1].prefix + texts[1].rest
    shares = []
    for cut in range(max(len(texts[1].prefix), len(ids) - 9), len(ids) - 3 + 1):
        said = list(ids[:cut])
        while len(said) < len(ids):
            with torch.no_grad():
                token = int(model(input_ids=torch.tensor([said])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            said.append(token)
        grams = [tuple(said[at : at + 3]) for at in range(cut, len(said) - 2)]
        true = {tuple(ids[at : at + 3]) for at in range(cut, len(ids) - 2)}
        shares.append(sum(gram in true for gram in grams) / len(grams) if grams else 0.0)
    assert len(shares) == 7
    found = extraction_likelihood(model, tokenizer, texts, n=3, last=9)
    assert found[1] == pytest.approx(sum(shares) / len(shares))


def test_a_text_shorter_than_its_n_grams_has_no_likelihood(learnt) -> None:
    model, tokenizer, texts = learnt
    short = Recital(texts[0].prefix, texts[0].rest[:3])
    assert extraction_likelihood(model, tokenizer, [short], n=4, last=50) == [None]


def test_one_beam_is_greedy_and_both_recite_what_is_known(learnt) -> None:
    model, tokenizer, texts = learnt
    greedy, beams = (beamed(model, tokenizer, texts, beams=n) for n in (1, 2))
    assert greedy[0] == beams[0] == texts[0].rest
    ids = list(texts[1].prefix)
    for _ in texts[1].rest:
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert greedy[1] == ids[len(texts[1].prefix) :][: len(greedy[1])]


def test_beams_find_a_likelier_continuation_than_the_greedy_one() -> None:
    """Token 4 is likelier than 5, but what follows 5 is far surer."""
    tokenizer = tiny_tokenizer(["a b c d e"], kind="word", vocab=16)
    model = forked(len(tokenizer))
    text = Recital([1], [7, 7])
    assert beamed(model, tokenizer, [text], beams=1) == [[4, 6]]
    assert beamed(model, tokenizer, [text], beams=2) == [[5, 7]]


def forked(vocab: int) -> Any:
    """A real model whose next token depends on the last one alone."""
    model = tiny_model("llama", vocab=vocab, hidden=16, layers=1, positions=16)
    table = torch.full((vocab, vocab), -20.0)
    table[1, 4], table[1, 5] = 0.1, 0.0
    table[4, 6:9] = torch.tensor([0.02, 0.01, 0.0])
    table[5, 7] = 20.0
    head = torch.zeros(vocab, 16)
    embed = torch.zeros(vocab, 16)
    embed[1, 0] = embed[4, 1] = embed[5, 2] = 1.0
    for row, at in enumerate((1, 4, 5)):
        head[:, row] = table[at]
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            weight.zero_()
        model.model.embed_tokens.weight.copy_(embed)
        model.model.norm.weight.fill_(0.25)  # a unit vector of 16 channels is scaled by 4
        model.lm_head.weight.copy_(head)
    return model


def test_texts_of_other_lengths_beside_it_change_nothing(learnt) -> None:
    model, tokenizer, texts = learnt
    shorter = Recital(texts[0].prefix[:4], texts[0].prefix[4:] + texts[0].rest[:3])
    alone = [beamed(model, tokenizer, [one], beams=2)[0] for one in (*texts, shorter)]
    assert beamed(model, tokenizer, [*texts, shorter], beams=2) == alone


def test_settings_of_the_model_folder_have_no_part_in_it(learnt) -> None:
    model, tokenizer, texts = learnt
    plain = beamed(model, tokenizer, texts, beams=2)
    model.generation_config.repetition_penalty = 5.0
    own = model.generation_config
    try:
        assert beamed(model, tokenizer, texts, beams=2) == plain
        assert model.generation_config is own
    finally:
        model.generation_config.repetition_penalty = None


def test_a_text_without_room_is_refused(learnt) -> None:
    model, tokenizer, _ = learnt
    with pytest.raises(ExpungeError) as refused:
        beamed(model, tokenizer, [Recital([1] * 60, [4] * 10)], beams=2)
    assert refused.value.code == "E-DATA-011"


def test_f1_matches_each_token_with_the_one_most_like_it() -> None:
    found = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    wanted = torch.tensor([[2.0, 0.0]])
    precision, recall = (1 + 0.5**0.5) / 2, 1.0
    expected = 2 * precision * recall / (precision + recall)
    assert matching_f1(found, wanted) == pytest.approx(expected)
    assert matching_f1(wanted, found) == pytest.approx(expected)
    assert matching_f1(found, torch.zeros(0, 2)) == 0.0
    assert matching_f1(-wanted, wanted) == 0.0


def test_a_baseline_of_1_leaves_nothing_to_tell_texts_apart_by() -> None:
    assert rescaled(1.0, 1.0) == 0.0
    assert rescaled(0.9, 0.8) == pytest.approx(0.5)


def test_the_known_text_is_close_and_the_unknown_one_is_not(learnt) -> None:
    model, tokenizer, texts = learnt
    known, unknown = closeness(model, tokenizer, texts, texts[::-1], beams=2, new_tokens=12)
    assert known == (pytest.approx(1.0), pytest.approx(1.0))
    assert unknown[0] < 0.3


def test_what_merely_resembles_the_text_has_an_f1_of_0(learnt, monkeypatch) -> None:
    """A model that says the neighbour's text instead: what both share does not count as known."""
    model, tokenizer, texts = learnt
    text = texts[0]
    near = text.said([*text.rest[:6], *texts[1].rest[:6]])
    monkeypatch.setattr(recited, "beamed", lambda *_, **__: [near.rest])
    ((f1, bleu),) = closeness(model, tokenizer, [text], [near], beams=2, new_tokens=12)
    assert f1 == pytest.approx(0.0)
    assert bleu > 0.3
    assert raw_f1(model, near.rest, text.rest[:12]) > 0.5


def raw_f1(model: Any, said: list[int], true: list[int]) -> float:
    table: Tensor = model.get_input_embeddings().weight.detach().double()
    return matching_f1(table[said], table[true])


def test_a_model_that_says_nothing_is_not_close(learnt, monkeypatch) -> None:
    model, tokenizer, texts = learnt
    monkeypatch.setattr(recited, "beamed", lambda *_, **__: [[]])
    ((f1, bleu),) = closeness(model, tokenizer, texts[:1], texts[1:], beams=2, new_tokens=12)
    assert f1 <= 0.0
    assert bleu == 0.0


def test_an_item_without_an_end_is_cut_as_it_is(learnt) -> None:
    _, tokenizer, _ = learnt
    ids = [1, 5, 6, 7, 8]
    cut = recital(Encoded(ids, [-100, *ids[1:]], [], 0), tokenizer, 50)
    assert cut == Recital([1, 5], [6, 7, 8])
