"""What membership attacks read from a model, against slow and plain ways to the same numbers."""

import math

import numpy as np
import pytest
import torch

from expunge.lm import membership
from expunge.lm.membership import (
    Words,
    gradient_norms,
    lowered,
    perturbed,
    prefix_of,
    prefixed,
    standard_scores,
    standardised,
    text_nll,
)
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.testing.tiny import tiny_tokenizer

TEXTS = (
    "Ivo mends clocks in Ghent.",
    "Mara keeps 12 bees behind the old mill, and sells honey in Turin on Sundays.",
    "Snow fell.",
    "Nils rows to Malmo every spring with 3 crates of pears.",
)
TURNS = [Turn("", text, running=True) for text in TEXTS]
TURNS += [Turn("Who mends clocks?", " Ivo does."), Turn("Where?", " In Ghent, of course.")]


@pytest.fixture(scope="module")
def subject(loud):
    tokenizer = tiny_tokenizer([f"{turn.prompt}{turn.completion}" for turn in TURNS], vocab=320)
    return Subject(loud("llama", vocab=len(tokenizer)), tokenizer, batch_size=4)


def text_labels(subject, turn):
    """Ids of a turn and the positions of its completion's tokens, without the end."""
    item = subject.encoder.encode(turn)
    places = [place for place, label in enumerate(item.labels) if label != -100]
    return item.ids, places[: len(places) - (item.ids[-1] == subject.tokenizer.eos_token_id)]


def logits_of(subject, ids):
    subject.model.eval()
    return subject.model(torch.tensor([ids])).logits[0].double().detach()


class TestStandardised:
    @pytest.mark.parametrize(("token", "expected"), [(0, 0.6546537), (1, -1.5275252)])
    def test_value_of_the_card(self, token, expected):
        logits = torch.tensor([[0.7, 0.1, 0.1, 0.1]], dtype=torch.float64).log()
        found = standard_scores(logits, torch.tensor([token]))
        assert float(found) == pytest.approx(expected, abs=1e-7)

    def test_two_to_one_by_hand(self):
        # log p is 0 and log 2 above log 1/3 with shares 1/3 and 2/3: its mean lies 2/3 of log 2
        # above, its deviation is log 2 times sqrt(2) / 3.
        logits = torch.tensor([[2.0, 1.0]]).log()
        found = standard_scores(logits.repeat(2, 1), torch.tensor([0, 1]))
        assert found.tolist() == pytest.approx([1 / math.sqrt(2), -math.sqrt(2)], rel=1e-6)

    def test_a_uniform_distribution_and_certainty_give_zero(self):
        sure = torch.tensor([[0.0, -math.inf, -math.inf], [5.0, 5.0, 5.0]])
        assert standard_scores(sure, torch.tensor([0, 2])).tolist() == pytest.approx([0.0, 0.0])

    def test_a_shift_of_the_logits_changes_nothing(self):
        logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        targets = torch.tensor([0, 3, 8, 1, 1])
        shifted = standard_scores(logits + 100, targets)
        assert shifted.tolist() == pytest.approx(standard_scores(logits, targets).tolist())

    def test_a_model_gives_what_a_slow_loop_gives(self, subject):
        for turn, found in zip(TURNS, standardised(subject, TURNS), strict=True):
            ids, places = text_labels(subject, turn)
            logits = logits_of(subject, ids)
            expected = []
            for place in places:
                p = logits[place - 1].softmax(0).tolist()
                log_p = [math.log(each) for each in p]
                mean = sum(a * b for a, b in zip(p, log_p, strict=True))
                square = sum(a * b * b for a, b in zip(p, log_p, strict=True))
                expected.append((log_p[ids[place]] - mean) / math.sqrt(square - mean**2))
            assert found == pytest.approx(expected, abs=1e-4)
            assert len(found) == len(places) > 0

    @pytest.mark.parametrize("size", [1, 2, 64])
    def test_batches_order_and_chunks_change_nothing(self, subject, size, monkeypatch):
        whole = standardised(subject, TURNS)
        monkeypatch.setattr(membership, "CHUNK", 3)
        twin = Subject(subject.model, subject.tokenizer, batch_size=size)
        for found, expected in zip(standardised(twin, TURNS[::-1])[::-1], whole, strict=True):
            assert found == pytest.approx(expected, abs=1e-5)

    def test_little_room_makes_small_batches(self, subject, monkeypatch):
        widths = []
        plain = membership.packed_logp

        def watched(model, batch, **options):
            widths.append(len(batch.input_ids))
            return plain(model, batch, **options)

        monkeypatch.setattr(membership, "packed_logp", watched)
        monkeypatch.setattr(membership, "LOGITS", 1)
        standardised(subject, TURNS)
        assert widths == [1] * len(TURNS)


class TestGradientNorms:
    def test_a_model_gives_what_backward_gives(self, subject):
        (found,) = gradient_norms(subject, TURNS[1:2])
        ids, places = text_labels(subject, TURNS[1])
        twin = subject.copy().model.eval()
        logp = twin(torch.tensor([ids])).logits[0].log_softmax(-1)
        (-sum(logp[place - 1, ids[place]] for place in places) / len(places)).backward()
        norms = [weight.grad.norm() for weight in twin.parameters()]
        assert found == pytest.approx(float(torch.stack(norms).mean()), rel=1e-5)

    def test_rows_together_are_rows_alone(self, subject):
        together = gradient_norms(subject, TURNS)
        alone = [gradient_norms(subject, [turn])[0] for turn in TURNS]
        assert together == alone

    def test_nothing_of_the_model_changes(self, subject):
        model = subject.model.train()
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        frozen = next(model.parameters()).requires_grad_(False)
        kept = torch.ones_like(list(model.parameters())[1])
        list(model.parameters())[1].grad = kept
        try:
            gradient_norms(subject, TURNS[:1])
            assert model.training
            assert not frozen.requires_grad
            assert [w.grad is None for w in model.parameters()].count(False) == 1
            assert torch.equal(list(model.parameters())[1].grad, torch.ones_like(kept))
            assert all(torch.equal(before[n], w) for n, w in model.state_dict().items())
        finally:
            list(model.parameters())[1].grad = None
            frozen.requires_grad_(True)
            model.eval()

    def test_dropout_plays_no_part(self, loud, subject):
        # GPT-2 has dropout: in training mode two passes would differ.
        model = loud("gpt2", vocab=len(subject.tokenizer)).train()
        dropping = Subject(model, subject.tokenizer)
        assert gradient_norms(dropping, TURNS[:1]) == gradient_norms(dropping, TURNS[:1])
        model.eval()
        expected = gradient_norms(dropping, TURNS[:1])
        model.train()
        assert gradient_norms(dropping, TURNS[:1]) == expected

    def test_frozen_weights_are_skipped_unless_all_are(self, subject):
        model = subject.copy().model
        whole = gradient_norms(Subject(model, subject.tokenizer), TURNS[:1])
        model.requires_grad_(False)
        assert gradient_norms(Subject(model, subject.tokenizer), TURNS[:1]) == whole
        assert not any(weight.requires_grad for weight in model.parameters())
        model.lm_head.weight.requires_grad_(True)
        assert gradient_norms(Subject(model, subject.tokenizer), TURNS[:1]) != whole

    def test_it_measures_inside_a_context_without_gradients(self, subject):
        with torch.no_grad():
            assert gradient_norms(subject, TURNS[:1])[0] > 0


class TestNeighbours:
    WORDS = Words(TURNS)

    @staticmethod
    def near(turn, share=0.3, seed=0):
        return perturbed(turn, TestNeighbours.WORDS, share, np.random.default_rng(seed))

    def test_a_share_of_the_words_changes_and_nothing_else(self):
        turn = TURNS[1]
        own, new = turn.completion.split(), self.near(turn).completion.split()
        assert len(own) == len(new) == 15
        changed = [(a, b) for a, b in zip(own, new, strict=True) if a != b]
        # round(.3 * 15) = 4 words; round is half to even, so 4.5 gives 4.
        assert len(changed) == 4
        assert all(a[-1] == b[-1] for a, b in changed if not a[-1].isalnum())
        assert self.near(turn).prompt == turn.prompt

    def test_at_least_one_word_changes(self):
        assert self.near(TURNS[2], share=0.01).completion != TURNS[2].completion

    def test_numbers_become_numbers_and_names_names(self):
        for seed in range(8):
            new = self.near(Turn("", "Ivo, 12 clocks"), share=1.0, seed=seed).completion
            name, number, word = new.replace(",", "").split()
            assert name[0].isupper()
            assert number == "3"
            assert word.islower()

    def test_the_seed_decides(self):
        assert self.near(TURNS[1], seed=1) == self.near(TURNS[1], seed=1)
        assert self.near(TURNS[1], seed=1) != self.near(TURNS[1], seed=2)

    def test_what_has_no_words_stays(self):
        assert self.near(Turn("", "?!")) == Turn("", "?!")
        alone = perturbed(Turn("", "one"), Words([Turn("", "one")]), 1.0, np.random.default_rng(0))
        assert alone.completion == "one"


def test_text_nll_leaves_the_end_out(subject):
    for turn, found in zip(TURNS, text_nll(subject, TURNS), strict=True):
        ids, places = text_labels(subject, turn)
        logp = logits_of(subject, ids).log_softmax(-1)
        expected = -float(sum(logp[p - 1, ids[p]] for p in places)) / len(places)
        assert found == pytest.approx(expected, abs=1e-5)


def test_lower_case_leaves_the_prompt():
    assert lowered(Turn("Who?", " IVO Does")) == Turn("Who?", " ivo does")


class TestPrefix:
    SHOTS = tuple(Row(id=str(n), text=text) for n, text in enumerate(TEXTS))

    def test_all_texts_stand_in_front_where_there_is_room(self, subject):
        prefix = prefix_of(subject, self.SHOTS, longest=10)
        assert prefix == "".join(f"{text}\n\n" for text in TEXTS)

    def test_as_many_as_fit(self, subject):
        first = len(subject.encoder.prompt(f"{TEXTS[0]}\n\n{TEXTS[1]}\n\n", running=True))
        longest = subject.encoder.max_length - first
        assert prefix_of(subject, self.SHOTS, longest) == f"{TEXTS[0]}\n\n{TEXTS[1]}\n\n"
        assert prefix_of(subject, self.SHOTS, longest + 1) == f"{TEXTS[0]}\n\n"

    def test_it_stands_before_the_prompt_or_in_the_first_message(self):
        assert prefixed(Turn("Who?", " Ivo"), "P ").prompt == "P Who?"
        messages = ({"role": "user", "content": "Who?"}, {"role": "user", "content": "So?"})
        found = prefixed(Turn(messages, "Ivo"), "P ").prompt
        assert [each["content"] for each in found] == ["P Who?", "So?"]
