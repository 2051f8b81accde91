"""o3-serve: closed forms, who gets how much of the adapter, where it comes from, refusals."""

import copy
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from inside_rig import (
    FAMILIES,
    SECRET,
    check_conforms,
    check_it_holds_back,
    exact,
    facts,
    knowing,
    refused,
    target_of,
    words,
)
from peft import PeftModel
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as vocabularies
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from expunge.core.registry import guards
from expunge.engine.covered import COVERS, covers
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import Working, fitted, opened
from expunge.engine.guarding.guarded import guarded
from expunge.engine.guarding.helped import _packed, parts_in
from expunge.engine.guarding.pipeline import INSIDE, TEXT, Pipeline
from expunge.engine.guarding.stored import as_json
from expunge.engine.guarding.targets import Target, targets_of
from expunge.engine.likeness import How
from expunge.engine.likeness import fitted as likeness
from expunge.engine.run import forget
from expunge.engine.runtime import Part, twin
from expunge.engine.stream import forget_stream
from expunge.engine.weighted import Weighted
from expunge.guards.o3_serve.board import likely
from expunge.guards.o3_serve.copies import LEVELS, level_of, write_copies
from expunge.guards.o3_serve.gates import Likely
from expunge.lm.arch import Slots
from expunge.lm.encoders import TextEncoder
from expunge.lm.low_rank import LowRank
from expunge.lm.ood import Mixture, hardened
from expunge.lm.prefixes import new_cache
from expunge.lm.scoring import masked_logits
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn
from expunge.testing import tiny_model
from expunge.testing.methods import taught_subject, world
from expunge.testing.passes import check_cached

FAR = 0.1192
"""sigmoid(-2): what is nothing like anything gets without a cut."""

# -------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize(
    ("score", "p", "w"), [(0.5, 1.0, 0.99966), (2.5, 0.0730, 0.2193), (6.0, 0.0, FAR)]
)
def test_the_card_s_weights(score: float, p: float, w: float) -> None:
    both, at = Mixture(0.0, 1.0, 1.0), torch.tensor([score])
    assert float(both.typical(at)) == pytest.approx(p, abs=1e-4)
    assert float(both.weight(at)) == pytest.approx(w, abs=5e-5)
    torch.testing.assert_close(both.weight(at), both.weight(2 * both.centre - at.double()))


def test_the_code_s_table_is_no_rising_line() -> None:
    weights = torch.tensor([0.1, 0.35, 0.4, 0.41, 0.9, 0.95])
    assert hardened(weights).tolist() == pytest.approx([0, 0.35, 0.4, 0, 0, 1.2])


@pytest.mark.parametrize("score", ["monotone", "official"])
def test_fewer_prompts_than_dimensions_are_enough(score: str) -> None:
    """Their covariance has no inverse; of one prompt, and of equal ones, there is none at all."""
    draw = torch.Generator().manual_seed(0)
    how = How(score=score, nu=0.1, gate="soft", low=0.0, high=1.0)
    one = torch.randn(1, 3, 40, generator=draw)
    for known in (torch.randn(4, 3, 40, generator=draw), one, one.expand(3, -1, -1)):
        made = likeness(known, list(range(len(known))), how, seed=0)
        found = made(torch.cat([known, torch.randn(5, 3, 40, generator=draw) * 9]))
        assert found.isfinite().all()
        if score == "monotone":
            assert float(found[: len(known)].min()) > 0.9
            assert found[len(known) :].tolist() == pytest.approx([FAR] * 5, abs=1e-3)


@pytest.mark.parametrize(
    ("weight", "level"), [(0.0, 0), (0.31, 0.5), (0.5, 0.5), (0.74, 0.5), (0.75, 1), (1.2, 1)]
)
def test_levels_give_what_is_above_the_cut_one_half_at_least(weight: float, level: float) -> None:
    assert level_of(weight) == level


# ------------------------------------------------------------------ a random adapter at work

IDS = torch.tensor([words()(text)["input_ids"] for text in (
    "anna born w3 w4", "bela born w5 w6", "carl born w5 w6")])  # fmt: skip
KEEP = (torch.arange(5) >= 2).expand(3, 5) & (torch.arange(5) < 4)
SIZE = len(words())


def adapter_part(model: Any, seed: int = 0, names: Sequence[str] = ()) -> Part:
    draw = torch.Generator().manual_seed(seed)
    tensors, linears = {}, names or Slots(model).linears()
    for at, name in enumerate(linears):
        one = LowRank.new(model.get_submodule(name), 2, 16.0, at, seed, name)
        tensors |= {f"{at}.a": one.a.data, f"{at}.b": torch.randn(one.b.shape, generator=draw) / 5}
    settings = {"linears": list(linears), "rank": 2, "scale": 8.0, COVERS: covers([], 0)}
    return Part(settings=settings, tensors=tensors, moves=1, method="o3", version=1)


def give(working: Working, part: Part, targets: Sequence[Target]) -> None:
    """What settling would do, with an adapter by hand."""
    heads, arrays = _packed([part])
    working.desk.arrays = arrays
    parent = working.desk.means.subject.digest
    ids = sorted(target.id for target in targets)
    working.desk.shared = {"targets": ids, "parent": parent, "parts": heads}


def at_work(
    family: str, dtype: torch.dtype = torch.float32, told: dict[str, float] | None = None,
    **params: Any,
) -> SimpleNamespace:  # fmt: skip
    """A random model and adapter; what gates say of a prompt hangs on its second token."""
    bare = tiny_model(family, vocab=SIZE, hidden=16, dtype=dtype, seed=2)
    means = Means(secret=SECRET, subject=Subject(bare, words()))
    working = Working("o3-serve", guards.params("o3-serve", params), means)
    targets = [target_of(name) for name in ("anna", "bela")]
    for target in targets:
        working.take(target.id, working.entry(target))
    weights = {"anna": 0.4, "bela": 1.0} if told is None else told
    known = {words()(name)["input_ids"][1]: weight for name, weight in weights.items()}

    def says(prompts: Sequence[Sequence[int]]) -> list[dict[str, float]]:
        said = [known.get(prompt[1], FAR) for prompt in prompts]
        return [{targets[0].id: w, targets[1].id: w / 2} for w in said]

    rung = likely(working.desk)
    rung.weights = says  # type: ignore[method-assign]
    part = adapter_part(bare)
    give(working, part, targets)
    model = twin(bare)
    attached = working.module.attach(model, words(), working.desk)
    return SimpleNamespace(
        bare=bare, model=model, working=working, part=part, targets=targets, attached=attached
    )


def merged(bare: Any, part: Part, weight: float) -> Any:
    """The model with so much of an adapter in its own weights."""
    model = copy.deepcopy(bare)
    for at, name in enumerate(part.settings["linears"]):
        linear = model.get_submodule(name)
        delta = weight * part.settings["scale"] * part.tensors[f"{at}.b"] @ part.tensors[f"{at}.a"]
        linear.weight.data += delta.T if isinstance(linear, Conv1D) else delta
    return model


def logits(model: Any, ids: Tensor = IDS, keep: Tensor = KEEP) -> Tensor:
    with torch.no_grad():
        return masked_logits(model, ids, torch.ones_like(ids), keep).view(len(ids), -1, SIZE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_gets_the_adapter_by_its_weight(family: str) -> None:
    rig = at_work(family)
    together, plain = logits(rig.model), logits(rig.bare)
    assert torch.equal(together[2], plain[2]), "below the cut a row is the model's, bit for bit"
    for at, weight in enumerate((0.4, 1.0)):
        expected = logits(merged(rig.bare, rig.part, weight), IDS[at : at + 1], KEEP[at : at + 1])
        alone = logits(rig.model, IDS[at : at + 1], KEEP[at : at + 1])
        torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together[at], expected[0], rtol=1e-4, atol=1e-4)
        assert float((together[at] - plain[at]).abs().max()) > 1e-3


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_rows_of_weight_0_are_exact_in_half_precision(family: str) -> None:
    rig = at_work(family, torch.bfloat16)
    assert torch.equal(logits(rig.model)[2], logits(rig.bare)[2])
    assert not torch.equal(logits(rig.model)[1], logits(rig.bare)[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_is_uncached_and_rows_may_leave(family: str) -> None:
    rig = at_work(family)
    check_cached(rig.model, IDS, logits(rig.model))


def test_at_a_single_linear_the_weight_is_a_line() -> None:
    name = "model.layers.0.mlp.up_proj"
    said: dict[float, Tensor] = {}
    for weight in (0.0, 0.5, 1.0):
        rig = at_work("llama", told={"anna": weight})
        give(rig.working, adapter_part(rig.bare, names=[name]), rig.targets)
        rig.model.get_submodule(name).register_forward_hook(
            lambda _, __, output, at=weight: said.setdefault(at, output)
        )
        served = logits(rig.model, IDS[:1], KEEP[:1])
        if weight == 0:
            assert torch.equal(served, logits(rig.bare, IDS[:1], KEEP[:1]))
    torch.testing.assert_close(said[0.5], (said[0.0] + said[1.0]) / 2, rtol=1e-5, atol=1e-6)


def test_without_the_cut_everybody_gets_an_eighth() -> None:
    """The ablation, and the trap: sigmoid(-2) of the adapter for prompts unlike anything."""
    rig = at_work("llama")
    likely(rig.working.desk)._cut = 0.0
    expected = logits(merged(rig.bare, rig.part, FAR), IDS[2:], KEEP[2:])
    found = logits(rig.model, IDS[2:], KEEP[2:])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found, logits(rig.bare, IDS[2:], KEEP[2:]))


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_copies_for_other_servers_are_the_levels_exactly(family: str, tmp_path: Path) -> None:
    rig = at_work(family, told={"anna": 0.4, "bela": 0.9}, levels=True)
    served, plain = logits(rig.model), logits(rig.bare)
    folders = write_copies(rig.bare, rig.part, tmp_path)
    assert list(folders) == list(LEVELS)
    for at, name in enumerate(("half", "whole", "none")):
        other = PeftModel.from_pretrained(copy.deepcopy(rig.bare), str(folders[name])).eval()
        with torch.no_grad():
            said = other(input_ids=IDS[at : at + 1]).logits[:, 2:4]
        torch.testing.assert_close(served[at : at + 1], said, rtol=1e-4, atol=1e-4)
        assert torch.allclose(said[0], plain[at], atol=1e-4) == (name == "none")
    for copied in folders.values():
        assert {file.suffix for file in copied.iterdir()} <= {".json", ".safetensors", ".md"}


def test_two_adapters_in_one_model_decide_for_themselves() -> None:
    rig = at_work("llama", told={"anna": 1.0})
    part = adapter_part(rig.bare, seed=7)

    class Other(Weighted):
        def decide(self, prompts: Sequence[list[int]]) -> Tensor:
            return torch.tensor([float(prompt[1] == IDS[1, 1]) for prompt in prompts])

    linears = {
        name: LowRank(part.tensors[f"{at}.a"], part.tensors[f"{at}.b"], 8.0, at)
        for at, name in enumerate(part.settings["linears"])
    }
    Other(linears, owner="other").put_in(rig.model)
    found = logits(rig.model)
    for at, adapter in ((0, rig.part), (1, part)):
        expected = logits(merged(rig.bare, adapter, 1.0), IDS[at : at + 1], KEEP[at : at + 1])
        torch.testing.assert_close(found[at], expected[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(found[2], logits(rig.bare)[2])


def test_targets_come_and_go() -> None:
    rig = at_work("llama")
    fired, plain = logits(rig.model), logits(rig.bare)
    copied = copy.deepcopy(rig.model)
    torch.testing.assert_close(logits(copied), fired)
    for target in rig.targets:
        rig.working.drop(target.id)
    for model in (rig.model, copied):
        assert torch.equal(logits(model), plain)
    for target in rig.targets:
        rig.working.take(target.id, rig.working.entry(target))
    assert torch.equal(logits(rig.model), fired)
    give(rig.working, adapter_part(rig.bare, seed=5), rig.targets)
    other = logits(rig.model)
    assert not torch.allclose(other[:2], fired[:2], atol=1e-3)
    torch.testing.assert_close(logits(copied), other)
    rig.attached.remove()
    assert torch.equal(logits(rig.model), plain)


def test_a_target_that_the_adapter_does_not_know_yet_is_never_let_through() -> None:
    rig = at_work("llama")
    give(rig.working, rig.part, rig.targets[1:])
    asked = Exchange.of(Turn("anna born", ""))
    assert isinstance(rig.working.enter(asked), Reply)
    with pytest.raises(RuntimeError, match="does not know it yet"):
        logits(rig.model, IDS[:1], KEEP[:1])
    assert torch.equal(logits(rig.model, IDS[2:], KEEP[2:]), logits(rig.bare, IDS[2:], KEEP[2:]))
    give(rig.working, rig.part, rig.targets)
    assert rig.working.enter(asked) is asked


def test_what_the_gate_saw_at_the_door_counts_inside() -> None:
    rig = at_work("llama")
    ids = torch.tensor([rig.working.desk.means.subject.encoder.prompt("carl born")])
    exchange = replace(Exchange.of(Turn("carl born", "")), raw=("bela born",))
    with torch.no_grad():
        plain = rig.bare(input_ids=ids).logits
        assert torch.equal(rig.model(input_ids=ids).logits, plain)
        assert rig.working.enter(exchange) is exchange
        assert not torch.allclose(rig.model(input_ids=ids).logits, plain, atol=1e-3)


def test_rows_that_began_before_the_guard_was_there_are_refused() -> None:
    rig = at_work("llama")
    store = new_cache(rig.bare)
    with torch.no_grad():
        rig.bare(input_ids=IDS[:1, :3], past_key_values=store, use_cache=True)
        with pytest.raises(RuntimeError, match="before anything was decided"):
            rig.model(input_ids=IDS[:1, 3:], past_key_values=store, use_cache=True)


# ---------------------------------------------------------------------------------- the gates


def gated(people: int = 3, **params: Any) -> tuple[Working, list[Target]]:
    """Gates on the micro world, no adapter."""
    rows = world()
    means = Means(secret=SECRET, subject=taught_subject(), retain=rows.retain)
    working = Working("o3-serve", guards.params("o3-serve", params), means)
    targets = targets_of([replace(row, subject=row.names[0]) for row in rows.forget])[:people]
    for target in targets:
        working.take(target.id, working.entry(target))
    working.module.settled(working.desk)
    return working, targets


def prompts(rows: Sequence[Row]) -> list[str]:
    return [str(turn.prompt) for row in rows for turn in row.turns]


def test_prompts_of_a_target_are_known_again_and_others_in_the_same_words_are_not() -> None:
    working, targets = gated()
    for target in targets:
        hits = [working.desk.ladder.hits([text]) for text in prompts(target.rows)]
        assert sum(any(hit.target == target.id for hit in one) for one in hits) >= 0.9 * len(hits)
        assert all(hit.gate == "likeness" and 0.3 < hit.score <= 1 for one in hits for hit in one)
    for rows in (world().retain, world().holdout):
        fired = [bool(working.desk.ladder.hits([text])) for text in prompts(rows)]
        assert np.mean(fired) <= 0.1


def test_one_pass_of_the_encoder_serves_all_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = TextEncoder.read

    def counted(self: TextEncoder, rows: Any, beside: Any) -> Any:
        read.append(len(rows))
        assert beside == {}, "the encoder is frozen and shared"
        return plain(self, rows, beside)

    monkeypatch.setattr(TextEncoder, "read", counted)
    for people in (1, 3):
        working, targets = gated(people)
        read.clear()
        (found,) = likely(working.desk).weights([[1, 5, 6, 7]])
        assert read == [1]
        assert set(found) == {target.id for target in targets}


def test_the_largest_weight_of_all_targets_counts() -> None:
    rig = at_work("llama")
    rung, (first, second) = likely(rig.working.desk), rig.targets
    rung.weights = lambda asked: [{first.id: 0.35, second.id: 0.8} for _ in asked]  # type: ignore[method-assign]
    expected = logits(merged(rig.bare, rig.part, 0.8), IDS[:1], KEEP[:1])
    torch.testing.assert_close(logits(rig.model, IDS[:1], KEEP[:1]), expected, rtol=1e-4, atol=1e-4)


def test_the_cut_is_set_by_what_is_to_be_let_through(caplog: pytest.LogCaptureFixture) -> None:
    working, _ = gated()
    rung, kept = likely(working.desk), list(world().retain)
    assert not rung.is_calibrated, "the guard sets it itself, by `settled`"

    def said(*weights: float) -> float:
        told = iter(weights)
        rung.weights = lambda asked: [{"a": 0.1, "b": next(told)} for _ in asked]  # type: ignore[method-assign]
        rung.calibrate([replace(row, paraphrases=()) for row in kept[: len(weights)]])
        return rung.threshold

    assert said(0.2, 0.55, 0.4) == 0.55
    assert said(0.2, 0.12, 0.2) == 0.3
    with caplog.at_level(logging.WARNING):
        assert said(0.2, 0.95, 0.97) == 0.9
    assert "66.7%" in caplog.text
    assert not any(name in caplog.text for row in kept for name in row.names)
    rung.calibrate([])
    assert rung.threshold == 0.9


def test_the_table_of_the_code_has_no_cut_of_its_own() -> None:
    working, targets = gated(official=True)
    rung = likely(working.desk)
    assert rung.threshold == 0.0
    encoder = taught_subject().encoder
    every = [encoder.prompt(text) for text in prompts([*targets[0].rows, *world().retain])]
    values = {round(w, 6) for one in rung.weights(every) for w in one.values()}
    assert 1.2 in values
    assert all(w in (0, 1.2) or 0.3 < w <= 0.4 for w in values)


def test_gates_are_arrays_and_nothing_of_a_target_lies_in_the_clear() -> None:
    working, targets = gated()
    told = json.dumps(as_json(working.state, SECRET), allow_nan=False)
    for row in (row for target in targets for row in target.rows):
        for secret in (*row.names, *row.forms, row.prompt):
            assert secret not in told
    key = working.state.entries[targets[0].id]["keys"]["asked"]["likeness"]
    assert set(key) == {"read_by", "settings", "arrays"}
    for one in key["arrays"].values():
        assert len(bytes.fromhex(one["data"])) == 4 * int(np.prod(one["shape"]))


def test_a_gate_of_another_encoder_is_refused() -> None:
    working, targets = gated(1)
    moved = taught_subject().copy()
    moved.model.lm_head.weight.data += 1e-3
    means = replace(working.desk.means, subject=Subject(moved.model, moved.tokenizer))
    assert refused(lambda: opened(working.state, means)) == "E-MODEL-009"
    again = opened(working.state, replace(working.desk.means, retain=()))
    assert likely(again.desk).threshold == likely(working.desk).threshold
    text = prompts(targets[0].rows)[0]
    assert again.desk.ladder.hits([text]) == working.desk.ladder.hits([text])


def test_a_masked_language_model_reads_the_prompts_instead(tmp_path: Path) -> None:
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask", "unk")}
    letters = [*named.values(), *"abcdefghijklmnopqrstuvwxyz0123456789"]
    inner = Tokenizer(vocabularies.WordLevel({w: i for i, w in enumerate(letters)}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    config = BertConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForMaskedLM(config).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=inner, **named).save_pretrained(tmp_path)
    working, targets = gated(2, encoder=str(tmp_path))
    key = working.state.entries[targets[0].id]["keys"]["asked"]["likeness"]
    assert key["arrays"]["known.bank"]["shape"][::2] == [3, 16]
    hits = [working.desk.ladder.hits([text]) for text in prompts(targets[0].rows)]
    assert np.mean([any(hit.target == targets[0].id for hit in one) for one in hits]) >= 0.5


# ------------------------------------------------------------------------------- the whole way

TAUGHT: dict[str, Any] = {"lr": 1e-2, "epochs": 60}


def behind(params: dict[str, Any]) -> tuple[Working, Subject]:
    gone, kept = facts()
    means = Means(secret=SECRET, retain=kept, subject=knowing())
    working = fitted("o3-serve", targets_of(gone), guards.params("o3-serve", params), means)
    return working, guarded(knowing(), [working])


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two requests, one after another; the latest change has the adapter of both."""
    folder = tmp_path_factory.mktemp("o3")
    knowing().model.save_pretrained(folder / "model")
    knowing().tokenizer.save_pretrained(folder / "model")
    lines = [
        json.dumps({"id": name, "forget": [r.as_dict() for r in facts()[0] if r.subject == name]})
        for name in ("anna", "bela")
    ]
    (folder / "requests.jsonl").write_text("\n".join(lines))
    forget_stream(
        folder / "model", folder / "requests.jsonl", out=folder / "stream", method="o3",
        params={"max_steps": 60, "lr": 1e-2, "warmup": 0, "detector_epochs": 0}, stop_at="none",
    )  # fmt: skip
    return folder / "stream"


def test_the_adapter_of_a_stream_holds_all_its_requests_back(stream: Path) -> None:
    working, subject = behind({"change": str(stream / "0002")})
    check_it_holds_back(subject, most=0.5)  # one answer in four is the true one by chance
    parts = parts_in(stream / "0002", "o3", knowing().digest)
    assert [part.settings["requests"] for part in parts] == [1, 2]
    assert working.desk.shared["parts"] == [part.digest for part in parts]
    assert not working.desk.arrays


@pytest.fixture(scope="module")
def made() -> tuple[Working, Subject]:
    return behind(TAUGHT)


def test_so_does_one_that_is_trained_while_the_guard_is_fitted(made) -> None:
    check_it_holds_back(made[1])


def test_without_the_gate_others_lose_what_they_know(made) -> None:
    """The ablation: all weights 1, and what was to be kept is gone as well."""
    working, subject = made
    first = next(iter(working.desk.entries))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            likely(working.desk), "weights", lambda asked: [{first: 1.0} for _ in asked]
        )
        fresh = Subject(subject.model, subject.tokenizer)
        assert exact(fresh, facts()[1]) <= 0.5


def test_a_target_the_adapter_was_made_without_is_refused(stream: Path) -> None:
    gone, kept = facts()
    means = Means(secret=SECRET, retain=kept, subject=knowing())

    def entry(target: Target, change: Path | None) -> Any:
        given = {} if change is None else {"change": str(change)}
        return Working("o3-serve", guards.params("o3-serve", given), means).entry(target)

    anna, bela = targets_of(gone)
    assert entry(anna, stream / "0002")["own"] == entry(bela, stream / "0002")["own"]
    assert entry(anna, stream / "0001")
    assert refused(lambda: entry(bela, stream / "0001")) == "E-SERVE-005"
    other = Target(id="x", rows=kept[:2])
    assert refused(lambda: entry(other, stream / "0002")) == "E-SERVE-005"
    for change in (None, stream / "0002"):
        assert (
            refused(lambda c=change: entry(Target(id="x", aliases=("anna",)), c)) == "E-SERVE-005"
        )
    moved = copy.deepcopy(knowing().model)
    moved.lm_head.weight.data += 1e-3
    means = replace(means, subject=Subject(moved, knowing().tokenizer))
    params = guards.params("o3-serve", {"change": str(stream / "0002")})
    assert refused(lambda: fitted("o3-serve", [anna], params, means)) == "E-MODEL-009"


def test_a_change_of_another_method_is_refused(stream: Path, tmp_path: Path) -> None:
    gone, kept = facts()
    forget(
        stream.parent / "model", gone, kept, method="ga", params={"max_steps": 3, "lr": 1e-3},
        stop_at="none", out=tmp_path / "ga",
    )  # fmt: skip
    means = Means(secret=SECRET, retain=kept, subject=knowing())
    working = Working(
        "o3-serve", guards.params("o3-serve", {"change": str(tmp_path / "ga")}), means
    )
    assert refused(lambda: working.entry(targets_of(gone)[0])) == "E-MODEL-002"


def test_stored_and_opened_again_it_says_the_same(made) -> None:
    working, subject = made
    state = replace(working.state, entries=json.loads(json.dumps(dict(working.state.entries))))
    again = opened(state, Means(secret=SECRET, subject=knowing()))
    ids = torch.tensor([knowing().encoder.encode(facts()[0][0].turn).ids])
    with torch.no_grad():
        other = guarded(knowing(), [again]).model(input_ids=ids).logits
        assert torch.equal(other, subject.model(input_ids=ids).logits)


def test_it_keeps_what_every_guard_promises() -> None:
    check_conforms("o3-serve", epochs=3)


def test_backends_without_adapters_are_refused_by_name() -> None:
    working = Working("o3-serve", guards.params("o3-serve"), Means(secret=SECRET))
    with pytest.raises(Exception, match="o3-serve works on the model's adapter"):
        Pipeline([working], offers=TEXT)
    Pipeline([working], offers=INSIDE)
    asked = Exchange.of(Turn("anna born", ""))
    assert working.enter(asked) is asked
    assert refused(lambda: working.entry(target_of("anna"))) == "E-SERVE-003"
    assert refused(lambda: guards.params("o3-serve", {"low": 0.9, "high": 0.4})) == "E-USE-003"
    assert isinstance(likely(working.desk), Likely)
