"""The UWC score: the mixture, the search, both ways to measure, and what cannot be mixed."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure
from expunge.lm.digest import model_digest
from expunge.lm.gather import Gathered, Models
from expunge.lm.int4 import hold_in_int4
from expunge.lm.mixing import Mixture
from expunge.lm.strength import forced_strength, written_strength
from expunge.lm.subject import Subject
from expunge.metrics.uwc_score import Params, smallest_share
from expunge.requests.rows import Row
from expunge.testing.metrics import check_metric, measure
from expunge.testing.micro import micro_world, taught
from expunge.testing.tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer(["one two three four five six"], kind="word")


def subject(seed=0, family="llama", **options) -> Subject:
    model = tiny_model(family, vocab=len(TOKENIZER), seed=seed, **options)
    return Subject(model, TOKENIZER)


def weights(model):
    return {name: weight.clone() for name, weight in model.named_parameters()}


class Talker:
    """Says a fixed text behind each beginning of an answer; scores nothing."""

    def __init__(self, says):
        self.says, self.encoder = says, Subject(subject().model, TOKENIZER).encoder

    def ask(self, turns, *, new_tokens, openings):
        return [[self.says(opening)] for opening in openings]


class TestMixture:
    def test_the_ends_are_the_two_models_bit_for_bit(self):
        original, unlearned = subject(0), subject(1)
        mixture = Mixture(original, unlearned)
        assert model_digest(mixture.at(1.0).model) == model_digest(original.model)
        assert model_digest(mixture.at(0.0).model) == model_digest(unlearned.model)

    @pytest.mark.parametrize("family", ["llama_tied", "gpt2"])
    def test_between_them_every_weight_is_on_the_line(self, family):
        original, unlearned = subject(0, family), subject(1, family)
        mixed = weights(Mixture(original, unlearned).at(0.3).model)
        ours, theirs = weights(unlearned.model), weights(original.model)
        for name, weight in mixed.items():
            torch.testing.assert_close(weight, 0.3 * theirs[name] + 0.7 * ours[name])

    def test_neither_model_is_touched(self):
        original, unlearned = subject(0), subject(1)
        before = [model_digest(each.model) for each in (original, unlearned)]
        Mixture(original, unlearned).at(0.5)
        assert [model_digest(each.model) for each in (original, unlearned)] == before

    def test_buffers_are_those_of_the_unlearned_model(self):
        original, unlearned = subject(0), subject(1)
        for each, value in ((original, 1.0), (unlearned, 2.0)):
            each.model.register_buffer("mark", torch.tensor(value))
        for share in (0.0, 0.5, 1.0):
            assert Mixture(original, unlearned).at(share).model.mark == 2.0

    def test_sums_are_formed_in_float32(self):
        original, unlearned = (subject(seed, dtype=torch.bfloat16) for seed in (0, 1))
        mixed = weights(Mixture(original, unlearned).at(0.3).model)
        ours, theirs = weights(unlearned.model), weights(original.model)
        for name, weight in mixed.items():
            exact = 0.3 * theirs[name].float() + 0.7 * ours[name].float()
            assert torch.equal(weight, exact.to(torch.bfloat16))

    def test_an_adapter_is_merged_on_a_copy(self):
        original, base = subject(0), subject(0)
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        adapted = get_peft_model(base.model, config)
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    weight.fill_(0.5)
        unlearned = Subject(adapted, TOKENIZER)
        before = weights(adapted)
        mixture = Mixture(original, unlearned)
        row = Row(id="a", prompt="one two", completion=" three four")
        (ours,) = unlearned.score([row.turn])
        (mixed,) = mixture.at(0.0).score([row.turn])
        assert mixed.logp == pytest.approx(ours.logp, abs=1e-5)
        assert model_digest(mixture.at(1.0).model) == model_digest(original.model)
        assert all(torch.equal(weight, before[name]) for name, weight in weights(adapted).items())

    def test_what_does_not_mix_is_refused(self):
        def broken(change):
            other = subject(1)
            change(other)
            with pytest.raises(ExpungeError) as raised:
                Mixture(subject(0), other)
            assert raised.value.code == "E-USE-006"
            return raised.value.found

        assert "quantised" in broken(lambda other: hold_in_int4(other.model))
        assert "differ" in broken(lambda other: other.model.to(torch.bfloat16))
        assert "differ" in broken(lambda other: setattr(other, "model", subject(0, layers=3).model))
        assert "differ" in broken(lambda other: setattr(other, "model", subject(0, "qwen2").model))

    def test_what_stands_in_front_of_the_model_does_not_count(self):
        guarded = subject(1)
        guarded.gate = object()
        assert Mixture(subject(0), guarded).at(0.0).gate is None


class TestSearch:
    def test_bisection_finds_the_share_of_a_line_within_a_thousandth(self):
        found = smallest_share(lambda share: 0.5 + 0.5 * share, Params(tau=0.87))
        assert 0.74 <= found <= 0.741

    def test_nothing_is_given_back_where_nothing_was_lost(self):
        assert smallest_share(lambda share: 1.0, Params()) == 0.0
        assert smallest_share(lambda share: 0.96 + 0.04 * share, Params()) == 0.0

    def test_everything_is_given_back_where_less_does_not_do(self):
        assert smallest_share(lambda share: float(share == 1.0), Params()) == pytest.approx(
            1.0, abs=1e-3
        )

    def test_without_monotony_the_first_point_of_the_grid_that_does_is_taken(self):
        asked = []

        def retention(share):
            asked.append(share)
            return 1.0 if share == 1.0 or 0.3 <= share < 0.45 else 0.5

        assert smallest_share(retention, Params()) == pytest.approx(0.3)
        assert len(asked) == 21, "no bisection"

    def test_the_bar_is_a_share_of_the_original(self):
        assert smallest_share(lambda share: 0.4 * share, Params(tau=0.5)) == pytest.approx(0.5)


class TestStrength:
    ROW = Row(id="a", prompt="one", completion=" two three four five")

    @pytest.mark.parametrize(("works_from", "expected"), [(0, 1.0), (1, 0.75), (3, 0.25), (4, 0.0)])
    def test_words_that_are_needed_are_counted(self, works_from, expected):
        words = ["two", "three", "four", "five"]

        def says(opening):
            given = len(opening.split())
            return " " + " ".join(words[given:]) if given >= works_from else " six"

        assert written_strength(Talker(says), [self.ROW]) == {"a": expected}

    def test_the_rest_must_be_said_exactly_and_may_be_gone_beyond(self):
        assert written_strength(Talker(lambda _: " two three four six"), [self.ROW])["a"] == 0.0
        longer = Talker(lambda opening: " two three four five six" if not opening.strip() else "")
        assert written_strength(longer, [self.ROW])["a"] == 1.0

    def test_both_ways_agree_on_a_model_whose_words_are_tokens(self, trained):
        forced = forced_strength(trained.half, trained.rows)
        assert written_strength(trained.half, trained.rows) == pytest.approx(forced)
        assert len(set(forced.values())) > 2

    def test_a_wrong_last_token_is_worth_nothing(self):
        model = subject()
        row = Row(id="a", prompt="one", completion=" two three")
        (scored,) = model.score([row.turn])
        assert not scored.hit[1]
        assert forced_strength(model, [row]) == {"a": 0.0}


@pytest.fixture(scope="module")
def trained():
    """A model that knows two sets of rows, one that half knows them, and one that lost them."""
    world = micro_world(people=4)
    rows = [
        replace(row, completion=row.completion.rstrip("."), paraphrases=())
        for row in (*world.forget[:8], *world.retain[:8])
    ]
    original = taught(world, rows, epochs=60, layers=2)
    half = taught(world, rows, epochs=12, layers=2)
    unlearned = original.copy()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in unlearned.model.parameters():
            weight.add_(weight.std() * torch.randn(weight.shape, generator=draw))
    return SimpleNamespace(rows=rows, original=original, half=half, unlearned=unlearned)


class TestScore:
    def read(self, trained, model, **params):
        sets = {"forget": trained.rows[:8], "retain": trained.rows[8:]}
        gathered = Gathered(Models(model=model, original=trained.original), sets)
        return gathered.scores(Measure(metric="uwc-score", params=params))

    def test_a_broken_model_scores_as_what_it_takes_to_mend_it(self, trained):
        value = measure("uwc-score", self.read(trained, trained.unlearned))
        assert value.parts["retention"] >= 0.95
        assert 0.0 < value.parts["share"] <= 1.0
        assert value.parts["uncalibrated"] < 0.6 < value.parts["original"]
        assert value.mean > value.parts["uncalibrated"], "what came back with the retain rows"

    def test_an_untouched_model_needs_nothing_and_forgot_nothing(self, trained):
        value = measure("uwc-score", self.read(trained, trained.original.copy()))
        assert value.parts["share"] == 0.0
        assert value.mean == value.parts["original"] == value.parts["uncalibrated"]

    def test_by_generation(self, trained):
        scores = self.read(trained, trained.unlearned, es_mode="generate", grid=4)
        value = measure("uwc-score", scores, es_mode="generate")
        assert value.parts["retention"] >= 0.95
        assert value.parts["uncalibrated"] < value.parts["original"]

    def test_without_original_or_retain_rows_it_says_so(self, trained):
        sets = {"forget": trained.rows[:8]}
        both = Models(model=trained.unlearned, original=trained.original)
        for models, given in (
            (both, sets),
            (Models(model=trained.unlearned), sets | {"retain": []}),
        ):
            scores = Gathered(models, given).scores(Measure(metric="uwc-score"))
            value = measure("uwc-score", scores)
            assert value.mean is None
            assert value.note.startswith("not measurable")

    def test_an_original_that_knows_no_retain_row_cannot_set_the_bar(self):
        scores = {
            "mixed_strength": [0.1],
            "mixing_share": [0.0],
            "retain.mixed_strength": [0.0],
            "original:retain.strength": [0.0],
        }
        value = measure("uwc-score", scores)
        assert value.mean is None
        assert "original" in value.note

    def test_it_conforms(self):
        check_metric("uwc-score")
