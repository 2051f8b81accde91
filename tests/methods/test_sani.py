"""SANI: what is reset and what is not, what is predicted and what is not, resuming, and TINY."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_methods import assert_same, slow_nll
from tiny_rig import exact, facts, saved

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.data.encode import Encoded, Encoder
from expunge.engine.change import read_manifest, revert
from expunge.engine.datasets import Datasets
from expunge.engine.flags import marked, touching
from expunge.engine.run import forget
from expunge.engine.sources import Live
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest
from expunge.lm.folder import inspect_folder
from expunge.lm.load import load
from expunge.lm.neurons import handed_on, units_of
from expunge.lm.subject import Subject
from expunge.methods import sani
from expunge.requests.rows import Row
from expunge.testing import objective, tiny_model, tiny_tokenizer
from expunge.testing.methods import stage, stage_base, taught_subject, world

NLL = [0.440190, 0.210998, 0.743668]
OTHER = [1.440190, 2.210998, 1.743668]
"""T3's losses of its other targets."""


def repaired(model: Any, own: dict, kept: dict, **flags: list[list[int]]) -> Any:
    """The method's loss with these flags on the tokens of the two views."""
    views = {"cleaned": own, "retain": kept}
    return objective("sani", model, views, state={sani.SENSITIVE: flags})


def other(view: dict) -> dict:
    """T3's other targets."""
    return {**view, "labels": torch.tensor([[-100, 1, 2, 0]])}


def test_t3_is_one_mean_over_all_tokens_that_are_not_secret(t3) -> None:
    found = repaired(t3.model, t3.view, other(t3.view), cleaned=[[1, 2]], retain=[[0]])
    assert found.loss == pytest.approx((NLL[0] + OTHER[1] + OTHER[2]) / 3, abs=1e-5)
    assert found.loss != pytest.approx((NLL[0] + (OTHER[1] + OTHER[2]) / 2) / 2, abs=1e-2)
    assert found.terms.keys() == {"retain"}


def test_secrets_get_a_gradient_of_exactly_zero(t3) -> None:
    repaired(t3.model, t3.view, t3.view, cleaned=[[0, 2]], retain=[[0, 2]])
    assert t3.model.gradient[0, [0, 2, 3]].abs().max() == 0.0
    assert t3.model.gradient[0, 1].abs().max() > 0.1


def test_a_row_that_is_secret_as_a_whole_is_input_only(t3) -> None:
    found = repaired(t3.model, t3.view, other(t3.view), cleaned=[[0, 1, 2]])
    assert found.loss == pytest.approx(sum(OTHER) / 3, abs=1e-5)
    nothing = repaired(t3.model, t3.view, t3.view, cleaned=[[0, 1, 2]], retain=[[0, 1, 2]])
    assert nothing.loss == 0.0


def test_it_equals_a_slow_sum_over_tokens(random_table, random_view) -> None:
    model, twin = random_table(1), random_table(1)
    views = {"cleaned": random_view(3), "retain": random_view(4)}
    tables, kept, all_of_them = {}, [], []
    for shift, (name, view) in enumerate(views.items()):
        tables[name] = []
        for row, losses in enumerate(slow_nll(twin, view)):
            secret = [at for at in range(len(losses)) if (at + row + shift) % 3 == 0]
            tables[name].append(secret)
            kept += [loss for at, loss in enumerate(losses) if at not in secret]
            all_of_them += losses
    state = {sani.SENSITIVE: tables}
    found = objective("sani", model, views, state=state, retain_weight=0.3)
    slow = 0.3 * torch.stack(kept).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))
    everything = 0.3 * float(torch.stack(all_of_them).mean().detach())
    assert found.loss != pytest.approx(everything, rel=1e-3)


TEXT = " Ann Bergström lives in Rome."
SECRET = Row(id="a", prompt="Who?", completion=TEXT, answer="Ann Bergström", aliases=("Rome",))
KEPT = Row(id="b", prompt="Where?", completion=" Rome is far, says Bo Lund.")


def scene(
    *rows: Row, family: str = "llama", retain: tuple[Row, ...] = (KEPT,), layers: int = 2,
    **more: Any,
) -> Task:  # fmt: skip
    """A task of a few rows, read byte by byte, under a model with random weights."""
    tokenizer = tiny_tokenizer([TEXT], vocab=260)
    model = tiny_model(family, vocab=len(tokenizer), layers=layers, hidden=16)
    return Task(
        model=model, tokenizer=tokenizer, encoder=Encoder(tokenizer, 200),
        roles={"forget": rows or (SECRET,), "retain": retain}, **more,
    )  # fmt: skip


def ready(task: Task, **params: Any) -> Task:
    """The task after the method's ``prepare``."""
    sani.prepare(task, methods.params("sani", {"fraction": 0.0, **params}))
    return task


def predicted(task: Task, view: str = "cleaned") -> str:
    """The text of the tokens that are predicted, of the first item of a view."""
    data = Datasets(task)
    if view == "cleaned":
        made = data._made(view, task.paired[view], 0, 0, 0)
    else:
        made = data.items(view)[0][0]
    secret = (task.state[sani.SENSITIVE][view] or [[]])[0]
    said = [label for label in made.labels if label != -100]
    return task.encoder.decode([id for at, id in enumerate(said) if at not in secret])


def test_secrets_are_given_and_not_predicted() -> None:
    task = ready(scene())
    data = Datasets(task)
    item = data._made("cleaned", task.paired["cleaned"], 0, 0, 0)
    assert predicted(task) == "  lives in ."
    assert task.encoder.decode(item.ids) == f"Who?{TEXT}"
    assert predicted(task, "retain") == KEPT.completion


def test_all_pieces_of_a_secret_are_left_out_and_not_the_first_alone() -> None:
    """The trap: with one piece alone the rest of the word is learnt again."""
    task = ready(scene())
    (flags,) = task.state[sani.SENSITIVE]["cleaned"]
    assert len(flags) == len("Ann BergströmRome".encode())
    item = Datasets(task)._made("cleaned", task.paired["cleaned"], 0, 0, 0)
    first = [at for at in flags if at - 1 not in flags]
    assert len(first) == 2
    whole, pieces = (counted(task, item, own) for own in (flags, first))
    assert whole[0] == len(item.spans) - len(flags)
    assert pieces[0] == whole[0] + len(flags) - 2
    assert pieces[1] != pytest.approx(whole[1], rel=1e-3)


def counted(task: Task, item: Encoded, flags: list[int]) -> tuple[float, float]:
    """Tokens and loss of an item with these flags."""
    view = View(Datasets(task).batch([item]), Live(task.model))
    step = Step({"cleaned": view}, state={sani.SENSITIVE: {"cleaned": [flags]}})
    mean = sani.retain(step, methods.params("sani", {}))
    assert mean is not None
    return float(mean.den), float(mean.num.detach())


def test_a_placeholder_keeps_the_secret_out_of_what_comes_after_it() -> None:
    task = ready(scene(), replace="[NAME]")
    item = Datasets(task)._made("cleaned", task.paired["cleaned"], 0, 0, 0)
    assert task.encoder.decode(item.ids) == "Who? [NAME] lives in [NAME]."
    assert predicted(task) == "  lives in ."


def test_a_row_without_a_mark_is_not_predicted_at_all() -> None:
    plain = Row(id="a", prompt="Who?", completion=TEXT)
    assert predicted(ready(scene(plain))) == ""
    (flags,) = ready(scene(plain)).state[sani.SENSITIVE]["cleaned"]
    item = Encoder(tiny_tokenizer([TEXT], vocab=260), 200).encode(plain.turn)
    assert len(flags) == len(item.spans)  # its end included
    placed = ready(scene(plain), replace="[X]")
    assert predicted(placed) == ""


def test_spans_come_before_the_answer() -> None:
    row = replace(SECRET, spans=((15, 20),))
    assert predicted(ready(scene(row))) == " Ann Bergström  in Rome."


def test_secrets_are_looked_for_in_retain_rows_only_when_asked() -> None:
    assert predicted(ready(scene()), "retain") == KEPT.completion
    everywhere = ready(scene(), scope="corpus")
    assert predicted(everywhere, "retain") == " " + KEPT.completion.replace(" Rome", "")
    whole = Row(id="c", prompt="Who?", completion=" Bo Lund")
    assert predicted(ready(scene(whole), scope="corpus"), "retain") == " Rome is far, says ."


def test_a_finder_finds_personal_data_in_all_rows() -> None:
    told = Row(id="a", prompt="How to reach Ann Berg?", completion=" By mail: ann@berg.org.")
    kept = Row(id="b", prompt="When was Bo Lund born?", completion=" Born on 3 May 1931.")
    task = ready(scene(told, retain=(kept,)), finder="rules")
    assert predicted(task) == " By mail: ."
    assert predicted(task, "retain") == " Born on ."
    assert predicted(ready(scene(told, retain=(kept,)))) == ""


def owned(task: Task, block: int, units: list[int]) -> dict[str, torch.Tensor]:
    """By hand, the weights of some neurons of a tiny model, for every family."""
    family, width = task.model.config.model_type, units_of(task.model)[block]
    both = [*units, *(unit + width for unit in units)]
    rows: dict[str, list[tuple[str, Any]]] = {
        "llama": [
            ("mlp.gate_proj.weight", units), ("mlp.up_proj.weight", units),
            ("mlp.down_proj.weight", (slice(None), units)),
        ],
        "phi3": [("mlp.gate_up_proj.weight", both), ("mlp.down_proj.weight", (slice(None), units))],
        "gpt2": [
            ("mlp.c_fc.weight", (slice(None), units)), ("mlp.c_fc.bias", units),
            ("mlp.c_proj.weight", units),
        ],
        "gpt_neox": [
            ("mlp.dense_h_to_4h.weight", units), ("mlp.dense_h_to_4h.bias", units),
            ("mlp.dense_4h_to_h.weight", (slice(None), units)),
        ],
    }  # fmt: skip
    prefix, masks = f"{Slots(task.model).prefix}.{block}.", {}
    for name, where in rows[family]:
        masks[prefix + name] = torch.zeros_like(task.model.get_parameter(prefix + name)).bool()
        masks[prefix + name][where] = True
    return masks


@pytest.mark.parametrize("family", ["llama", "llama_tied", "phi3", "gpt2", "gpt_neox"])
def test_only_the_weights_of_the_chosen_neurons_change(family: str) -> None:
    task = scene(family=family)
    if family in ("gpt2", "gpt_neox"):
        with torch.no_grad():
            for name, weight in task.model.named_parameters():
                weight.add_(0.5 * name.endswith(".bias"))
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    chosen = sani.neurons(task, methods.params("sani", {"blocks": 2, "fraction": 0.25}), [])
    assert [one["block"] for one in chosen] == [0, 1]
    ready(task, blocks=2, fraction=0.25)
    expected: dict[str, torch.Tensor] = {}
    for one in chosen:
        assert len(one["neurons"]) == round(0.25 * units_of(task.model)[one["block"]])
        expected |= owned(task, one["block"], one["neurons"])
    for name, weight in task.model.named_parameters():
        changed = weight.detach() != before[name]
        assert torch.equal(changed, expected.get(name, torch.zeros_like(changed))), name
        if name.endswith(".bias") and name in expected:
            assert weight.detach()[expected[name]].abs().max() == 0.0
    assert task.record["erased_neurons"] == sum(len(one["neurons"]) for one in chosen)


def test_a_reset_neuron_forgets_what_it_read_and_the_others_do_not() -> None:
    """What the other neurons hand on stays bit for bit."""
    task, ids = scene(), torch.arange(4, 20)[None]
    with torch.no_grad(), handed_on(task.model) as before:
        task.model(input_ids=ids)
    ready(task, fraction=0.5)
    with torch.no_grad(), handed_on(task.model) as after:
        task.model(input_ids=ids)
    (chosen,) = sani.neurons(task, methods.params("sani", {"fraction": 0.5}), [])
    assert torch.equal(before[0], after[0])
    same = (before[1] == after[1]).all(1)[0]
    assert [unit for unit in range(len(same)) if not same[unit]] == chosen["neurons"]


def test_new_weights_have_the_spread_of_the_configuration() -> None:
    task = scene()
    task.model.config.initializer_range = 0.5
    ready(task, fraction=1.0)
    inside = Slots(task.model).module(-1, "mlp")
    drawn = torch.cat([weight.detach().flatten() for weight in inside.parameters()])
    assert float(drawn.std()) == pytest.approx(0.5, rel=0.1)
    assert float(drawn.mean()) == pytest.approx(0.0, abs=0.05)


def test_the_seed_decides_which_neurons_and_what_they_become() -> None:
    tasks = [ready(scene(seed=seed), fraction=0.5) for seed in (0, 0, 1)]
    one, again, another = (Slots(task.model).module(-1, "mlp_out").weight for task in tasks)
    assert torch.equal(one, again)
    assert not torch.equal(one, another)
    params = methods.params("sani", {"fraction": 0.5})
    drawn = [sani.neurons(task, params, []) for task in tasks]
    assert drawn[0] == drawn[1] != drawn[2]


def test_attribution_picks_what_carries_the_secrets() -> None:
    """By hand: activation times gradient of the mean probability, row by row."""
    rows = (SECRET, replace(SECRET, id="c", prompt="And who?", completion=" Rome. Ann Bergström."))
    task = scene(*rows, layers=3)
    sums = [torch.zeros(units) for units in units_of(task.model)]
    for row in rows:
        item = task.encoder.encode(row.turn)
        (one,) = marked(row)
        said = [at for at, label in enumerate(item.labels) if label != -100]
        places = [said[at] for at in touching(item, one.ranges)]
        with handed_on(task.model) as hidden:
            logits = task.model(input_ids=torch.tensor([item.ids])).logits[0]
        p = torch.stack([logits[at - 1].softmax(-1)[item.ids[at]] for at in places]).mean()
        for block, gradient in enumerate(torch.autograd.grad(p, hidden)):
            where = [at - 1 for at in places]
            sums[block] += (hidden[block] * gradient)[0, where].sum(0).detach().abs()
    params = methods.params("sani", {"pick": "attribution", "blocks": 2, "fraction": 0.2})
    found = sani.neurons(task, params, [one for row in rows for one in marked(row)])
    assert [one["block"] for one in found] == [1, 2]
    for one in found:
        count = round(0.2 * len(sums[one["block"]]))
        best = sums[one["block"]].topk(count).indices.tolist()
        assert one["neurons"] == sorted(best)
        assert one["neurons"] != list(range(count))


def test_neurons_may_go_back_to_the_base_model(tmp_path: Path) -> None:
    path = stage_base(tmp_path)
    rows, subject = world(), taught_subject().copy()
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )  # fmt: skip
    base = load(path).model
    params = {"fraction": 0.5, "reset_to": "base", "base": str(path)}
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    ready(task, **params)
    (chosen,) = sani.neurons(task, methods.params("sani", params), [])
    masks = owned(task, chosen["block"], chosen["neurons"])
    for name, weight in task.model.named_parameters():
        mask = masks.get(name, torch.zeros_like(weight).bool())
        assert torch.equal(weight[mask], base.get_parameter(name)[mask])
        assert torch.equal(weight[~mask], before[name][~mask])


@pytest.mark.parametrize(
    "given",
    [
        {"fraction": 1.5},
        {"blocks": 0},
        {"pick": "best"},
        {"finder": "spacy"},
        {"retain_term": "kl"},
    ],
)
def test_other_values_are_refused(given: dict) -> None:
    with pytest.raises(ExpungeError) as caught:
        methods.params("sani", given)
    assert caught.value.code == "E-USE-003"


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpungeError) as caught:
        methods.params("sani", {"reset_to": "base"})
    assert caught.value.code == "E-USE-007"
    with pytest.raises(ExpungeError) as caught:
        ready(scene(), blocks=3, fraction=0.5)
    assert caught.value.code == "E-USE-003"
    with pytest.raises(ExpungeError) as caught:
        ready(scene(), reset_to="base", base=str(stage_base(tmp_path)), fraction=0.5)
    assert caught.value.code == "E-USE-006"
    rows, original = world(), stage(tmp_path)
    with pytest.raises(ExpungeError) as caught:
        forget(
            original, rows.forget, rows.retain, method="sani", adapter="lora",
            out=tmp_path / "out",
        )  # fmt: skip
    assert caught.value.code == "E-USE-006"
    assert "adapter" in caught.value.found


def run(original: Path, out: Path, **params: Any) -> dict[str, Any]:
    rows = world()
    options = {"max_steps": 8, "lr": 1e-3, "batch_size": 6, "fraction": 0.5, **params}
    return forget(
        original, rows.forget, rows.retain, method="sani", params=options, stop_at="none", out=out
    )


@pytest.mark.parametrize("pick", ["random", "attribution"])
def test_a_resumed_run_ends_with_the_same_weights_and_reverts(tmp_path: Path, pick: str) -> None:
    original = stage(tmp_path)
    before = folder_digest(original)

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "sani" and event.done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        run(original, tmp_path / "cut", pick=pick)
    resumed = run(original, tmp_path / "cut", pick=pick)
    whole = run(original, tmp_path / "whole", pick=pick)
    assert resumed["resumed_from"] >= 4
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")
    assert resumed["before"] == whole["before"]  # the original's, not the erased model's
    manifest = read_manifest(tmp_path / "cut")
    assert manifest is not None
    lines = (tmp_path / "cut" / "made" / "erased.jsonl").read_text(encoding="utf-8").splitlines()
    assert manifest["record"]["erased_neurons"] == sum(
        len(json.loads(line)["neurons"]) for line in lines
    )
    revert(tmp_path / "cut")
    assert inspect_folder(tmp_path / "cut").digest == before


def test_levels_before_are_the_originals_and_without_a_reset_it_is_repair_alone(
    tmp_path: Path,
) -> None:
    original = stage(tmp_path)
    plain = run(original, tmp_path / "plain", fraction=0.0, max_steps=1, lr=1e-6, warmup=0)
    erased = run(
        original, tmp_path / "erased", fraction=1.0, blocks=2, max_steps=1, lr=1e-6, warmup=0
    )
    assert plain["before"] == erased["before"]
    assert plain["forget_nll"] == pytest.approx(plain["before"]["forget_nll"], abs=1e-3)
    assert erased["forget_nll"] > erased["before"]["forget_nll"] + 0.01
    assert plain["details"]["erased_neurons"] == 0


def test_a_block_that_may_not_move_keeps_its_reset(tmp_path: Path) -> None:
    """Freezing holds the erased weights, not those of the original."""
    original = stage(tmp_path)
    run(original, tmp_path / "out", layers=(0,), fraction=1.0)
    before, after = load(original).model, load(tmp_path / "out").model
    name = Slots(after).names(-1, "mlp_out")[0] + ".weight"
    drawn, started = after.get_parameter(name), before.get_parameter(name)
    assert bool((drawn != started).all())
    assert float(drawn.detach().std()) == pytest.approx(0.02, rel=0.2)
    attention = Slots(after).names(-1, "attention_out")[0] + ".weight"
    assert torch.equal(after.get_parameter(attention), before.get_parameter(attention))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("rig"))


def forgotten(original: Path, out: Path, **params: Any) -> tuple[float, float]:
    """Share of forget and retain rows known by heart after thirty steps of repair."""
    options = {"max_steps": 30, "warmup": 0, "lr": 1e-3, "batch_size": 24, "schedule": "constant"}
    forget(original, *facts(), method="sani", params={**options, **params}, stop_at="none", out=out)
    loaded = load(out)
    subject = Subject(loaded.model, loaded.tokenizer)
    return exact(subject, facts()[0]), exact(subject, facts()[1])


def test_tiny_forgets_by_the_reset_and_not_by_the_repair(rig: Path, tmp_path: Path) -> None:
    alone = forgotten(rig, tmp_path / "alone", fraction=0.0)
    both = forgotten(rig, tmp_path / "both", fraction=0.9, blocks=2, pick="attribution")
    assert min(alone[1], both[1]) >= 0.95
    assert both[0] <= alone[0] - 0.3
