"""How central terms are to a target, by a graph of the terms that a model holds alike.

Definition (e_i: mean of the last hidden states over the tokens of term i, S the target's names):
    A_ij = 1[ cos(e_i, e_j) >= q ], i != j     q the given quantile of all cosines of two terms
    r    = (1 - d) s + d P^T r                 s uniform on S; P walks along A; where a term has no
                                               neighbour it leads back to S
    w_i  = (r_i - min r) / (max r - min r)

Reference: The PageRank Citation Ranking: Bringing Order to the Web (1999); graph and scale as in
Reinforcement Unlearning via Group Relative Policy Optimization (2025).
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from expunge.data.encode import by_length
from expunge.lm.arch import base_of
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import padding_id

Floats = NDArray[np.float64]
Graph = NDArray[np.bool_]


@torch.no_grad()
def mean_states(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int = 32,
) -> Floats:
    """[n, d]: the mean of the last hidden states over the tokens of each text.

    A text is taken as it stands in a sentence, after a space. Special tokens in front of it are
    seen, and take no part in the mean: the first position of many models outweighs all others.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        texts: Short texts.
        batch_size: Texts of one forward pass.
    """
    whole: Any = base_of(model)
    ids = [tokenizer(f" {text}")["input_ids"] for text in texts]
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    pad, backbone = padding_id(tokenizer), whole.base_model
    found: list[Floats] = [np.zeros(0)] * len(texts)
    for batch in by_length([len(one) for one in ids], batch_size):
        width = max(len(ids[i]) for i in batch)
        rows = torch.tensor([ids[i] + [pad] * (width - len(ids[i])) for i in batch])
        real = torch.tensor([[1] * len(ids[i]) + [0] * (width - len(ids[i])) for i in batch])
        own = torch.tensor([[int(t not in special) for t in row] for row in rows.tolist()]) * real
        own = torch.where(own.sum(1, keepdim=True) > 0, own, real)
        device = next(model.parameters()).device
        with evaluating(model):
            inputs = {"input_ids": rows.to(device), "attention_mask": real.to(device)}
            states = backbone(**inputs).last_hidden_state.double().cpu()
        means = (states * own[..., None]).sum(1) / own.sum(1, keepdim=True)
        for i, mean in zip(batch, means.numpy(), strict=True):
            found[i] = mean
    return np.stack(found)


def alike(states: Floats, quantile: float = 0.75) -> Graph:
    """[n, n]: which terms are neighbours: those whose cosine reaches the quantile of all pairs.

    Args:
        states: [n, d].
        quantile: Of the cosines of two different terms.
    """
    length = np.linalg.norm(states, axis=1, keepdims=True)
    unit = states / np.maximum(length, 1e-12)
    cosine = unit @ unit.T
    pairs = cosine[np.triu_indices(len(states), 1)]
    bound = np.quantile(pairs, quantile) if len(pairs) else np.inf
    graph: Graph = cosine >= bound
    graph |= graph.T  # a product of two rows may differ in the last bit from its mirror
    np.fill_diagonal(graph, False)
    return graph


def centrality(graph: Graph, start: Collection[int], damping: float = 0.85) -> Floats:
    """[n]: personalised PageRank from some terms, put on the scale from 0 to 1.

    Args:
        graph: [n, n], neighbours.
        start: Numbers of the terms that the walk begins at, and goes back to.
        damping: Chance of going on.

    Returns:
        1 for the most central term, 0 for the least; all 1 where none is more central.
    """
    edges = graph.astype(float)
    home = np.zeros(len(graph))
    home[list(start)] = 1 / len(start)
    degree = edges.sum(1, keepdims=True)
    walk = np.where(degree > 0, edges / np.maximum(degree, 1), home)
    rank = np.linalg.solve(np.eye(len(graph)) - damping * walk.T, (1 - damping) * home)
    low, high = rank.min(), rank.max()
    if high - low < 1e-12:
        return np.ones(len(graph))
    scaled: Floats = (rank - low) / (high - low)
    return scaled
