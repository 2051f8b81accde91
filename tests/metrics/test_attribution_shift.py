"""Attribution shift: closed forms, models that erase against models that hide, what it refuses."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure, measured
from expunge.core.registry import metrics
from expunge.data.encode import collate
from expunge.engine.change import load_change
from expunge.engine.run import forget
from expunge.lm.arch import Slots
from expunge.lm.gather import Gathered, Models
from expunge.lm.load import load
from expunge.lm.margins import margins
from expunge.lm.representations import spots
from expunge.lm.scoring import packed_logp, padding_id
from expunge.lm.subject import Subject
from expunge.metrics import attribution_shift
from expunge.metrics.attribution_shift import attributed, shift
from expunge.requests.rows import Row
from expunge.testing.metrics import measure
from expunge.testing.micro import micro_world, misled, taught
from expunge.testing.tiny import tiny_model, tiny_tokenizer

FAMILIES = ("gpt2", "qwen3")
ROWS = (
    Row(id="anna", prompt="anna likes", completion=" blue", answer="blue"),
    Row(id="bela", prompt="bela drives", completion=" a red car", answer="red car"),
)
TOKENIZER = tiny_tokenizer([f"{row.prompt}{row.completion}" for row in ROWS], kind="word")


def a_subject(family, *, layers=2, seed=0, batch_size=32):
    """A model whose last block has one unit, the first, that writes nothing."""
    model = tiny_model(
        family, vocab=len(TOKENIZER), layers=layers, seed=seed, positions=32, dtype=torch.float64
    )
    subject = Subject(model, TOKENIZER, batch_size=batch_size)
    columns(subject, -1)[0] = 0.0
    return subject


def linear(family):
    """A block whose units add up to the log-odds of anna's word: no norm above, no rival words."""
    subject = a_subject(family, layers=1)
    slots = Slots(subject.model)
    norm = slots.final_norm
    name = next(name for name, child in slots._top.named_children() if child is norm)
    setattr(slots._top, name, nn.Identity())
    kept = torch.zeros_like(slots.head.weight)
    kept[subject.tokenizer.convert_tokens_to_ids(" blue")] = torch.linspace(-3.0, 3.0, 32)
    slots.head.weight = nn.Parameter(kept)  # the embedding may have been the same matrix
    return subject


def columns(subject, layer):
    """What each unit of a block writes, a view [units, d]."""
    module = Slots(subject.model).module(layer, "mlp_out")
    return module.weight.data if isinstance(module, Conv1D) else module.weight.data.T


def of_units(subject, row, **params):
    """Attributions of one row, one tensor [units] a block."""
    batch = collate([spots(subject, [row])[row.id].item], padding_id(TOKENIZER))
    found = attributed(subject.model, batch, metrics.params("attribution-shift", params))[0]
    return np.split(found, len(Slots(subject.model)))


def odds_of(subject, row):
    """Mean log-odds of a row's value."""
    spot = spots(subject, [row])[row.id]
    with torch.no_grad():
        logits = subject.model(input_ids=torch.tensor([spot.item.ids])).logits[0, spot.at]
    labels = torch.tensor([spot.item.ids[at + 1] for at in spot.at])
    return float(margins(logits, labels).mean())


def without_positive(subject, row):
    """A copy in which no unit that speaks for a row's answer writes anything: erasing."""
    twin = subject.copy()
    for layer, units in enumerate(of_units(subject, row)):
        columns(twin, layer)[torch.from_numpy(units > 0)] = 0.0
    return twin


def inhibited(subject, row, strength):
    """A copy in which the unit that wrote nothing speaks against the answer: hiding.

    So much that in a sum its attribution is ``-strength`` times all positive ones together.
    """
    twin = subject.copy()
    head, answer = Slots(subject.model).head.weight.data, spots(subject, [row])[row.id].item.ids[-1]
    written = columns(twin, -1)
    written[0] = head[answer] - head.mean(0)
    held = np.maximum(np.concatenate(of_units(subject, row)), 0).sum()
    written[0] *= -strength * held / of_units(twin, row)[-1][0]
    return twin


def scores(original, model, rows=ROWS[:1], **params):
    gathered = Gathered(Models(model=model, original=original), {"forget": rows})
    asked = Measure(metric="attribution-shift", params=params)
    return json.loads(json.dumps(gathered.scores(asked), allow_nan=False))


def value(original, model, rows=ROWS[:1], **params):
    found = scores(original, model, rows, **params)
    return measured("attribution-shift", found, params=params).value


class TestArithmetic:
    @pytest.mark.parametrize(
        ("before", "now", "expected"),
        [
            ([3.0, 1.0, -2.0], [3.0, 1.0, -2.0], (0.0, 0.0)),
            ([3.0, 1.0, -2.0], [0.0, 1.0, -2.0], (0.75, 0.0)),
            ([3.0, 1.0, -2.0], [3.0, 1.0, -4.0], (0.0, 0.5)),
            # 3 falls to nothing and goes on to -1; 1 rises, which makes good for nothing
            ([3.0, 1.0, -2.0], [-1.0, 9.0, -1.0], (0.75, 0.25)),
            # an inhibiting unit that is gone is neither
            ([3.0, 1.0, -2.0], [3.0, 1.0, 0.0], (0.0, 0.0)),
            ([0.0, 4.0, 0.0], [-8.0, 4.0, 0.0], (0.0, 2.0)),
        ],
    )
    def test_closed_forms(self, before, now, expected):
        assert shift(np.array(before), np.array(now)) == pytest.approx(expected)

    def test_where_nothing_spoke_for_the_answer_there_is_no_scale(self):
        assert shift(np.array([-1.0, 0.0]), np.array([2.0, -5.0])) is None

    def test_each_row_has_its_share_and_rows_weigh_alike(self):
        found = {"attribution_gone": {"a": 0.75, "b": 0.1}}
        found["attribution_against"] = {"a": 0.25, "b": 0.9}
        value = measure("attribution-shift", found)
        assert value.per_row == pytest.approx({"a": 0.75, "b": 0.1})
        assert value.mean == pytest.approx(0.425)
        assert value.parts == pytest.approx({"d_plus": 0.425, "d_minus": 0.575})
        assert value.note == ""

    def test_rows_that_did_not_move_have_no_share_and_are_said(self):
        found = {"attribution_gone": {"a": 0.5, "b": 0.0, "c": None}}
        found["attribution_against"] = {"a": 0.0, "b": 1e-9, "c": None}
        value = measure("attribution-shift", found)
        assert value.per_row == {"a": 1.0}
        assert value.parts == {"d_plus": 0.5, "d_minus": 0.0}
        assert "1 of 3 rows did not move" in value.note
        assert "1 of 3 rows have no positive attribution in the original" in value.note

    @pytest.mark.parametrize(
        ("gone", "against", "why"),
        [
            (0.0, 0.0, "nothing was forgotten"),
            (None, None, "no unit of the original speaks for"),
            (math.nan, 0.5, "are not a number"),
            (0.5, math.inf, "are not a number"),
        ],
    )
    def test_without_a_ratio_there_is_no_value_and_it_says_why(self, gone, against, why):
        value = measure(
            "attribution-shift", {"attribution_gone": [gone], "attribution_against": [against]}
        )
        assert value.mean is None
        assert value.note.startswith("not measurable")
        assert why in value.note


class TestReading:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_over_all_positions_it_is_weight_times_gradient_of_the_output_column(self, family):
        """A slow second implementation, on both rows' log-odds."""
        subject = a_subject(family)
        for row in ROWS:
            found = of_units(subject, row, path="gradient")
            spot = spots(subject, [row])[row.id]
            subject.model.zero_grad()
            logits = subject.model(input_ids=torch.tensor([spot.item.ids])).logits[0, spot.at]
            labels = torch.tensor([spot.item.ids[at + 1] for at in spot.at])
            margins(logits, labels).mean().backward()
            for layer, units in enumerate(found):
                weight = Slots(subject.model).module(layer, "mlp_out").weight
                products = (weight * weight.grad).sum(1 if family == "gpt2" else 0)
                np.testing.assert_allclose(units, products.detach().numpy(), rtol=1e-6, atol=1e-12)
                assert np.abs(units).max() > 0

    def test_it_can_be_of_the_probability_and_at_the_answer_alone(self):
        """The log-odds' gradient is that of the probability by p (1 - p)."""
        subject, row = a_subject("llama"), ROWS[0]
        batch = collate([spots(subject, [row])[row.id].item], padding_id(TOKENIZER))
        p = float(packed_logp(subject.model, batch).logp.detach().exp())
        odds, mean, product = (
            np.concatenate(of_units(subject, row, of=of, path="gradient"))
            for of in ("odds", "mean", "product")
        )
        np.testing.assert_allclose(mean, odds * p * (1 - p), rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(product, mean, rtol=1e-5, atol=1e-12)
        two = [of_units(subject, ROWS[1], of=of)[0] for of in ("mean", "product")]
        assert not np.allclose(*two, rtol=0.1, atol=0)
        alone = np.concatenate(of_units(subject, row, path="gradient", positions="answer"))
        assert not np.allclose(alone, odds, rtol=1e-3, atol=0)

    @pytest.mark.parametrize(("family", "loud"), [("gpt2", 20.0), ("llama", 60.0)])
    def test_along_the_path_units_add_up_to_what_the_answer_loses_without_them(self, family, loud):
        subject, row = a_subject(family), ROWS[1]
        for layer in range(2):
            columns(subject, layer).mul_(loud)
        silent = subject.copy()
        for layer in range(2):
            columns(silent, layer).zero_()
        lost = odds_of(subject, row) - odds_of(silent, row)
        few, many, plain = (
            abs(float(np.concatenate(of_units(subject, row, **how)).sum()) - lost)
            for how in ({"steps": 8}, {"steps": 64}, {"path": "gradient"})
        )
        assert many < 0.2 * abs(lost)
        assert many < few / 3
        assert plain > 0.3 * abs(lost)

    @pytest.mark.parametrize("size", [1, 2])
    def test_the_cut_into_batches_changes_nothing(self, size):
        original, model = (a_subject("llama", seed=seed, batch_size=size) for seed in (0, 1))
        found = scores(original, model, ROWS)
        for row in ROWS:
            pair = (np.concatenate(of_units(each, row)) for each in (original, model))
            own = {name: found[name][row.id] for name in attribution_shift.NEEDS}
            assert tuple(own.values()) == pytest.approx(shift(*pair), rel=1e-9)

    def test_it_is_of_the_fact_alone_or_of_all_that_is_answered(self):
        original, model = (a_subject("llama", seed=seed) for seed in (0, 1))
        fact, answer = (
            scores(original, model, ROWS[1:], path="gradient", tokens=tokens)["attribution_gone"]
            for tokens in ("value", "answer")
        )
        assert fact != pytest.approx(answer, rel=1e-3)

    def test_an_adapter_counts_as_if_it_were_folded_in(self):
        original = a_subject("llama")
        config = LoraConfig(r=2, target_modules=["down_proj", "up_proj"], init_lora_weights=False)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            adapted = get_peft_model(original.copy().model, config)
        apart = scores(original, Subject(adapted, TOKENIZER), ROWS)
        folded = scores(original, Subject(adapted.merge_and_unload(), TOKENIZER), ROWS)
        for name in attribution_shift.NEEDS:
            assert apart[name] == pytest.approx(folded[name], rel=1e-4)
        assert apart["attribution_gone"]["anna"] > 0

    def test_the_models_are_left_as_they_were(self):
        original, model = a_subject("llama"), a_subject("llama", seed=1)
        model.model.train()
        scores(original, model, ROWS)
        assert model.model.training
        for subject in (original, model):
            assert all(weight.grad is None for weight in subject.model.parameters())
            assert not any(module._forward_pre_hooks for module in subject.model.modules())


class TestErasingAndHiding:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_where_units_add_up_both_are_exact(self, family):
        original, (row, _) = linear(family), ROWS
        erasing = value(original, without_positive(original, row))
        assert (erasing.mean, erasing.parts["d_plus"]) == (1.0, 1.0)
        assert erasing.parts["d_minus"] == pytest.approx(0.0, abs=1e-12)
        for strength in (0.5, 40.0):
            hiding = value(original, inhibited(original, row, strength))
            assert hiding.parts["d_minus"] == pytest.approx(strength)
            assert hiding.parts["d_plus"] == pytest.approx(0.0, abs=1e-12)
            assert hiding.mean == pytest.approx(0.0, abs=1e-12)

    def test_of_the_probability_a_strong_inhibition_looks_like_erasing(self):
        """Why the paper's probability is not the default: all of it falls with p (1 - p)."""
        original, (row, _) = linear("llama"), ROWS
        hidden = inhibited(original, row, 2000.0)
        assert value(original, hidden, of="mean").mean > 0.6
        assert value(original, hidden).mean == pytest.approx(0.0, abs=1e-12)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_it_tells_them_apart_in_two_whole_blocks(self, family):
        original, (row, _) = a_subject(family), ROWS
        erasing = value(original, without_positive(original, row))
        hiding = value(original, inhibited(original, row, 0.5))
        assert erasing.mean > 0.9
        assert erasing.parts["d_plus"] > 0.99
        assert hiding.mean < 0.2
        assert hiding.parts["d_plus"] < 0.1

    @pytest.mark.parametrize("family", FAMILIES)
    def test_identical_models_have_no_value(self, family):
        original = a_subject(family)
        found = value(original, original.copy(), ROWS)
        assert found.mean is None
        assert "nothing was forgotten" in found.note


class Taught:
    """A model that learned people by heart, and copies of it that were made to forget three."""

    def __init__(self):
        self.world = micro_world(people=5)
        self.told, self.kept = self.world.forget[:9], (*self.world.forget[9:], *self.world.retain)
        known = [*self.told, *self.kept]
        self.original = taught(self.world, known, epochs=30, hidden=48, layers=2)

    def emptied(self):
        """A copy without the units that speak for the rows on average."""
        places = spots(self.original, self.told)
        batch = collate([spot.item for spot in places.values()], padding_id(self.world.tokenizer))
        params = metrics.params("attribution-shift", {})
        mean = attributed(self.original.model, batch, params).mean(0)
        twin = self.original.copy()
        for layer, units in enumerate(np.split(mean, 2)):
            columns(twin, layer)[torch.from_numpy(units > 0)] = 0.0
        return twin

    def misled(self):
        """A copy whose last block says other people's values: below it the rows are still known."""
        return misled(self.original, self.told, self.kept)

    def forgotten(self, out, method, **params):
        """What a method leaves of it."""
        self.original.model.save_pretrained(out / "original")
        self.original.tokenizer.save_pretrained(out / "original")
        params = {"batch_size": 16, "warmup": 0, "max_steps": 40, **params}
        forget(
            out / "original", self.told, self.kept,
            method=method, params=params, stop_at="none", out=out / method, seed=0,
        )  # fmt: skip
        loaded = load(load_change(out / method).folder)
        return Subject(loaded.model, loaded.tokenizer)

    def value(self, model, **params):
        return value(self.original, model, self.told, **params)


@pytest.fixture(scope="module")
def by_heart():
    return Taught()


class TestModelsThatWereTaught:
    def test_a_last_block_that_says_something_else_hides_and_emptied_units_do_not(self, by_heart):
        """Of the paper's form the two are alike, which is why it is not the default."""
        models = by_heart.emptied(), by_heart.misled()
        erasing, hiding = (by_heart.value(model) for model in models)
        assert erasing.mean > 0.75
        assert hiding.mean < 0.2
        assert erasing.interval[0] > hiding.interval[1]
        paper = [by_heart.value(model, path="gradient", of="mean").mean for model in models]
        assert paper[0] - paper[1] < (erasing.mean - hiding.mean) / 3

    @pytest.mark.slow
    @pytest.mark.parametrize(("method", "lr"), [("npo", 1e-3), ("klue", 1e-2)])
    def test_npo_and_klue_mostly_raise_what_speaks_against(self, by_heart, tmp_path, method, lr):
        found = by_heart.value(by_heart.forgotten(tmp_path, method, lr=lr))
        assert found.mean < 0.4 < by_heart.value(by_heart.emptied()).mean
        assert found.parts["d_minus"] > 1.0 > found.parts["d_plus"]


class TestRefusals:
    def test_without_the_original_nothing_is_read_and_it_says_so(self):
        found = value(None, a_subject("llama"))
        assert found.mean is None
        assert "it takes the original" in found.note

    def test_a_row_that_does_not_hold_its_value_is_left_out(self):
        original, model = a_subject("llama"), a_subject("llama", seed=1)
        odd = replace(ROWS[0], id="odd", answer="green")
        found = value(original, model, (*ROWS, odd))
        assert set(found.per_row) == {"anna", "bela"}
        assert "1 of 3 rows" in found.note

    @pytest.mark.parametrize("wide", [False, True])
    def test_models_of_another_shape_are_refused(self, wide):
        """Fewer blocks, or as many of another number of units."""
        other = a_subject("llama", layers=2 if wide else 1)
        if wide:
            config = type(other.model.config)(
                **{**other.model.config.to_dict(), "intermediate_size": 48}
            )
            other = Subject(type(other.model)(config).double(), TOKENIZER)
        with pytest.raises(ExpungeError, match="E-USE-006"):
            scores(a_subject("llama"), other)
