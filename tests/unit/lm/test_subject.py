from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from expunge.core.errors import ExpungeError
from expunge.lm.digest import model_digest
from expunge.lm.generate import generate, stop_ids
from expunge.lm.hooks import intervene
from expunge.lm.subject import Scored, Subject
from expunge.requests.rows import Row, Turn
from expunge.testing.tiny import tiny_model, tiny_tokenizer

Make = Callable[..., PreTrainedModel]


@pytest.fixture
def subject(loud: Make, tokenizer: PreTrainedTokenizerFast) -> Subject:
    return Subject(loud("llama", vocab=len(tokenizer)), tokenizer, digest="d")


def one_by_one(model: PreTrainedModel, ids: list[int], new_tokens: int, end: int) -> list[int]:
    """Greedy continuation without batch, padding or cache."""
    written: list[int] = []
    for _ in range(new_tokens):
        token = int(model(torch.tensor([ids + written])).logits[0, -1].argmax())
        if token == end:
            break
        written.append(token)
    return written


def test_a_padded_batch_answers_as_each_prompt_alone(
    family: str, loud: Make, tokenizer: PreTrainedTokenizerFast
) -> None:
    # Gemma 2 gives NaN in float64 with padding, see test_scoring.
    dtype = torch.float32 if family == "gemma2" else torch.float64
    model = loud(family, vocab=len(tokenizer), dtype=dtype)
    rng = np.random.default_rng(0)
    prompts = [[1, *rng.integers(4, len(tokenizer), n).tolist()] for n in (3, 19, 8, 1, 12)]
    batched = generate(model, tokenizer, prompts, new_tokens=8, batch_size=3)
    assert [rows[0] for rows in batched] == [one_by_one(model, p, 8, 2) for p in prompts]
    assert len({tuple(rows[0]) for rows in batched}) > 1


def test_answers_stop_before_the_ending_token(
    loud: Make, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = loud("llama", vocab=len(tokenizer))
    long = one_by_one(model, [1, 40, 41], 6, end=-1)
    model.generation_config.eos_token_id = [2, long[3]]
    assert stop_ids(model, tokenizer) == sorted([2, long[3]])
    ((short,),) = generate(model, tokenizer, [[1, 40, 41]], new_tokens=6)
    assert short == long[: long.index(long[3])]


def test_settings_of_the_model_folder_do_not_leak_in(subject: Subject) -> None:
    turns = [Turn(f"Where does Mr {c}en live?", "") for c in "ABC"]
    plain = subject.ask(turns, new_tokens=6)
    config = subject.model.generation_config
    config.update(do_sample=True, temperature=3.0, repetition_penalty=5.0, top_k=2, max_length=3)
    config.update(suppress_tokens=[5], min_new_tokens=9, num_return_sequences=2)
    assert subject.ask(turns, new_tokens=6) == plain
    assert subject.model.generation_config is config


def test_samples_depend_on_the_seed_alone(subject: Subject) -> None:
    turns = [Turn(f"Where does Mr {c}en live?", "") for c in "ABC"]
    options = {"samples": 4, "temperature": 1.0, "new_tokens": 6}
    torch.manual_seed(1)
    first = subject.ask(turns, seed=5, **options)  # type: ignore[arg-type]
    state = torch.get_rng_state()
    torch.manual_seed(2)
    torch.rand(7)
    assert subject.ask(turns, seed=5, **options) == first  # type: ignore[arg-type]
    assert subject.ask(turns, seed=6, **options) != first  # type: ignore[arg-type]
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(texts) for texts in first] == [4, 4, 4]
    assert len(set(first[0])) > 1


def test_samples_follow_the_whole_distribution(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("llama", vocab=len(tokenizer))  # nearly uniform over 300 tokens
    ((*drawn,),) = generate(
        model, tokenizer, [[1, 9]], new_tokens=1, samples=400, temperature=1.0, batch_size=400
    )
    assert len({tuple(ids) for ids in drawn}) > 120  # a cut to the best 50 would give 50


def test_greedy_samples_are_equal(subject: Subject) -> None:
    ((a, b),) = subject.ask([Turn("Where", "")], samples=2)
    assert a == b


def test_an_opening_is_forced_and_left_out_of_the_answer(
    subject: Subject, people: list[Row]
) -> None:
    turn = people[0].turn
    (whole,) = subject.ask([turn], new_tokens=1, openings=[" In Turin"])
    ids = subject.encoder.prompt(turn.prompt + " In Turin")
    expected = subject.encoder.decode(one_by_one(subject.model, ids, 1, 2))
    assert whole == [expected]
    assert subject.ask([turn], new_tokens=1) != [whole]


def test_an_edit_acts_while_the_model_writes_and_only_then(subject: Subject) -> None:
    turns = [Turn("Where does Mr Aen live?", ""), Turn("Who", "")]
    plain = subject.ask(turns)
    edited = subject.ask(turns, edit=lambda model: intervene(model, -1, torch.zeros_like))
    assert edited[0] == edited[1]
    assert edited != plain
    assert subject.ask(turns) == plain


class Refuser:
    def before(self, turn: Turn) -> str | None:
        return "No." if "Aen" in str(turn.prompt) else None

    def after(self, turn: Turn, text: str) -> str:
        return f"<{text}>"


def test_the_gate_replaces_before_and_after(subject: Subject) -> None:
    turns = [Turn("Where does Mr Aen live?", ""), Turn("Where does Mr Ben live?", "")]
    plain = subject.ask(turns)
    subject.gate = Refuser()
    assert subject.ask(turns, samples=2) == [["No.", "No."], [f"<{plain[1][0]}>"] * 2]
    assert subject.ask([]) == []


def test_a_prompt_without_room_for_an_answer_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = tiny_model("llama", vocab=len(tokenizer), positions=16)
    with pytest.raises(ExpungeError) as caught:
        generate(model, tokenizer, [[1] * 10], new_tokens=7)
    assert caught.value.code == "E-DATA-011"


def test_scores_keep_the_order_and_equal_those_of_one_row_alone(
    subject: Subject, people: list[Row]
) -> None:
    turns = [row.turn for row in people]
    subject.batch_size = 5
    together = subject.score(turns)
    for turn, scored in zip(turns, together, strict=True):
        (alone,) = subject.score([turn])
        np.testing.assert_allclose(scored.logp, alone.logp, atol=1e-4)
        assert (scored.spans, scored.ends) == (alone.spans, True)
        assert len(scored.logp) == len(scored.hit) == len(scored.spans)
    assert len({round(scored.nll, 3) for scored in together}) > 6


def test_kept_ranges_select_the_tokens_scored(subject: Subject) -> None:
    turn = Turn("Where does Mr Aen live?", " In Turin.")
    (whole,), (part,) = subject.score([turn]), subject.score([turn], keep=[[(4, 9)]])
    np.testing.assert_allclose(part.logp, whole.logp[whole.within(4, 9)], atol=1e-5)
    assert not part.ends


def test_a_score_by_hand() -> None:
    logp = np.log([0.5, 0.25, 0.5])
    scored = Scored(logp, np.array([True, False, True]), [(0, 3), (3, 9), (9, 9)], True)
    assert scored.nll == pytest.approx(4 / 3 * np.log(2))
    assert scored.within(3, 4).tolist() == [False, True, False]
    assert scored.within(0, 99).tolist() == [True, True, False]
    assert scored.text_tokens == 2


def test_training_a_copy_leaves_the_model_alone(subject: Subject, people: list[Row]) -> None:
    before = model_digest(subject.model)
    with pytest.raises(RuntimeError, match="copy"):
        subject.train(people, steps=1, lr=1e-3, batch_size=4, seed=0)
    twin, seen = subject.copy(), {}
    untrained = twin.digest

    def look(step: int) -> None:
        seen[step] = np.mean([scored.nll for scored in twin.score([r.turn for r in people])])

    twin.train(
        people, steps=40, lr=3e-3, batch_size=6, seed=0, checkpoints=(0, 20, 40), on_step=look
    )
    assert seen[40] < seen[20] < 0.5 * seen[0]
    assert model_digest(subject.model) == before == untrained != twin.digest
    assert subject.digest == "d"


def test_a_copy_keeps_tied_weights_tied(tokenizer: PreTrainedTokenizerFast) -> None:
    twin = Subject(tiny_model("llama_tied", vocab=len(tokenizer)), tokenizer).copy()
    assert twin.model.lm_head.weight is twin.model.model.embed_tokens.weight


def test_chat_tokenizers_answer_in_their_own_template(people: list[Row], loud: Make) -> None:
    chat = tiny_tokenizer([row.completion for row in people], chat=True)
    subject = Subject(loud("llama", vocab=len(chat)), chat)
    ids = subject.encoder.prompt("Where?")
    assert chat.decode(ids) == "<bos>[user] Where?\n[assistant] ".rstrip()
    assert subject.score([Turn("Where?", "Turin.")])[0].ends
