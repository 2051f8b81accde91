"""CURE: its losses, circuits, classes, projections of gradients and of moves, and what it does."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rec_rig import FILMS, certainty, knowing, ratings, saved
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine import moves as engine_moves
from expunge.engine.change import load_change, read_manifest
from expunge.engine.projection import grad_cos, inner
from expunge.engine.run import forget
from expunge.engine.slots.stop import Measured
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.circuits import MLP, Node
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.node_weights import Owned, owners
from expunge.lm.subject import Subject
from expunge.methods import cure
from expunge.methods.cure.asked import Questions
from expunge.methods.cure.found import FORGET, RETAIN, SHARED, class_of, top
from expunge.methods.cure.graph import Graph
from expunge.methods.cure.turned import Modules
from expunge.requests.rows import Row
from expunge.testing import objective, tiny_model, tiny_tokenizer
from expunge.testing.tiny import FAMILIES

RUN = {"batch_size": 24, "lr": 3e-3, "warmup": 0, "max_steps": 30, "share": 0.3, "patience": 99}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


def task_of(
    roles: dict[str, tuple[Row, ...]] | None = None, subject: Subject | None = None, **params: Any
) -> Task:
    subject, (given, kept) = subject or knowing(), ratings()
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles=roles or {"forget": given, "retain": kept}, params=methods.params("cure", params),
    )  # fmt: skip


def run(
    original: Path, out: Path, seed: int = 0, adapter: str | None = None, **params: Any
) -> tuple[Subject, dict[str, Any]]:
    summary = forget(
        original, *ratings(seed), method="cure", params={**RUN, **params}, stop_at="none",
        adapter=adapter, out=out, seed=seed,
    )  # fmt: skip
    loaded = load(load_change(out).folder)
    return Subject(loaded.model, loaded.tokenizer), summary


# ------------------------------------------------------------------------------- forget term


def asked(place: int, ids: list[int], told: list[float]) -> dict[str, Any]:
    return {cure.ASKED: [[[place, ids, told]]]}


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("uniform", -math.log(2) - (math.log(0.7310586) + math.log(0.2689414)) / 2),
        ("entropy", math.log(2) + sum(p * math.log(p) for p in (0.7310586, 0.2689414))),
        ("teacher", 0.2 * math.log(0.2 / 0.7310586) + 0.8 * math.log(0.8 / 0.2689414)),
    ],
)  # fmt: skip
def test_t3_is_the_divergence_among_the_candidates_alone(t3, loss: str, expected: float) -> None:
    """The first token's logits are 2 and 1 for the answer and its rival: p = 0.731."""
    found = objective(
        "cure", t3.model, {"forget": t3.view}, state=asked(0, [0, 1], [0.2, 0.8]), forget_loss=loss
    )
    assert found.loss == pytest.approx(expected, abs=1e-6)
    gradient = t3.model.gradient[0]
    assert gradient[0, 0] == pytest.approx(-gradient[0, 1])
    assert not gradient[0, 2:].any()
    assert not gradient[1:].any()


def test_to_uniform_the_gradient_is_p_minus_u_also_where_an_answer_is_certain(t3) -> None:
    """The other direction of the KL has none left there."""
    slopes = {}
    for loss in ("uniform", "entropy"):
        t3.model.logits.data[0, 0, 0] = 30.0
        t3.model.logits.grad = None
        state = asked(0, [0, 1], [0.5, 0.5])
        objective("cure", t3.model, {"forget": t3.view}, state=state, forget_loss=loss)
        slopes[loss] = float(t3.model.gradient[0, 0, 0])
    assert slopes["uniform"] == pytest.approx(0.5, abs=1e-9)
    assert abs(slopes["entropy"]) < 1e-8


def test_without_a_table_the_first_token_is_set_against_the_likeliest_other_one(t3) -> None:
    found = objective("cure", t3.model, {"forget": t3.view})
    assert found.loss == pytest.approx(0.120114, abs=1e-5)


def test_several_tokens_and_other_numbers_of_candidates_count_as_they_are(
    random_table, random_view
) -> None:
    model, view = random_table(1), random_view(3)
    rows = len(view["input_ids"])
    table = [[[0, [3, 4], [0.5, 0.5]]] for _ in range(rows)]
    table[1] = [[0, [5, 6, 7], [0.2, 0.3, 0.5]], [1, [3, 6], [0.9, 0.1]]]
    found = objective("cure", model, {"forget": view}, state={cure.ASKED: table})
    losses = []
    for row, sites in enumerate(table):
        said = [at + 1 for at in (view["labels"][row, 1:] != -100).nonzero()[:, 0].tolist()]
        for place, ids, _ in sites:
            token = view["input_ids"][row, said[place] - 1]
            logp = model.table[token][ids].log_softmax(-1)
            losses.append(-math.log(len(ids)) - logp.mean())
    assert found.loss == pytest.approx(float(torch.stack(losses).mean().detach()), rel=1e-5)


# --------------------------------------------------------------------------- circuits, classes


def test_the_classes_are_disjoint_and_cover_both_circuits() -> None:
    for at in ((True, True), (True, False), (False, True), (False, False)):
        assert class_of(*at) == {(1, 1): SHARED, (1, 0): FORGET, (0, 1): RETAIN, (0, 0): ""}[at]
    table = cure.circuits(task_of(), *questions(share=0.3))
    counts = {kind: sum(one["class"] == kind for one in table) for kind in (FORGET, RETAIN, SHARED)}
    assert counts[FORGET] + counts[SHARED] == 3 == counts[RETAIN] + counts[SHARED]
    confirmed = [one[role]["patched"] for role in (FORGET, RETAIN) for one in table]
    assert sum(value is not None for value in confirmed) == 12
    for role in (FORGET, RETAIN):
        inside = [one[role]["patched"] for one in table if one["class"] in (role, SHARED)]
        outside = [one[role]["patched"] for one in table if one["class"] not in (role, SHARED)]
        assert min(inside) >= max(value for value in outside if value is not None)


def questions(**params: Any) -> tuple[Any, dict[str, Any]]:
    task = task_of(**params)
    made = Questions(task, task.params)
    return task.params, {role: made.of(role) for role in (FORGET, RETAIN)}


def test_true_patching_decides_among_the_first_where_it_was_made() -> None:
    effect = torch.tensor([5.0, 4.0, 3.0, 2.0, 9.0])
    assert top(effect, {}, 2) == [4, 0]
    assert top(effect, {4: 0.1, 0: 0.2, 1: 0.7, 2: 0.3}, 2) == [1, 2]


def test_random_circuits_are_of_the_same_size_and_drawn_by_the_seed() -> None:
    found = {}
    for name, options in (("found", {}), ("random", {"circuits": "random"})):
        task = task_of(share=0.3, **options)
        found[name] = cure.settled(task, task.params)
        sizes = [
            sum(kind in (role, SHARED) for kind in found[name].values())
            for role in (FORGET, RETAIN)
        ]
        assert sizes == [3, 3]
    assert found["found"] != found["random"]
    again = task_of(share=0.3, circuits="random")
    assert cure.settled(again, again.params) == found["random"]


def planted(strength: float) -> tuple[Subject, dict[str, tuple[Row, ...]]]:
    """One neuron of block 0 knows the forget rows, one of block 1 the others; nothing else acts."""
    forgets = tuple(
        Row(id=f"f{n}", prompt=f"w{n} a w{n + 1} hidden", completion=" Yes",
            meta={"user": "f", "items": ["hidden"]})
        for n in range(4)
    )  # fmt: skip
    keeps = tuple(
        Row(id=f"r{n}", prompt=f"w{n} b w{n + 1} known", completion=" Yes",
            meta={"user": f"r{n}", "items": ["known"]})
        for n in range(4)
    )  # fmt: skip
    others = tuple(
        Row(id=f"x{n}", prompt=f"w{n} b w1 plain{n}", completion=" No",
            meta={"user": f"x{n}", "items": [f"plain{n}"]})
        for n in range(12)
    )  # fmt: skip
    rows = {"forget": forgets, "retain": (*keeps, *others)}
    texts = [f"{row.prompt}{row.completion}" for part in rows.values() for row in part]
    tokenizer = tiny_tokenizer(texts, kind="word")
    model: Any = tiny_model("llama", vocab=len(tokenizer), hidden=64)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(50)
        model.lm_head.weight.mul_(20)
        head, slots = model.lm_head.weight, Slots(model)
        yes, no = (tokenizer(f" {word}")["input_ids"][-1] for word in ("Yes", "No"))
        for layer, word in enumerate(("hidden", "known")):
            mlp = slots.module(layer, "mlp")
            slots.module(layer, "attention_out").weight.mul_(0.01)
            mlp.down_proj.weight.zero_()
            key = model.model.embed_tokens.weight[tokenizer(f"w1 {word}")["input_ids"][-1]]
            mlp.gate_proj.weight[7] = mlp.up_proj.weight[7] = key / key.norm()
            way = head[yes] - head[no]
            mlp.down_proj.weight[:, 7] = strength * way / way.norm()
    return Subject(model, tokenizer), rows


@pytest.mark.parametrize(
    ("strength", "confirm", "is_right"),
    [(0.05, True, True), (0.05, False, True), (1.0, True, True), (1.0, False, False)],
)
def test_the_mlp_of_a_planted_neuron_is_what_the_forget_rows_alone_use(
    strength: float, confirm: bool, is_right: bool
) -> None:
    """A neuron so strong that the last norm hides its slope is found by true patching alone."""
    subject, rows = planted(strength)
    task = task_of(rows, subject, share=0.1, confirm=confirm)
    found = cure.settled(task, task.params)
    assert (found == {Node(0, MLP): FORGET, Node(1, MLP): RETAIN}) is is_right


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mask_is_the_weights_of_the_nodes_in_every_family(family: str) -> None:
    model = tiny_model(family, vocab=len(knowing().tokenizer), layers=2, positions=32)
    task = task_of(subject=Subject(model, knowing().tokenizer), share=0.3)
    mask = cure.mask(model, task, task.params)
    nodes = cure.settled(task, task.params)
    masks = owners(model, nodes).parameters
    named = dict(model.named_parameters())
    assert set(mask) == set(named)
    for name, weight in named.items():
        entries = masks[name].mask(weight) if name in masks else torch.zeros_like(weight).bool()
        assert torch.equal(torch.as_tensor(mask[name]).expand_as(entries), entries), name
    assert not any(mask[name] is not False for name in mask if "norm" in name or "embed" in name)


# --------------------------------------------------------------------- projections by module


def modules() -> tuple[Modules, list[Tensor], list[Tensor]]:
    """Rows 0, 1, 2 of a matrix are F, R and S, row 3 is nobody's; a vector is F's as well."""
    owned = [Owned(0, torch.tensor([0, 1, 2, -1])), Owned(0, torch.tensor([0, 0])), None]
    draw = torch.Generator().manual_seed(3)
    made = [
        [torch.randn(4, 5, generator=draw).double(), torch.randn(2, generator=draw).double(),
         torch.randn(3, generator=draw).double()]
        for _ in range(2)
    ]  # fmt: skip
    forgets, keeps = made
    forgets[0][2] = -2 * keeps[0][2] + 0.1 * forgets[0][2]  # a conflict
    return Modules(owned, [FORGET, RETAIN, SHARED]), forgets, keeps


def test_each_class_has_the_gradient_of_the_card() -> None:
    found, f, r = modules()
    got = found.combined(f, r, gamma=2.0, alpha=3.0, turned=True)
    own = ([f[0][0], f[1]], [r[0][0], r[1]])
    c = inner(*own) / inner(own[1], own[1])
    torch.testing.assert_close(got[0][0], 2 * (f[0][0] - c * r[0][0]))
    torch.testing.assert_close(got[1], 2 * (f[1] - c * r[1]))
    assert inner([got[0][0], got[1]], own[1]) == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(got[0][1], 3 * r[0][1])
    s = inner([f[0][2]], [r[0][2]]) / inner([r[0][2]], [r[0][2]])
    assert s < 0
    torch.testing.assert_close(got[0][2], 2 * (f[0][2] - s * r[0][2]) + 3 * r[0][2])
    assert not got[0][3].any()
    assert not got[2].any()


def test_without_a_conflict_shared_modules_get_the_sum() -> None:
    found, f, r = modules()
    f[0][2] = 2 * r[0][2]
    got = found.combined(f, r, gamma=1.0, alpha=1.0, turned=True)
    torch.testing.assert_close(got[0][2], 3 * r[0][2])


def test_a_plain_step_on_shared_modules_does_not_raise_the_retain_loss_and_a_sum_does() -> None:
    found, f, r = modules()
    for turned in (True, False):
        step = [-0.1 * g for g in found.combined(f, r, gamma=1.0, alpha=1.0, turned=turned)]
        assert (inner([step[0][2]], [r[0][2]]) <= 0) is turned


def test_moves_lose_what_goes_up_along_the_retain_gradient_and_nothing_else() -> None:
    found, moves, r = modules()
    for sign in (1, -1):
        turned = [sign * move for move in moves]
        got = found.redirected(turned, r)
        assert inner([got[0][0], got[1]], [r[0][0], r[1]]) == pytest.approx(0.0, abs=1e-12)
        torch.testing.assert_close(got[0][1], turned[0][1])
        if sign < 0:  # then it goes up
            assert inner([got[0][2]], [r[0][2]]) == pytest.approx(0.0, abs=1e-12)
        else:
            torch.testing.assert_close(got[0][2], turned[0][2])
        torch.testing.assert_close(got[0][3], turned[0][3])
        torch.testing.assert_close(got[2], turned[2])


def test_a_retain_gradient_without_a_direction_leaves_all_as_it_is() -> None:
    found, f, r = modules()
    none = [torch.zeros_like(one) for one in r]
    torch.testing.assert_close(
        found.combined(f, none, gamma=1.0, alpha=1.0, turned=True)[0][0], f[0][0]
    )
    torch.testing.assert_close(found.redirected(f, none)[0], f[0])


class Watched:
    """The moves of every step of a run, by class of module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.up: dict[str, list[float]] = {FORGET: [], RETAIN: [], SHARED: []}
        plain = engine_moves.Moves.end

        def end(moves: engine_moves.Moves) -> None:
            before, latest = moves._before, moves._gradient.latest
            plain(moves)
            now = [weight.detach() for weight in latest.again.parameters]
            went = [after - start for after, start in zip(now, before, strict=True)]
            made = cure._modules(latest.again, moves._gradient.task.state)
            keeps = latest.retain
            for number, kind in enumerate(made._classes):
                one = Modules(made._owned, [FORGET] * len(made._classes))
                factors = torch.zeros(len(made._classes))
                factors[number] = 1.0
                cos = grad_cos(one._times(went, factors), one._times(keeps, factors))
                self.up[kind].append(cos)

        monkeypatch.setattr(engine_moves.Moves, "end", end)


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_no_step_of_adam_goes_up_along_the_retain_gradient(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str | None
) -> None:
    """In F every move is at right angles; with gradients projected alone Adam makes others."""
    nodes = {Node(0, 1): FORGET, Node(0, MLP): RETAIN, Node(0, 0): SHARED, Node(1, MLP): SHARED}
    monkeypatch.setattr(cure, "classes_of", lambda table: nodes)
    watched = Watched(monkeypatch)
    run(original, tmp_path / "update", adapter=adapter, max_steps=6, weight_decay=0.1)
    assert max(map(abs, watched.up[FORGET])) < 1e-3
    assert max(watched.up[SHARED]) < 1e-3
    assert min(watched.up[SHARED]) < -1e-2
    watched.up = {FORGET: [], RETAIN: [], SHARED: []}
    run(original, tmp_path / "gradient", adapter=adapter, max_steps=6, project="gradient")
    assert max(map(abs, watched.up[FORGET])) > 1e-2
    assert max(watched.up[SHARED]) > 1e-2


# --------------------------------------------------------------------------------- corruption


def corrupted(task: Task, row: Row) -> list[tuple[str, str]]:
    made = Questions(task, task.params).corruptions
    item = task.encoder.encode(row.turn)
    found = made.of(row, 0, item)
    assert all(len(one.item.ids) == len(item.ids) for one in found)
    return [(one.by, str(one.turn.prompt) or one.turn.completion) for one in found]


def films_in(prompt: str) -> set[str]:
    return {film for film in FILMS if film in prompt.partition(";")[0].split()}


def test_items_far_from_the_user_take_the_place_of_the_history_and_the_film_stays() -> None:
    task = task_of()
    row = task.forget[0]
    seen = set(row.meta["items"])
    graph = Graph.of_rows([*task.forget, *task.retain])
    far = graph.far_from("u0", row.meta["items"], restart=0.15, share=0.5, seed=0)
    assert len(far) == round(0.5 * (len(graph.items) - 3))
    scores = graph._scores("u0", row.meta["items"], 0.15)
    assert max(scores[item] for item in far) <= min(
        scores[item] for item in graph.items if item not in far and item not in seen
    )
    for by, prompt in corrupted(task, row):
        assert by == "pagerank"
        assert len(films_in(prompt)) == 3
        assert films_in(prompt) <= set(far)
        assert prompt.partition(";")[2] == row.prompt.partition(";")[2]


def test_a_file_gives_the_graph_and_without_one_other_users_give_the_items(tmp_path: Path) -> None:
    row = ratings()[0][0]
    near, far = [film for film in FILMS if film not in row.meta["items"]][:8], FILMS[-4:]
    edges = [{"user": "u0", "items": [*row.meta["items"], *near]}, {"user": "z", "items": [*far]}]
    edges.append({"user": "y", "item": far[0]})
    (tmp_path / "graph").write_text("\n".join(map(json.dumps, edges)))
    own = set(row.meta["items"])
    task = task_of(graph=str(tmp_path / "graph"), low=0.3)
    for by, prompt in corrupted(task, row):
        assert by == "pagerank"
        assert films_in(prompt) <= set(far) - own
    task = task_of(graph="none", corruptions=9)
    drawn = corrupted(task, row)
    assert {by for by, _ in drawn} == {"users"}
    theirs = set().union(*(films_in(prompt) for _, prompt in drawn))
    assert not theirs & own
    assert len(theirs) > 6


def test_walks_of_a_user_the_graph_does_not_know_begin_at_the_history() -> None:
    graph = Graph()
    graph.add("a", ["one", "two"])
    graph.add("b", ["three", "four"])
    options = {"restart": 0.15, "share": 0.5, "seed": 0}
    assert set(graph.far_from("new", ["one"], **options)) <= {"three", "four"}
    assert graph.far_from("new", ["unheard of"], **options) == []


def test_a_title_gives_way_to_one_of_its_own_length_in_tokens() -> None:
    """Also where one title stands inside another."""
    titles = [f"long w{n}" for n in range(9)] + [f"w{n}" for n in range(9)]
    rows = tuple(
        Row(id=f"{n}", prompt=f"saw long w{n} and w{n} then ?", completion=" Yes",
            meta={"user": f"{n}", "items": [f"long w{n}", f"w{n}"]})
        for n in range(9)
    )  # fmt: skip
    tokenizer = tiny_tokenizer([*titles, *(f"{row.prompt} Yes No" for row in rows)], kind="word")
    model = tiny_model("llama", vocab=len(tokenizer), positions=32)
    task = task_of({"forget": rows[:1], "retain": rows[1:]}, Subject(model, tokenizer), low=1.0)
    for _, prompt in corrupted(task, rows[0]):
        words = prompt.split()
        assert words[:2] == ["saw", "long"]
        assert words[3:4] == ["and"]
        assert not {words[2], words[4]} & {"w0"}


@pytest.mark.parametrize(
    "line", ['{"user": "u0"}', '{"items": ["a"]}', '{"user": "u", "items": [1]}', "[1]", "{"]
)
def test_a_file_that_is_no_graph_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "graph").write_text(f'{{"user": "u0", "items": ["a"]}}\n{line}\n')
    with pytest.raises(ExpungeError, match=r"E-DATA-00[23]") as caught:
        Graph.read(tmp_path / "graph")
    assert "graph:2" in caught.value.found


@pytest.mark.parametrize("items", ["film1", [1], [""]])
def test_a_history_that_is_no_list_of_titles_is_refused(items: Any) -> None:
    row = replace(ratings()[0][0], meta={"items": items})
    task = task_of({"forget": (row,), "retain": ratings()[1]})
    with pytest.raises(ExpungeError, match="E-DATA-003") as caught:
        cure.settled(task, task.params)
    assert row.id in caught.value.found


def small(*rows: Row) -> Task:
    texts = [f"{r.text or ''} {r.prompt or ''}{r.completion or ''} Yes No" for r in rows]
    tokenizer = tiny_tokenizer(texts, kind="word")
    model = tiny_model("llama", vocab=len(tokenizer), positions=32)
    return task_of({"forget": rows[:1], "retain": rows[1:]}, Subject(model, tokenizer))


def test_rows_that_are_no_recommendations_are_asked_of_others_or_something_else() -> None:
    named = [
        Row(id=name, prompt=f"Where is {name} Voss now?", completion=f" In {city}.", answer=city,
            names=(f"{name} Voss",))
        for name, city in (("Ada", "Rome"), ("Bea", "Oslo"), ("Cid", "Rome"), ("Dan", "Bonn"))
    ]  # fmt: skip
    told = corrupted(small(*named), named[0])
    assert {by for by, _ in told} == {"names"}
    assert {prompt for _, prompt in told} <= {"Where is Bea Voss now?", "Where is Dan Voss now?"}
    plain = [replace(row, names=(), prompt=f"who is it {n} ?") for n, row in enumerate(named)]
    told = corrupted(small(*plain), plain[0])
    assert {by for by, _ in told} == {"prompts"}
    assert {prompt for _, prompt in told} <= {"who is it 1 ?", "who is it 3 ?"}
    texts = [Row(id=f"{n}", text=f"first w{n} last w{n + 1}") for n in range(3)]
    told = corrupted(small(*texts), texts[0])
    assert {prompt for _, prompt in told} <= {"first w1 last w2", "first w2 last w3"}


def test_a_row_that_nothing_can_take_the_place_of_is_refused() -> None:
    row = Row(id="alone", prompt="what ?", completion=" this")
    task = small(row, replace(row, id="same answer", prompt="or what ?"))
    with pytest.raises(ExpungeError, match="E-USE-006") as caught:
        cure.settled(task, task.params)
    assert "alone" in caught.value.found


# ------------------------------------------------------------------------- what is asked


def words_asked(task: Task) -> list[list[str]]:
    """The candidates of each place of the first forget row, as words."""
    (first, *_) = Questions(task, task.params).of("forget")
    return [[task.tokenizer.decode([token]).strip() for token in ids] for ids in first.choices]


def test_labels_are_the_only_rivals_of_one_another_in_the_row_s_own_letters() -> None:
    assert words_asked(task_of()) == [
        [ratings()[0][0].completion.strip(), *_other(ratings()[0][0])]
    ]
    rows = [Row(id=f"{n}", prompt=f"w{n} ?", completion=" yes.") for n in range(2)]
    task = small(*rows, Row(id="2", prompt="x", completion=" no."))
    assert words_asked(task) == [["yes", "no"]]


def _other(row: Row) -> list[str]:
    return ["No" if row.completion == " Yes" else "Yes"]


def test_rivals_are_wrong_answers_or_those_of_other_rows_at_the_answer_s_first_token() -> None:
    rows = [
        Row(id=f"{n}", prompt=f"w{n} ?", completion=f" It is {city} w{n} .", answer=f"{city} w{n}")
        for n, city in enumerate(("rome", "oslo", "bonn", "kyiv"))
    ]
    (words,) = words_asked(small(*rows))
    assert words[0] == "rome"
    assert sorted(words[1:]) == ["bonn", "kyiv", "oslo"]
    wrong = replace(rows[0], wrong=(" It is kyiv now .",))
    assert words_asked(small(wrong, *rows[1:])) == [["rome", "kyiv"]]
    task = small(*rows)
    every = replace(task, params=methods.params("cure", {"tokens": "all", "rivals": 2}))
    found = words_asked(every)
    assert [len(words) for words in found] == [3, 2]
    assert [words[0] for words in found] == ["rome", "w0"]


def test_where_no_other_answer_is_known_the_likeliest_other_token_is_the_rival() -> None:
    rows = [Row(id=f"{n}", text=f"first w{n} last w{n + 1}") for n in range(3)]
    task = small(*rows)
    (first, *_) = Questions(task, task.params).of("forget")
    assert len(first.choices) == 4  # all of a running text
    logits = task.model(input_ids=torch.tensor([first.item.ids])).logits[0]
    for at, (own, rival) in zip(first.at, first.choices, strict=True):
        best = logits[at].argsort(descending=True).tolist()
        assert rival == next(token for token in best if token != own)
        assert own == first.item.ids[at + 1]


def test_the_reference_is_what_hold_out_rows_get_else_what_corrupted_rows_do() -> None:
    task = task_of()
    made = Questions(task, task.params)
    (first, *_) = asked_rows = made.of("forget")
    (told,) = made.references(asked_rows)[0]
    yes, no = first.choices[0]
    slow = []
    for one in first.corrupted:
        logits = task.model(input_ids=torch.tensor([one.item.ids])).logits[0, first.at[0]]
        slow.append(logits[[yes, no]].softmax(-1))
    torch.testing.assert_close(torch.tensor(told), torch.stack(slow).mean(0), rtol=1e-4, atol=1e-5)
    held = tuple(replace(row, completion=" No") for row in ratings()[0][:4])
    task = task_of({**task.roles, "holdout": held})
    made = Questions(task, task.params)
    (told,) = made.references(made.of("forget"))[0]
    assert told[0] == pytest.approx(certainty(knowing(), held), abs=1e-5)
    assert sum(told) == pytest.approx(1.0)


# ------------------------------------------------------------------------------------- stop


def history(*values: float) -> list[Measured]:
    return [
        Measured(n, 1.0, False, {"forget": 0.1, "jsd": one}, 4.0) for n, one in enumerate(values)
    ]


def test_it_ends_when_the_distance_falls_no_more_but_not_before_it_has_fallen() -> None:
    params = methods.params("cure", {"patience": 3})
    assert not cure.stop(history(0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3), params)
    assert not cure.stop(history(0.3, 0.2, 0.1, 0.1, 0.1), params)
    assert cure.stop(history(0.3, 0.2, 0.1, 0.1, 0.11, 0.1), params)
    assert not cure.stop(history(0.3, 0.2, 0.1, 0.1, 0.11, 0.09), params)
    resting = [replace(one, terms={"retain": 0.0}) for one in history(0.3, 0.2, 0.1)]
    assert not cure.stop([*history(0.3, 0.2, 0.1), *resting], params)


def test_a_run_ends_so_and_tells_the_distance(original: Path, tmp_path: Path) -> None:
    _, summary = run(original, tmp_path / "out", patience=4, max_steps=60, schedule="constant")
    told = [one["terms"]["jsd"] for one in read_manifest(tmp_path / "out")["history"]]
    assert summary["stopped_by"] == "method"
    assert summary["steps"] < 60
    assert 0 <= min(told) < told[0] <= math.log(2)


# ---------------------------------------------------------------------------------- the whole


def test_pieces_of_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    task = task_of()
    with pytest.raises(ExpungeError, match="E-USE-006"):
        cure.mask(task.model, task, task.params)


def test_an_interrupted_run_goes_on_and_ends_with_the_very_weights(
    original: Path, tmp_path: Path
) -> None:
    """With the circuits, the candidates and the references it had."""
    run(original, tmp_path / "whole", max_steps=8)

    def hear(event: Event) -> None:
        if event.kind == "advance" and event.done == 5:
            raise KeyboardInterrupt

    with listening(hear), pytest.raises(KeyboardInterrupt):
        run(original, tmp_path / "cut", max_steps=8)
    _, summary = run(original, tmp_path / "cut", max_steps=8)
    assert summary["resumed_from"] > 0
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")


def test_weights_of_other_nodes_end_bit_for_bit_under_weight_decay(
    original: Path, tmp_path: Path
) -> None:
    subject, _ = run(original, tmp_path / "out", max_steps=5, weight_decay=0.1)
    task = task_of(share=0.3)
    masks = cure.mask(load(original).model, task, task.params)
    after = dict(subject.model.named_parameters())
    split = 0
    for name, before in load(original).model.named_parameters():
        moves = torch.as_tensor(masks[name]).expand_as(before)
        split += bool(moves.any() and not moves.all())
        assert torch.equal(after[name][~moves], before[~moves]), name
        assert not moves.any() or not torch.equal(after[name][moves], before[moves]), name
    assert split


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_it_forgets_and_keeps_more_than_the_same_circuits_without_projection(
    tmp_path: Path, seed: int
) -> None:
    """Mean probability of the true label: 0.5 is a guess."""
    path = saved(tmp_path, seed)
    given, kept = ratings(seed)
    assert certainty(knowing(seed), given) > 0.98
    subject, _ = run(path, tmp_path / "update", seed)
    plain, _ = run(path, tmp_path / "none", seed, project="none")
    assert certainty(subject, given) < 0.7
    assert certainty(subject, kept) > 0.85
    assert certainty(subject, kept) > certainty(plain, kept) + 0.02
    record = read_manifest(tmp_path / "update")["record"]
    assert record["corrupted_by"] == {"pagerank": 240}
    assert sum(record[f"nodes_{kind}"] for kind in (FORGET, SHARED)) == 3
    table = [
        json.loads(x) for x in (tmp_path / "update/made/circuits.jsonl").read_text().splitlines()
    ]
    assert len(table) == 10


def test_random_circuits_and_an_adapter_change_other_weights(
    original: Path, tmp_path: Path
) -> None:
    found, _ = run(original, tmp_path / "found", max_steps=3)
    blind, _ = run(original, tmp_path / "random", max_steps=3, circuits="random")
    changed = [
        {n for n, p in one.model.named_parameters() if not torch.equal(p, before[n])}
        for before in [dict(load(original).model.named_parameters())]
        for one in (found, blind)
    ]
    assert changed[0] != changed[1]
    lora, _ = run(original, tmp_path / "lora", adapter="lora")
    assert certainty(lora, ratings()[0]) < 0.75
    assert certainty(lora, ratings()[1]) > 0.87
