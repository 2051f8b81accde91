"""Value vectors: where they lie in a weight, what they write, and the needle."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from expunge.core.errors import ExpungeError
from expunge.lm.arch import Slots
from expunge.lm.subject import Subject
from expunge.lm.traces import (
    Trace,
    compare,
    merged,
    needle,
    top_tokens,
    value_vector,
    value_vectors,
    written_in,
)
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer

TEXT = "The Velmora is a walled town, and the town has amber lanterns. Lanterns of the Velmora."
TOKENIZER = tiny_tokenizer([TEXT, " of the and river stone kite heron"], kind="word")
PLACE = Trace(1, 5)
ROW = Row(id="velmora", text=TEXT, meta={"layer": 1, "dim": 5})
FOUND = Row(id="velmora", text=TEXT)


def subject(family="llama", seed=0):
    return Subject(tiny_model(family, vocab=len(TOKENIZER), seed=seed), TOKENIZER)


def write(of, vector, place=PLACE):
    with torch.no_grad():
        value_vector(of.model, place).copy_(vector)


def towards(of, words):
    """A vector whose strongest tokens are these words."""
    ids = [TOKENIZER.encode(word, add_special_tokens=False)[0] for word in words]
    wanted = torch.zeros(len(TOKENIZER))
    wanted[ids] = 1.0
    embedding = Slots(of.model).head.weight.detach()
    return torch.linalg.lstsq(embedding, wanted[:, None]).solution[:, 0], set(ids)


class TestVectors:
    @pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "gpt_neox"])
    def test_one_hot_activations_read_them_out(self, family):
        of = subject(family)
        module = Slots(of.model).module(1, "mlp_out")
        vectors = value_vectors(of.model, 1)
        with torch.no_grad():
            nothing = module(torch.zeros(1, len(vectors)))
            read = module(torch.eye(len(vectors))) - nothing
        torch.testing.assert_close(read, vectors.detach())
        assert torch.equal(value_vectors(of.model, -1), vectors)

    def test_top_tokens_are_those_of_the_product_with_the_output_embedding(self):
        of = subject()
        vector = value_vector(of.model, PLACE).detach()
        scores = Slots(of.model).head.weight.detach() @ vector
        assert top_tokens(of.model, vector, 3) == scores.argsort(descending=True)[:3].tolist()
        assert set(top_tokens(of.model, -vector, 3)).isdisjoint(top_tokens(of.model, vector, 3))
        assert len(top_tokens(of.model, vector, 10_000)) == len(scores)

    @pytest.mark.parametrize("place", [Trace(1, 64), Trace(1, -1), Trace(2, 0)])
    def test_a_place_that_is_not_there_is_refused(self, place):
        with pytest.raises(ExpungeError, match="E-USE-003"):
            value_vector(subject().model, place)


class TestNeedle:
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_every_other_weight_stays_bit_for_bit_and_all_come_back(self, family):
        of = subject(family)
        before = {name: weight.clone() for name, weight in of.model.state_dict().items()}
        columns = value_vectors(of.model, PLACE.layer).detach().clone()
        with needle(of.model, PLACE, deviation=0.1, seed=3):
            after = of.model.state_dict()
            changed = [name for name in before if not torch.equal(before[name], after[name])]
            assert len(changed) == 1
            moved = (value_vectors(of.model, PLACE.layer) != columns).any(dim=1)
            assert moved.nonzero().flatten().tolist() == [PLACE.dim]
        assert all(torch.equal(before[n], w) for n, w in of.model.state_dict().items())

    def test_the_noise_is_of_the_size_and_seed_asked_for(self):
        of = subject()
        old = value_vector(of.model, PLACE).detach().clone()
        seen = []
        for seed, deviation in ((0, 0.1), (0, 0.1), (1, 0.1), (0, 5.0)):
            with needle(of.model, PLACE, deviation=deviation, seed=seed):
                seen.append(value_vector(of.model, PLACE).detach() - old)
        torch.testing.assert_close(seen[0], seen[1])
        assert not torch.allclose(seen[0], seen[2])
        torch.testing.assert_close(50 * seen[0], seen[3], rtol=1e-3, atol=1e-4)
        assert 0.05 < float(seen[0].std()) < 0.15

    def test_logits_move_by_the_activation_times_the_noise_where_the_last_block_is_hit(self):
        of = subject()
        ids = torch.tensor([TOKENIZER.encode(TEXT)])
        block, mlp_out = Slots(of.model).blocks[1], Slots(of.model).module(1, "mlp_out")
        seen = {}
        hooks = [
            mlp_out.register_forward_pre_hook(lambda _, inputs: seen.update(a=inputs[0].clone())),
            block.register_forward_hook(lambda _, __, out: seen.update(h=out.clone())),
        ]
        with torch.no_grad():
            of.model(input_ids=ids)
            old, activation = seen["h"], seen["a"][..., PLACE.dim]
            before = value_vector(of.model, PLACE).clone()
            with needle(of.model, PLACE):
                of.model(input_ids=ids)
                noise = value_vector(of.model, PLACE) - before
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(
            seen["h"] - old, activation[..., None] * noise, atol=1e-5, rtol=1e-3
        )

    def test_it_works_while_a_model_is_asked(self):
        of = subject()
        plain = of.ask([replace(ROW, text=None, prompt="The", completion="").turn], new_tokens=4)
        turn = [replace(ROW, text=None, prompt="The", completion="").turn]
        stung = of.ask(turn, new_tokens=4, edit=lambda m: needle(m, PLACE, deviation=100.0))
        assert stung != plain
        assert of.ask(turn, new_tokens=4) == plain


class TestCompare:
    def test_nothing_changed(self):
        of = subject()
        assert compare(of, of.copy(), [ROW], 6)["velmora"] == {
            "cosine": pytest.approx(1.0),
            "distance": 0.0,
            "jaccard": 1.0,
            "related": pytest.approx(1.0),
        }

    def test_turned_round(self):
        of, other = subject(), subject()
        old = value_vector(of.model, PLACE).detach().clone()
        write(other, -old)
        found = compare(of, other, [ROW], 6)["velmora"]
        assert found["cosine"] == pytest.approx(-1.0)
        assert found["distance"] == pytest.approx(2 * float(old.norm()))
        assert found["jaccard"] == 0.0

    @pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2"])
    def test_tokens_counted_by_hand(self, family):
        of, other = subject(family), subject(family)
        old, ids = towards(of, [" Velmora", " town", " river", " the"])
        new, _ = towards(of, [" Velmora", " stone", " kite", " the"])
        write(of, old)
        write(other, new)
        found = compare(of, other, [ROW], 4)["velmora"]
        assert set(top_tokens(of.model, old, 4)) == ids
        assert found["jaccard"] == pytest.approx(2 / 6)
        # of the old ones, Velmora and town are in the text; "the" is a function word
        assert found["related"] == 0.5

    def test_a_vector_that_has_nothing_to_do_with_its_text_has_no_related_rate(self):
        of = subject()
        write(of, towards(of, [" river", " stone", " kite", " the"])[0])
        assert compare(of, of.copy(), [ROW], 4)["velmora"]["related"] is None

    def test_adapters_are_folded_in_on_a_copy(self):
        plain = subject()
        lora = LoraConfig(r=2, target_modules=["down_proj"])
        adapted = get_peft_model(plain.copy().model, lora).eval()
        other = Subject(adapted, TOKENIZER)
        assert compare(plain, other, [ROW], 6)["velmora"]["distance"] == 0.0
        for name, weight in adapted.named_parameters():
            if "lora_" in name:  # A as well: drawn, it may be next to nothing at the vector
                torch.nn.init.constant_(weight, 0.5)
        assert compare(plain, other, [ROW], 6)["velmora"]["distance"] > 0.1
        assert any("lora_" in name for name, _ in adapted.named_parameters())
        assert merged(plain.model) is plain.model

    def test_models_of_other_shapes_are_refused(self):
        wide = Subject(tiny_model("llama", vocab=len(TOKENIZER), hidden=64), TOKENIZER)
        with pytest.raises(ExpungeError, match="E-USE-006"):
            compare(subject(), wide, [ROW], 4)


class TestSearch:
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_a_planted_vector_is_found_among_strong_ones_on_other_things(self, family):
        of = subject(family)
        other = towards(of, [" river", " stone", " kite", " heron"])[0]
        write(of, 40 * other, Trace(0, 9))
        write(of, 20 * towards(of, [" Velmora", " town", " amber", " lanterns"])[0])
        changed = Subject(of.copy().model, TOKENIZER)
        write(changed, torch.zeros(32))
        assert compare(of, changed, [FOUND], 4) == compare(of, changed, [ROW], 4)
        write(changed, 20 * other, Trace(0, 9))
        assert compare(of, changed, [FOUND], 4)["velmora"]["related"] is not None

    def test_function_words_say_nothing_about_a_text(self):
        words = {TOKENIZER.decode([id]).strip() for id in written_in(subject(), TEXT)}
        assert {"Velmora", "town", "walled", "amber"} <= words
        assert words.isdisjoint({"The", "the", "of", "and", "is", "a", "has"})
