"""States at the places that predict a fact: where they are, and what they do elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.lm.arch import Slots
from expunge.lm.gather import Models
from expunge.lm.representations import (
    activations,
    clouds,
    lens_logp,
    patch_drops,
    question_states,
    shared_spots,
    spots,
)
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.micro import micro_world
from expunge.testing.tiny import FAMILIES, tiny_model, tiny_tokenizer

WORLD = micro_world(people=4)
ROWS = WORLD.forget


def subject(family="llama", seed=0, *, batch_size=32, layers=3, hidden=32):
    """A model with weights large enough that mistakes show."""
    model = tiny_model(
        family, vocab=len(WORLD.tokenizer), seed=seed, layers=layers, hidden=hidden, positions=128
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(4)
    return Subject(model, WORLD.tokenizer, batch_size=batch_size)


def outputs(model, spot):
    """One row through the model, by its own means."""
    ids = torch.tensor([spot.item.ids])
    with torch.no_grad():
        return model(input_ids=ids, output_hidden_states=True)


class TestSpots:
    def test_they_are_one_before_each_token_of_the_value(self):
        found = spots(subject(), ROWS)
        for row in ROWS:
            spot = found[row.id]
            said = WORLD.tokenizer.decode([spot.item.ids[at + 1] for at in spot.at])
            assert said.strip() == row.answer
            assert len(spot.item.ids) == spot.at[-1] + 2

    def test_the_whole_answer_where_asked_or_where_no_value_is_marked(self):
        plain = replace(ROWS[0], answer=None)
        for rows, tokens in (([plain], "value"), ([ROWS[0]], "answer")):
            spot = spots(subject(), rows, tokens)[ROWS[0].id]
            said = WORLD.tokenizer.decode([spot.item.ids[at + 1] for at in spot.at])
            assert said == ROWS[0].completion
            assert WORLD.tokenizer.eos_token_id not in spot.item.ids

    def test_a_row_that_does_not_hold_its_value_is_left_out(self):
        rows = [ROWS[0], replace(ROWS[1], answer="something else")]
        assert list(spots(subject(), rows)) == [ROWS[0].id]

    def test_an_alias_stands_for_the_value(self):
        row = replace(ROWS[0], answer="something else", aliases=(ROWS[0].answer,))
        assert spots(subject(), [row])[row.id].at == spots(subject(), ROWS)[row.id].at

    def test_models_that_see_other_tokens_are_refused(self):
        model = tiny_model("llama", vocab=320, layers=3)
        other = Subject(model, tiny_tokenizer([row.prompt for row in ROWS], vocab=320))
        with pytest.raises(ExpungeError, match="E-MODEL-011"):
            shared_spots(subject(), other, ROWS, "value")

    @pytest.mark.parametrize("shape", [{"layers": 2}, {"hidden": 64}])
    def test_models_of_other_shapes_are_refused(self, shape):
        with pytest.raises(ExpungeError, match="E-USE-006"):
            shared_spots(subject(), subject(**shape), ROWS, "value")


class TestActivations:
    @pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
    def test_they_are_the_outputs_of_the_blocks_before_the_final_norm(self, family):
        of = subject(family)
        places = spots(of, ROWS)
        found = activations(of, places)
        for row, spot in list(places.items())[:3]:
            hidden = outputs(of.model, spot).hidden_states
            for layer in range(2):
                expected = hidden[layer + 1][0, spot.at]
                np.testing.assert_allclose(found[layer][row], expected, atol=1e-4)
            last = torch.tensor(found[2][row], dtype=torch.float32)
            with torch.no_grad():
                normed = Slots(of.model).final_norm(last)
            np.testing.assert_allclose(normed, hidden[3][0, spot.at], atol=1e-4)
            assert float((last - hidden[3][0, spot.at]).abs().max()) > 1e-2

    def test_the_cut_into_batches_and_padding_change_nothing(self):
        one, many = (activations(subject(batch_size=b), spots(subject(), ROWS)) for b in (1, 32))
        for layer, table in one.items():
            assert list(table) == [row.id for row in ROWS]
            for row, states in table.items():
                np.testing.assert_allclose(states, many[layer][row], atol=1e-5)

    def test_clouds_hold_the_tokens_of_all_rows_for_each_model_given(self):
        found = clouds(Models(model=subject(), original=subject(seed=1)), ROWS, "value")
        assert list(found) == ["model", "original"]
        tokens = sum(len(spot.at) for spot in spots(subject(), ROWS).values())
        assert {name: of.shape for name, of in found["model"].items()} == {
            f"layer-{layer}": (tokens, 32) for layer in range(3)
        }
        assert (
            clouds(Models(model=subject()), [replace(ROWS[0], answer="x")], "value")["model"] == {}
        )

    def test_question_states_end_before_the_answer_begins(self):
        of = subject()
        changed = [replace(row, completion=" Nothing at all.") for row in ROWS]
        for layer in (0, -1):
            before, after = question_states(of, ROWS, layer), question_states(of, changed, layer)
            for row in ROWS:
                np.testing.assert_allclose(before[row.id], after[row.id], atol=1e-5)
        with pytest.raises(ExpungeError, match="E-USE-003"):
            question_states(of, ROWS, 3)

    def test_the_model_keeps_its_mode(self):
        of = subject()
        of.model.train()
        activations(of, spots(of, ROWS))
        assert of.model.training


class TestLens:
    def test_the_last_block_read_by_its_own_model_is_what_the_model_says(self):
        of = subject("gemma2")
        places = spots(of, ROWS)
        for row, values in lens_logp(of, of, places).items():
            spot = places[row]
            logp = outputs(of.model, spot).logits[0].log_softmax(-1)
            target = [spot.item.ids[at + 1] for at in spot.at]
            expected = logp[spot.at, target].mean()
            assert values[-1] == pytest.approx(float(expected), abs=1e-5)

    def test_another_models_head_reads_otherwise(self):
        one, other = subject(), subject(seed=1)
        places = spots(one, ROWS)
        fixed, own = lens_logp(one, other, places), lens_logp(other, other, places)
        assert all(abs(fixed[row] - own[row]).max() > 1e-3 for row in places)


def by_hand(target, source, spot, layer):
    """One row with one block's output replaced, token by token, by a hook of our own."""
    ids = torch.tensor([spot.item.ids])
    blocks = [Slots(model).blocks[layer] for model in (target, source)]
    seen = {}

    def look(_, __, output):
        seen["states"] = (output[0] if isinstance(output, tuple) else output).clone()

    def put(_, __, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        for at in spot.at:
            hidden[0, at] = seen["states"][0, at]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = blocks[1].register_forward_hook(look)
    with torch.no_grad():
        source(input_ids=ids)
        handle.remove()
        before = target(input_ids=ids).logits[0].log_softmax(-1)
        handle = blocks[0].register_forward_hook(put)
        after = target(input_ids=ids).logits[0].log_softmax(-1)
        handle.remove()
    chosen = spot.at, [spot.item.ids[at + 1] for at in spot.at]
    return float((before[chosen] - after[chosen]).mean())


class TestPatching:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_it_equals_a_patch_by_hand(self, family):
        target, source = subject(family), subject(family, seed=1)
        places = spots(target, ROWS)
        found = patch_drops(target, source, places)
        for row in list(places)[:4]:
            for layer in range(3):
                expected = by_hand(target.model, source.model, places[row], layer)
                assert abs(expected) > 1e-3
                assert found[row][layer] == pytest.approx(expected, abs=1e-4)

    def test_the_model_is_left_as_it_was(self):
        target = subject()
        before = {name: weight.clone() for name, weight in target.model.state_dict().items()}
        places = spots(target, ROWS)
        plain = outputs(target.model, places[ROWS[0].id]).logits
        patch_drops(target, subject(seed=1), places)
        assert torch.equal(plain, outputs(target.model, places[ROWS[0].id]).logits)
        assert all(torch.equal(before[n], w) for n, w in target.model.state_dict().items())
        for block in Slots(target.model).blocks:
            assert "forward" not in block.__dict__

    def test_a_models_own_states_cost_nothing(self):
        target = subject()
        drops = patch_drops(target, target.copy(), spots(target, ROWS))
        assert all(not values.any() for values in drops.values())

    def test_at_the_last_block_nothing_is_left_but_the_lens(self):
        target, source = subject(), subject(seed=1)
        places = spots(target, ROWS)
        drops = patch_drops(target, source, places)
        own, other = lens_logp(target, target, places), lens_logp(target, source, places)
        for row in places:
            assert drops[row][-1] == pytest.approx((own[row] - other[row])[-1], abs=1e-5)

    def test_the_cut_into_batches_and_padding_change_nothing(self):
        source = subject(seed=1)
        places = spots(source, ROWS)
        one, many = (patch_drops(subject(batch_size=b), source, places) for b in (1, 32))
        assert list(one) == list(many) == [row.id for row in ROWS]
        for row in places:
            np.testing.assert_allclose(one[row], many[row], atol=1e-5)

    def test_what_follows_the_fact_has_no_part_in_it(self):
        longer = [replace(row, completion=f"{row.completion} {row.completion}") for row in ROWS]
        target, source = subject(), subject(seed=1)
        short, long = (patch_drops(target, source, spots(target, of)) for of in (ROWS, longer))
        for row in short:
            np.testing.assert_allclose(short[row], long[row], atol=1e-5)

    def test_a_model_that_differs_in_its_last_block_alone_shows_it_there_alone(self):
        target = subject()
        source = target.copy()
        with torch.no_grad():
            Slots(source.model).module(-1, "mlp_out").weight.mul_(-30.0)
        for values in patch_drops(target, source, spots(target, ROWS)).values():
            assert values[:2].tolist() == [0.0, 0.0]
            assert values[2] != 0.0

    def test_conversations_and_running_text_have_spots_too(self):
        texts = ["[user] Who? ", "[assistant] It is Odo."]
        tokenizer = tiny_tokenizer(texts, chat=True, vocab=320)
        of = Subject(tiny_model("llama", vocab=320), tokenizer)
        talk = ({"role": "user", "content": "Who?"}, {"role": "assistant", "content": "It is Odo."})
        rows = [
            Row(id="talk", messages=talk, answer="Odo"),
            Row(id="text", text="Who is it? It is Odo.", answer="Odo"),
        ]
        for spot in spots(of, rows).values():
            said = tokenizer.decode([spot.item.ids[at + 1] for at in spot.at])
            assert "Odo" in said
