"""What a model writes: fluency, repetition, gibberish, perplexity; and how familiar texts are."""

import math
import zlib

import numpy as np
import pytest

from expunge.core import registry
from expunge.lm.gather import Models
from expunge.lm.membership import standardised
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.metrics import measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer

TEXTS = ["The ferry of Lowmere sails at noon.", "A bell rings.", "In spring the thaw comes early."]


@pytest.fixture(scope="module")
def subjects():
    tokenizer = tiny_tokenizer(TEXTS, vocab=300)
    return [
        Subject(tiny_model("llama", vocab=len(tokenizer), seed=seed), tokenizer) for seed in (0, 1)
    ]


def fluency(text):
    return measure("fluency", {"generation": [text]}).mean


class TestFluency:
    def test_values_of_the_card(self):
        assert fluency("a b c d e") == pytest.approx(1.7233083, abs=5e-8)
        assert fluency("a a a a a") == 0

    def test_repeated_pairs(self):
        pairs, triples = 1.0, 0.9182958340544896  # ab ba ab ba; aba bab aba
        assert fluency("a b a b a") == pytest.approx(0.5 * (2 / 3 * pairs + 4 / 3 * triples))

    def test_two_words_have_a_pair_and_no_triple(self):
        assert fluency("a b") == 0
        assert fluency("") == 0

    def test_punctuation_is_a_word(self):
        assert fluency("a, b") > fluency("a b")


class TestRepetition:
    def test_a_share_of_runs(self):
        assert measure("repetition", {"generation": ["a b c d a b c d"]}).mean == pytest.approx(
            1 / 5
        )

    def test_short_answers_are_left_out_and_counted(self):
        value = measure("repetition", {"generation": ["a b", "c c c c c"]})
        assert (value.mean, value.n) == (0.5, 1)
        assert value.note == "1 of 2 answers have fewer than 4 words"

    def test_only_short_answers_cannot_be_measured(self):
        value = measure("repetition", {"generation": ["a b", ""]})
        assert value.mean is None
        assert "not measurable" in value.note


def test_language_is_what_is_not_gibberish():
    said = {"generation": ["", "It rains."]}
    parts = [measure("gibberish", said, language=turned) for turned in (False, True)]
    assert [value.mean for value in parts] == [0.5, 0.5]
    assert all(a + b == 1 for a, b in zip(*(p.per_row.values() for p in parts), strict=True))
    silence = measure("gibberish", {"generation": [""]}, language=True)
    assert silence.mean == 0


def test_gibberish_counts_silence():
    assert measure("gibberish", {"generation": ["", "It rains."]}).mean == 0.5


ROWS = [Row(id=f"r{i}", prompt=text, completion=" x") for i, text in enumerate(TEXTS)]
LOGP = (-1.0, -4.0, -1.0, -2.0, -0.5)


class TestBasePerplexity:
    def read(self, **models):
        module = registry.metrics.load("base-perplexity")
        return module.read(Models(**models), {"": ROWS}, module.Params(new_tokens=6))

    def test_the_mean_of_logarithms(self):
        scores = {"judged_nll": [1.0, 2.0, 3.0], "judge": ["original"] * 3}
        value = measure("base-perplexity", scores)
        assert value.mean == pytest.approx(math.exp(2))
        assert value.note == "judged by the original model"

    def test_empty_answers_are_counted(self):
        value = measure(
            "base-perplexity", {"judged_nll": {"a": 1.0}, "judge": {"a": "base", "b": "base"}}
        )
        assert "1 of 2 answers were empty" in value.note

    def test_the_base_judges_before_the_original(self, subjects):
        model, other = subjects
        assert set(self.read(model=model, base=other, original=model)["judge"].values()) == {"base"}
        assert set(self.read(model=model, original=other)["judge"].values()) == {"original"}

    def test_without_either_it_cannot_be_measured(self, subjects):
        assert self.read(model=subjects[0]) == {}
        assert measure("base-perplexity", {}).mean is None

    def test_the_judge_scores_the_answer_after_its_question(self, subjects):
        model, other = subjects
        found = self.read(model=model, base=other)["judged_nll"]
        (row, *_) = ROWS
        said = model.ask([row.turn], new_tokens=6)[0][0]
        (scored,) = other.score([type(row.turn)(row.prompt, said)], [[(0, len(said))]])
        assert found[row.id] == pytest.approx(scored.nll, abs=1e-6)

    @pytest.mark.parametrize("loss", [math.nan, math.inf, 1e4])
    def test_a_loss_beyond_any_number_is_not_measurable(self, loss):
        scores = {"judged_nll": {"a": 1.0, "b": loss}, "judge": {"a": "base", "b": "base"}}
        value = measure("base-perplexity", scores)
        assert value.mean is None
        assert "beyond any" in value.note


class TestFamiliarity:
    def measured(self, text="some text", **params):
        scores = {"training_logp": [list(LOGP)], "text": [text]}
        return measure("log-likelihood", scores, **params).mean

    def test_forms(self):
        assert self.measured() == pytest.approx(-1.7)
        assert self.measured(form="zlib") == pytest.approx(-1.7 / len(zlib.compress(b"some text")))
        assert self.measured(form="min-k") == -4.0
        assert self.measured(form="min-k", k=0.4) == -3.0

    def test_compressed_length_is_that_of_bytes(self):
        text = "Grüße " * 9
        assert self.measured(text, form="zlib") == pytest.approx(
            -1.7 / len(zlib.compress(text.encode()))
        )

    def test_at_least_one_token_counts(self):
        assert self.measured(form="min-k", k=0.0) == -4.0

    def test_standardised_is_read_from_the_model(self, subjects):
        rows = [Row(id=text, text=text) for text in TEXTS]
        module = registry.metrics.load("standardised-log-likelihood")
        made = module.read(Models(model=subjects[0]), {"": rows}, module.Params())
        value = measure("standardised-log-likelihood", made)
        expected = [
            np.mean(np.sort(z)[: max(1, len(z) // 5)])
            for z in standardised(subjects[0], [row.training for row in rows])
        ]
        assert list(value.per_row.values()) == pytest.approx(expected)


class TestParts:
    def test_effectiveness_at_chance_and_below_is_whole(self):
        for accuracy, gone in ((0.25, 1), (0.1, 1), (0.45, 0.5), (0.65, 0), (0.9, 0)):
            parts = {"accuracy": accuracy, "original": 0.65}
            found = measure("unlearning-effectiveness", {"parts": parts})
            assert found.mean == pytest.approx(gone)
            assert found.parts == parts

    def test_effectiveness_of_what_was_never_known(self):
        value = measure("unlearning-effectiveness", {"parts": {"accuracy": 0.2, "original": 0.25}})
        assert value.mean is None
        assert "no better than a guess" in value.note

    def test_open_answers_have_no_chance(self):
        parts = {"accuracy": 0.1, "original": 0.4}
        value = measure("unlearning-effectiveness", {"parts": parts}, chance=0)
        assert value.mean == pytest.approx(0.75)

    def test_utility_is_the_mean_of_ratios_not_the_ratio_of_means(self):
        parts = {"a": 0.9, "original a": 0.9, "b": 0.0, "original b": 0.1}
        assert measure("utility-retained", {"parts": parts}).mean == pytest.approx(0.5)

    def test_what_was_not_measured_is_named(self):
        parts = {"a": 0.3, "original a": 0.6, "b": None, "original b": 0.1}
        value = measure("utility-retained", {"parts": parts})
        assert value.mean == pytest.approx(0.5)
        assert "without b" in value.note

    def test_robustness_is_that_of_the_worst_attack(self):
        parts = {"original": 0.65, "quantising": 0.25, "plea": 0.85}
        value = measure("robustness", {"parts": parts})
        assert value.mean == 0
        assert value.parts["quantising"] == 1
        assert value.parts["accuracy after plea"] == 0.85

    def test_robustness_needs_every_attack_it_names(self):
        value = measure("robustness", {"parts": {"original": 0.6, "plea": None}})
        assert value.mean is None
        assert "plea" in value.note
