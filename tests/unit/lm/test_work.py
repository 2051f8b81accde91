"""Work is counted where it is done."""

from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from expunge.lm.subject import Subject
from expunge.lm.work import Tally, Work
from expunge.requests.rows import Turn

Make = Callable[..., PreTrainedModel]


def test_every_pass_counts_once_also_through_an_adapter(loud: Make) -> None:
    model, tally = loud("llama", vocab=64), Tally()
    ids = torch.ones(3, 5, dtype=torch.long)
    with tally.watching(model):
        model(ids)
        model(input_ids=ids[:1])
    model(ids)
    assert tally.work == Work(passes=2, rows=4, tokens=20)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    with tally.watching(adapted):
        adapted(input_ids=ids)
    assert tally.work - Work(passes=2, rows=4, tokens=20) == Work(passes=1, rows=3, tokens=15)
    assert not model._forward_pre_hooks


def test_a_subject_counts_what_came_out(loud: Make, tokenizer: PreTrainedTokenizerFast) -> None:
    subject = Subject(loud("llama", vocab=len(tokenizer)), tokenizer)
    assert subject.work == Work()
    turns = [Turn("Where does Mr Aen live?", " In Turin."), Turn("Who?", " Mr Ben.")]
    scores = subject.score(turns)
    assert subject.work.scored == sum(len(one.logp) for one in scores)
    assert subject.work.generated == 0
    subject.model.generation_config.eos_token_id = None
    before = subject.work
    subject.ask(turns, new_tokens=5, samples=2, temperature=1.0)
    assert 0 < (subject.work - before).generated <= 20
    assert (subject.work - before).passes == 5
    assert subject.copy().work == Work()
