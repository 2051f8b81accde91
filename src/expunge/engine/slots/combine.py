"""Combiners: from the gradients of the terms to one gradient.

A method that defines none gets the weighted sum of both terms in one backward pass. A combiner
sees whole, accumulated gradients: ``{"forget": [tensor or None, ...], "retain": [...]}``, one
entry per trainable parameter, already divided by the step's denominators.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

Gradients = Mapping[str, Sequence[Tensor]]


def weighted_sum(gradients: Gradients, weights: Mapping[str, float]) -> list[Tensor]:
    """``sum over terms of weight * gradient``, parameter by parameter."""
    terms = list(gradients)
    columns = zip(*(gradients[term] for term in terms), strict=True)
    return [
        sum(
            (weights[term] * part for term, part in zip(terms, column, strict=True)),
            start=0 * column[0],
        )
        for column in columns
    ]
