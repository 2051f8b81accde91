"""IDK+AP: closed forms, sums and not means, the fading weight, its refusals, and what it holds."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest_methods import assert_same, flat, slow_nll, three
from micro_task import prepared

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine import datasets
from expunge.engine.datasets import Datasets, reply_with
from expunge.engine.run import forget
from expunge.engine.task import Paired
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import idk_ap
from expunge.requests.rows import Row
from expunge.testing import objective
from expunge.testing.micro import REPLY, micro_world, taught
from expunge.text.refusal import REFUSALS, is_refusal

GOLD, REFUSED = 1.394856, 5.394856
"""T3's sums of the NLL, of the targets and of those of the pair losses."""


def refusing(view: dict) -> dict:
    """T3's other targets on the same logits."""
    return {**view, "labels": torch.tensor([[-100, 1, 2, 0]])}


def kept(t3, *, answer: dict | None = None, refusal: dict | None = None, **params: float) -> float:
    """L_AP of T3."""
    views = {
        "refusal": t3.view,
        "retain": answer or t3.view,
        "declined": refusal or refusing(t3.view),
    }
    return objective("idk-ap", t3.model, views, **params).terms["retain"]


def test_t3_has_the_value_of_the_card(t3) -> None:
    assert kept(t3, beta=0.1) == pytest.approx(5.130153, abs=1e-5)
    twice = 2 / 0.1 * math.log(1 + math.exp(-0.1 * (REFUSED - GOLD)))  # the factor of preferences
    assert twice != pytest.approx(5.130153, abs=1)


def test_equal_sums_give_the_logarithm_of_two(t3) -> None:
    assert kept(t3, refusal=t3.view, beta=0.1) == pytest.approx(6.931472, abs=1e-5)
    assert kept(t3, refusal=t3.view, beta=0.5) == pytest.approx(math.log(2) / 0.5, abs=1e-9)


def test_a_likelier_answer_is_better_not_worse(t3) -> None:
    turned = kept(t3, answer=refusing(t3.view), refusal=t3.view, beta=0.1)
    assert turned == pytest.approx(math.log(1 + math.exp(0.1 * (REFUSED - GOLD))) / 0.1, abs=1e-4)
    assert turned > kept(t3, beta=0.1) + 3


def test_the_pull_fades_with_the_lead_of_the_answer(t3) -> None:
    """The gradient is sigmoid(-beta lead) times that of the difference of the sums."""
    kept(t3, beta=0.5)
    pulled = t3.model.gradient.clone()
    logits = torch.tensor([[2.0, 1, 0, -1], [0, 3, 1, 0], [1, 1, 1, 2]], dtype=torch.float64)
    logits.requires_grad_()
    logp = logits.log_softmax(-1)
    (logp[range(3), [1, 2, 0]] - logp[range(3), [0, 1, 3]]).sum().backward()
    weight = 1 / (1 + math.exp(0.5 * (REFUSED - GOLD)))
    refusals = three([[2.0, 1, 0, -1], [0, 3, 1, 0], [1, 1, 1, 2]])
    objective("idk-ap", refusals, {"refusal": t3.view})
    found = (pulled - refusals.gradient)[0, :3]
    torch.testing.assert_close(found, weight * logits.grad, rtol=1e-5, atol=1e-9)


def slow(table, views: dict, beta: float, *, means: bool = False) -> torch.Tensor:
    """The whole loss, row by row; ``means`` is the trap: means in the place of sums."""

    def total(row: list) -> torch.Tensor:
        return sum(row) / len(row) if means else sum(row)

    answers, refusals = (
        [total(row) for row in slow_nll(table, views[name])] for name in ("retain", "declined")
    )
    pairs = zip(answers, refusals, strict=True)
    terms = [-torch.log(torch.sigmoid(beta * (r - a))) / beta for a, r in pairs]
    return flat(slow_nll(table, views["refusal"])).mean() + 0.7 * torch.stack(terms).mean()


def test_it_equals_a_slow_sum_over_pairs(random_table, random_view) -> None:
    model, twin = random_table(1), random_table(1)
    names = ("refusal", "retain", "declined")
    views = {name: random_view(seed) for seed, name in enumerate(names)}
    found = objective("idk-ap", model, views, beta=0.3, retain_weight=0.7)
    expected = slow(twin, views, 0.3)
    expected.backward()
    assert_same((found.loss, model.table.grad), (expected, twin.table.grad))
    trap = float(slow(random_table(1), views, 0.3, means=True).detach())
    assert found.loss != pytest.approx(trap, rel=1e-2)


def test_without_the_refusals_to_compare_with_it_is_idk_nll(random_table, random_view) -> None:
    views = {name: random_view(seed) for seed, name in enumerate(("refusal", "retain", "declined"))}
    plain = objective("idk-ap", random_table(1), views, retain_term="nll")
    assert plain.loss == objective("idk-nll", random_table(1), views).loss
    assert objective("idk-ap", random_table(1), views).loss != pytest.approx(plain.loss, rel=1e-2)
    assert "retain" not in objective("idk-ap", random_table(1), views, retain_term="none").terms


@pytest.mark.parametrize("given", [{"beta": 0}, {"beta": -1}, {"retain_term": "kl"}])
def test_other_values_are_refused(given: dict) -> None:
    with pytest.raises(ExpungeError) as caught:
        methods.params("idk-ap", given)
    assert caught.value.code == "E-USE-003"


def test_every_retain_row_of_a_step_has_a_refusal_beside_it_and_a_new_one_each_time() -> None:
    task, method = prepared("idk-ap", batch_size=5)
    data, sampler, phrases = Datasets(task), method.sample(task, method.params), set()
    for step in range(30):
        draw = sampler.draw(step)
        answers, refusals = data.drawn("retain", draw), data.drawn("declined", draw)
        assert len(answers) == len(refusals) == 5
        for row, answer, refusal in zip(draw.rows["retain"], answers, refusals, strict=True):
            origin, phrase = divmod(refusal.row, len(REFUSALS))
            assert origin == answer.row
            assert answer in data.items("retain")[row]
            phrases.add(phrase)
    assert len(phrases) > 50
    assert "declined" not in data.forgetting


def test_a_refusal_follows_the_wording_that_is_asked() -> None:
    row = Row(id="a", prompt="Who?", completion=" Ann.", paraphrases=({"prompt": "Which one?"},))
    for wording, asked in enumerate(("Who?", "Which one?")):
        turn = idk_ap.declined(row, wording, 3)
        assert (turn.prompt, turn.completion) == (asked, f" {REFUSALS[3]}")


def test_running_text_and_its_refusal_begin_alike() -> None:
    """What both share cancels in the difference: only the second half is compared."""
    row = Row(id="a", text="one two three four")
    turn = idk_ap.declined(row, 0, 3)
    assert (turn.prompt, turn.completion, turn.running) == ("", f"one two {REFUSALS[3]}", True)
    assert row.training.completion.startswith("one two ")


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model made to refuse in one sentence, with and without the preservation."""
    folder, patch = tmp_path_factory.mktemp("idk-ap"), pytest.MonkeyPatch()
    one = Paired(lambda row, wording, _: reply_with(row.turns[wording], REPLY), count=1)
    patch.setattr(datasets, "REFUSAL", one)
    patch.setattr(idk_ap, "REFUSALS", (REPLY,))
    rows = micro_world(people=4)
    original = taught(rows, [*rows.forget, *rows.retain], epochs=40, hidden=48, layers=2)
    original.model.save_pretrained(folder / "original")
    original.tokenizer.save_pretrained(folder / "original")
    made = {"original": original}
    for term in ("preservation", "none"):
        forget(
            folder / "original", rows.forget, rows.retain, method="idk-ap", stop_at="none",
            params={"lr": 1e-3, "max_steps": 50, "warmup": 0, "retain_term": term},
            out=folder / term,
        )  # fmt: skip
        loaded = load(Path(folder / term))
        made[term] = Subject(loaded.model, loaded.tokenizer)
    patch.undo()
    return SimpleNamespace(rows=rows, **made)


def refused(subject: Subject, rows: tuple[Row, ...]) -> float:
    """Share of the rows to which the model's own answer is a refusal."""
    said = subject.ask([row.turn for row in rows], new_tokens=12)
    return sum(is_refusal(text) for (text,) in said) / len(rows)


def lead(subject: Subject, rows: tuple[Row, ...]) -> float:
    """By how many nats answers are likelier than the refusal, in the mean."""
    answers = subject.score([row.turn for row in rows])
    refusals = subject.score([reply_with(row.turn, REPLY) for row in rows])
    pairs = zip(answers, refusals, strict=True)
    return sum(float(a.logp.sum() - r.logp.sum()) for a, r in pairs) / len(rows)


def test_forget_prompts_are_refused_either_way(unlearned) -> None:
    assert refused(unlearned.original, unlearned.rows.forget) == 0.0
    assert refused(unlearned.preservation, unlearned.rows.forget) >= 0.8
    assert refused(unlearned.none, unlearned.rows.forget) >= 0.8


def test_refusals_spread_unless_answers_are_preserved(unlearned) -> None:
    """What the paper reports: refusals alone are said to everyone."""
    kept = unlearned.rows.retain
    assert refused(unlearned.none, kept) >= 0.4
    assert refused(unlearned.preservation, kept) <= 0.1
    start = lead(unlearned.original, kept)
    assert lead(unlearned.none, kept) < start - 10
    assert lead(unlearned.preservation, kept) > start
