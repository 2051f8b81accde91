"""Every shared retain term with every method that takes one, against sums written out by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import log_softmax

from expunge.core.registry import methods
from expunge.testing import objective, tiny_model

VIEWS = (
    "forget",
    "retain",
    "refusal",
    "alternate",
    "random",
    "expert",
    "novice",
    "fluency",
    "declined",
    "cleaned",
    "nearest",
)
TERMS = [
    ("none", "answer"),
    ("nll", "answer"),
    ("kl", "answer"),
    ("kl", "all_nonpad"),
    ("kl", "legacy_all"),
    ("mse", "answer"),
]


def takes_a_retain_term(method_id: str) -> bool:
    return not hasattr(methods.load(method_id), "retain")


METHODS = [
    card.id for card in methods.cards() if card.kind == "gradient" and takes_a_retain_term(card.id)
]


@pytest.fixture(scope="module")
def scene() -> SimpleNamespace:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 60, (3, 8), generator=draw)
    labels = torch.where(torch.rand(3, 8, generator=draw) < 0.6, ids, -100)
    labels[:, 1] = ids[:, 1]
    mask = torch.ones_like(ids)
    mask[1, 6:], labels[1, 6:] = 0, -100
    view = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    model, anchor = (tiny_model("llama", vocab=64, layers=4, seed=seed) for seed in (0, 1))
    with torch.no_grad():
        expected = {term: by_hand(*term, model, anchor, view) for term in TERMS}
    return SimpleNamespace(views=dict.fromkeys(VIEWS, view), anchor=anchor, expected=expected)


def by_hand(term: str, scope: str, model, anchor, view) -> float | None:
    """One retain term, position by position."""
    ids, mask, labels = view["input_ids"], view["attention_mask"], view["labels"]
    found = [
        m(input_ids=ids, attention_mask=mask, output_hidden_states=True) for m in (model, anchor)
    ]
    p, p0 = (log_softmax(one.logits.double(), -1) for one in found)
    h, h0 = (one.hidden_states[3].double() for one in found)
    values = []
    for row in range(len(ids)):
        for at in range(ids.shape[1]):
            answers = at + 1 < ids.shape[1] and labels[row, at + 1] != -100
            real = bool(mask[row, at])
            if term == "nll" and answers:
                values.append(-p[row, at, ids[row, at + 1]])
            wanted = {"answer": answers, "all_nonpad": real, "legacy_all": True}[scope]
            if term == "kl" and wanted:
                values.append((p0[row, at].exp() * (p0[row, at] - p[row, at])).sum())
            if term == "mse" and real:
                values.append(((h[row, at] - h0[row, at]) ** 2).mean())
    return float(torch.stack(values).mean()) if values else None


def offered() -> list[tuple[str, tuple[str, str]]]:
    """Each method with each term it lets a user choose."""
    choices = {id: methods.card(id).params["retain_term"]["choices"] for id in METHODS}
    return [(id, term) for id in METHODS for term in TERMS if term[0] in choices[id]]


@pytest.mark.parametrize(("method_id", "term"), offered())
def test_the_term_is_what_its_name_says(method_id: str, term, scene) -> None:
    model = tiny_model("llama", vocab=64, layers=4, seed=0)
    options = {"retain_term": term[0], "kl_scope": term[1], "retain_weight": 0.3}
    found = objective(method_id, model, scene.views, scene.anchor, **options)
    assert found.terms.get("retain") == (
        None if scene.expected[term] is None else pytest.approx(scene.expected[term], rel=1e-4)
    )
    alone = found.terms.get("forget", 0.0) * methods.params(method_id, {}).forget_weight
    alone += sum(found.terms[name] for name in found.terms.keys() - {"forget", "retain"})
    assert found.loss == pytest.approx(alone + 0.3 * found.terms.get("retain", 0.0), rel=1e-5)
