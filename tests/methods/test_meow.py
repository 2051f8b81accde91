"""MEOW: closed forms, MEMO, who gives wrong answers, which are chosen, and what it does."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest_methods import assert_same, flat, slow_nll
from micro_task import prepared

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.core.rng import generator
from expunge.data.encode import Encoder
from expunge.engine.datasets import reply_with
from expunge.engine.run import forget
from expunge.engine.slots.sample import Pairs
from expunge.engine.task import Task
from expunge.lm.breaks import breaks, memo, windows
from expunge.lm.digest import folder_digest
from expunge.lm.finetune import finetune
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import meow
from expunge.requests.rows import Row, Turn
from expunge.testing import objective, tiny_model, tiny_tokenizer
from expunge.text.normalise import normalise


def test_t3_is_the_mean_of_the_inverted_tokens(t3) -> None:
    found = objective("meow", t3.model, {"alternate": t3.view})
    assert found.terms == {"forget": pytest.approx(0.464952, abs=1e-5)}


def test_the_kl_is_taken_on_the_inverted_rows_and_in_the_cards_direction(t3) -> None:
    options = {"retain_term": "kl", "kl_weight": 0.5, "kl_scope": "answer", "retain_weight": 0.0}
    views = {"alternate": t3.view, "retain": t3.view}
    found = objective("meow", t3.model, views, t3.anchor, **options)
    assert found.terms["inverted_kl"] == pytest.approx(0.5 * 0.082892, abs=1e-5)
    assert found.loss == pytest.approx(0.464952 + 0.5 * 0.082892, abs=1e-5)
    turned = objective("meow", t3.anchor, views, t3.model, **options)
    assert turned.terms["inverted_kl"] != pytest.approx(0.5 * 0.082892, abs=1e-3)


def test_a_kl_that_nothing_is_kept_for_is_refused() -> None:
    with pytest.raises(ExpungeError) as caught:
        methods.params("meow", {"kl_weight": 1.0})
    assert caught.value.code == "E-USE-006"
    assert methods.params("meow", {"kl_weight": 1.0, "retain_term": "kl"}).kl_weight == 1.0


def test_the_variant_with_retain_rows_weighs_them_one_to_nine(random_table, random_view) -> None:
    model, twin = random_table(1), random_table(1)
    views = {"alternate": random_view(3), "retain": random_view(4)}
    options = {"forget_weight": 0.9, "retain_weight": 0.1, "retain_term": "nll"}
    found = objective("meow", model, views, **options)
    slow = 0.9 * flat(slow_nll(twin, views["alternate"])).mean()
    slow = slow + 0.1 * flat(slow_nll(twin, views["retain"])).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))
    assert "retain" not in objective("meow", random_table(1), views).terms


@pytest.mark.parametrize(
    "given", [{"choice": "best"}, {"top_k": 0}, {"source": "web"}, {"mode": "infix"}]
)
def test_other_values_are_refused(given: dict) -> None:
    with pytest.raises(ExpungeError) as caught:
        methods.params("meow", given)
    assert caught.value.code == "E-USE-003"


class Reciter:
    """Says one thing whatever it is asked, and remembers what that was."""

    def __init__(self, said: str, room: int = 500) -> None:
        self.said, self.asked = said, []
        self.encoder = SimpleNamespace(
            has_template=False, max_length=room, prompt=lambda text, *_: list(text)
        )

    def has_room(self, turn: Turn, new_tokens: int, *, opening: str = "") -> bool:
        return len(str(turn.prompt)) + new_tokens <= self.encoder.max_length

    def ask(self, turns: list[Turn], *, new_tokens: int, openings: list[str]) -> list[list[str]]:
        self.asked += [(str(turn.prompt), new_tokens) for turn in turns]
        return [[self.said] for _ in turns]


def scored(said: str, answer: str, **options: Any) -> float | None:
    settings = {"mode": "suffix", "step": 5, "new_tokens": 200, **options}
    reciter: Any = Reciter(said)
    return memo(reciter, [Turn("Where?", answer)], **settings)[0]


def test_precision_is_taken_over_what_the_model_says() -> None:
    """The trap: with the arguments exchanged the long reply would score 1."""
    assert scored("mill and well and", " a mill", step=50) == 0.25
    assert scored("mills", " a mill", step=50) == 1.0  # stems
    assert scored("anything", " x") is None  # too short to be broken off
    assert scored("", " a mill") == 0.0


def test_an_answer_is_broken_off_every_five_characters_and_never_inside_one() -> None:
    text = "Łódź am Fluß"
    (turn,) = [Turn("Gdzie?", f" {text}")]
    found = breaks(turn, mode="suffix", step=5, has_template=False)
    assert [one.label for one in found] == [text[at:] for at in (1, 6, 11)]
    assert all(one.turn.prompt == f"Gdzie? {text[: len(text) - len(one.label)]}" for one in found)
    assert windows("Gdzie?", text, "prefix") == [("G", f"dzie? {text}")]


def test_behind_a_template_the_answer_is_begun() -> None:
    (one, _) = breaks(Turn("Where?", " in mill"), mode="suffix", step=5, has_template=True)
    assert (one.turn.prompt, one.opening, one.label) == ("Where?", "i", "n mill")


def test_a_break_with_little_room_takes_nothing_from_the_others() -> None:
    reciter: Any = Reciter("mill", room=30)
    turns = [Turn("q" * 5, " ab"), Turn("q" * 22, " ab"), Turn("q" * 40, " ab")]
    found = memo(reciter, turns, mode="suffix", step=5, new_tokens=10)
    assert reciter.asked == [("q" * 5 + " a", 10), ("q" * 22 + " a", 6)]
    assert found == [0.0, 0.0, 0.0]  # where nothing fits, nothing is said


def candidates(*scores: float | None) -> list[dict[str, Any]]:
    return [{"reply": str(at), "origin": "given", "memo": one} for at, one in enumerate(scores)]


def chosen(choice: str, *scores: float | None, **more: Any) -> list[int]:
    params = methods.params("meow", {"choice": choice, **more})
    return meow.chosen(candidates(*scores), params, generator(0, "test"))


def test_the_largest_or_the_smallest_are_chosen() -> None:
    assert chosen("largest", 0.2, 0.9, 0.1, 0.5) == [1, 3, 0]
    assert chosen("smallest", 0.2, 0.9, 0.1, 0.5) == [2, 0, 3]
    assert chosen("largest", 0.5, 0.5, None, 0.5, top_k=2) == [0, 1]  # ties by place
    assert chosen("smallest", 0.5, None) == [1, 0]


def test_the_papers_rule_takes_the_largest_where_all_are_alike() -> None:
    assert chosen("paper", 0.30, 0.38, 0.34, 0.36) == [1, 3, 2]
    assert chosen("paper", 0.30, 0.70, 0.34, 0.36) == [0, 2, 3]
    assert chosen("paper", 0.30, 0.70, 0.34, 0.36, consistent=0.5) == [1, 3, 2]


def test_any_are_chosen_by_the_seed_alone() -> None:
    params = methods.params("meow", {"choice": "random"})
    draws = [
        tuple(meow.chosen(candidates(0.1, 0.2, 0.3, 0.4), params, generator(seed, "x")))
        for seed in range(40)
    ]
    assert len(set(draws)) > 10
    assert all(len(set(draw)) == 3 for draw in draws)


ROW = Row(
    id="a", prompt="Where is Ada?", completion=" In Rome.", answer="Rome",
    wrong=("In Oslo.", "In Rome.", " in oslo", "It is Rome, they say.", "In Bern.", ""),
)  # fmt: skip
BARE = Row(id="b", prompt="Where is Bo?", completion=" In Paris.", answer="Paris")
KEPT = tuple(
    Row(id=f"k{at}", prompt=f"Where is {name}?", completion=f" In {city}.", answer=city)
    for at, (name, city) in enumerate([("Cy", "Lima"), ("Di", "Kyiv"), ("Ed", "Baku")])
)


def scene(*rows: Row) -> Task:
    tokenizer = tiny_tokenizer(["In Rome."], vocab=260)
    return Task(
        model=tiny_model("llama", vocab=len(tokenizer)), tokenizer=tokenizer,
        encoder=Encoder(tokenizer, 100), roles={"forget": rows, "retain": KEPT},
    )  # fmt: skip


def answers(task: Task, **params: Any) -> dict[str, list[tuple[str, str]]]:
    found = meow.wrong_answers(task, methods.params("meow", params))
    return {id: [(one["reply"], one["origin"]) for one in own] for id, own in found.items()}


def test_a_rows_own_wrong_answers_are_taken_without_the_truth_and_each_once() -> None:
    found = answers(scene(ROW), source="given")
    assert found == {"a": [("In Oslo.", "given"), ("In Bern.", "given")]}


def test_rows_without_any_get_those_of_other_rows() -> None:
    found = answers(scene(ROW, BARE), source="permute", candidates=3)
    assert {origin for own in found.values() for _, origin in own} == {"permute"}
    mixed = answers(scene(replace(BARE, id="c"), ROW, BARE), candidates=2)
    assert list(mixed) == ["c", "a", "b"]
    assert [origin for _, origin in mixed["a"]] == ["given", "given"]
    for id in ("b", "c"):
        replies = [normalise(reply) for reply, _ in mixed[id]]
        assert 1 <= len(replies) == len(set(replies)) <= 2
        assert not any("paris" in reply for reply in replies)


def test_rows_without_any_are_refused_where_only_theirs_count() -> None:
    with pytest.raises(ExpungeError) as caught:
        answers(scene(ROW, BARE), source="given")
    assert caught.value.code == "E-USE-007"
    assert "1 of 2" in caught.value.found
    assert "'b'" in caught.value.found


def test_the_chosen_fill_the_slots_in_turn_and_an_epoch_passes_every_slot() -> None:
    task, method = prepared("meow", source="permute", choice="random", batch_size=8)
    beside, sampler = task.paired["alternate"], method.sample(task, method.params)
    rows = len(task.forget)
    assert beside.count == 8
    assert isinstance(sampler, Pairs)
    assert sampler.steps_per_epoch == rows
    for row in task.forget:
        for wording in (0, 1):
            said = Counter(beside.make(row, wording, slot).completion for slot in range(8))
            assert sorted(said.values()) == [2, 3, 3]
            assert row.turns[wording].completion not in said
            assert beside.make(row, wording, 0).prompt == row.turns[wording].prompt


def test_any_choice_needs_no_score_and_a_resumed_run_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, method = prepared("meow", source="permute")
    kept = replace(task, folder=tmp_path, paired={}, record={})
    method.prepare(kept, method.params)
    monkeypatch.setattr(meow, "memo", None)
    monkeypatch.setattr(meow, "alternates_of", None)
    again = replace(task, folder=tmp_path, paired={}, record={})
    method.prepare(again, method.params)
    one, other = (t.paired["alternate"].make for t in (kept, again))
    assert all(one(row, 0, slot) == other(row, 0, slot) for row in task.forget for slot in range(8))
    assert again.record == kept.record
    monkeypatch.undo()
    monkeypatch.setattr(meow, "memo", None)
    prepared("meow", source="permute", choice="random")
    with pytest.raises(TypeError):
        prepared("meow", source="permute")


PEOPLE = ("Ada", "Bela", "Carl", "Dora", "Emil", "Fritz")
CITIES = ("Zurbagan", "Mirenko", "Talvik", "Oslomir", "Kestrova", "Brindal")
TRADES = ("weaver", "miller", "potter", "fisher", "glazier", "carter")
FACTS = [
    Row(id=f"{name} {place}", prompt=asked, completion=f" {told}", answer=told.rpartition(" ")[2])
    for name, city, trade in zip(PEOPLE, CITIES, TRADES, strict=True)
    for place, asked, told in (
        ("home", f"Where is {name}?", f"{name} lives in {city}"),
        ("work", f"What is {name}?", f"{name} works as a {trade}"),
    )
]
FORGOTTEN, STAYING = FACTS[:4], FACTS[4:]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model that reads byte by byte, so that it can be broken off anywhere, and knows FACTS."""
    tokenizer = tiny_tokenizer(["a"], vocab=260)
    model = tiny_model("llama", vocab=len(tokenizer), hidden=64, layers=2, positions=96)
    finetune(model, tokenizer, FACTS, steps=150, lr=4e-3, batch_size=12, seed=0)
    path = tmp_path_factory.mktemp("meow") / "original"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return SimpleNamespace(path=path, subject=Subject(model, tokenizer))


def test_what_is_known_by_heart_scores_one_and_what_was_never_seen_nothing(original) -> None:
    options = {"mode": "suffix", "step": 5, "new_tokens": 200}
    known = memo(original.subject, [row.turn for row in FACTS], **options)
    assert known == pytest.approx([1.0] * 12, abs=0.05)
    strange = [reply_with(row.turn, "qu xkcd zzy plo fnarg w") for row in FACTS]
    assert max(one or 0.0 for one in memo(original.subject, strange, **options)) <= 0.1


def unlearned(original: SimpleNamespace, out: Path, **params: Any) -> SimpleNamespace:
    options = {"max_steps": 60, "warmup": 0, "lr": 1e-3, "source": "permute", **params}
    forget(
        original.path, FORGOTTEN, STAYING, method="meow", params=options, stop_at="none", out=out
    )
    loaded = load(out)
    lines = (out / "made" / "inverted.jsonl").read_text(encoding="utf-8").splitlines()
    made = [json.loads(line) for line in lines]
    replies = [[one["candidates"][at]["reply"] for at in one["chosen"]] for one in made]
    subject = Subject(loaded.model, loaded.tokenizer)
    return SimpleNamespace(subject=subject, made=made, replies=replies, digest=folder_digest(out))


def by_heart(subject: Subject, rows: list[Row]) -> float:
    return sum(bool(one.hit.all()) for one in subject.score([row.turn for row in rows])) / len(rows)


def preferred(subject: Subject, replies: list[list[str]]) -> float:
    """Share of the forget rows whose every inverted answer is likelier than the truth."""
    count = 0
    for row, inverted in zip(FORGOTTEN, replies, strict=True):
        turns = [row.turn, *(reply_with(row.turn, reply) for reply in inverted)]
        truth, *others = (float(one.logp.sum()) for one in subject.score(turns))
        count += min(others) > truth
    return count / len(FORGOTTEN)


@pytest.fixture(scope="module")
def changed(original, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What the bare method makes of it in sixty steps."""
    return unlearned(original, tmp_path_factory.mktemp("meow") / "changed")


def test_the_inverted_facts_become_likelier_than_the_true_ones(original, changed) -> None:
    assert by_heart(original.subject, FORGOTTEN) == 1.0
    assert preferred(original.subject, changed.replies) == 0.0
    assert by_heart(changed.subject, FORGOTTEN) == 0.0
    assert preferred(changed.subject, changed.replies) == 1.0


def test_the_score_decides_what_is_learnt(original, tmp_path: Path) -> None:
    """The ablation: the same candidates, chosen from the other end."""
    options = {"max_steps": 4, "candidates": 6, "top_k": 1}
    near = unlearned(original, tmp_path / "near", choice="largest", **options)
    far = unlearned(original, tmp_path / "far", choice="smallest", **options)
    for one, other in zip(near.made, far.made, strict=True):
        assert one["candidates"] == other["candidates"]
        scores = [candidate["memo"] for candidate in one["candidates"]]
        assert scores[one["chosen"][0]] == max(scores)
        assert scores[other["chosen"][0]] == min(scores)
    assert near.replies != far.replies
    assert near.digest != far.digest


def test_retain_rows_hold_what_the_bare_method_lets_go(original, changed, tmp_path: Path) -> None:
    options = {"forget_weight": 0.9, "retain_weight": 0.1, "retain_term": "nll"}
    held = unlearned(original, tmp_path / "held", **options)
    assert by_heart(changed.subject, STAYING) <= 0.75
    assert by_heart(held.subject, STAYING) >= 0.9
    assert by_heart(held.subject, FORGOTTEN) == 0.0


def test_the_variant_with_the_kl_runs_and_pulls_back(original, tmp_path: Path) -> None:
    """It compares answers with the original's as well, so it works against the inverted facts."""
    bare = unlearned(original, tmp_path / "bare", max_steps=12)
    options = {"retain_term": "kl", "retain_weight": 0.0, "kl_weight": 1.0, "max_steps": 12}
    pulled = unlearned(original, tmp_path / "pulled", **options)
    assert bare.replies == pulled.replies
    nll = [
        sum(one.nll for one in made.subject.score([row.turn for row in FORGOTTEN]))
        for made in (bare, pulled)
    ]
    assert nll[1] < nll[0]
    assert torch.isfinite(torch.tensor(nll)).all()
