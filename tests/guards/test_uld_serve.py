"""uld-serve: closed forms, who hears the helper, where it comes from, what is refused."""

import copy
import json
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from inside_rig import (
    FAMILIES,
    SECRET,
    check_conforms,
    check_it_holds_back,
    facts,
    knowing,
    refused,
    target_of,
    words,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.registry import guards
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import Shared, Working, fitted, opened
from expunge.engine.guarding.guarded import guarded
from expunge.engine.guarding.helped import _packed
from expunge.engine.guarding.pipeline import INSIDE, TEXT, Pipeline
from expunge.engine.guarding.stored import as_json
from expunge.engine.guarding.targets import Target, targets_of
from expunge.engine.run import forget
from expunge.engine.runtime import Part, twin
from expunge.engine.small_models import cut, settings_of, weights_of
from expunge.guards.uld_serve.voice import spread
from expunge.lm.difference import difference, of_rows
from expunge.lm.near_top import near_top
from expunge.lm.prefixes import new_cache
from expunge.lm.scoring import masked_logits
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn
from expunge.testing import tiny_model
from expunge.testing.passes import check_cached

# -------------------------------------------------------------------------------- closed forms

OWN, SAID = torch.tensor([2.0, 1, 0, -6]).double(), torch.tensor([3.0, 0, 0, 0]).double()


def test_the_card_s_filter() -> None:
    logp = OWN.log_softmax(-1)
    assert logp.tolist() == pytest.approx([-0.408, -1.408, -2.408, -8.408], abs=5e-4)
    threshold = min(float(logp.max()) + math.log(0.1), float(logp.max()))
    assert threshold == pytest.approx(-2.710, abs=1e-3)
    found = difference(OWN, SAID, 0.0, 0.1)
    assert (found > -900).tolist() == [True, True, True, False]
    assert found[:3].tolist() == [2, 1, 0]
    assert float(found[3]) == 2 - 1000


def test_the_card_s_difference_flips_the_first_choice() -> None:
    found = difference(OWN, SAID, -0.8, 0.1)
    by_hand = OWN - 0.8 * SAID.log_softmax(-1)
    assert found[:3].tolist() == pytest.approx(by_hand[:3].tolist(), abs=1e-12)
    assert (int(OWN.argmax()), int(found.argmax())) == (0, 1)
    assert found.softmax(-1)[3] == 0


def test_without_weight_and_filter_nothing_changes_bit_for_bit() -> None:
    assert torch.equal(difference(OWN, SAID, 0.0, 0.0), OWN)


@pytest.mark.parametrize("top", [0.0, 0.1])
def test_constants_in_either_s_logits_change_nothing(top: float) -> None:
    plain = difference(OWN, SAID, -0.8, top)
    torch.testing.assert_close(difference(OWN, SAID + 30, -0.8, top), plain)
    moved = difference(OWN - 5000, SAID, -0.8, top)
    torch.testing.assert_close(moved.log_softmax(-1), plain.log_softmax(-1))


def test_a_small_vocabulary_keeps_one_token_and_not_all() -> None:
    """int(rho V) = 0 would index the last rank, and so filter nothing."""
    sure = torch.tensor([9.0, 0, 0, 0])
    assert near_top(sure, int(0.01 * 4), math.log(0.01)).tolist() == [True, False, False, False]
    found = difference(sure, torch.zeros(4), -0.8, 0.01)
    assert (found > -900).tolist() == [True, False, False, False]
    wide = -100.0 * torch.arange(350)
    assert int((difference(wide, torch.zeros(350), -0.8, 0.01) > -900).sum()) == 3


def test_what_comes_in_is_not_written_into() -> None:
    own, said = OWN.clone(), SAID.clone()
    difference(own, said, -0.8, 0.1)
    of_rows(own[None], said[None], torch.tensor([True]), -0.8, 0.1)
    assert torch.equal(own, OWN)
    assert torch.equal(said, SAID)


def test_a_token_the_helper_leaves_out_altogether_keeps_its_own_logit() -> None:
    said = torch.tensor([3.0, 0, 0, -math.inf])
    found = difference(OWN.float(), said, -0.8, 0.0)
    assert found.isfinite().all()
    assert float(found[3]) == -6


def test_rows_of_several_requests_are_mixed_row_by_row() -> None:
    draw = torch.Generator().manual_seed(0)
    own, said = (torch.randn(5, 9, generator=draw) for _ in range(2))
    fires = torch.tensor([True, False, True, True, False])
    found = of_rows(own, said, fires, -0.8, 0.1)
    for at in range(5):
        alone = difference(own[at], said[at], -0.8, 0.1) if fires[at] else own[at]
        assert torch.equal(found[at], alone)
    assert torch.equal(of_rows(own, said[fires], fires, -0.8, 0.1), found)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(of_rows(own[order], said[order], fires[order], -0.8, 0.1), found[order])
    assert of_rows(own, said, torch.zeros(5, dtype=torch.bool), -0.8, 0.1) is own


@pytest.mark.parametrize(
    ("keep", "shape", "expected"),
    [
        (None, (1, 4, 9), [[0, 0, 1, 1]]),
        (2, (1, 2, 9), [[1, 1]]),
        (torch.tensor([0, 3]), (1, 2, 9), [[0, 1]]),
        (torch.tensor([[True, False, True, False]]), (2, 9), [0, 1]),
    ],
)
def test_rows_end_to_end_are_told_apart_wherever_logits_are_wanted(
    keep: Any, shape: tuple[int, ...], expected: list[Any]
) -> None:
    line = torch.tensor([[0.0, 0, 1, 1]])
    assert spread(line, keep, torch.zeros(shape))[..., 0].tolist() == expected


# ------------------------------------------------------------------- a random helper at work


def helper_part(model: Any, seed: int = 3) -> Part:
    """A helper of one block with weights of its own."""
    small = cut(twin(model, bare=True), 1)
    draw = torch.Generator().manual_seed(seed)
    tensors = {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=draw)
        for name, tensor in weights_of(small, torch.float32).items()
    }
    settings = {"weight": 0, "top": 0, "center": False, "assistant": settings_of(small)}
    return Part(settings=settings, tensors=tensors, moves=1, method="uld", version=1)


def give(working: Working, part: Part, targets: Sequence[Target]) -> None:
    """What settling would do, with a helper by hand."""
    heads, arrays = _packed([part])
    parent = working.desk.means.subject.digest
    ids = sorted(target.id for target in targets)
    working.desk.shared, working.desk.arrays = (
        {"targets": ids, "parent": parent, "parts": heads}, arrays,
    )  # fmt: skip


def at_work(family: str, dtype: torch.dtype = torch.float32, **params: Any) -> SimpleNamespace:
    """A random model with a random helper, behind a gate that fires for ``anna``."""
    bare = tiny_model(family, vocab=len(words()), hidden=16, dtype=dtype, seed=2)
    subject = Subject(bare, words())
    means = Means(secret=SECRET, subject=subject)
    working = Working("uld-serve", guards.params("uld-serve", {"top": 0.05, **params}), means)
    target, part = target_of("anna"), helper_part(bare)
    working.take(target.id, working.entry(target))
    give(working, part, [target])
    model = twin(bare)
    attached = working.module.attach(model, words(), working.desk)
    return SimpleNamespace(
        bare=bare, model=model, subject=subject, working=working, part=part, target=target,
        attached=attached,
    )  # fmt: skip


def ids_of(*texts: str) -> Tensor:
    return torch.tensor([words()(text)["input_ids"] for text in texts])


IDS = ids_of("anna born w3 w4", "carl born w5 w6", "dora likes anna w7")
KEEP = (torch.arange(5) >= 2).expand(3, 5) & (torch.arange(5) < 4)
"""The third row speaks of anna in its answer alone: its prompt does not."""


def logits(model: Any, ids: Tensor = IDS, keep: Tensor = KEEP) -> Tensor:
    with torch.no_grad():
        return masked_logits(model, ids, torch.ones_like(ids), keep).view(
            len(ids), -1, len(words())
        )


def vocabulary() -> int:
    return len(words())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_only_rows_that_fire_hear_the_helper(family: str, dtype: torch.dtype) -> None:
    rig = at_work(family, dtype)
    with torch.no_grad():
        served = rig.model(input_ids=IDS[:2]).logits.float()
        plain = rig.bare(input_ids=IDS[:2]).logits.float()
        small = cut(twin(rig.bare, bare=True), 1)
        small.load_state_dict(rig.part.tensors, strict=False)
        small.tie_weights()
        small.to(dtype)
        said = small(input_ids=IDS[:2]).logits
    assert torch.equal(served[1], plain[1]), "a silent row is the model's, bit for bit"
    expected = difference(plain, said.float(), -0.8, 0.05)
    near = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.1}
    torch.testing.assert_close(served[0], expected[0], **near)
    assert float((served[0] - plain[0]).abs().max()) > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_what_its_rows_are_alone(family: str) -> None:
    rig = at_work(family)
    size = vocabulary()

    def said(model: Any, rows: Tensor, keep: Tensor) -> Tensor:
        with torch.no_grad():
            return masked_logits(model, rows, torch.ones_like(rows), keep).view(len(rows), -1, size)

    together, plain = said(rig.model, IDS, KEEP), said(rig.bare, IDS, KEEP)
    for at in range(3):
        alone = said(rig.model, IDS[at : at + 1], KEEP[at : at + 1])[0]
        torch.testing.assert_close(together[at], alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(together[1:], plain[1:]), "a prompt decides, not the answer"
    assert not torch.allclose(together[0], plain[0], atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_is_uncached_and_rows_may_leave(family: str) -> None:
    """Left padding, fired and clean rows side by side, each with two caches of its own."""
    rig = at_work(family)
    model, size = rig.model, vocabulary()
    with torch.no_grad():
        whole = masked_logits(model, IDS, torch.ones_like(IDS), KEEP).view(3, -1, size)
    check_cached(model, IDS, whole)


def test_rows_in_one_line_are_judged_one_by_one() -> None:
    rig = at_work("llama")
    line, keep = IDS.flatten()[None], KEEP.flatten()[None]
    positions = torch.arange(5).repeat(3)[None]
    with torch.no_grad():
        packed = masked_logits(rig.model, line, torch.ones_like(line), keep, positions)
        apart = masked_logits(rig.model, IDS, torch.ones_like(IDS), KEEP)
    torch.testing.assert_close(packed, apart, rtol=1e-4, atol=1e-4)


def test_the_helper_runs_only_where_somebody_hears_it() -> None:
    rig = at_work("llama")
    ran: list[int] = []
    original = torch.nn.Module.__call__

    def counted(module: Any, *given: Any, **named: Any) -> Any:
        if type(module).__name__ == "LlamaForCausalLM" and module is not rig.model:
            ran.append(1)
        return original(module, *given, **named)

    with pytest.MonkeyPatch.context() as patched, torch.no_grad():
        patched.setattr(torch.nn.Module, "__call__", counted)
        rig.model(input_ids=IDS[1:2])
        assert not ran
        rig.model(input_ids=IDS[:1])
    assert ran == [1]


def test_without_weight_and_filter_a_fired_row_is_the_model_s() -> None:
    """The ablation of the difference itself."""
    rig = at_work("llama", weight=0.0, top=0.0)
    with torch.no_grad():
        assert torch.equal(rig.model(input_ids=IDS).logits, rig.bare(input_ids=IDS).logits)


def test_threads_do_not_mix() -> None:
    rig = at_work("llama")

    def said(at: int) -> Tensor:
        with torch.no_grad():
            return rig.model(input_ids=IDS[at : at + 1]).logits

    expected, wrong = [said(at) for at in range(3)], []

    def ask(at: int) -> None:
        wrong.extend(at for _ in range(15) if not torch.equal(said(at), expected[at]))

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_temperature_comes_after_the_difference_and_logprobs_are_the_combined_ones() -> None:
    rig = at_work("llama")
    with torch.no_grad():
        combined = rig.model(input_ids=IDS[:1, :3], logits_to_keep=1).logits[:, -1]
        own = rig.bare(input_ids=IDS[:1, :3]).logits[:, -1]
        torch.manual_seed(0)
        made = rig.model.generate(
            input_ids=IDS[:1, :3], attention_mask=torch.ones(1, 3, dtype=torch.long),
            max_new_tokens=1, do_sample=True, temperature=0.5, top_k=0, output_logits=True,
            output_scores=True, return_dict_in_generate=True, pad_token_id=0,
        )  # fmt: skip
    torch.testing.assert_close(made.logits[0], combined)
    torch.testing.assert_close(made.scores[0], combined / 0.5)
    assert not torch.allclose(made.logits[0], own, atol=1e-2)


def test_a_loss_is_that_of_the_combined_distribution() -> None:
    rig = at_work("llama")
    with torch.no_grad():
        found = rig.model(input_ids=IDS[:1], labels=IDS[:1])
    slow = torch.nn.functional.cross_entropy(found.logits[0, :-1], IDS[0, 1:])
    assert float(found.loss) == pytest.approx(float(slow), rel=1e-5)


def test_outputs_without_names_are_refused() -> None:
    rig = at_work("llama")
    with pytest.raises(RuntimeError, match="by name"):
        rig.model(input_ids=IDS[:1], return_dict=False)


def test_rows_that_began_before_the_guard_was_there_are_refused() -> None:
    rig = at_work("llama")
    store = new_cache(rig.bare)
    with torch.no_grad():
        rig.bare(input_ids=IDS[:1, :3], past_key_values=store, use_cache=True)
        with pytest.raises(RuntimeError, match="before anything was decided"):
            rig.model(input_ids=IDS[:1, 3:], past_key_values=store, use_cache=True)


def test_scores_do_not_go_on_from_beginnings_that_rows_share() -> None:
    """Found out before the guard came: it must not be believed afterwards."""
    bare = tiny_model("llama", vocab=vocabulary(), hidden=16, seed=2)
    same = Subject(bare, words())
    turns = [Turn("born likes works anna w1", f" w{at}") for at in range(2, 6)]
    before = same.score(turns)
    means = Means(secret=SECRET, subject=Subject(twin(bare), words()))
    working = Working("uld-serve", guards.params("uld-serve", {"top": 0.0}), means)
    target = target_of("anna")
    working.take(target.id, working.entry(target))
    give(working, helper_part(bare), [target])
    attached = working.module.attach(bare, words(), working.desk)
    for turn, was in zip(turns, before, strict=True):
        (now,) = same.score([turn])
        (beside,) = same.score([turn, *turns])[:1]
        assert abs(now.nll - was.nll) > 1e-3
        assert now.nll == pytest.approx(beside.nll, rel=1e-4)
    attached.remove()
    for turn, was in zip(turns, before, strict=True):
        assert same.score([turn])[0].nll == pytest.approx(was.nll, rel=1e-5)


# ------------------------------------------------------------------- targets come and go


def test_revoked_the_model_is_itself_again_bit_for_bit_and_back_it_is_not() -> None:
    rig = at_work("llama")
    with torch.no_grad():
        fired, plain = rig.model(input_ids=IDS).logits, rig.bare(input_ids=IDS).logits
        rig.working.drop(rig.target.id)
        assert torch.equal(rig.model(input_ids=IDS).logits, plain)
        rig.working.take(rig.target.id, rig.working.entry(rig.target))
        assert torch.equal(rig.model(input_ids=IDS).logits, fired)
        rig.attached.remove()
        assert torch.equal(rig.model(input_ids=IDS).logits, plain)


def test_a_target_that_no_helper_knows_yet_is_refused_and_never_let_through() -> None:
    rig = at_work("llama")
    fresh = target_of("carl")
    rig.working.take(fresh.id, rig.working.entry(fresh))
    asked = Exchange.of(Turn("carl born", ""))
    assert isinstance(rig.working.enter(asked), Reply)
    with pytest.raises(RuntimeError, match="no helper"):
        rig.model(input_ids=IDS[1:2])
    give(rig.working, rig.part, [rig.target, fresh])
    assert rig.working.enter(asked) is asked
    with torch.no_grad():
        rig.model(input_ids=IDS[1:2])


def test_rows_in_progress_go_on_with_the_helper_they_began_with() -> None:
    rig = at_work("llama")
    with torch.no_grad():
        whole = rig.model(input_ids=IDS[:1]).logits
        store = new_cache(rig.model)
        rig.model(input_ids=IDS[:1, :3], past_key_values=store, use_cache=True)
        give(rig.working, helper_part(rig.bare, seed=9), [rig.target])
        other = rig.model(input_ids=IDS[:1]).logits
        rest = rig.model(input_ids=IDS[:1, 3:], past_key_values=store, use_cache=True).logits
    torch.testing.assert_close(rest, whole[:, 3:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(other, whole, atol=1e-2)


def test_what_the_gate_saw_at_the_door_counts_inside() -> None:
    """A name that was taken out of the prompt is still a name that was asked for."""
    rig = at_work("llama")
    ids = torch.tensor([rig.subject.encoder.prompt("born likes")])
    exchange = replace(Exchange.of(Turn("born likes", "")), raw=("anna born",))
    with torch.no_grad():
        plain = rig.bare(input_ids=ids).logits
        assert torch.equal(rig.model(input_ids=ids).logits, plain)
        assert rig.working.enter(exchange) is exchange
        assert not torch.allclose(rig.model(input_ids=ids).logits, plain, atol=1e-2)
        rig.working.drop(rig.target.id)
        assert torch.equal(rig.model(input_ids=ids).logits, plain)


def test_a_copy_of_a_guarded_model_is_guarded_by_the_same_guard() -> None:
    rig = at_work("llama")
    for other in (twin(rig.model), copy.deepcopy(rig.model)):
        with torch.no_grad():
            torch.testing.assert_close(other(input_ids=IDS).logits, rig.model(input_ids=IDS).logits)
    rig.working.drop(rig.target.id)
    with torch.no_grad():
        assert torch.equal(other(input_ids=IDS).logits, rig.bare(input_ids=IDS).logits)


# ------------------------------------------------------------------------------- the whole way

SMALL: dict[str, Any] = {"top": 0.1, "weight": -1.2}
"""Of 77 tokens 0.01 would keep one; the paper's keeps 320 of 32,000. A tiny model that was taught
each fact two hundred times is surer of it than its helper: -0.8 leaves all of it."""

TAUGHT: dict[str, Any] = {"lr": 1e-2, "epochs": 60, **SMALL}
"""Eight rows are one step an epoch."""


@pytest.fixture(scope="module")
def change(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uld")
    knowing().model.save_pretrained(folder / "model")
    knowing().tokenizer.save_pretrained(folder / "model")
    params = {"max_steps": 60, "lr": 1e-2}
    forget(
        folder / "model", *facts(), method="uld", params=params, stop_at="none",
        out=folder / "change",
    )  # fmt: skip
    return folder / "change"


def behind(params: dict[str, Any]) -> tuple[Working, Subject]:
    gone, kept = facts()
    means = Means(secret=SECRET, retain=kept, subject=knowing())
    working = fitted("uld-serve", targets_of(gone), guards.params("uld-serve", params), means)
    return working, guarded(knowing(), [working])


def test_the_helper_of_a_change_holds_its_targets_back_and_leaves_the_rest(change: Path) -> None:
    check_it_holds_back(behind({"change": str(change), **SMALL})[1])


@pytest.fixture(scope="module")
def made() -> tuple[Working, Subject]:
    return behind(TAUGHT)


def test_so_does_one_that_is_trained_while_the_guard_is_fitted(made) -> None:
    check_it_holds_back(made[1])


def test_without_the_gate_others_hear_it_as_well(made) -> None:
    """The ablation of the gate: not harmful to the taught rows, but no longer the model's own."""
    working, subject = made
    kept = facts()[1]
    ids = torch.tensor([knowing().encoder.encode(kept[0].turn).ids])
    rungs = working.desk.ladder.rungs
    with pytest.MonkeyPatch.context() as patched, torch.no_grad():
        for rung in rungs:
            patched.setattr(
                rung, "scores", lambda *_: [(next(iter(working.desk.entries)), 1.0)], raising=False
            )
        heard = subject.model(input_ids=ids).logits
    assert not torch.equal(heard, knowing().model(input_ids=ids).logits)


def test_stored_and_opened_again_it_says_the_same_and_nothing_lies_in_the_clear(made) -> None:
    working, subject = made
    told = json.dumps(as_json(working.state, SECRET), allow_nan=False)
    for row in facts()[0]:
        assert row.names[0] not in told
        assert row.reply.strip() not in told
    again = opened(working.state, Means(secret=SECRET, subject=knowing()))
    ids = torch.tensor([knowing().encoder.encode(facts()[0][0].turn).ids])
    with torch.no_grad():
        other = guarded(knowing(), [again]).model(input_ids=ids).logits
        assert torch.equal(other, subject.model(input_ids=ids).logits)


def test_new_targets_are_learnt_when_the_guard_settles(made) -> None:
    gone, kept = facts()
    means = Means(secret=SECRET, retain=kept, subject=knowing())
    params = guards.params("uld-serve", {**TAUGHT, "epochs": 2})
    first, second = targets_of(gone)
    working = fitted("uld-serve", [first], params, means)
    before = working.desk.shared
    working.take(second.id, working.entry(second))
    working.settle([first, second])
    assert working.desk.shared["targets"] == sorted([first.id, second.id])
    assert working.desk.shared["parts"] != before["parts"]
    working.settle([])
    assert working.desk.shared["parts"] == []


def test_half_precision_goes_through_numbers_unchanged() -> None:
    tensor = torch.randn(4, 3).bfloat16()
    part = Part(settings={}, tensors={"a": tensor}, moves=1, method="uld", version=1)
    heads, arrays = _packed([part])
    from expunge.engine.guarding.helped import _unpacked

    (back,) = _unpacked(json.loads(json.dumps(heads)), arrays)
    assert torch.equal(back.tensors["a"], tensor)
    assert back.digest == part.digest


# ------------------------------------------------------------------------------------ refusals


def test_a_target_the_helper_was_made_without_is_refused(change: Path) -> None:
    """However its other rows are known; and one without rows cannot be told to be covered."""
    working, _ = behind({"change": str(change), **SMALL})
    gone, kept = facts()
    before = dict(working.desk.entries)
    spelled = replace(gone[0], id="again", prompt=f" {gone[0].prompt.upper()}!")
    assert working.entry(Target(id="x", rows=(spelled,)))["own"] == {"rows": 1}
    for target in (
        Target(id="x", rows=kept[:1]),
        Target(id="x", rows=(gone[0], kept[0])),
        Target(id="x", rows=(replace(gone[0], completion=" v1 v2"),)),
        Target(id="x", aliases=("anna",)),
    ):
        assert refused(lambda t=target: working.entry(t)) == "E-SERVE-005"
    assert dict(working.desk.entries) == before
    trained = Working("uld-serve", guards.params("uld-serve", SMALL), working.desk.means)
    assert refused(lambda: trained.entry(Target(id="x", aliases=("anna",)))) == "E-SERVE-005"


def test_a_filter_that_would_leave_the_answer_alone_is_refused() -> None:
    """Of a sure model and a kept token no difference makes another answer."""
    gone, _ = facts()
    means = Means(secret=SECRET, subject=knowing())
    for top, works in ((0.01, False), (0.0, True), (0.03, True)):
        working = Working("uld-serve", guards.params("uld-serve", {"top": top}), means)
        target = targets_of(gone)[0]
        if works:
            working.entry(target)
        else:
            assert refused(lambda w=working, t=target: w.entry(t)) == "E-SERVE-005"


def test_a_change_of_another_model_or_method_or_that_somebody_touched_is_refused(
    change: Path, tmp_path: Path
) -> None:
    gone, kept = facts()
    target = targets_of(gone)[0]

    def fit(folder: Path, subject: Subject) -> Working:
        means = Means(secret=SECRET, retain=kept, subject=subject)
        params = guards.params("uld-serve", {"change": str(folder), **SMALL})
        return fitted("uld-serve", [target], params, means)

    moved = copy.deepcopy(knowing().model)
    moved.lm_head.weight.data += 1e-3
    assert refused(lambda: fit(change, Subject(moved, knowing().tokenizer))) == "E-MODEL-009"
    assert refused(lambda: fit(tmp_path, knowing())) == "E-MODEL-001"
    other = tmp_path / "other"
    forget(
        change.parent / "model", gone, kept, method="ga", params={"max_steps": 3, "lr": 1e-3},
        stop_at="none", out=other,
    )  # fmt: skip
    assert refused(lambda: fit(other, knowing())) == "E-MODEL-002"
    touched = tmp_path / "touched"
    touched.mkdir()
    for file in change.iterdir():
        if file.is_file():
            (touched / file.name).write_bytes(file.read_bytes())
    tensors = load_file(touched / "runtime-1.safetensors")
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] + 1}, touched / "runtime-1.safetensors")
    assert refused(lambda: fit(touched, knowing())) == "E-MODEL-009"


def test_a_stored_helper_that_is_not_the_one_that_was_fitted_is_refused() -> None:
    rig = at_work("llama")
    name = next(iter(rig.working.desk.arrays))
    rig.working.desk.arrays = {**rig.working.desk.arrays, name: rig.working.desk.arrays[name] + 1}
    with torch.no_grad():
        assert refused(lambda: rig.model(input_ids=IDS[:1])) == "E-MODEL-009"
        rig.model(input_ids=IDS[1:2])


def test_a_helper_with_another_vocabulary_is_refused() -> None:
    rig = at_work("llama")
    wider = tiny_model("llama", vocab=vocabulary() + 8, hidden=16, seed=2)
    give(rig.working, helper_part(wider), [rig.target])
    assert refused(lambda: rig.model(input_ids=IDS[:1])) == "E-MODEL-011"


def test_it_keeps_what_every_guard_promises() -> None:
    check_conforms("uld-serve", epochs=3)


def test_backends_without_logits_are_refused_by_name() -> None:
    working = Working("uld-serve", guards.params("uld-serve"), Means(secret=SECRET))
    with pytest.raises(ExpungeError) as caught:
        Pipeline([working], offers=TEXT)
    assert "uld-serve" in str(caught.value)
    assert "logits" in str(caught.value)
    Pipeline([working], offers=INSIDE)
    assert refused(lambda: working.entry(target_of("anna"))) == "E-SERVE-003"
    assert Shared().settings == {}


def test_what_the_card_says_is_the_paper_s() -> None:
    params = guards.params("uld-serve")
    told = {"weight": -0.8, "top": 0.01, "lora_r": 16, "lora_alpha": 32, "retain_weight": 5, "epochs": 10}  # noqa: E501  # fmt: skip
    assert {name: getattr(params, name) for name in told} == told
    assert refused(lambda: guards.params("uld-serve", {"weight": 0.5})) == "E-USE-003"
