"""How central terms are: a star in closed form, the graph, and states without their padding."""

import numpy as np
import pytest
import torch

from expunge.lm.term_rank import alike, centrality, mean_states
from expunge.testing import tiny_model, tiny_tokenizer


def star(leaves: int, others: int) -> np.ndarray:
    graph = np.zeros((1 + leaves + others,) * 2, dtype=bool)
    graph[0, 1 : 1 + leaves] = graph[1 : 1 + leaves, 0] = True
    return graph


@pytest.mark.parametrize("leaves", [2, 3, 7])
def test_the_centre_of_a_star_weighs_one_a_leaf_less_and_a_term_apart_nothing(leaves: int) -> None:
    """r_centre = 1/(1 + d) and r_leaf = d / (leaves (1 + d)), so a leaf weighs d / leaves."""
    weights = centrality(star(leaves, 1), [0], damping=0.85)
    assert weights == pytest.approx([1.0, *[0.85 / leaves] * leaves, 0.0])


def test_a_target_without_neighbours_keeps_all_the_weight() -> None:
    assert centrality(star(2, 1), [3]) == pytest.approx([0, 0, 0, 1])


def test_without_any_difference_all_weigh_one() -> None:
    assert centrality(np.zeros((1, 1), dtype=bool), [0]) == pytest.approx([1])
    assert centrality(np.zeros((3, 3), dtype=bool), [0, 1, 2]) == pytest.approx([1, 1, 1])


def test_the_upper_quarter_of_all_pairs_are_neighbours() -> None:
    angles = np.array([0.0, 0.1, 0.3, 0.9, 1.7])
    graph = alike(np.stack([np.cos(angles), np.sin(angles)], 1), quantile=0.75)
    near = sorted(
        (abs(a - b), i, j) for i, a in enumerate(angles) for j, b in enumerate(angles[:i])
    )
    wanted = {(i, j) for _, i, j in near[:3]}
    assert {(i, j) for i, j in zip(*np.nonzero(graph), strict=True) if i > j} == wanted
    assert (graph == graph.T).all()
    assert not graph.diagonal().any()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_states_are_means_over_a_texts_own_tokens_padding_or_not(family: str) -> None:
    texts = ["Ada", "Ada Birk of Rome", "a much longer name than the others have"]
    tokenizer = tiny_tokenizer(texts, vocab=300)
    model = tiny_model(family, vocab=len(tokenizer))
    together = mean_states(model, tokenizer, texts)
    for text, found in zip(texts, together, strict=True):
        ids = torch.tensor([tokenizer(f" {text}")["input_ids"]])
        states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        assert found == pytest.approx(states[0, 1:].double().mean(0).detach().numpy(), abs=1e-5)
