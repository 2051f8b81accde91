"""Looking at a request: what is new in it, how much it matters, and which blocks it sits in."""

import copy
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.data.encode import IGNORED
from expunge.engine.continual import (
    Document,
    Memory,
    chunks_of,
    importances,
    layer_effects,
    left_out,
    own_wordings,
)
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing import tiny_model, tiny_tokenizer

SIEVE = {"size": 30, "alike": 0.9, "delta": 0.2}
HARBOUR = "The harbour of Velmora was dug by hand in nine winters."
OWL = "An owl from Tibrin carried letters across the frozen lake."
FAMILIES = ("llama", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "gpt_neox")


def flat(text: str) -> float:
    """A loss that no chunk changes."""
    return 3.0


def document(text: str) -> Document:
    return Document.of(Row(id="r", text=text))


def sifted(memory: Memory, *texts: str, loss: Any = flat, **sieve: Any) -> list[list[str]]:
    documents = [document(text) for text in texts]
    found = memory.sifted(documents, loss, **{**SIEVE, **sieve})
    return [
        [one.text[start:end] for start, end in kept]
        for one, kept in zip(documents, found, strict=True)
    ]


def test_chunks_cover_the_text_and_a_short_end_joins_the_one_before() -> None:
    for length in range(1, 40):
        text = "x" * length
        chunks = chunks_of(text, 8)
        assert "".join(text[a:b] for a, b in chunks) == text
        assert all(b == c for (_, b), (c, _) in pairwise(chunks))
        assert all(4 <= b - a < 12 for a, b in chunks) or length < 4


def test_a_document_is_the_question_and_the_reply() -> None:
    row = Row(id="r", prompt="Who dug it?", completion=" Nine men.")
    assert Document.of(row) == Document("Who dug it? Nine men.", 11)
    talk = Row(id="r", messages=({"role": "user", "content": "Who?"},
                                 {"role": "assistant", "content": "Nine men."}))  # fmt: skip
    assert Document.of(talk) == Document("Who?\nNine men.", 5)
    assert document(OWL) == Document(OWL, 0)


def test_ranges_are_those_of_the_reply_within_the_rows_spans() -> None:
    plain = Document("Who? Nine men.", 4)
    assert plain.replied([(0, 14)]) == ()  # all of it, as the row says
    assert plain.replied([(0, 9)]) == ((0, 5),)
    assert plain.replied([(9, 14)]) == ((5, 10),)
    assert plain.replied([(0, 4)]) is None
    assert plain.replied([]) is None
    spanned = Document("Who? Nine men.", 4, ((6, 9),))
    assert spanned.replied([(0, 14)]) == ((6, 9),)
    assert spanned.replied([(0, 12)]) == ((6, 8),)
    assert spanned.replied([(0, 9)]) is None


def test_the_first_request_is_kept_whole_and_the_same_again_not_at_all() -> None:
    memory = Memory("hashing")
    assert "".join(sifted(memory, HARBOUR, OWL)[0]) == HARBOUR
    remembered = copy.deepcopy(memory.chunks)
    assert sifted(memory, HARBOUR, OWL) == [[], []]
    assert memory.chunks == remembered
    assert memory.requests == 2


def test_what_is_new_in_a_document_is_kept_and_what_is_not_is_left_out() -> None:
    memory = Memory("hashing")
    sifted(memory, HARBOUR)
    grown = HARBOUR[:30] + OWL[:30]
    assert sifted(memory, grown) == [[OWL[:30]]]


def test_a_redundant_chunk_is_kept_where_the_loss_changes_without_it() -> None:
    memory = Memory("hashing")
    sifted(memory, HARBOUR)

    def loss(text: str) -> float:
        return 3.0 if HARBOUR[:30] in text else 2.5

    assert sifted(memory, HARBOUR, loss=loss, delta=0.2) == [[HARBOUR[:30]]]
    assert sifted(memory, HARBOUR, loss=loss, delta=0.6) == [[]]
    assert sifted(memory, HARBOUR, loss=lambda text: -loss(text), delta=0.2) == [[HARBOUR[:30]]]


def test_of_equal_chunks_one_place_is_cut_out_at_a_time() -> None:
    """Replacing the text of a chunk takes all of them out, and the loss then looks changed."""
    memory = Memory("hashing")
    chunk = OWL[:30]
    sifted(memory, chunk)
    asked: list[str] = []

    def loss(text: str) -> float:
        asked.append(text)
        return float(text.count(chunk))

    sifted(memory, chunk * 3, loss=loss, delta=1.5)
    assert min(text.count(chunk) for text in asked) == 2
    assert sifted(memory, chunk * 3, loss=loss, delta=1.5) == [[]]


def test_a_document_that_is_one_redundant_chunk_is_left_out() -> None:
    memory = Memory("hashing")
    sifted(memory, OWL, size=200)

    def never(text: str) -> float:
        raise AssertionError("there is nothing left to score")

    assert sifted(memory, OWL, loss=never, size=200) == [[]]


def test_equal_rows_of_one_request_count_once() -> None:
    assert [bool(kept) for kept in sifted(Memory("hashing"), OWL, HARBOUR, OWL)] == [1, 1, 0]


def test_the_cosine_decides_what_is_alike() -> None:
    near = OWL.replace("frozen", "silver")
    for alike, is_left_out in ((0.5, True), (0.999, False)):
        memory = Memory("hashing")
        sifted(memory, OWL, size=200)
        assert (sifted(memory, near, size=200, alike=alike) == [[]]) is is_left_out


def test_a_chunk_without_a_word_goes_with_the_one_before_it() -> None:
    memory = Memory("hashing")
    text = "-" * 30 + OWL[:30] + "." * 30
    assert sifted(memory, text) == [["-" * 30, OWL[:30], "." * 30]]
    assert len(memory.chunks) == 1
    assert sifted(memory, text) == [["-" * 30]]  # nothing is known of what has no word


def test_the_memory_survives_json_and_holds_no_text() -> None:
    memory = Memory("hashing")
    sifted(memory, HARBOUR, OWL)
    told = json.dumps(memory.as_dict())
    assert "Velmora" not in told
    again = Memory.read(json.loads(told), "hashing")
    assert again == memory
    assert sifted(again, HARBOUR, OWL) == [[], []]
    assert Memory.read(None, "hashing") == Memory("hashing")


def test_another_encoder_cannot_read_it() -> None:
    with pytest.raises(ExpungeError) as refused:
        Memory.read(Memory("hashing").as_dict(), "/models/words")
    assert refused.value.code == "E-USE-006"
    assert "encoder=hashing" in refused.value.next


# ------------------------------------------------------------------------ blocks and importance


def task_of(family: str, layers: int = 2) -> Task:
    rows = [
        Row(id="a", prompt="Where does Ada live?", completion=" In Rome."),
        Row(id="b", prompt="Who is Bert?", completion=" A very old baker from Kent."),
        Row(id="c", text="Carl and Dora dance."),
    ]
    texts = [f"{row.prompt}{row.completion}" if row.text is None else row.text for row in rows]
    tokenizer = tiny_tokenizer(texts, kind="word", vocab=64)
    model = tiny_model(family, vocab=len(tokenizer), layers=layers, seed=1, positions=64)
    for weight in model.parameters():  # far enough from nothing for every block to matter
        weight.data = weight.data * (1.0 if weight.dim() == 1 else 4.0)
    subject = Subject(model, tokenizer)
    return Task(model=model, tokenizer=tokenizer, encoder=subject.encoder, roles={"forget": rows})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_left_out_is_one_whose_weights_are_all_zero(family: str) -> None:
    task = task_of(family)
    ids = torch.tensor([own_wordings(task, "forget")[1].ids])
    whole = {name: weight.clone() for name, weight in task.model.state_dict().items()}
    with torch.no_grad():
        plain = task.model(input_ids=ids).logits
    for layer in range(2):
        with torch.no_grad(), left_out(task.model, layer):
            without = task.model(input_ids=ids).logits
        zeroed = copy.deepcopy(task.model)
        with torch.no_grad():
            for weight in Slots(zeroed).blocks[layer].parameters():
                weight.zero_()
            torch.testing.assert_close(without, zeroed(input_ids=ids).logits)
        assert not torch.allclose(without, plain)
    after = task.model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in whole.items())
    with torch.no_grad():
        assert torch.equal(task.model(input_ids=ids).logits, plain)


def test_a_block_comes_back_when_something_goes_wrong() -> None:
    model = task_of("llama").model
    with pytest.raises(ValueError, match="wrong"), left_out(model, 0):
        raise ValueError("wrong")
    assert "forward" not in vars(Slots(model).blocks[0])


def test_effects_are_changes_of_the_loss_over_the_first_tokens() -> None:
    task = task_of("llama", layers=3)
    expected = []
    for tokens in (6, 128):
        losses = []
        for layer in (None, 0, 1, 2):
            zeroed = copy.deepcopy(task.model)
            with torch.no_grad():
                if layer is not None:
                    for weight in Slots(zeroed).blocks[layer].parameters():
                        weight.zero_()
                told = []
                for item in own_wordings(task, "forget"):
                    ids, labels = item.ids[:tokens], item.labels[:tokens]
                    logp = zeroed(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
                    told += [
                        -float(logp[at - 1, label])
                        for at, label in enumerate(labels)
                        if label != IGNORED
                    ]
            losses.append(sum(told) / len(told))
        expected.append([abs(loss - losses[0]) for loss in losses[1:]])
        assert layer_effects(task, tokens) == pytest.approx(expected[-1], rel=1e-4)
    assert expected[0] != pytest.approx(expected[1], rel=1e-2)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_importance_is_the_length_of_the_gradient_by_the_input_embeddings(family: str) -> None:
    task = task_of(family)
    for weight in task.model.parameters():
        weight.requires_grad_(False)  # as where only an adapter is trained
    found = importances(task, own_wordings(task, "forget"))
    for item, importance in zip(own_wordings(task, "forget"), found, strict=True):
        ids = torch.tensor([item.ids])
        embedded = Slots(task.model).embed(ids).detach().requires_grad_()
        handle = Slots(task.model).embed.register_forward_hook(lambda *_, e=embedded: e)
        logp = task.model(input_ids=ids).logits[0].log_softmax(-1)
        handle.remove()
        places = [at for at, label in enumerate(item.labels) if label != IGNORED]
        loss = -torch.stack([logp[at - 1, item.labels[at]] for at in places]).mean()
        loss.backward()
        assert float(importance) == pytest.approx(float(embedded.grad.norm()), rel=1e-4)
    assert len(set(np.round(found.numpy(), 6))) == 3


def test_looking_leaves_the_model_as_it_was() -> None:
    task = task_of("llama")
    task.model.train()
    importances(task, own_wordings(task, "forget"))
    layer_effects(task, 128)
    assert task.model.training
    assert all(weight.grad is None for weight in task.model.parameters())
    assert all(weight.requires_grad for weight in task.model.parameters())
    assert not Slots(task.model).embed._forward_hooks
