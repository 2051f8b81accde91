"""The doors of other servers, against stand-ins with their interfaces."""

import asyncio
import enum
import sys
from abc import ABC, abstractmethod
from types import ModuleType, SimpleNamespace

import pytest
import torch
from gateways import REFUSAL, scripted, working

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.pipeline import INSIDE, TEXT, Pipeline
from expunge.engine.guarding.targets import Target
from expunge.serve.adapters import vllm as adapter
from expunge.serve.adapters.litellm import Blocked, guardrail_class


def stand_in(monkeypatch, name, **content):
    parts = name.split(".")
    for at in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:at]))
        module.__path__ = []
        if at == len(parts):
            vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def pipeline(*own, offers=TEXT):
    live = working(own or ("lexical",), Means(secret=bytes(32)))
    for guard in live:
        guard.take("t", guard.entry(Target(id="t", aliases=("Ada Quill",))))
    return Pipeline(live, offers=offers)


class Custom:
    def __init__(self, guardrail_name="", **_):
        self.guardrail_name = guardrail_name


@pytest.fixture
def litellm(monkeypatch):
    stand_in(monkeypatch, "litellm.integrations.custom_guardrail", CustomGuardrail=Custom)


def run(guard, inputs, kind="request", data=None):
    return asyncio.run(guard.apply_guardrail(inputs, data, kind, logging_obj=None))


def test_litellm_blocks_questions_and_edits_answers(litellm) -> None:
    guard = guardrail_class(pipeline())(guardrail_name="forget")
    assert isinstance(guard, Custom)
    assert guard.guardrail_name == "forget"
    clean = {"texts": ["Who is Ben?"], "model": "m"}
    assert run(guard, clean) == clean
    for inputs in (
        {"texts": ["Who is Ada Quill?"]},
        {"texts": ["a"], "structured_messages": [{"role": "user", "content": "Ada Quill?"}]},
        {"texts": ["a"], "structured_messages": [
            {"role": "user", "content": [{"type": "text", "text": "Ada Quill?"}]}]},
        {"texts": ["a"], "tools": [{"function": {"description": "of Ada Quill"}}]},
        {"texts": ["a"], "images": ["x"]},
    ):  # fmt: skip
        with pytest.raises(Blocked):
            run(guard, inputs)
    asked = {"messages": [{"role": "user", "content": "Who?"}]}
    told = run(guard, {"texts": ["Ben.", "It is Ada Quill."]}, "response", asked)
    assert told == {"texts": ["Ben.", REFUSAL]}
    with pytest.raises(Blocked):
        run(guard, {"texts": [], "tool_calls": [{"arguments": "Ada Quill"}]}, "response", asked)
    with pytest.raises(Blocked):
        run(guard, {"texts": ["Ben"]}, "other")


def test_litellm_closes_when_a_guard_breaks(litellm) -> None:
    def breaks(*_):
        raise RuntimeError

    guard = guardrail_class(pipeline(scripted("brittle", enter=breaks, leave=breaks)))()
    with pytest.raises(Blocked):
        run(guard, {"texts": ["a"]})
    assert run(guard, {"texts": ["a"]}, "response")["texts"] == [REFUSAL]


def test_litellm_gets_the_texts_of_a_guard_that_edits(litellm) -> None:
    edit = scripted("mask", "front", enter=lambda exchange, desk: exchange.asking("<masked>"))
    guard = guardrail_class(pipeline(edit))()
    assert run(guard, {"texts": ["first", "second"]})["texts"] == ["first", "<masked>"]


def test_litellm_has_no_place_for_some_guards(litellm) -> None:
    prompt = scripted("orders", "prompt", enter=lambda exchange, desk: exchange)
    inside = scripted("hush", "model", attach=lambda *_: None)
    for guard, offers in ((prompt, TEXT), (inside, INSIDE)):
        with pytest.raises(ExpungeError, match="E-SERVE-003"):
            guardrail_class(pipeline(guard, offers=offers))


def test_adapters_say_what_is_missing() -> None:
    with pytest.raises(ExpungeError, match="litellm"):
        guardrail_class(pipeline())
    with pytest.raises(ExpungeError, match="vllm"):
        adapter.classic(lambda *_: None)


class Shift:
    """Fires for rows whose text holds 7: only 1 can be said. Keeps what it was shown."""

    end = 2

    def __init__(self):
        self.seen = []

    def combine(self, texts, logits):
        self.seen.append([list(text) for text in texts])
        fired = [row for row, text in enumerate(texts) if 7 in text]
        if not fired:
            return logits
        made = logits.clone()
        made[fired] = -1e4
        made[fired, 1] = 0.0
        return made


class Way(enum.Enum):
    UNIDIRECTIONAL = 0
    SWAP = 1


class OldBase(ABC):
    @classmethod
    def validate_params(cls, sampling_params):
        return None

    @abstractmethod
    def __init__(self, vllm_config, device, is_pin_memory): ...
    @abstractmethod
    def apply(self, logits): ...
    @abstractmethod
    def is_argmax_invariant(self): ...
    @abstractmethod
    def update_state(self, batch_update): ...


def update(removed=(), added=(), moved=()):
    return SimpleNamespace(batch_size=3, removed=removed, added=added, moved=moved)


@pytest.fixture
def old(monkeypatch):
    stand_in(monkeypatch, adapter.CLASSIC, LogitsProcessor=OldBase)
    shift = Shift()
    made = adapter.classic(lambda config, device: shift)
    return made, made("config", "cpu", False), shift


def test_the_classic_interface_follows_requests_through_the_batch(old) -> None:
    _, processor, shift = old
    assert not processor.is_argmax_invariant()
    written = [[], [], []]
    prompts = [[3, 7], [3, 4], [5]]
    processor.update_state(update(added=[(at, None, prompts[at], written[at]) for at in range(3)]))
    logits = torch.randn(3, 10)
    before = logits.clone()
    after = processor.apply(logits)
    assert after.argmax(-1)[0] == 1
    assert torch.equal(after[1:], before[1:])
    written[0].append(1)
    written[2].append(7)
    processor.update_state(None)
    processor.apply(torch.randn(3, 10))
    assert shift.seen[-1] == [[3, 7, 1], [3, 4], [5, 7]]
    processor.update_state(update(moved=[(0, 2, Way.SWAP)]))
    processor.apply(torch.randn(3, 10))
    assert shift.seen[-1] == [[5, 7], [3, 4], [3, 7, 1]]
    processor.update_state(update(removed=[0], moved=[(2, 0, Way.UNIDIRECTIONAL)]))
    processor.apply(torch.randn(2, 10))
    assert shift.seen[-1] == [[3, 7, 1], [3, 4]]
    processor.update_state(update(added=[(1, None, [9], [])]))
    processor.apply(torch.randn(2, 10))
    assert shift.seen[-1] == [[3, 7, 1], [9]]


def test_where_nothing_fires_logits_are_left_alone(old) -> None:
    _, processor, _ = old
    processor.update_state(update(added=[(0, None, [3], []), (1, None, [4], [])]))
    logits = torch.randn(2, 10)
    before, place = logits.clone(), logits.data_ptr()
    after = processor.apply(logits)
    assert after.data_ptr() == place
    assert torch.equal(after, before)


def test_rows_that_cannot_be_read_and_guards_that_break_say_only_the_end(old) -> None:
    _, processor, shift = old
    processor.update_state(update(added=[(0, None, None, []), (1, None, [4], [])]))
    logits = torch.randn(2, 10)
    before = logits.clone()
    after = processor.apply(logits)
    assert after[0].softmax(-1)[2] == 1.0
    assert torch.equal(after[1], before[1])
    assert processor.apply(torch.randn(3, 10))[2].argmax() == 2  # a row nobody announced
    shift.combine = lambda *_: 1 / 0
    assert (processor.apply(torch.randn(2, 10)).argmax(-1) == 2).all()


def test_requests_that_undo_a_guard_are_refused(old) -> None:
    made, _, _ = old
    made.validate_params(SimpleNamespace(temperature=1.0, logit_bias=None, logprobs=None))
    for name in adapter.REFUSED:
        with pytest.raises(ValueError, match=name):
            made.validate_params(SimpleNamespace(**{name: {"a": 1}}))
    with pytest.raises(ValueError, match="logprobs"):
        made.validate_params(SimpleNamespace(logprobs=0))


class NewBase(ABC):
    def __init__(self, vllm_config, req_states):
        self.config = vllm_config

    @classmethod
    def validate_params(cls, sampling_params):
        return None

    def add_request(self, req_idx, sampling_params):
        return True

    def apply_staged_writes(self):
        return None

    @abstractmethod
    def apply(self, logits, ctx): ...


def context(slots, offsets, places, fed):
    return SimpleNamespace(
        expanded_idx_mapping=torch.tensor(slots),
        expanded_local_pos=torch.tensor(offsets),
        pos=torch.tensor(places),
        input_ids=torch.tensor(fed),
    )


def test_the_newer_interface_reads_each_rows_own_text(monkeypatch) -> None:
    stand_in(monkeypatch, adapter.RUNNER, LogitsProcessor=NewBase)
    shift = Shift()
    known = torch.zeros(4, 8, dtype=torch.long)
    known[3, :3] = torch.tensor([3, 4, 5])
    known[1, :2] = torch.tensor([6, 8])
    states = SimpleNamespace(device="cpu", all_token_ids=SimpleNamespace(gpu=known))
    made = adapter.runner(lambda config, device: shift)
    processor = made("config", states)
    assert isinstance(processor, NewBase)
    assert processor.add_request(3, SimpleNamespace())
    processor.apply_staged_writes()
    logits = torch.randn(2, 10)
    before = logits.clone()
    assert torch.equal(processor.apply(logits, context([3, 1], [0, 0], [2, 1], [5, 8])), before)
    assert shift.seen[-1] == [[3, 4, 5], [6, 8]]
    # speculative: slot 3 has two drafts behind its last settled token, the second of them 7
    ctx = context([1, 3, 3, 3], [0, 0, 1, 2], [1, 2, 3, 4], [8, 5, 9, 7])
    logits = torch.randn(4, 10)
    before = logits.clone()
    after = processor.apply(logits, ctx)
    assert shift.seen[-1] == [[6, 8], [3, 4, 5], [3, 4, 5, 9], [3, 4, 5, 9, 7]]
    assert torch.equal(after[:3], before[:3])
    assert after[3].argmax() == 1
    broken = context([1], [0], [1], [8])
    broken.pos = None
    assert processor.apply(torch.randn(1, 10), broken).argmax() == 2
    with pytest.raises(ValueError, match="logit_bias"):
        made.validate_params(SimpleNamespace(logit_bias={1: 2.0}))
