"""Who answers typed questions: a model here, a server, or a classifier of word pieces.

Definition:
    Local      P(option) = softmax over the options of the next-token logits of their labels (Yes
               and No; A, B, ...), after the question in the model's chat template
    SystemOne  POST {url}/systemone   questions ``noul``, ``choice``, ``score``
    Decisions  POST {url}/decisions   questions ``predicate``, ``choice``, ``score``
    Worded     logistic regression on n-grams (`expunge.text.classifier`), one for each question
               it was taught; any other question is an error
    Calibrated P' proportional to P^(1/T), and yes above a threshold t; T and t fitted on texts
               whose answers are known:
                   T = argmin of the mean -log P'(right answer), in [1/20, 20]
                   t = the lowest value that at most a share of the no-texts exceeds

A model that was not tuned to decide is not calibrated: its probabilities rank texts, and only
`calibrate` makes a threshold of them mean something. Whatever an answer is that is not exactly of
the form asked for, it is an error and never a low probability.

Reference: On Calibration of Modern Neural Networks (2017), for the temperature. The wire forms are
those of the transformers and OpenAI documentation of 2026; both are young and may move.
"""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.posting import TIMEOUT, Poster
from expunge.text.classifier import Classifier, fit

if TYPE_CHECKING:
    import numpy.typing as npt

    from expunge.lm.subject import Subject

OPTIONS = 25
"""Most options of one question; more are cut down to a shortlist before they come here."""

SLACK = 1e-3
"""How far probabilities of a server may be from adding up to 1: it writes few digits."""

QUESTION = "q"
"""Name of the only question of a request."""


class Local:
    """Decisions of a model of this process, by the next-token logits of the options' labels.

    `DecisionPipeline` of transformers asks, with a tokenizer of its own, since it adds tokens to
    the one it is given; what looks like a control token in a text is written as plain text. The
    text stands as a JSON value before the question.

    Args:
        subject: A chat model; it is asked past its gate.

    Raises:
        ExpungeError: ``E-MODEL-006`` without a chat template, ``E-SERVE-003`` when the labels are
            not single tokens for this model.
    """

    def __init__(self, subject: "Subject") -> None:
        from transformers import DecisionConfig
        from transformers.pipelines.decision import DecisionPipeline

        if not subject.encoder.has_template:
            raise ExpungeError(
                "E-MODEL-006",
                "A model without a chat template, to decide typed questions.",
                "a chat model.",
                "Take an instruction-tuned model, or a server that decides.",
            )
        self._model, self._lock = subject.model, Lock()
        self._room = subject.encoder.max_length
        self._pipe: Any = DecisionPipeline(
            model=subject.model,
            tokenizer=copy.deepcopy(subject.tokenizer),
            decision_config=DecisionConfig(),
            device=subject.model.device,
        )
        self._check_labels()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Local":
        return self  # a model that is copied takes its guards along, and they ask the same one

    def yes(self, state: str, question: str) -> float:
        """See `Decider.yes`."""
        return float(self._asked(state, _noul(question))["noul"])

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """See `Decider.choose`."""
        if len(_checked(options)) == 1:
            return [1.0]
        told = self._asked(state, _choice(question, options))["probabilities"]
        return _normal([told[option] for option in options])

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """See `Decider.rate`."""
        told = self._asked(state, _score(question, _levels(levels)))["probabilities"]
        return _normal([told[str(level)] for level in range(levels)])

    def _asked(self, state: str, question: Mapping[str, Any]) -> Any:
        from expunge.lm.hooks import evaluating

        request = {"state": {"text": state}, "questions": {QUESTION: question}}
        inputs = self._pipe.preprocess(request)
        longest = max(given["input_ids"].shape[-1] for given, _ in inputs["prompts"])
        if longest > self._room:
            raise ExpungeError(
                "E-SERVE-001",
                f"A question of {longest} tokens to a model with {self._room} positions.",
                "a question that fits.",
                "Take a model with more positions to decide.",
            )
        with self._lock, evaluating(self._model):
            return self._pipe.postprocess(self._pipe.forward(inputs))[QUESTION]

    def _check_labels(self) -> None:
        letters = tuple(chr(ord("A") + n) for n in range(OPTIONS))
        try:
            for labels in (("Yes", "No"), letters):
                self._pipe.label_token_ids(labels)
        except ValueError as error:
            raise ExpungeError(
                "E-SERVE-003",
                "A model whose tokenizer cuts Yes, No or a capital letter into several tokens, "
                "to decide typed questions.",
                "a model for which each of them is one token.",
                "Take another model, or a server that decides.",
            ) from error


class SystemOne:
    """Decisions of a server with ``/v1/systemone``, such as ``transformers serve``.

    Args:
        url: Where the server's paths begin, with ``/v1`` at its end.
        model: Which of its models; empty lets the server choose.
        token: Sent as ``Authorization: Bearer``.
        timeout: Seconds that one call may take.
    """

    def __init__(
        self, url: str, model: str = "", *, token: str | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._model, self._poster = model, Poster(url, token=token, timeout=timeout)

    def yes(self, state: str, question: str) -> float:
        """See `Decider.yes`."""
        return _probability(self._poster, self._asked(state, _noul(question)).get("noul"))

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """See `Decider.choose`."""
        if len(_checked(options)) == 1:
            return [1.0]
        return self._told(self._asked(state, _choice(question, options)), options)

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """See `Decider.rate`."""
        answer = self._asked(state, _score(question, _levels(levels)))
        return self._told(answer, [str(level) for level in range(levels)])

    def _asked(self, state: str, question: Mapping[str, Any]) -> Mapping[str, Any]:
        body = {"state": {"text": state}, "questions": {QUESTION: question}}
        whole = self._poster.post(
            "systemone", body | ({"model": self._model} if self._model else {})
        )
        answers = whole.get("answers") if isinstance(whole, dict) else None
        answer = answers.get(QUESTION) if isinstance(answers, dict) else None
        if not isinstance(answer, dict) or answer.get("type") != question["type"]:
            self._poster.fail("It did not answer the question it was asked.")
        return answer

    def _told(self, answer: Mapping[str, Any], options: Sequence[str]) -> list[float]:
        told = answer.get("probabilities")
        if not isinstance(told, dict) or set(told) != set(options):
            self._poster.fail("It gives other options than those it was asked about.")
        return _distribution(self._poster, [told[option] for option in options])


class Decisions:
    """Decisions of a server with ``/v1/decisions``, such as OpenAI's, SGLang or LiteLLM.

    Args:
        url: Where the server's paths begin, with ``/v1`` at its end.
        model: Which of its models; empty lets the server choose.
        token: Sent as ``Authorization: Bearer``.
        timeout: Seconds that one call may take.
    """

    def __init__(
        self, url: str, model: str = "", *, token: str | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._model, self._poster = model, Poster(url, token=token, timeout=timeout)

    def yes(self, state: str, question: str) -> float:
        """See `Decider.yes`."""
        answer = self._asked(state, {"type": "predicate", "instructions": question})
        return _probability(self._poster, answer.get("probability"))

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """See `Decider.choose`."""
        if len(_checked(options)) == 1:
            return [1.0]
        choices = [{"value": option} for option in options]
        asked = {"type": "choice", "instructions": question, "choices": choices}
        return self._told(self._asked(state, asked), options)

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """See `Decider.rate`."""
        named = [{"label": label} for label in _levels(levels)]
        asked = {"type": "score", "instructions": question, "levels": named}
        return self._told(self._asked(state, asked), range(levels))

    def _asked(self, state: str, question: Mapping[str, Any]) -> Mapping[str, Any]:
        body = {"input": state, "questions": [{"name": QUESTION, **question}]}
        whole = self._poster.post(
            "decisions", body | ({"model": self._model} if self._model else {})
        )
        answers = whole.get("answers") if isinstance(whole, dict) else None
        if not isinstance(answers, list) or len(answers) != 1 or not isinstance(answers[0], dict):
            self._poster.fail("It did not give one answer to one question.")
        answer: dict[str, Any] = answers[0]
        if answer.get("type") == "refusal":
            self._poster.fail("It refused to answer.")
        if answer.get("type") != question["type"] or answer.get("name") not in (None, QUESTION):
            self._poster.fail("It did not answer the question it was asked.")
        return answer

    def _told(self, answer: Mapping[str, Any], options: Sequence[str | int]) -> list[float]:
        told = answer.get("probabilities")
        if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
            self._poster.fail("It gives no probabilities.")
        found = {json.dumps(one.get("value")): one.get("probability") for one in told}
        wanted = [json.dumps(option) for option in options]  # true and 1 are two values, as JSON
        if len(told) != len(wanted) or set(found) != set(wanted):
            self._poster.fail("It gives other options than those it was asked about.")
        return _distribution(self._poster, [found[option] for option in wanted])


class Worded:
    """Decisions of classifiers of word pieces, for the questions they were taught.

    Args:
        known: Question -> its classifier; kinds are no and yes, the options, or the levels, in
            their order.
    """

    def __init__(self, known: Mapping[str, Classifier]) -> None:
        self._known = dict(known)

    @classmethod
    def taught(cls, examples: Mapping[str, tuple[Sequence[str], Sequence[int]]]) -> "Worded":
        """Learn questions from texts with their answers.

        Args:
            examples: Question -> texts, and for each its kind: 1 for yes and 0 for no, the place
                of the right option, or the level less 1.
        """
        return cls({question: fit(*told) for question, told in examples.items()})

    @classmethod
    def of(
        cls, questions: Sequence[str], arrays: "Mapping[str, npt.NDArray[Any]]", prefix: str = ""
    ) -> "Worded":
        """A decider from its stored numbers; see `arrays`."""
        named = enumerate(questions)
        return cls({one: Classifier.of(arrays, f"{prefix}{at}.") for at, one in named})

    @property
    def questions(self) -> list[str]:
        """What it was taught, in the order of its numbers."""
        return list(self._known)

    def arrays(self, prefix: str = "") -> "dict[str, npt.NDArray[Any]]":
        """Its numbers, to be stored beside its questions."""
        each = enumerate(self._known.values())
        return {name: one for at, it in each for name, one in it.arrays(f"{prefix}{at}.").items()}

    def yes(self, state: str, question: str) -> float:
        """See `Decider.yes`."""
        return self._told(state, question, 2)[1]

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """See `Decider.choose`."""
        return self._told(state, question, len(_checked(options)))

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """See `Decider.rate`."""
        return self._told(state, question, levels)

    def _told(self, state: str, question: str, kinds: int) -> list[float]:
        known = self._known.get(question)
        found = [] if known is None else known.probabilities([state])[0].tolist()
        if len(found) != kinds:
            raise ExpungeError(
                "E-SERVE-001",
                f"A question with {kinds} answers that the classifier was not taught.",
                "a question that it knows.",
                "Teach it the question, or take a language model to decide.",
            )
        return _normal(found)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A decider whose probabilities were fitted to known answers.

    Attributes:
        decider: Who decides.
        temperature: Above 1 it is less sure of itself than the decider, below 1 surer.
        threshold: Above it, yes is meant.
    """

    decider: Decider
    temperature: float = 1.0
    threshold: float = 0.5

    def yes(self, state: str, question: str) -> float:
        """See `Decider.yes`."""
        sure = self.decider.yes(state, question)
        return _tempered([1 - sure, sure], self.temperature)[1]

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """See `Decider.choose`."""
        return _tempered(self.decider.choose(state, question, options), self.temperature)

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """See `Decider.rate`."""
        return _tempered(self.decider.rate(state, question, levels), self.temperature)

    def says_yes(self, state: str, question: str) -> bool:
        """Whether the answer is taken for yes."""
        return self.yes(state, question) > self.threshold


def calibrate(
    decider: Decider, question: str, known: Sequence[tuple[str, bool]], *, wrong: float = 0.01
) -> Calibrated:
    """Fit the temperature and the threshold of a question.

    Args:
        decider: Who decides.
        question: The question.
        known: Texts with their right answers, some of each; not those that a classifier learnt
            from.
        wrong: Share of the no-texts that may be taken for yes.

    Raises:
        ValueError: When all texts have the same answer.
    """
    answers = [is_yes for _, is_yes in known]
    if len(set(answers)) < 2:
        raise ValueError("texts of both answers are needed")
    raw = [decider.yes(state, question) for state, _ in known]
    temperature = _temperature(raw, answers)
    no = sorted(
        (_tempered([1 - p, p], temperature)[1] for p, is_yes in zip(raw, answers, strict=True)
         if not is_yes),
        reverse=True,
    )  # fmt: skip
    return Calibrated(decider, temperature, no[math.floor(wrong * len(no))])


def _temperature(sure: Sequence[float], answers: Sequence[bool]) -> float:
    from scipy.optimize import minimize_scalar

    right = [[1 - p, p] if is_yes else [p, 1 - p] for p, is_yes in zip(sure, answers, strict=True)]

    def loss(log: float) -> float:
        return -math.fsum(math.log(max(_tempered(one, math.exp(log))[1], 1e-300)) for one in right)

    bounds = (-math.log(20), math.log(20))
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _tempered(probabilities: Sequence[float], temperature: float) -> list[float]:
    logs = [math.log(max(one, 1e-12)) / temperature for one in probabilities]
    return _normal([math.exp(log - max(logs)) for log in logs])


def _normal(weights: Sequence[float]) -> list[float]:
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _checked(options: Sequence[str]) -> Sequence[str]:
    """Options a question can have.

    Raises:
        ValueError: For none, too many, or the same one twice.
    """
    if not 1 <= len(options) <= OPTIONS or len(set(options)) < len(options):
        raise ValueError(f"{len(options)} options: 1 to {OPTIONS} different ones")
    return options


def _levels(levels: int) -> list[str]:
    if not 2 <= levels <= OPTIONS:
        raise ValueError(f"{levels} levels: 2 to {OPTIONS}")
    return [str(level) for level in range(1, levels + 1)]


def _noul(question: str) -> dict[str, Any]:
    return {"type": "noul", "instructions": question}


def _choice(question: str, options: Sequence[str]) -> dict[str, Any]:
    return {"type": "choice", "instructions": question, "criteria": dict.fromkeys(options)}


def _score(question: str, levels: Sequence[str]) -> dict[str, Any]:
    return {"type": "score", "instructions": question, "criteria": list(levels)}


def _probability(poster: Poster, told: Any) -> float:
    is_number = isinstance(told, int | float) and not isinstance(told, bool)
    if not is_number or not 0 <= told <= 1:
        poster.fail("What it gives as a probability is none.")
    return float(told)


def _distribution(poster: Poster, told: Sequence[Any]) -> list[float]:
    found = [_probability(poster, one) for one in told]
    if abs(math.fsum(found) - 1) > SLACK:
        poster.fail("Its probabilities do not add up to 1.")
    return _normal(found)
