"""Nodes: attribution against true derivatives, true patching against hand-made passes, weights."""

from collections.abc import Sequence

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from expunge.lm.arch import Slots
from expunge.lm.circuits import MLP, Node, effects, heads_of, nodes_of, patched
from expunge.lm.contrasts import Asked, Contrast, aligned
from expunge.lm.node_weights import NOBODY, owners
from expunge.testing.tiny import FAMILIES, tiny_model

CLEAN = (1, 20, 21, 22, 23, 24)
OTHER = (1, 20, 31, 32, 23, 24)


def contrast(
    clean: Sequence[int] = CLEAN, other: Sequence[int] = OTHER, rivals: tuple[int, ...] = (41,)
) -> Contrast:
    return Contrast(clean, other, [Asked(len(clean) - 1, 40, rivals)])


def a_model(family: str = "llama", layers: int = 2) -> torch.nn.Module:
    """Weights large enough that a node matters."""
    model = tiny_model(family, vocab=64, hidden=32, layers=layers, dtype=torch.float64)
    with torch.no_grad():
        for name in Slots(model).linears():
            model.get_submodule(name).weight.mul_(8)
    return model


def choice(model: torch.nn.Module, ids: Sequence[int]) -> Tensor:
    logits = model(input_ids=torch.tensor([list(ids)])).logits[0, -1]
    return logits[40] - logits[41]


def states(model: torch.nn.Module, ids: Sequence[int], node: Node) -> Tensor:
    """What a node puts out, by a hook of the test's own."""
    slots, seen = Slots(model), []
    name = "mlp" if node.head == MLP else "attention_out"
    module = slots.module(node.layer, name)
    if node.head == MLP:
        handle = module.register_forward_hook(lambda _, __, out: seen.append(out))
    else:
        handle = module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model(input_ids=torch.tensor([list(ids)]))
    handle.remove()
    return seen[0]


def with_states(
    model: torch.nn.Module, node: Node, ids: Sequence[int], put: Tensor, share: float = 1.0
) -> Tensor:
    """M with a share of the way to other states of a node."""
    module = Slots(model).module(node.layer, "mlp" if node.head == MLP else "attention_out")

    def moved(own: Tensor) -> Tensor:
        width = own.shape[-1] // heads_of(model)
        part = (
            slice(None) if node.head == MLP else slice(node.head * width, (1 + node.head) * width)
        )
        changed = own.clone()
        changed[..., part] += share * (put - own)[..., part]
        return changed

    if node.head == MLP:
        handle = module.register_forward_hook(lambda _, __, out: moved(out))
    else:
        handle = module.register_forward_pre_hook(lambda _, given: (moved(given[0]),))
    with torch.no_grad():
        value = choice(model, ids)
    handle.remove()
    return value


@pytest.mark.parametrize("family", FAMILIES)
def test_attribution_is_the_slope_of_true_patching_and_patching_its_end(family: str) -> None:
    """The slope sees what later nodes make of a node: a detached one would not."""
    model = a_model(family)
    nodes = nodes_of(model)
    first = effects(model, [contrast()], 0, 4)[0]
    whole = patched(model, [contrast()], nodes, 0, 4)[0]
    before = choice(model, CLEAN).detach()
    for number, node in enumerate(nodes):
        put = states(model, OTHER, node)
        steps = [with_states(model, node, CLEAN, put, share) for share in (3e-3, -3e-3)]
        slope = (steps[0] - steps[1]) / 6e-3  # norms compute in float32
        assert float(first[number]) == pytest.approx(float(slope), rel=2e-3, abs=2e-4), node
        end = with_states(model, node, CLEAN, put) - before
        assert float(whole[number]) == pytest.approx(float(end), rel=1e-6, abs=1e-7), node
    assert (first.abs() > 1e-9).all()
    assert (first - whole).abs().max() > 1e-3 * whole.abs().max()


def test_the_last_mlp_alone_is_linear_in_m_where_the_norm_is_taken_away() -> None:
    model = a_model()
    model.model.norm = torch.nn.Identity()
    node = Node(1, MLP)
    number = nodes_of(model).index(node)
    found = effects(model, [contrast()], 0, 4)[0, number]
    assert float(found) == pytest.approx(
        float(patched(model, [contrast()], [node], 0, 4)[0, 0]), rel=1e-9
    )
    moved = states(model, OTHER, node)[0, -1] - states(model, CLEAN, node)[0, -1]
    head = model.lm_head.weight
    assert float(found) == pytest.approx(float(((head[40] - head[41]) @ moved).detach()), rel=1e-9)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3"])
def test_rows_of_a_batch_stand_for_themselves_whatever_their_lengths(family: str) -> None:
    model = a_model(family)
    rows = [
        contrast(),
        contrast((1, 20, 30, 33), (1, 20, 29, 33), (41, 42, 43)),
        contrast((1, 20, 30, 31, 32, 33, 34, 24), (1, 20, 33, 34, 24), (50,)),
        Contrast((1, 9, 8, 7), (1, 5, 8, 7), [Asked(2, 12, (13,)), Asked(1, 9, (8, 7))]),
    ]
    nodes = nodes_of(model)
    for run in (
        lambda some: effects(model, some, 0, 4),
        lambda some: patched(model, some, nodes, 0, 4),
    ):
        together = run(rows)
        alone = torch.cat([run([row]) for row in rows])
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-11)
        assert (together.abs().sum(1) > 1e-6).all()


def test_rivals_are_averaged_and_so_are_the_choices_of_a_row() -> None:
    model = a_model()
    each = [effects(model, [contrast(rivals=(rival,))], 0, 4) for rival in (41, 42)]
    torch.testing.assert_close(effects(model, [contrast(rivals=(41, 42))], 0, 4), sum(each) / 2)
    asked = [Asked(4, 7, (8,)), Asked(5, 40, (41,))]
    parts = [effects(model, [Contrast(CLEAN, OTHER, [one])], 0, 4) for one in asked]
    both = effects(model, [Contrast(CLEAN, OTHER, asked)], 0, 4)
    torch.testing.assert_close(both, sum(parts) / 2)


def test_a_model_whose_weights_rest_has_the_same_effects() -> None:
    """And no gradient, no mode and no hook is left behind."""
    model = a_model()
    expected = effects(model, [contrast()], 0, 4)
    assert all(weight.grad is None for weight in model.parameters())
    model.requires_grad_(False)
    model.train()
    torch.testing.assert_close(effects(model, [contrast()], 0, 4), expected)
    assert model.training
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks


def test_bfloat16_gives_the_effects_to_its_precision() -> None:
    exact = effects(a_model(), [contrast()], 0, 4)
    rough = effects(a_model().to(torch.bfloat16), [contrast()], 0, 4)
    assert (exact - rough).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([1, 5, 6, 9], [(0, 0), (1, 1), (2, 2), (3, 3)]),
        ([1, 7, 9], [(0, 0), (2, 1), (3, 2)]),
        ([1, 7, 8, 6, 9], [(0, 0), (1, 2), (2, 3), (3, 4)]),
        ([1, 9], [(0, 0), (3, 1)]),
        ([4], [(3, 0)]),
    ],
)
def test_rows_of_other_lengths_are_aligned_by_what_they_share(other, expected) -> None:
    assert aligned([1, 2, 6, 9], other) == expected


def touched(model: torch.nn.Module, nodes: list[Node]) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    return {name: one.mask(named[name]) for name, one in owners(model, nodes).parameters.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_of_a_node_move_what_it_says_and_nothing_others_say(family: str) -> None:
    """All weights but those of one node are shaken: what its block's other heads say stays.

    In reverse for every head of keys of its own: shaking a head's weights leaves the others.
    """
    model = a_model(family, layers=1)
    heads, ids = heads_of(model), torch.tensor([list(CLEAN)])
    grouped = getattr(model.config, "num_key_value_heads", heads) < heads
    seen: list[Tensor] = []
    out = Slots(model).module(0, "attention_out")
    handle = out.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    model(input_ids=ids)
    plain = seen[-1].unflatten(-1, (heads, -1))
    for head in range(heads):
        twin = a_model(family, layers=1)
        twin.load_state_dict(model.state_dict())
        named = dict(twin.named_parameters())
        masks = touched(twin, [Node(0, head)])
        inner = [name for name in masks if "o_proj" not in name and "c_proj" not in name]
        with torch.no_grad():
            for name in inner:
                if ".dense." not in name:
                    named[name].add_(masks[name])
        later = Slots(twin).module(0, "attention_out")
        other = later.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
        twin(input_ids=ids)
        other.remove()
        moved = (seen[-1].unflatten(-1, (heads, -1)) - plain).abs().amax((0, 1, 3)) > 1e-9
        reading = {head, head ^ 1} if grouped else {head}
        assert set(moved.nonzero()[:, 0].tolist()) == reading, (family, head)
    handle.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_s_columns_of_the_output_carry_it_alone(family: str) -> None:
    model = a_model(family, layers=1)
    heads = heads_of(model)
    out = Slots(model).module(0, "attention_out")
    masks = touched(model, [Node(0, 2)])
    name = next(n for n, p in model.named_parameters() if p is out.weight)
    with torch.no_grad():
        out.weight.mul_(~masks[name])
    size = out.weight.shape[0 if family == "gpt2" else 1]
    width = size // heads
    only = torch.zeros(1, size, dtype=torch.float64)
    only[:, 2 * width : 3 * width] = 1.0
    bias = out.bias if out.bias is not None else 0.0
    assert not (out(only) - bias).detach().abs().max() > 1e-12
    assert (out(1 - only) - bias).detach().abs().min() > 0
    assert not any("bias" in n and n.startswith(name.rpartition(".")[0]) for n in masks)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_nodes_together_own_all_linears_and_no_norm(family: str) -> None:
    model = a_model(family)
    masks = touched(model, nodes_of(model))
    weights = {f"{name}.weight" for name in Slots(model).linears()}
    assert weights <= set(masks)
    assert all(mask.all() for mask in masks.values())
    assert all(name in weights or name.endswith(".bias") for name in masks)
    assert owners(model, [Node(1, MLP)]).modules == [frozenset({Node(1, MLP)})]


def test_shared_keys_belong_to_all_heads_of_a_group_that_count() -> None:
    """Four heads, two of keys: heads 0 and 1 read the first."""
    model = a_model("qwen2")
    found = owners(model, [Node(0, 0), Node(0, 1), Node(0, 2)])
    key = found.parameters["model.layers.0.self_attn.k_proj.weight"]
    named = [found.modules[number] for number in key.owner[[0, 8]].tolist()]
    assert named == [frozenset({Node(0, 0), Node(0, 1)}), frozenset({Node(0, 2)})]
    assert "model.layers.0.self_attn.k_proj.bias" in found.parameters
    query = found.parameters["model.layers.0.self_attn.q_proj.weight"]
    assert query.owner[24:].tolist() == [NOBODY] * 8


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_of_an_adapter_the_side_of_the_heads_is_divided_and_the_other_is_all_of_theirs(
    family: str,
) -> None:
    model = a_model(family)
    names = Slots(model).linears()
    get_peft_model(model, LoraConfig(r=2, target_modules=names, fan_in_fan_out=family == "gpt2"))
    chosen = [Node(0, 1), Node(0, 3)]
    found = owners(model, chosen)
    both = found.modules.index(frozenset(chosen))
    alone = [found.modules.index(frozenset({node})) for node in chosen]
    (out,) = Slots(model).names(0, "attention_out")
    into = Slots(model).names(0, "attention_in")[0]
    named = dict(model.named_parameters())
    for name, outer, divided in (
        (f"{into}.lora_B.default.weight", True, True),
        (f"{into}.lora_A.default.weight", False, False),
        (f"{out}.lora_A.default.weight", False, True),
        (f"{out}.lora_B.default.weight", True, False),
    ):
        axis, owner = found.parameters[name]
        assert axis == (0 if outer else 1)
        assert len(owner) == named[name].shape[axis]
        assert set(owner.tolist()) == ({*alone, NOBODY} if divided else {both}), name
