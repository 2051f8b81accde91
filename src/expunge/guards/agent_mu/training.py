"""A small conversion model, trained on the prompts that worked best.

Definition (r a request, p a candidate prompt; an agent is run under each p):
    reward(r, p) = efficacy(p) - lambda * utility_drop(p)
    pairs        = {(r, argmax_p reward(r, p))}, those below `least` left out
    g            = a causal language model fine-tuned on log g(p | r), names masked by one word

Names are masked before the model reads a request and put back into what it writes, so that it can
be small and takes names it has never seen.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from expunge.engine.guarding.chat import Messages
from expunge.guards.agent_mu.conversion import Request, fields_of
from expunge.requests.rows import Row, Turn

if TYPE_CHECKING:
    from expunge.lm.subject import Subject

MASK = "SUBJECT"
"""Stands for the name; one word, so that a model with whole words as tokens can learn it."""


class Judged(NamedTuple):
    """How an agent acted under a prompt.

    Attributes:
        efficacy: Share of the trials in which nothing of the forgotten behaviour was left.
        utility_drop: Relative fall of its success at everything else.
    """

    efficacy: float
    utility_drop: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A prompt that was tried for a request.

    Attributes:
        request: The request.
        prompt: The prompt, with the subject's name in it.
        judged: How the agent acted.
        reward: Efficacy, less what it cost.
    """

    request: Request
    prompt: str
    judged: Judged
    reward: float


def tried(
    requests: Iterable[Request],
    candidates: Callable[[Request], Sequence[str]],
    judge: Callable[[Request, str], Judged],
    *,
    penalty: float = 1.0,
) -> list[Trial]:
    """Run an agent under every candidate prompt of every request.

    Args:
        requests: What is to be forgotten.
        candidates: Prompts for a request.
        judge: Runs an agent under a prompt.
        penalty: What a lost share of utility costs (lambda).
    """
    trials = []
    for request in requests:
        for prompt in candidates(request):
            judged = judge(request, prompt)
            reward = judged.efficacy - penalty * judged.utility_drop
            trials.append(Trial(request, prompt, judged, reward))
    return trials


def selected(trials: Iterable[Trial], *, least: float = 0.5) -> list[Trial]:
    """The best prompt of each request, the first of equals; none whose reward is too low."""
    best: dict[Request, Trial] = {}
    for trial in trials:
        known = best.setdefault(trial.request, trial)
        if trial.reward > known.reward:
            best[trial.request] = trial
    return [trial for trial in best.values() if trial.reward >= least]


class Trained:
    """A conversion model in the role ``converter``.

    Args:
        subject: What `trained` trained.
    """

    def __init__(self, subject: "Subject") -> None:
        self._subject = subject

    def say(
        self,
        messages: Messages,
        *,
        samples: int = 1,
        temperature: float = 0.0,
        new_tokens: int = 256,
        seed: int = 0,
    ) -> list[str]:
        """Write the prompt of the request that the messages hold; see `Chat`."""
        told = fields_of(messages)
        request = Request(told["level"], told["mode"], tuple(told["name"]), told["request"])
        turn = Turn(_asked(request), "", running=True)
        room = self._subject.encoder
        most = room.max_length - len(room.prompt(turn.prompt, True, ""))
        (said,) = self._subject.ask(
            [turn],
            new_tokens=min(new_tokens, most),
            samples=samples,
            temperature=temperature,
            seed=seed,
        )
        return [_named(one, request) for one in said]


def trained(
    subject: "Subject",
    trials: Sequence[Trial],
    *,
    epochs: int = 60,
    lr: float = 3e-3,
    seed: int = 0,
) -> Trained:
    """Train a conversion model on pairs of a request and its prompt.

    Args:
        subject: A small causal language model; a copy of it is trained.
        trials: The pairs, as `selected` gives them.
        epochs: Passes over the pairs.
        lr: Peak learning rate.
        seed: Decides the order of the pairs.

    Raises:
        ExpungeError: ``E-DATA-005`` without pairs.
    """
    from expunge.lm.finetune import finetune

    rows = [
        Row(
            id=str(at),
            prompt=_asked(one.request),
            completion=f" {masked(one.prompt, one.request.names)}",
        )
        for at, one in enumerate(trials)
    ]
    twin = subject.copy()
    finetune(twin.model, twin.tokenizer, rows, epochs=epochs, lr=lr, batch_size=16, seed=seed)
    return Trained(twin)


def masked(text: str, names: Sequence[str]) -> str:
    """A text with every name of the subject masked.

    Example:
        >>> masked("Forget Cell B3 now.", ["cell B3"])
        'Forget SUBJECT now.'
    """
    found = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{found})(?!\w)", MASK, text, flags=re.IGNORECASE)


def _asked(request: Request) -> str:
    return f"{request.level} {request.mode} : {masked(request.text, request.names)} ="


def _named(text: str, request: Request) -> str:
    return text.strip().replace(MASK, " or ".join(request.names))
