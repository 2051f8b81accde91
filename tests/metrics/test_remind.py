"""REMIND: a linear loss, neighbours, like pairs, three states, and landscapes of real models."""

import math

import numpy as np
import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure
from expunge.core.rng import generator
from expunge.data.encode import IGNORED, Encoded
from expunge.lm.gather import Gathered, Models
from expunge.lm.landscape import landscapes, losses_of
from expunge.lm.neighbours import neighbours, neighbours_of
from expunge.lm.subject import Subject
from expunge.metrics.remind import Params, sharpness
from expunge.numbers.classify import multiclass_auc
from expunge.requests.rows import Row
from expunge.testing.metrics import check_metric, measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer

LINE = torch.tensor([[1.0, 0.01 * t] for t in range(40)], dtype=torch.float64)
"""Tokens on a line: the nearest of t is t + 1, and t - 1 lies exactly opposite."""

GRID = {"shares": (0.05, 0.5), "ranks": (1, 2), "pairs": 10, "seed": 0}


def text(*ids: int, prompt: int = 0) -> Encoded:
    labels = [IGNORED] * prompt + list(ids[prompt:])
    spans = [(at, at + 1) for at in range(len(ids) - prompt)]
    return Encoded(list(ids), labels, spans, -1)


def linear(gradient: float):
    """L = g . e(x), of the mean embedding."""

    def losses(items):
        return [float(gradient * LINE[item.ids].mean(0)[1]) for item in items]

    return losses


def around(slope, loss=1.0, tokens=10):
    return {"loss": loss, "tokens": tokens, "cells": {"0.05/1": {"slope": slope}}}


class TestNeighbours:
    def test_the_nearest_by_angle_and_the_one_opposite(self):
        table = neighbours(LINE, [10, 20], (1, 2, 3), ())
        assert table.nearest[20, 1] == 21
        assert table.opposite[20, 1] == 19
        assert table.nearest[20, 2] == 19
        assert table.opposite[20, 2] == 21
        assert (table.nearest[20, 3], table.opposite[20, 3]) == (22, 18)

    def test_length_does_not_matter_but_for_the_opposite(self):
        points = torch.tensor([[1.0, 0.0], [9.0, 1.0], [1.1, 0.5], [-1.0, 0.0]])
        table = neighbours(points, [0], (1, 2, 3), ())
        assert [table.nearest[0, rank] for rank in (1, 2, 3)] == [1, 2, 3]

    def test_banned_tokens_neither_give_way_nor_take_a_place(self):
        table = neighbours(LINE, [20, 21], (1, 2), (21,))
        assert (21, 1) not in table.nearest
        assert 21 not in set(table.nearest.values()) | set(table.opposite.values())

    def test_no_token_is_its_own_neighbour_nor_opposite(self):
        embeddings = torch.randn(30, 16, generator=torch.Generator().manual_seed(0))
        table = neighbours(embeddings, range(30), (1, 5), ())
        for found in (table.nearest, table.opposite):
            assert all(token != new for (token, _), new in found.items())

    def test_many_tokens_are_looked_up_as_one_by_one(self):
        embeddings = torch.randn(600, 4, generator=torch.Generator().manual_seed(0))
        table = neighbours(embeddings, range(600), (1,), ())
        for token in (0, 255, 256, 599):
            assert (
                table.nearest[token, 1]
                == neighbours(embeddings, [token], (1,), ()).nearest[token, 1]
            )

    def test_a_vocabulary_too_small_for_the_rank_is_refused(self):
        with pytest.raises(ExpungeError) as raised:
            neighbours(LINE[:4], [1], (1, 5), ())
        assert raised.value.code == "E-USE-003"

    def test_only_what_is_supervised_gives_way_and_at_least_one_token_does(self):
        item = text(1, 20, 21, 22, 23, prompt=2)
        table = neighbours(LINE, [21, 22, 23], (1,), ())
        pairs = table.pairs(item, share=0.0, rank=1, count=50, rng=generator(0))
        assert len(pairs) == 50
        for there, back in pairs:
            assert there.item.ids[:2] == [1, 20]
            (moved,) = [at for at in range(5) if there.item.ids[at] != item.ids[at]]
            assert there.item.ids[moved] - item.ids[moved] == 1
            assert back.item.ids[moved] - item.ids[moved] == -1
            assert there.item.labels == [IGNORED] * 2 + there.item.ids[2:]
            assert there.distance == pytest.approx(0.01 / 3, rel=1e-5)
        assert len({tuple(there.item.ids) for there, _ in pairs}) == 3

    def test_the_share_is_that_of_the_tokens(self):
        item = text(*range(10, 30))
        table = neighbours(LINE, range(10, 30), (1,), ())
        pairs = table.pairs(item, share=0.2, rank=1, count=400, rng=generator(0))
        moved = np.mean([np.not_equal(there.item.ids, item.ids).mean() for there, _ in pairs])
        assert moved == pytest.approx(0.2, abs=0.02)

    def test_special_tokens_and_empty_rows_of_the_embedding_are_left_alone(self):
        tokenizer = tiny_tokenizer(["one two three four five six seven"], kind="word")
        subject = Subject(tiny_model("llama", vocab=len(tokenizer) + 9), tokenizer)
        item = subject.encoder.encode(Row(id="a", text="one two three four").training)
        assert tokenizer.eos_token_id in item.labels
        table = neighbours_of(subject, [item], (1, 5))
        kept = {token for token, _ in table.nearest}
        taken = {*table.nearest.values(), *table.opposite.values()}
        assert not (kept | taken) & set(tokenizer.all_special_ids)
        assert max(taken) < len(tokenizer)


class TestLandscape:
    def test_a_linear_loss_has_one_slope_and_no_curvature(self):
        items = {"a": text(*range(8, 20)), "b": text(20, 21, 25, 30)}
        tokens = [token for item in items.values() for token in item.ids]
        found = landscapes(linear(3.0), items, neighbours(LINE, tokens, (1, 2), ()), **GRID)
        for of_row in found.values():
            assert set(of_row["cells"]) == {"0.05/1", "0.05/2", "0.5/1", "0.5/2"}
            for cell in of_row["cells"].values():
                assert cell["slope"] == pytest.approx(3.0, rel=1e-5)
                assert cell["curvature"] == pytest.approx(0.0, abs=1e-12)

    def test_a_bowl_is_curved_and_its_features_are_those_of_its_losses(self):
        item, table = text(20), neighbours(LINE, [20], (1,), ())

        def bowl(items):
            return [(100 * float(LINE[each.ids].mean(0)[1]) - 20) ** 2 for each in items]

        found = landscapes(bowl, {"a": item}, table, shares=(0.5,), ranks=(1,), pairs=2, seed=0)
        cell = found["a"]["cells"]["0.5/1"]
        assert cell["mean"] == pytest.approx(1.0)
        assert cell["curvature"] == pytest.approx(2.0)
        assert cell["change"] == pytest.approx(1.0)
        assert cell["slope"] == pytest.approx(100.0, rel=1e-4)
        assert (cell["std"], cell["range"]) == pytest.approx((0.0, 0.0), abs=1e-9)
        assert (found["a"]["loss"], found["a"]["tokens"]) == (pytest.approx(0.0, abs=1e-20), 1)

    def test_a_row_of_special_tokens_alone_has_no_landscape(self):
        items = {"a": text(3), "b": text(20)}
        found = landscapes(linear(1.0), items, neighbours(LINE, [3, 20], (1, 2), (3,)), **GRID)
        assert set(found) == {"b"}

    def test_a_row_varies_alike_among_other_rows(self):
        table = neighbours(LINE, range(40), (1, 2), ())
        items = {"a": text(*range(5, 15)), "b": text(*range(20, 30))}
        together = landscapes(linear(2.0), items, table, **GRID)
        alone = landscapes(linear(2.0), {"b": items["b"]}, table, **GRID)
        assert together["b"] == alone["b"]

    def test_losses_are_those_of_the_model_whatever_stands_beside(self):
        subject, rows = spoken()
        items = [subject.encoder.encode(row.training) for row in rows]
        expected = [scored.nll for scored in subject.score([row.training for row in rows])]
        assert losses_of(subject)([*items, items[0]]) == pytest.approx(
            [*expected, expected[0]], abs=1e-5
        )


class TestScore:
    def test_flat_rows_are_found(self):
        scores = {"landscape": [around(1.0)] * 3, "holdout.landscape": [around(2.0)] * 4}
        assert measure("remind", scores).mean == 1.0
        turned = {"landscape": [around(2.0)] * 3, "holdout.landscape": [around(1.0)] * 4}
        assert measure("remind", turned).mean == 0.0

    def test_rows_are_not_told_from_themselves(self):
        rows = [around(slope, tokens=tokens) for slope in (1.0, 2.0, 3.0) for tokens in (5, 9)]
        value = measure("remind", {"landscape": rows, "holdout.landscape": rows})
        assert value.mean == value.parts["auc"] == 0.5

    def test_only_rows_of_like_loss_and_length_are_compared(self):
        forget = [around(1.0, loss=0.1), around(5.0, loss=3.0)]
        holdout = [around(2.0, loss=3.2), around(2.0, loss=3.2, tokens=40)]
        value = measure("remind", {"landscape": forget, "holdout.landscape": holdout})
        assert value.mean == 0.0, "the flat row is no like of any"
        assert value.parts["auc"] == 0.5
        assert value.parts["loss_auc"] == 1.0
        assert value.parts["like_pairs"] == 0.25

    def test_losses_that_do_not_overlap_are_said_to_be_the_finding(self):
        scores = {"landscape": [around(1.0)], "holdout.landscape": [around(2.0, loss=5.0)]}
        value = measure("remind", scores)
        assert value.mean is None
        assert value.note.endswith("like length and loss (AUC of the loss 1)")
        assert measure("remind", scores, like_loss=4.0).mean == 1.0

    def test_sharpness_weighs_cells_alike_whatever_their_scale(self):
        cells = {"a": {"slope": 1e-3}, "b": {"slope": 1e3}}
        assert sharpness({"cells": cells}) == pytest.approx(0.0, abs=1e-12)
        assert math.isfinite(sharpness({"cells": {"a": {"slope": 0.0}}}))

    def test_three_states_are_told_apart_where_retain_rows_are_given(self):
        draw = np.random.default_rng(0)

        def rows(level):
            return [around(float(draw.lognormal(level, 0.2))) for _ in range(20)]

        scores = {"landscape": rows(0.0), "holdout.landscape": rows(2.0)}
        assert "three_states" not in measure("remind", scores).parts
        apart = measure("remind", scores | {"retain.landscape": rows(4.0)})
        assert apart.parts["three_states"] > 0.8
        alike = {"landscape": rows(0.0), "holdout.landscape": rows(0.0)}
        guess = measure("remind", alike | {"retain.landscape": rows(0.0)})
        assert guess.parts["three_states"] == pytest.approx(0.5, abs=0.2)

    def test_it_conforms(self):
        check_metric("remind")


def test_the_regression_is_judged_on_rows_it_did_not_see():
    draw = np.random.default_rng(0)
    noise, states = draw.normal(size=(60, 80)), [at % 3 for at in range(60)]
    assert multiclass_auc(noise, states) < 0.7, "eighty features of noise fit sixty rows exactly"
    means = np.eye(3)[states] @ draw.normal(size=(3, 80))
    assert multiclass_auc(noise + 3 * means, states) == pytest.approx(1.0, abs=0.01)
    assert multiclass_auc(noise[:12], states[:12]) is None


def spoken():
    texts = [
        "the mill stood by the river for a hundred years",
        "nobody knew who had built it there",
    ]
    tokenizer = tiny_tokenizer(texts, vocab=300)
    model = tiny_model("llama", vocab=len(tokenizer), seed=1)
    rows = [
        Row(id="a", text=texts[0]),
        Row(id="b", prompt=texts[0], completion=f" {texts[1]}"),
        Row(id="c", text=texts[1]),
    ]
    return Subject(model, tokenizer), rows


def read(models, rows, **params):
    sets = {"forget": rows, "holdout": rows, "retain": rows}
    settings = Measure(metric="remind", params={"shares": (0.2,), "ranks": (1, 3), **params})
    return Gathered(models, sets).scores(settings)


def test_equal_models_have_equal_landscapes_and_rows_do_not_tell_from_themselves():
    subject, rows = spoken()
    scores = read(Models(model=subject), rows)
    assert scores == read(Models(model=subject.copy()), rows)
    assert scores["landscape"] == scores["holdout.landscape"] == scores["retain.landscape"]
    assert set(scores["landscape"]["a"]["cells"]) == {"0.2/1", "0.2/3"}
    assert measure("remind", scores, like_loss=100.0).mean == 0.5


def test_the_neighbours_do_not_depend_on_the_model_that_is_looked_at():
    subject, rows = spoken()
    moved = subject.copy()
    with torch.no_grad():
        embedding = moved.model.get_input_embeddings().weight
        embedding.copy_(embedding.flip(0))
    flipped = read(Models(model=moved), rows)
    assert flipped != read(Models(model=moved, original=subject), rows)
    by_original = read(Models(model=subject, original=subject), rows)
    by_base = read(Models(model=subject, base=subject, original=moved), rows)
    assert by_original == by_base


def test_without_hold_out_rows_it_says_so():
    subject, rows = spoken()
    gathered = Gathered(Models(model=subject), {"forget": rows})
    value = measure("remind", gathered.scores(Measure(metric="remind")))
    assert value.mean is None
    assert value.note == "not measurable: no forget row has a landscape"
    assert Params().pairs * 2 == 20


def test_a_hold_out_loss_that_is_no_number_is_not_counted_as_flat():
    def found(slope):
        return {"loss": 1.0, "tokens": 8, "cells": {"0.1/1": {"slope": slope}}}

    scores = {"landscape": {"a": found(1.0)}, "holdout.landscape": {"b": found(2.0)}}
    assert measure("remind", scores).mean == 1.0
    scores["holdout.landscape"]["c"] = found(float("nan"))
    value = measure("remind", scores)
    assert value.mean is None
    assert "not a number (c)" in value.note
