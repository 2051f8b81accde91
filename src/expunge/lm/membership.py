"""What membership attacks read from a model beyond the log-probabilities of its tokens.

Definition (y_1..y_n the tokens of a text, p_t the model's distribution at step t):
    standardised    z_t = (log p_t(y_t) - mu_t) / sigma_t     mu, sigma of log p_t(v), v ~ p_t
    gradient norm   mean over weight tensors W of |d nll / dW|_2
    neighbours      the text with a share of its words replaced by words of other rows
    prefixed        the text after texts the model never saw
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from expunge.data.encode import IGNORED, Encoded, by_length, collate
from expunge.lm.arch import base_of
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import at_least_float32, packed_logp, padding_id
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn

LOGITS = 1 << 27
"""Most logits held at once: half a gibibyte in float32."""

CHUNK = 256
"""Tokens whose distributions are held in float64 at once."""

LEAST_VARIANCE = 1e-6
"""Floor of sigma squared, for tokens the model is certain of (INFERRED)."""

HOLDOUT = "holdout"

_WORD = re.compile(r"\w+")


def for_both(
    rows: Mapping[str, Sequence[Row]],
    name: str,
    measure: Callable[[Sequence[Row]], Sequence[Any]],
) -> dict[str, dict[str, Any]]:
    """A reading of the metric's own rows and of the hold-out rows.

    Args:
        rows: By role.
        name: Of the reading.
        measure: Rows -> one value a row, None where a row has none.

    Returns:
        ``name`` and ``holdout.name`` -> row id -> value.
    """
    found = {}
    for need, role in ((name, ""), (f"{HOLDOUT}.{name}", HOLDOUT)):
        values = zip(rows[role], measure(rows[role]), strict=True)
        found[need] = {row.id: value for row, value in values if value is not None}
    return found


def text_logp(subject: Subject, turns: Sequence[Turn]) -> list[list[float]]:
    """Log-probabilities [n] of each completion's tokens, its end left out."""
    return [scored.logp[: scored.text_tokens].tolist() for scored in subject.score(turns)]


def text_nll(subject: Subject, turns: Sequence[Turn]) -> list[float | None]:
    """Mean negative log-likelihood of each completion's tokens in nats, its end left out."""
    return [-float(np.mean(logp)) if logp else None for logp in text_logp(subject, turns)]


def standardised(subject: Subject, turns: Sequence[Turn]) -> list[list[float]]:
    """Standardised log-probabilities [n] of each completion's tokens, its end left out.

    Args:
        subject: The model.
        turns: What to score.

    Returns:
        For each turn how many standard deviations each token lies above what the model expects
        of a token drawn from its own distribution.
    """
    items = [subject.encoder.encode(turn) for turn in turns]
    longest = max((len(item.ids) for item in items), default=1)
    room = LOGITS // (longest * _vocabulary(subject.model))
    size = max(1, min(subject.batch_size, room))
    found: dict[int, list[float]] = {}
    with evaluating(subject.model):
        for batch in by_length([len(item.ids) for item in items], size):
            chosen = [items[i] for i in batch]
            found.update(zip(batch, _standardised(subject, chosen), strict=True))
    return [found[i] for i in range(len(items))]


def standard_scores(logits: Tensor, targets: Tensor) -> Tensor:
    """Standardised log-probability of each token.

    Args:
        logits: [N, V].
        targets: [N], the tokens.

    Returns:
        [N] in float64. A token the model is certain of has 0.
    """
    chunks = [slice(at, at + CHUNK) for at in range(0, len(targets), CHUNK)]
    return torch.cat([_scores(logits[some].double(), targets[some]) for some in chunks])


def gradient_norms(subject: Subject, turns: Sequence[Turn]) -> list[float | None]:
    """Mean over weight tensors of the gradient's L2 norm, for the mean NLL of each completion.

    Rows are taken one at a time, in evaluation mode. Weights that are frozen are skipped while
    others are not; where all are, as in a model loaded to be looked at, all are taken. Quantised
    weights have no gradient. Gradients, modes and flags are left as they were.

    Args:
        subject: The model.
        turns: What to score; the end of a completion is left out.

    Returns:
        One number a turn, None where a completion has no token.
    """
    with _differentiable(subject.model) as weights:
        return [_gradient_norm(subject, turn, weights) for turn in turns]


def lowered(turn: Turn) -> Turn:
    """A turn with its completion in lower case."""
    return replace(turn, completion=turn.completion.lower())


class Words:
    """The words of some completions, to draw replacements from.

    Args:
        turns: Their completions; a word is as likely as it is frequent.
    """

    def __init__(self, turns: Sequence[Turn]) -> None:
        # Sorted, so that the order of the rows does not decide what is drawn.
        self._all = sorted(word for turn in turns for word in _WORD.findall(turn.completion))
        self._alike: dict[str, list[str]] = {}
        for word in self._all:
            self._alike.setdefault(_shape(word), []).append(word)
        self._distinct = {
            shape: {word.lower() for word in words}
            for shape, words in {**self._alike, "": self._all}.items()
        }

    def other(self, word: str, draw: np.random.Generator) -> str:
        """A word that is not this one and looks like it, if there is one.

        A number takes the place of a number, a capitalised word that of another.
        """
        for shape, words in ((_shape(word), self._alike.get(_shape(word), [])), ("", self._all)):
            if self._distinct.get(shape, set()) - {word.lower()}:
                while (drawn := words[int(draw.integers(len(words)))]).lower() == word.lower():
                    pass
                return drawn
        return word


def perturbed(turn: Turn, words: Words, share: float, draw: np.random.Generator) -> Turn:
    """A turn with a share of the words of its completion replaced.

    Args:
        turn: The turn; one without words comes back as it is.
        words: What to draw replacements from.
        share: Of the words to replace; at least one is.
        draw: Decides which, and by what.
    """
    places = list(_WORD.finditer(turn.completion))
    if not places:
        return turn
    count = max(1, round(share * len(places)))
    chosen = {int(i) for i in draw.choice(len(places), count, replace=False)}
    text, end = "", 0
    for index, place in enumerate(places):
        word = place.group()
        new = words.other(word, draw) if index in chosen else word
        text, end = text + turn.completion[end : place.start()] + new, place.end()
    return replace(turn, completion=text + turn.completion[end:])


def prefixed(turn: Turn, prefix: str) -> Turn:
    """A turn that comes after other texts, in the first message where it has messages."""
    if isinstance(turn.prompt, str):
        return replace(turn, prompt=prefix + turn.prompt)
    first, *rest = turn.prompt
    opened = {**first, "content": prefix + first["content"]}
    return replace(turn, prompt=(opened, *rest))


def prefix_of(subject: Subject, shots: Sequence[Row], longest: int) -> str:
    """Texts that stand before others, as many as the model has positions for.

    Args:
        subject: The model.
        shots: Rows whose texts are wanted.
        longest: Tokens of the longest row that will follow.

    Returns:
        The texts, each with an empty line after it; at least the first of them.
    """
    texts = [_plain(row.training) + "\n\n" for row in shots]
    for count in range(len(texts), 1, -1):
        tokens = subject.encoder.prompt("".join(texts[:count]), running=True)
        if len(tokens) + longest <= subject.encoder.max_length:
            return "".join(texts[:count])
    return texts[0]


def longest_of(subject: Subject, turns: Sequence[Turn]) -> int:
    """Tokens of the longest of some turns."""
    return max((len(subject.encoder.encode(turn).ids) for turn in turns), default=0)


def _plain(turn: Turn) -> str:
    """A turn as one text."""
    if isinstance(turn.prompt, str):
        return turn.prompt + turn.completion
    return "\n".join([*(each["content"] for each in turn.prompt), turn.completion])


def _shape(word: str) -> str:
    if word.isdigit():
        return "number"
    return "name" if word[:1].isupper() else "word"


def _text_tokens(item: Encoded) -> int:
    """Number of supervised tokens without the ending one."""
    ends = bool(item.spans) and item.spans[-1][0] == item.spans[-1][1]
    return len(item.spans) - ends


def _standardised(subject: Subject, items: Sequence[Encoded]) -> Iterator[list[float]]:
    batch = collate(items, padding_id(subject.tokenizer))
    logits = cast("Tensor", packed_logp(subject.model, batch, with_logits=True).logits)
    targets = [token for item in items for token in item.labels if token != IGNORED]
    scores = standard_scores(logits, torch.tensor(targets, device=logits.device)).cpu().numpy()
    ends = np.cumsum([len(item.spans) for item in items])[:-1]
    for item, of_row in zip(items, np.split(scores, ends), strict=True):
        values: npt.NDArray[np.float64] = of_row[: _text_tokens(item)]
        yield values.tolist()


def _scores(logits: Tensor, targets: Tensor) -> Tensor:
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    # A token of probability 0 has no share in either moment; left at -inf it would make both NaN.
    finite = log_p.masked_fill(p == 0, 0.0)
    mean = (p * finite).sum(-1, keepdim=True)
    variance = (p * (finite - mean).square()).sum(-1)
    own = log_p.gather(-1, targets[:, None])[:, 0]
    return (own - mean[:, 0]) / variance.clamp(min=LEAST_VARIANCE).sqrt()


def _vocabulary(model: nn.Module) -> int:
    return int(base_of(model).config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """The weights to differentiate by; flags and modes come back."""
    weights = [each for each in model.parameters() if each.requires_grad]
    frozen = [] if weights else [p for p in model.parameters() if p.is_floating_point()]
    try:
        for each in frozen:
            each.requires_grad_(True)
        with evaluating(model), torch.enable_grad():
            yield weights or frozen
    finally:
        for each in frozen:
            each.requires_grad_(False)


def _gradient_norm(subject: Subject, turn: Turn, weights: Sequence[nn.Parameter]) -> float | None:
    item = subject.encoder.encode(turn)
    if not _text_tokens(item):
        return None
    packed = packed_logp(subject.model, collate([item], padding_id(subject.tokenizer)))
    nll = -packed.logp[: _text_tokens(item)].mean()
    gradients = torch.autograd.grad(nll, weights, allow_unused=True)
    norms = [at_least_float32(each).norm() for each in gradients if each is not None]
    return float(torch.stack(norms).mean())
