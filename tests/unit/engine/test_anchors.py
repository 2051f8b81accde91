"""The anchor: what is remembered equals what the original says, and nothing is paid twice."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.data.encode import Encoder
from expunge.engine import anchors
from expunge.engine.adapter import with_adapter
from expunge.engine.anchors import Anchor, anchor_of
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.gradient import StepGradient
from expunge.engine.looks import looked_at
from expunge.engine.masks import AppliedMask
from expunge.engine.mean import Mean, mean_of
from expunge.engine.method import GradientMethod
from expunge.engine.precision import computing
from expunge.engine.sources import Frozen
from expunge.engine.start import Start
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.hooks import EMBEDDING, without_dropout
from expunge.testing.methods import world
from expunge.testing.tiny import tiny_model, tiny_tokenizer

FAMILIES = ["llama", "llama_tied", "gemma2", "gpt2", "gpt_neox", "qwen3"]
STEPS = 4


@cache
def tokenizer() -> Any:
    rows = [*world().forget, *world().retain]
    texts = [turn.prompt + turn.completion for row in rows for turn in row.turns]  # type: ignore[operator]
    return tiny_tokenizer(texts)


class Run:
    """A method about to run on a tiny random model, with the anchor the engine gives it."""

    def __init__(
        self,
        folder: Path,
        method_id: str = "npo",
        *,
        family: str = "llama",
        adapted: bool = False,
        moving: Callable[[str], bool] = lambda _: True,
        needs: set[str] | None = None,
        terms: dict[str, Any] | None = None,
        seed: int = 0,
        **params: Any,
    ) -> None:
        self.model: nn.Module = tiny_model(family, seed=seed)
        made = methods.params(method_id, {"batch_size": 4, **params})
        method = GradientMethod.assemble(methods.load(method_id), made)
        changed: dict[str, Any] = {**(terms or {})}
        if needs is not None:
            changed["needs"] = frozenset(needs)
        self.method = replace(method, **changed)
        self.task = Task(
            model=self.model, tokenizer=tokenizer(), encoder=Encoder(tokenizer(), 128),
            roles={"forget": world().forget, "retain": world().retain},
        )  # fmt: skip
        if self.method.prepare is not None:
            self.method.prepare(self.task, made)
        if adapted:
            self.model = with_adapter(self.task.model, made, {}, seed=0)
        AppliedMask(self.model, {n: moving(n) for n, _ in self.model.named_parameters()})
        self.original = tiny_model(family, seed=seed)
        self.datasets = Datasets(self.task, packing=made.packing)
        self.sampler = self.method.sample(self.task, made)
        self.folder, self.adapted = folder, adapted
        self.anchor = self.again()
        self.step = StepGradient(
            self.method, self.task, self.datasets, self.sampler, self.anchor, steps=STEPS
        )

    def again(self) -> Anchor:
        """What a restarted run gets."""
        with without_dropout(self.model), computing(self.model, self.method.params):
            anchor = anchor_of(
                self.model, self.method, self.datasets, self.sampler,
                steps=STEPS, adapted=self.adapted, folder=self.folder,
            )  # fmt: skip
        assert anchor is not None
        return anchor

    def train(self, steps: int = STEPS, lr: float = 1e-2) -> list[dict[str, float]]:
        """Some steps of the engine; the value of the terms of each."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=lr)
        values = []
        with without_dropout(self.model), computing(self.model, self.method.params):
            self.model.train()
            for index in range(steps):
                values.append(self.step(self.model, index, lambda loss: loss.backward()))
                optimiser.step()
                optimiser.zero_grad()
        return values

    def views(self, step: int) -> Iterator[tuple[str, Inputs]]:
        for name in self.method.views:
            inputs = self.datasets.inputs(name, self.sampler.draw(step))
            if inputs is not None:
                yield name, inputs


def wide(inputs: Inputs) -> Inputs:
    """The same rows, asked at every real position."""
    return View(inputs, Frozen(None)).over("all_nonpad").inputs


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_remembered_values_are_those_of_the_original(family: str, tmp_path: Path) -> None:
    """Log-probabilities and distributions, after the model has moved away."""
    run = Run(tmp_path, "idk-dpo", family=family, retain_term="kl")
    run.train()
    original = Frozen(run.original)
    with without_dropout(run.original):
        for step in range(STEPS):
            for name, inputs in run.views(step):
                if name == "retain":
                    expected = original.logits(wide(inputs))
                    found = run.anchor(name).logits(wide(inputs))
                    away = Frozen(run.model).logits(wide(inputs))
                else:
                    expected = View(inputs, original).token_logp
                    found = View(inputs, run.anchor(name)).token_logp
                    away = View(inputs, Frozen(run.model)).token_logp
                assert found.dtype == torch.float32
                assert close(found, expected)
                assert not close(away, expected)


@pytest.mark.parametrize(
    ("method_id", "params"),
    [
        ("npo", {}),
        ("idk-dpo", {}),
        ("kl-min", {"kl_scope": "all_nonpad"}),
        ("kl-min", {"kl_scope": "answer"}),
        ("undial", {}),
        ("rmu", {}),
        ("arm", {}),
        ("rr", {}),
        ("grad-diff", {"retain_term": "mse"}),
    ],
)
@pytest.mark.parametrize("adapted", [False, True])
def test_real_steps_take_no_forward_pass_of_the_anchor(
    method_id: str, params: dict[str, Any], adapted: bool, tmp_path: Path
) -> None:
    run = Run(tmp_path, method_id, adapted=adapted, **params)
    assert run.anchor.warming > 0
    calls: list[int] = []
    run.model.register_forward_hook(lambda *_: calls.append(1))
    run.train(1)
    assert len(calls) <= len(run.method.views) + int("anchor-logits" in run.method.needs)
    run.train()
    assert run.anchor.forwards == 0
    head = "model.embed_tokens.weight" if "lm_head.weight" not in names(run.model) else "lm_head"
    assert all(name.startswith(head) for name in run.anchor.kept)
    assert bool(run.anchor.kept) == (not adapted and "anchor-logits" in run.method.needs)


def names(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scope", ["all_nonpad", "answer"])
def test_the_divergence_starts_at_nothing(scope: str, family: str, tmp_path: Path) -> None:
    run = Run(tmp_path, "kl-min", family=family, kl_scope=scope)
    values = run.train(3)
    assert abs(values[0]["retain"]) < 1e-6
    assert values[2]["retain"] > 1e-4
    assert run.anchor.forwards == 0


@pytest.mark.parametrize("how", [{"packing": True}, {"precision": "bf16"}])
@pytest.mark.parametrize("adapted", [False, True])
def test_rows_in_one_line_and_bf16_are_remembered_alike(
    how: dict[str, Any], adapted: bool, tmp_path: Path
) -> None:
    run = Run(tmp_path, "kl-min", adapted=adapted, **how)
    values = run.train(3)
    assert abs(values[0]["retain"]) < 1e-6
    assert values[2]["retain"] > 10 * abs(values[0]["retain"])
    assert run.anchor.forwards == 0


def test_a_term_that_a_wrapper_adds_is_looked_after_too(tmp_path: Path) -> None:
    def drift(step: Step, params: Any) -> Mean:
        return mean_of((step.retain.logp - step.retain.anchor.logp) ** 2)

    added = {"added": {"drift": drift}}
    run = Run(tmp_path, "grad-diff", needs={"forget", "retain", "anchor"}, terms=added)
    run.train()
    assert run.anchor.forwards == 0
    assert not run.anchor.kept


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method_id", ["rmu", "arm", "rr"])
def test_remembered_block_outputs_are_those_of_the_original(
    method_id: str, family: str, tmp_path: Path
) -> None:
    """At all real positions, after the model has moved away; zero at padding."""
    run = Run(tmp_path, method_id, family=family)
    run.train()
    original = Frozen(run.original)
    looked = looked_at(run.method, run.datasets, run.sampler, STEPS).layers
    padded = 0
    with without_dropout(run.original), without_dropout(run.model):
        for name, inputs in (view for step in range(STEPS) for view in run.views(step)):
            layers = [layer for layer, views in looked.items() if name in views]
            if not layers:
                continue
            found = run.anchor(name).hidden(inputs, layers)
            expected = original.hidden(inputs, layers)
            real = inputs.attention_mask.bool()
            padded += int((~real).sum())
            for layer in layers:
                assert found[layer].dtype == torch.float32
                assert close(found[layer][real], expected[layer][real])
                assert not found[layer][~real].any()
            top = max(layers)
            away = Frozen(run.model).hidden(inputs, [top])[top]
            assert not close(away[real], expected[top][real])
    assert padded > 0
    assert run.anchor.forwards == 0


@pytest.mark.parametrize(
    ("how", "most"), [({"packing": True}, 1e-9), ({"precision": "bf16"}, 1e-4)]
)
@pytest.mark.parametrize("adapted", [False, True])
def test_block_outputs_of_packed_rows_and_in_bf16_start_where_they_were(
    how: dict[str, Any], most: float, adapted: bool, tmp_path: Path
) -> None:
    run = Run(tmp_path, "rmu", adapted=adapted, **how)
    values = run.train(3)
    assert values[0]["retain"] < most
    assert values[2]["retain"] > 10 * values[0]["retain"]
    assert run.anchor.forwards == 0


def test_rows_hold_only_the_blocks_that_are_looked_at_in_them(tmp_path: Path) -> None:
    """rr looks at its targets in all rows, and at every other block in retain rows alone."""
    run = Run(tmp_path, "rr")
    looks = looked_at(run.method, run.datasets, run.sampler, STEPS).alike()
    blocks = {frozenset(views): layers for (_, layers), views in looks.items()}
    targets = blocks[frozenset({"forget", "retain"})]
    others = blocks[frozenset({"retain"})]
    assert sorted([*targets, *others]) == [EMBEDDING, *range(run.anchor("retain").blocks)]
    with pytest.raises(LookupError):
        run.anchor("forget").hidden(dict(run.views(0))["forget"], others)


@pytest.mark.parametrize("method_id", ["npo", "kl-min", "rmu", "rr"])
def test_a_restarted_run_reads_what_it_had_remembered(method_id: str, tmp_path: Path) -> None:
    run = Run(tmp_path, method_id)
    first = [values_of(run, run.anchor, step) for step in range(STEPS)]
    again = run.again()
    assert run.anchor.warming > 0
    assert again.warming == 0
    for step, before in enumerate(first):
        assert all(
            torch.equal(a, b) for a, b in zip(before, values_of(run, again, step), strict=True)
        )


def values_of(run: Run, anchor: Anchor, step: int) -> list[Tensor]:
    """Everything that can be looked up in a step."""
    if "anchor" in run.method.needs:
        return [View(v, anchor(n)).token_logp for n, v in run.views(step) if n == "forget"]
    if "anchor-hidden" in run.method.needs:
        retain = dict(run.views(step))["retain"]
        looked = looked_at(run.method, run.datasets, run.sampler, STEPS).layers
        return list(anchor("retain").hidden(retain, list(looked)).values())
    return [anchor(n).logits(wide(v)) for n, v in run.views(step) if n == "retain"]


@pytest.mark.parametrize("harm", ["cut", "flipped", "renamed", "empty"])
def test_a_broken_file_is_computed_anew(harm: str, tmp_path: Path) -> None:
    run = Run(tmp_path, "npo")
    (file,) = (tmp_path / "anchors").iterdir()
    whole = file.read_bytes()
    expected = values_of(run, run.anchor, 0)[0]
    if harm == "renamed":
        other = Run(tmp_path / "other", "npo", seed=1)
        (theirs,) = (other.folder / "anchors").iterdir()
        file.write_bytes(theirs.read_bytes())
    else:
        flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
        file.write_bytes({"cut": whole[:-8], "flipped": flipped, "empty": b""}[harm])
    again = run.again()
    assert again.warming > 0
    assert torch.equal(values_of(run, again, 0)[0], expected)
    assert run.again().warming == 0


@pytest.mark.parametrize("change", ["weights", "rows", "kind"])
def test_other_weights_rows_or_kinds_have_another_key(change: str, tmp_path: Path) -> None:
    Run(tmp_path, "undial")
    before = files(tmp_path)
    others: dict[str, dict[str, Any]] = {
        "weights": {"seed": 1}, "rows": {"batch_size": 2}, "kind": {"method_id": "npo"},
    }  # fmt: skip
    other = Run(tmp_path, **{"method_id": "undial", **others[change]})
    assert other.anchor.warming > 0
    assert len(files(tmp_path)) == len(before) + 1


def files(folder: Path) -> set[str]:
    return {file.name for file in (folder / "anchors").iterdir()}


def test_other_blocks_or_other_views_have_another_key(tmp_path: Path) -> None:
    """arm at the same block looks at forget rows as well."""
    Run(tmp_path, "rmu", layer=0)
    assert Run(tmp_path, "rmu", layer=1).anchor.warming > 0
    assert len(files(tmp_path)) == 2
    assert Run(tmp_path, "arm", layer=1).anchor.warming > 0
    assert len(files(tmp_path)) == 3
    assert Run(tmp_path, "rmu", layer=0).anchor.warming == 0


def hidden_gap(step: Step, params: Any) -> Mean:
    """Looks at block outputs of both, the anchor's on rows that no view has."""
    view = step.retain
    inputs = replace(view.inputs, input_ids=view.inputs.input_ids.clone())
    return mean_of((view.hidden(0) - view.anchor.on(View(inputs, Frozen(None))).hidden(0)) ** 2)


THREE = (
    "model.layers.0.mlp.down_proj.weight", "model.layers.0.self_attn.o_proj.weight",
    "model.embed_tokens.weight",
)  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "llama_tied"])
def test_the_live_anchor_holds_the_weights_that_move_and_no_others(
    family: str, tmp_path: Path
) -> None:
    run = Run(
        tmp_path, "ga", family=family, moving=lambda name: name in THREE,
        needs={"forget", "retain", "anchor-hidden"}, terms={"retain": hidden_gap},
    )  # fmt: skip
    assert set(run.anchor.kept) == set(THREE)
    own = {p.data_ptr() for p in run.model.parameters()}
    assert len({t.data_ptr() for t in run.anchor.kept.values()} - own) == len(THREE)
    run.train()
    assert run.anchor.forwards == STEPS
    original = Frozen(run.original)
    for name, inputs in run.views(0):
        layers = [EMBEDDING, 0, -1]
        before, found = original.hidden(inputs, layers), run.anchor(name).hidden(inputs, layers)
        assert all(torch.equal(found[layer], before[layer]) for layer in layers)
        assert not torch.equal(Frozen(run.model).hidden(inputs, [0])[0], before[0])
        assert torch.equal(run.anchor(name).logits(inputs), original.logits(inputs))
    assert {p.data_ptr() for p in run.model.parameters()} == own


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_put_back_give_the_originals_outputs_bit_for_bit(
    family: str, tmp_path: Path
) -> None:
    run = Run(tmp_path, "npo", family=family)
    start = Start(run.model, names(run.model))
    run.train(2)
    with without_dropout(run.original), without_dropout(run.model):
        inputs = dict(run.views(0))["forget"]
        assert torch.equal(Frozen(start).logits(inputs), Frozen(run.original).logits(inputs))
        assert not close(Frozen(run.model).logits(inputs), Frozen(start).logits(inputs))


def test_with_an_adapter_the_live_anchor_is_the_original_bit_for_bit(tmp_path: Path) -> None:
    run = Run(
        tmp_path, "ga", adapted=True,
        needs={"forget", "retain", "anchor-hidden"}, terms={"retain": hidden_gap},
    )  # fmt: skip
    run.train()
    assert not run.anchor.kept
    inputs = dict(run.views(0))["retain"]
    expected = Frozen(run.original).hidden(inputs, [1])[1]
    assert torch.equal(run.anchor("retain").hidden(inputs, [1])[1], expected)
    assert not torch.equal(Frozen(run.model).hidden(inputs, [1])[1], expected)


def test_padding_depends_on_the_batch_so_the_anchor_runs_live(tmp_path: Path) -> None:
    run = Run(tmp_path, "kl-min", kl_scope="legacy_all")
    values = run.train()
    assert run.anchor.forwards == STEPS
    assert abs(values[0]["retain"]) < 1e-6


def test_too_many_hidden_states_leave_the_live_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchors, "ROOM", 0)
    few = Run(tmp_path / "few", "undial", moving=lambda name: name in THREE[:1])
    assert set(few.anchor.kept) == set(THREE[:1])
    few.train()
    assert few.anchor.forwards == STEPS
    many = Run(tmp_path / "many", "undial")
    many.train()
    assert many.anchor.forwards == 0


@pytest.mark.parametrize("method_id", ["rmu", "rr"])
def test_room_is_counted_over_all_blocks_that_are_remembered(
    method_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forwards(folder: str) -> int:
        one = "model.layers.0.input_layernorm.weight"
        run = Run(tmp_path / folder, method_id, moving=lambda name: name == one)
        run.train()
        return run.anchor.forwards

    assert forwards("all") == 0
    stored = [load_file(file)["values"] for file in (tmp_path / "all" / "anchors").iterdir()]
    assert len(stored) == (2 if method_id == "rr" else 1)
    size = sum(values.nbytes for values in stored)
    monkeypatch.setattr(anchors, "ROOM", size)
    assert forwards("exact") == 0
    monkeypatch.setattr(anchors, "ROOM", size - 1)
    assert forwards("less") == STEPS


def test_a_family_that_scales_below_its_head_runs_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scaling what the decoder hands over would apply twice: found out at the start, and said."""
    heard: list[Event] = []
    build = tiny_model

    def scaling(family: str, **how: Any) -> Any:
        model = build(family, **how)
        model.lm_head.register_forward_pre_hook(lambda _, given: (given[0] / 2,))
        return model

    monkeypatch.setitem(globals(), "tiny_model", scaling)
    with listening(heard.append):
        run = Run(tmp_path, "undial")
    values = run.train()
    assert run.anchor.forwards == STEPS
    assert any("live" in event.text for event in heard)
    assert values[0]["forget"] > 0
    assert not (tmp_path / "anchors").exists()


def test_rows_of_another_view_are_never_given_the_values_of_this_one(tmp_path: Path) -> None:
    """A row is known by its tokens: one that was not drawn is refused, whatever its index."""
    run = Run(tmp_path, "npo")
    retain = dict(run.views(0))["retain"]
    with pytest.raises(LookupError):
        View(retain, run.anchor("forget")).token_logp  # noqa: B018


def test_a_method_without_an_anchor_gets_none(tmp_path: Path) -> None:
    run = Run(tmp_path, "npo")
    plain = GradientMethod.assemble(methods.load("ga"), methods.params("ga", {}))
    options: dict[str, Any] = {"steps": STEPS, "adapted": False, "folder": tmp_path}
    assert anchor_of(run.model, plain, run.datasets, run.sampler, **options) is None


def test_a_float64_model_keeps_its_precision(tmp_path: Path) -> None:
    run = Run(tmp_path, "npo")
    run.model.double()
    doubled = run.again()
    inputs = dict(run.views(0))["forget"]
    found = View(inputs, doubled("forget")).token_logp
    expected = View(inputs, Frozen(run.model, nullcontext)).token_logp
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
