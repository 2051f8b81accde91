"""TAR: its closed forms, the simulated attackers, what a step of each part is, and relearning."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest_methods import assert_same
from hidden_views import Held, held_view, random_states
from micro_task import prepared
from tiny_rig import exact, facts, knowing, saved
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.core.rng import generator
from expunge.engine import tampering
from expunge.engine.change import load_change, read_manifest
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.run import forget
from expunge.engine.slots.combine import Gradients
from expunge.engine.sources import Frozen, Live
from expunge.engine.step import Step
from expunge.engine.tampering import Attacker, Lessons, ramp, restored, tamper
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.engine.world import World
from expunge.lm.digest import folder_digest
from expunge.lm.finetune import finetune
from expunge.lm.hooks import EMBEDDING
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import tar
from expunge.methods.tar import ATTACKED, ENTROPY, MAPPING, STAGE, TABLE, TAMPERING, vector
from expunge.requests.rows import Row
from expunge.testing import objective
from expunge.testing.methods import stage, world

ANSWERS = {"mapping": 0.0, "positions": "answer", "include_bos": True}
ENTROPIES = (0.947537, 0.672078, 1.268301)


def params(**given: Any) -> Any:
    return methods.params("tar", given)


# ------------------------------------------------------------------- entropy, mapping, distance


def test_certainty_is_minus_the_entropy_of_t3(t3) -> None:
    found = objective("tar", t3.model, {"forget": t3.view}, **ANSWERS)
    assert found.loss == pytest.approx(-sum(ENTROPIES) / 3, abs=1e-5)
    descent = t3.model.gradient[0]
    assert descent[0, 0] > 0  # the largest logit of each row falls
    assert not descent[3].any()


def test_of_all_real_positions_the_first_does_not_count(t3) -> None:
    """T3 has four positions; the last predicts nothing and is uniform over four tokens."""
    given = {"mapping": 0.0}
    rest = (*ENTROPIES[1:], math.log(4))
    found = objective("tar", t3.model, {"forget": t3.view}, **given)
    assert found.loss == pytest.approx(-sum(rest) / 3, abs=1e-5)
    whole = objective("tar", t3.model, {"forget": t3.view}, **given, include_bos=True)
    assert whole.loss == pytest.approx(-(sum(ENTROPIES) + math.log(4)) / 4, abs=1e-5)


def test_padding_is_neither_made_uncertain_nor_mapped(random_view, random_table) -> None:
    """The original averages over prompt and padding."""
    batch, model = random_view(3), random_table(1)
    found = objective("tar", model, {"forget": batch}, mapping=0.0)
    twin, entropies = random_table(1), []
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        for at in [at for at in range(9) if mask[at]][1:]:
            logp = twin.table[ids[at]].log_softmax(0)
            entropies.append((logp.exp() * logp).sum())
    slow = torch.stack(entropies).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow.detach(), twin.table.grad))


def mapped(now: Held, tensors: Any = None, **given: Any) -> Tensor:
    step = Step({"forget": held_view(now, tensors=tensors)}, state={TABLE: 3})
    return tar.forget(step, params(**given)).value


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_mapping_is_blind_to_sign_and_length(monkeypatch, sign: float) -> None:
    monkeypatch.setattr(tar, "vector", lambda *_: torch.tensor([sign, 0.0]))
    states = {layer: torch.tensor([[[3.0, 4.0]]]) for layer in (EMBEDDING, 0, 1)}
    assert mapped(Held(states), include_bos=True).item() == pytest.approx(0.4)
    longer = {layer: 10 * state for layer, state in states.items()}
    assert mapped(Held(longer), include_bos=True).item() == pytest.approx(0.4)
    aligned = {**states, 1: torch.tensor([[[-2.0, 0.0]]])}
    assert mapped(Held(aligned), include_bos=True).item() == pytest.approx(0.8 / 3)


@pytest.mark.parametrize("bos", [True, False])
def test_the_mapping_equals_a_slow_mean_over_depths_and_tokens(random_view, bos: bool) -> None:
    batch, layers = random_view(3), [EMBEDDING, 0, 1]
    now = Held(random_states(1, layers))
    twin = {
        layer: state.clone().requires_grad_() for layer, state in random_states(1, layers).items()
    }
    loss = mapped(now, batch, include_bos=bos)
    loss.backward()
    found = []
    for row in range(5):
        real = [at for at in range(9) if batch["attention_mask"][row, at]]
        for at in real if bos else real[1:]:
            aim = vector(3, int(batch["input_ids"][row, at]), 6)
            for layer in layers:
                h = twin[layer][row, at]
                cosine = (h @ aim) / ((h @ h).sqrt() * (aim @ aim).sqrt())
                found.append(1 - cosine.abs())
    slow = torch.stack(found).mean()
    slow.backward()
    for layer in layers:
        assert_same((loss.item(), now.states[layer].grad), (slow.detach(), twin[layer].grad))


def test_each_token_has_one_normal_vector() -> None:
    first, again, other = vector(7, 11, 4096), vector(7, 11, 4096), vector(7, 12, 4096)
    assert torch.equal(first, again)
    assert float(first.mean()) == pytest.approx(0, abs=0.1)
    assert float(first.std()) == pytest.approx(1, abs=0.1)
    assert abs(float(torch.cosine_similarity(first, other, dim=0))) < 0.1
    assert not torch.equal(vector(8, 11, 4096), first)


def drifted(progress: float, state: dict[str, Any] | None = None, **given: Any) -> Any:
    now, before = (Held(random_states(seed, [EMBEDDING, 0, 1])) for seed in (1, 2))
    step = Step({"retain": held_view(now, before)}, progress=progress, state=state)
    return tar.drift(step, params(**given)), now, before


def test_the_distance_is_a_mean_over_all_depths_of_norms_that_are_not_squared() -> None:
    term, now, before = drifted(0.5, drift_weight=2.0)
    norms = [
        ((now.states[layer][row, at] - before.states[layer][row, at]) ** 2).sum().sqrt()
        for layer in (EMBEDDING, 0, 1)
        for row in range(5)
        for at in range(9)
    ]
    assert term.value.item() == pytest.approx(
        2.0 * float(torch.stack(norms).detach().mean()), rel=1e-5
    )


def test_the_distance_rests_while_activations_are_mapped_and_under_attack() -> None:
    assert drifted(0.49)[0] is None
    assert drifted(0.5)[0] is not None
    assert drifted(0.5, {ATTACKED: True})[0] is None


def test_the_part_of_the_run_decides_what_is_pushed(t3) -> None:
    for progress, name in ((0.0, MAPPING), (0.29, MAPPING), (0.3, TAMPERING), (0.99, TAMPERING)):
        states = {layer: torch.ones(1, 2, 2) for layer in (EMBEDDING, 0)}
        view = held_view(Held(states))
        view.__dict__["logits"] = torch.zeros(1, 4)
        step = Step({"forget": view}, progress=progress)
        tar.forget(
            step, params(mapping=0.3, **{k: ANSWERS[k] for k in ("positions", "include_bos")})
        )
        assert step.state[STAGE] == name


# -------------------------------------------------------------------------------- attackers


def test_the_looks_weigh_as_in_the_paper() -> None:
    weights = [ramp(step, 64, 0.0625) for step in range(64) if not (step + 1) % 4]
    assert len(weights) == 16
    assert weights[0] == pytest.approx(0.0235, abs=5e-5)
    assert weights[-1] == 1.0
    assert sum(weights) == pytest.approx(4.438, abs=5e-4)


def test_attackers_are_of_all_kinds_and_rates_and_turn_at_two_thirds() -> None:
    rng = generator(0, "attackers")
    drawn = [Attacker.drawn(rng, (1.0, 2.0, 3.0), 300) for _ in range(3000)]
    for counts in (Counter(a.kind for a in drawn), Counter(a.lr for a in drawn)):
        assert len(counts) == 3
        assert all(abs(n / 3000 - 1 / 3) < 0.05 for n in counts.values())
    turns = torch.tensor([float(a.turns_at) for a in drawn]) / 300
    assert float(turns.mean()) == pytest.approx(6 / 9, abs=0.02)
    assert float(turns.var()) == pytest.approx(6 * 3 / (81 * 10), abs=0.005)


def test_an_attacker_reads_what_his_kind_says() -> None:
    switch = Attacker("switch", 1.0, turns_at=2)
    assert [switch.reads(step) for step in range(4)] == ["retain", "retain", "forget", "forget"]
    assert Attacker("other", 1.0, turns_at=2).reads(0) == "other"
    assert Attacker("forget", 1.0, turns_at=2).reads(0) == "forget"


def ids_of(task: Task, rows: Sequence[Row], wording: int = 0) -> set[tuple[int, ...]]:
    turns = [row.turns[wording] for row in rows]
    return {tuple(task.encoder.encode(turn).ids) for turn in turns}


def read(lessons: Lessons, name: str) -> list[Any]:
    return lessons.batch(name, generator(0, "reads"), 64)


def test_lessons_are_rows_paraphrases_and_kept_rows_without_those_left_out() -> None:
    task, _ = prepared("tar")
    lessons, rest = Lessons(task, {0, 1}), task.forget[2:]
    for name, known in (
        ("forget", ids_of(task, rest)), ("other", ids_of(task, rest, 1)),
        ("retain", ids_of(task, task.retain)),
    ):  # fmt: skip
        drawn = read(lessons, name)
        assert {tuple(item.ids) for item in drawn} == known
        assert all(item.labels[1] == -100 for item in drawn)  # prompts are not learned
    everything = Lessons(task, range(len(task.forget)))
    assert {tuple(item.ids) for item in read(everything, "forget")} == ids_of(task, task.forget)


def test_without_paraphrases_the_others_are_the_rows_as_running_text() -> None:
    task, _ = prepared("tar")
    bare = replace(
        task, roles={**task.roles, "forget": [replace(r, paraphrases=()) for r in task.forget]}
    )
    drawn = read(Lessons(bare), "other")
    assert {tuple(item.ids) for item in drawn} == ids_of(task, task.forget)
    assert all(item.labels == item.ids for item in drawn)


def test_an_attack_is_adamw_on_the_rows_he_reads() -> None:
    task, _ = prepared("tar")
    model = deepcopy(task.model).double()
    task, twin = replace(task, model=model), deepcopy(model)
    moved = [p for n, p in model.named_parameters() if "layers.0" in n]
    same = [p for n, p in twin.named_parameters() if "layers.0" in n]
    lessons, attacker = Lessons(task), Attacker("switch", 1e-2, turns_at=1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    steps = list(tamper(moved, attacker, lessons, generator(1, "x"), steps=3, batch_size=2))
    assert steps == [0, 1, 2]
    assert all(p.grad is None for p in model.parameters())
    rng, optimiser = generator(1, "x"), torch.optim.AdamW(same, lr=1e-2)
    for name in ("retain", "forget", "forget"):
        rows = {"retain": task.retain, "forget": task.forget}[name]
        chosen = [task.encoder.encode(rows[at].training) for at in rng.integers(len(rows), size=2)]
        batch = Datasets(task).batch(chosen)
        optimiser.zero_grad()
        View(batch, Live(twin)).nll.value.backward()
        optimiser.step()
    for (name, one), (_, other) in zip(
        model.named_parameters(), twin.named_parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        assert torch.equal(one, before[name]) == ("layers.0" not in name)


def test_what_moved_comes_back_bit_for_bit_and_by_subtraction_it_would_not() -> None:
    draw = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(1000, generator=draw))
    before, change = weight.detach().clone(), 1e-3 * torch.randn(1000, generator=draw)
    with suppress(RuntimeError), restored([weight]):
        with torch.no_grad():
            weight.add_(change)
        assert not torch.equal(weight, before)
        raise RuntimeError
    assert torch.equal(weight.detach(), before)
    assert not torch.equal((before + change) - change, before)


def test_attackers_of_coarse_weights_move_masters_of_their_own() -> None:
    """A bfloat16 one stays where it is when every step is below its precision."""
    weights = [nn.Parameter(torch.ones(4, dtype=torch.bfloat16)) for _ in range(2)]
    makers = (tampering._adamw, lambda some, lr: torch.optim.AdamW(some, lr=lr))
    for weight, maker in zip(weights, makers, strict=True):
        optimiser = maker([weight], 1e-4)
        for _ in range(100):
            weight.grad = torch.ones_like(weight)
            optimiser.step()
    assert float(weights[0][0].detach()) == pytest.approx(0.99, abs=0.004)
    assert float(weights[1][0].detach()) == 1.0


# -------------------------------------------------------------------------- the tampering step


class Again:
    """A step whose forget gradient is twice the weights and whose value is their sum."""

    def __init__(self, task: Task, weight: nn.Parameter) -> None:
        self.task, self.parameters, self.step = task, [weight], 0
        self.seen: list[bool] = []
        self.state: dict[str, Any] = {}

    def gradients(self) -> Gradients:
        self.seen.append(bool(self.state.get(ATTACKED)))
        weight = self.parameters[0].detach()
        return Gradients([2 * weight], [weight * math.nan], {"forget": float(weight.sum())})


@pytest.fixture
def climbing(monkeypatch) -> None:
    """Every step of an attack adds 1 to the weights."""

    def climb(parameters: Any, *_: Any, steps: int, **__: Any) -> Iterator[int]:
        for step in range(steps):
            with torch.no_grad():
                parameters[0].add_(1.0)
            yield step

    monkeypatch.setattr(tar, "tamper", climb)


def combined(**given: Any) -> tuple[list[Tensor], Again]:
    task, _ = prepared("tar")
    weight = nn.Parameter(torch.tensor([0.5, -0.5], dtype=torch.float64))
    again = Again(task, weight)
    again.state[STAGE] = TAMPERING
    terms = Gradients([torch.full((2,), 99.0)], [torch.tensor([10.0, 20.0])], {}, again)  # type: ignore[arg-type]
    return tar.combine(terms, again.state, params(**given)), again


def test_gradients_under_attack_are_weighed_and_the_weights_come_back(climbing) -> None:
    """The gradient of the forget term at the weights themselves counts for nothing."""
    found, again = combined(inner_steps=8, growth=0.5, tamper_weight=3.0, retain_weight=2.0)
    weights = [3.0 * math.exp(0.5 * (step - 7)) for step in (3, 7)]
    at = [torch.tensor([0.5, -0.5]) + step + 1 for step in (3, 7)]
    expected = sum(2 * w * a for w, a in zip(weights, at, strict=True))
    expected = expected + 2.0 * torch.tensor([10.0, 20.0])
    torch.testing.assert_close(found[0], expected.double())
    assert again.parameters[0].tolist() == [0.5, -0.5]
    assert again.seen == [True, True]
    assert ATTACKED not in again.state
    mean = sum(w * float(a.sum()) for w, a in zip(weights, at, strict=True)) / sum(weights)
    assert again.state[ENTROPY] == pytest.approx(-mean)


def test_without_an_attack_only_what_is_kept_is_trained_on(climbing) -> None:
    found, again = combined(inner_steps=0)
    assert found[0].tolist() == [10.0, 20.0]
    assert not again.seen
    assert combined(inner_steps=3)[0][0].tolist() == [10.0, 20.0]  # the first look is the fourth


def test_a_bound_drops_the_sum_of_looks_once_it_is_below(climbing) -> None:
    """The looks weigh 4 exp(-2) and 4, their values are 8 and 16: 68.33 together."""
    given = {"inner_steps": 8, "growth": 0.5}
    free = combined(**given)[0][0].tolist()
    total = 4 * (math.exp(-2) * 8 + 16)
    assert combined(**given, bound=total - 0.01)[0][0].tolist() == free
    assert combined(**given, bound=total + 0.01)[0][0].tolist() == [10.0, 20.0]


def test_in_the_first_part_the_terms_are_added() -> None:
    terms = Gradients([torch.tensor([1.0])], [torch.tensor([10.0])], {})
    chosen = params(forget_weight=3.0, retain_weight=2.0)
    assert tar.combine(terms, {STAGE: MAPPING}, chosen)[0].tolist() == [23.0]


TAMPER = {
    "mapping": 0.3, "inner_steps": 3, "inner_every": 1, "inner_batch": 2, "growth": 0.25,
    "inner_rates": (1e-3, 3e-3), "forget_weight": 0.5, "retain_weight": 2.0,
}  # fmt: skip


def engine_step(**given: Any) -> tuple[Task, Any, dict[str, float], dict[str, Tensor]]:
    """The engine's third step in float64: the values of the terms and the gradient it leaves."""
    task, method = prepared("tar", **{"batch_size": 4, **TAMPER, **given})
    task = replace(task, model=deepcopy(task.model).double())
    anchor = Frozen(deepcopy(task.model))
    with torch.no_grad():
        for number, parameter in enumerate(task.model.parameters()):
            draw = torch.Generator().manual_seed(number)
            noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            parameter.add_(1e-2 * noise)
    sampler = method.sample(task, method.params)
    gradient = StepGradient(method, task, Datasets(task), sampler, lambda _: anchor, steps=6)
    before = deepcopy(task.model.state_dict())
    values = gradient(task.model, 3, lambda loss: loss.backward())
    for name, tensor in task.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    left = {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}
    return task, (method, anchor), values, left


def test_the_engine_s_step_equals_one_by_hand() -> None:
    task, (method, anchor), values, found = engine_step()
    draw = method.sample(task, method.params).draw(3)
    data = Datasets(task)
    held_out, kept = data.inputs("forget", draw), data.inputs("retain", draw)
    model, start = task.model, deepcopy(task.model)
    parameters = list(model.parameters())

    def entropy() -> Tensor:
        real = held_out.attention_mask.bool()
        at = real & (real.cumsum(1) > 1)
        logits = model(input_ids=held_out.input_ids, attention_mask=held_out.attention_mask).logits
        spread = torch.distributions.Categorical(logits=logits[at])
        return spread.entropy().mean()

    def drift() -> Tensor:
        given = {"input_ids": kept.input_ids, "attention_mask": kept.attention_mask}
        real, norms = kept.attention_mask.bool(), []
        for one, other in zip(
            states_of(model, given), states_of(anchor._model, given), strict=True
        ):
            norms.append((one - other)[real].float().norm(dim=-1).double().mean())
        return torch.stack(norms).mean()

    loss = 2.0 * View(kept, Live(model)).nll.value + drift()
    total = list(torch.autograd.grad(loss, parameters))
    assert values["retain"] == pytest.approx(View(kept, Live(model)).nll.value.item())
    assert values["drift"] == pytest.approx(drift().item(), rel=1e-6)
    assert values["forget"] == pytest.approx(-entropy().item())
    rng = generator(task.seed, "tar", 3)
    attacker = Attacker.drawn(rng, (1e-3, 3e-3), 3)
    others = [row for at, row in enumerate(task.forget) if at not in draw.rows["forget"]]
    optimiser = torch.optim.AdamW(parameters, lr=attacker.lr)
    for step in range(3):
        turns = {
            "forget": [row.training for row in others],
            "other": [turn for row in others for turn in row.turns[1:]],
            "retain": [row.training for row in task.retain],
        }[attacker.reads(step)]
        chosen = [task.encoder.encode(turns[at]) for at in rng.integers(len(turns), size=2)]
        optimiser.zero_grad()
        View(data.batch(chosen), Live(model)).nll.value.backward()
        optimiser.step()
        weight = 0.5 * 4.0 * math.exp(0.25 * (step - 2))
        looks = torch.autograd.grad(-entropy(), parameters)
        total = [sum_ + weight * look for sum_, look in zip(total, looks, strict=True)]
    model.load_state_dict(start.state_dict())
    for (name, _), expected in zip(model.named_parameters(), total, strict=True):
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-8)


def states_of(model: Any, given: dict[str, Tensor]) -> list[Tensor]:
    """What enters the first block and what leaves each, before the final norm."""
    seen: list[Tensor] = []
    blocks = model.model.layers
    handles = [
        blocks[0].register_forward_pre_hook(
            lambda _, args, kw: seen.append(args[0]), with_kwargs=True
        )
    ]
    handles += [
        block.register_forward_hook(lambda _, __, output: seen.append(output)) for block in blocks
    ]
    model(**given)
    for handle in handles:
        handle.remove()
    return seen


def test_the_cut_into_parts_changes_nothing_in_the_second_part() -> None:
    whole, parts = engine_step(batch_size=8), engine_step(batch_size=1, accumulation=8)
    assert whole[2].keys() == parts[2].keys()
    for name, value in whole[2].items():
        assert parts[2][name] == pytest.approx(value, rel=1e-9)
    for name, gradient in whole[3].items():
        torch.testing.assert_close(parts[3][name], gradient, rtol=1e-7, atol=1e-10)


def test_what_is_kept_is_not_looked_at_under_attack() -> None:
    step = Step({}, state={ATTACKED: True})
    assert tar.retain(step, params()) is None
    task, _, values, _ = engine_step()
    assert values["retain"] > 0
    assert ATTACKED not in task.state


def test_rates_follow_the_size_of_the_model_and_adapters_learn_faster() -> None:
    task, _ = prepared("tar")
    size = sum(p.numel() for p in task.model.parameters())
    found = tar._rates(task, params())
    scale = (5e8 / size) ** 0.5
    assert found == pytest.approx([rate * scale for rate in (2e-6, 2e-5, 4e-5)], rel=0.05)
    assert tar._rates(task, params(inner_rates="1e-3,2e-3")) == (1e-3, 2e-3)
    adapted = SimpleNamespace(
        parameters=task.model.parameters, named_parameters=lambda: [("a.lora_A.b", None)]
    )
    faster = tar._rates(replace(task, model=adapted), params())  # type: ignore[arg-type]
    assert faster == pytest.approx([10 * rate for rate in found], rel=0.05)


# -------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


SHORT = {
    "max_steps": 6, "lr": 1e-3, "batch_size": 6, "inner_steps": 2, "inner_every": 1,
    "inner_rates": (1e-3,),
}  # fmt: skip


def run(original: Path, out: Path, **given: Any) -> dict[str, Any]:
    kept, chosen = world(), {**SHORT, **given}
    options = {"method": chosen.pop("method", "tar"), "adapter": chosen.pop("adapter", None)}
    forget(original, kept.forget, kept.retain, params=chosen, stop_at="none", out=out, **options)
    manifest = read_manifest(out)
    assert manifest is not None
    return manifest


def test_one_run_has_both_parts_and_resumes_bit_for_bit(original: Path, tmp_path: Path) -> None:
    whole = run(original, tmp_path / "whole")
    told = [measured["terms"] for measured in whole["history"]]
    assert all(0 <= terms["forget"] <= 1 and terms["drift"] == 0 for terms in told[:3])
    assert all(terms["forget"] < 0 < terms["drift"] for terms in told[3:])
    assert all(terms["resistance"] == 0 for terms in told[:4])  # of the attack before this step
    assert all(terms["resistance"] > 0 for terms in told[4:])

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "tar" and event.done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        run(original, tmp_path / "cut")
    assert run(original, tmp_path / "cut")["summary"]["resumed_from"] >= 4
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")
    run(original, tmp_path / "free", inner_steps=0)
    assert folder_digest(tmp_path / "free") != folder_digest(tmp_path / "whole")


def test_without_attacks_it_is_training_on_what_is_kept(original: Path, tmp_path: Path) -> None:
    run(original, tmp_path / "tar", mapping=0.0, inner_steps=0, drift_weight=0.0)
    kept = world()
    forget(
        original, kept.forget, kept.retain, method="grad-diff", stop_at="none",
        params={"max_steps": 6, "lr": 1e-3, "batch_size": 6, "forget_weight": 0.0},
        out=tmp_path / "grad-diff",
    )  # fmt: skip
    one, other = (weights_of(tmp_path / name) for name in ("tar", "grad-diff"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=2e-5)
    start = weights_of(original)
    assert max(float((one[name] - start[name]).abs().max()) for name in one) > 1e-3


def weights_of(folder: Path) -> dict[str, Tensor]:
    return dict(load(folder).model.state_dict())


def test_an_adapter_is_what_moves_and_what_is_attacked(original: Path, tmp_path: Path) -> None:
    told = run(original, tmp_path / "out", adapter="lora", max_steps=4)
    assert told["summary"]["weights_changed"] > 0
    assert told["history"][-1]["terms"]["resistance"] > 0


def test_a_stop_level_leaves_the_second_part_in(original: Path, tmp_path: Path) -> None:
    kept = world()
    done = forget(
        original, kept.forget, kept.retain, method="tar", stop_at="nll=0.001",
        params={**SHORT, "lr": 3e-2, "warmup": 0}, out=tmp_path / "out",
    )  # fmt: skip
    assert done["stopped_by"] == "steps"
    assert done["steps"] == SHORT["max_steps"]


def test_shards_are_refused_by_name() -> None:
    task, _ = prepared("tar")
    with pytest.raises(ExpungeError) as caught:
        tar.prepare(replace(task, world=World(0, 2, sharded=True)), params())
    assert caught.value.code == "E-USE-006"
    assert "FSDP" in caught.value.found


@pytest.mark.parametrize(
    "wrong", [{"mapping": 1.5}, {"inner_steps": -1}, {"inner_every": 0}, {"inner_rates": (-1.0,)}]
)
def test_other_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ExpungeError) as caught:
        params(**wrong)
    assert caught.value.code == "E-USE-003"


# -------------------------------------------------------------------------------- relearning

TINY = {"max_steps": 100, "lr": 2e-3, "warmup": 0, "batch_size": 24}
ATTACKS = {
    "mapping": 0.1, "inner_steps": 5, "inner_every": 5, "inner_batch": 8,
    "inner_rates": (2e-3, 3e-3),
}  # fmt: skip


def unlearned(folder: Path, method: str, **given: Any) -> Subject:
    out = folder / f"{method}{len(given)}{given.get('inner_steps', '')}"
    forget(
        saved(folder), *facts(), method=method, params={**TINY, **given}, stop_at="none", out=out
    )
    loaded = load(load_change(out).folder)
    return Subject(loaded.model, loaded.tokenizer)


def nll(subject: Subject) -> float:
    """Mean over the forget rows, nats a token."""
    scored = subject.score([row.turn for row in facts()[0]])
    return sum(float(one.nll) for one in scored) / len(scored)


def relearned(subject: Subject, steps: int = 60, lr: float = 3e-4) -> float:
    """What the forget rows cost after they were trained on."""
    student = subject.copy()
    finetune(
        student.model, student.tokenizer, facts()[0], steps=steps, lr=lr, batch_size=8, seed=1,
        schedule="constant", warmup=0.0,
    )  # fmt: skip
    return nll(student)


def test_it_resists_relearning_longer_than_ascent_and_than_itself_without_attacks(
    tmp_path: Path,
) -> None:
    """Ascent pushes rows much farther away, and they come back sooner."""
    forgotten, kept = facts()
    assert exact(knowing(), forgotten) == 1.0
    ascent = unlearned(tmp_path, "grad-diff")
    hardened = unlearned(tmp_path, "tar", **ATTACKS)
    free = unlearned(tmp_path, "tar", **{**ATTACKS, "inner_steps": 0})
    assert exact(hardened, forgotten) == 0.0
    assert exact(hardened, kept) >= 0.9
    assert nll(ascent) > nll(hardened)
    left = relearned(hardened)
    assert left > 0.4
    assert left > 2 * max(relearned(ascent), relearned(free))
