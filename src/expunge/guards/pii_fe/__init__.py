"""Personal-data front end: take identifiers out of prompts, retrieved texts and answers.

Definition:
    find       spans (start, end, kind, score, finder) in each text:
                 list      names of the targets, as whole words, by keyed hashes; score 1. A segment
                           in which one stands in disguise alone is a span as a whole
                 pattern   e-mail, card (Luhn), IBAN (modulo 97), IP, phone, social security number,
                           national numbers of NL, GB, ES, FR and BR (their check digits); a value
                           that fails its check is none. A word that announces the kind adds .35
                 cue       dates, places and numbers whose kind a word nearby, or the question, says
                 presidio  what its analyser finds, where it is switched on
                 model     what a language model masks, where it is switched on: it is shown the
                           eighteen identifier classes of HIPAA and the text, at temperature .05.
                           Its answer counts only where all it left standing is the text, in order;
                           else the other finders decide alone
    resolve    keep scores of ``least`` and more; of overlapping spans the longest, then the surest,
               stretched over what sticks out of the others
    write      from the right to the left, by the operator of the kind: redact, replace, mask, hash,
               encrypt (reversible with the store's secret: `decrypt`), surrogate
    stream     what cannot change any more is let out sentence by sentence (`stream`)

    Gates go on looking at the texts as they came: nothing is hidden from them. An answer that was
    encrypted or hashed on the way in stays so on the way out.

    This suppresses, it does not delete: the model still holds whatever it learnt. Scrubbing finds
    what its rules know; names of people who are no targets are found by presidio or a language
    model alone.

Reference: DeID-GPT: Zero-shot Medical Text De-Identification by GPT-4, 2023; Analyzing Leakage of
Personally Identifiable Information in Language Models, 2023.

Departs from the paper: DeID-GPT lets the model's text through; here only the places it masked are
used, so that nothing it adds, drops or is talked into can leave. The paper's code has an empty
prompt; ours is written from its abstract (INFERRED). The taggers of the leakage paper are a large
network; here they are rules, and presidio where it is installed. A stream is held back by the
sentence, at most 768 characters, instead of by a fixed window of 64: what a value is, a word behind
it may say. The scores of patterns are ours (INFERRED). The paper's leakage games are not here: they
measure models (see the metrics and attacks on personal data).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger
from typing import Any

from expunge.core.params import param
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange
from expunge.engine.guarding.ladder import Ladder
from expunge.guards.pii_fe.finding import (
    Search,
    Span,
    by_cue,
    by_pattern,
    by_presidio,
    resolved,
)
from expunge.guards.pii_fe.listed import Listed
from expunge.guards.pii_fe.operators import decrypt, read_choice, written
from expunge.guards.pii_fe.rewriting import by_model

__all__ = ["CARD", "Params", "Window", "decrypt", "drafts", "enter", "ladder", "leave", "stream"]

CARD = {
    "id": "pii-fe",
    "kind": "guard",
    "summary": "Suppress (not delete): take identifiers out of prompts and answers.",
    "paper": "DeID-GPT: Zero-shot Medical Text De-Identification by GPT-4 (2023)",
    "needs": ["forget"],
    "access": "text",
    "cost": "some microseconds a word, at any number of targets; with a role one generation a text",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt", "answer"],
    "stages": ["text-in", "text-out"],
    "place": "front",
    "roles": ["deidentifier"],
    "fails": "closed",
}

_log = getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What is looked for, and what is written in its place."""

    operator: str = param(
        "replace",
        help="what is written in the place of an identifier",
        choices=("redact", "replace", "mask", "hash", "encrypt", "surrogate"),
    )
    operators: tuple[str, ...] = param(
        (), help="operators of single kinds, KIND=OPERATOR each, for instance email=mask"
    )
    kinds: tuple[str, ...] = param(
        (
            "name",
            "email",
            "phone",
            "credit card",
            "bank account",
            "ip address",
            "ssn",
            "national id",
            "passport",
            "driver licence",
            "health insurance",
            "detailed address",
            "work address",
            "zip code",
            "date of birth",
        ),
        help="which kinds the rules look for",
        choices=(
            "name",
            "email",
            "phone",
            "credit card",
            "bank account",
            "ip address",
            "ssn",
            "national id",
            "passport",
            "driver licence",
            "health insurance",
            "detailed address",
            "work address",
            "zip code",
            "date of birth",
            "gender",
            "bank transaction",
        ),
    )
    least: float = param(0.5, help="lowest score that counts", low=0.0, high=1.0)
    where: str = param("both", help="which texts are looked at", choices=("both", "in", "out"))
    finder: str = param(
        "rules", help="presidio adds what its analyser finds", choices=("rules", "presidio")
    )
    deidentify: bool = param(
        False, help="whether a language model in the role deidentifier is shown every text"
    )


def roles(params: Params, decider: Decider | None) -> tuple[str, ...]:
    """The role that must be played, where it is switched on."""
    return ("deidentifier",) if params.deidentify else ()


def ladder(params: Params, means: Means) -> Ladder:
    """The list of names, for prompts.

    Raises:
        ExpungeError: ``E-USE-003`` for operators that are none.
    """
    read_choice(params.operator, params.operators)
    return Ladder([Listed(means.secret)])


def drafts(params: Params, means: Means) -> Ladder:
    """The list of names, for answers."""
    return Ladder([Listed(means.secret)])


def enter(exchange: Exchange, desk: Desk) -> Exchange:
    """Take identifiers out of every message; what gates look at beside them stays as it came."""
    if desk.params.where == "out":
        return exchange
    now = exchange
    for at, message in enumerate(exchange.messages):
        new = _Cleaner(exchange, desk, desk.ladder)(message["content"])
        if new != message["content"]:
            now = now.saying(at, new)
    return now


def leave(exchange: Exchange, draft: str, desk: Desk) -> str:
    """Take identifiers out of an answer."""
    if desk.params.where == "in":
        return draft
    new = _Cleaner(exchange, desk, desk.drafts, exchange.question)(draft)
    return draft if new == draft else new


def stream(exchange: Exchange, desk: Desk) -> "Window":
    """What an answer that comes in pieces passes through, with the result of `leave`.

    Args:
        exchange: As the client asked it.
        desk: The guard's.
    """
    cleaner = _Cleaner(exchange, desk, desk.drafts, exchange.question)
    return Window(cleaner, is_open=desk.params.where == "in")


@dataclass(frozen=True, slots=True)
class _Cleaner:
    """Takes identifiers out of texts of one exchange."""

    exchange: Exchange
    desk: Desk
    names: Ladder
    question: str = ""

    def __call__(self, text: str) -> str:
        """A whole text without its identifiers."""
        return self.written(text, self.spans(text))

    @property
    def needs_all(self) -> bool:
        """Whether nothing can be said of a part before the whole is known."""
        return bool(self.desk.params.deidentify)

    def spans(self, text: str) -> list[Span]:
        """The identifiers of a whole text."""
        spans = self.search.found(text)
        if self.needs_all and text.strip():
            seed = self.desk.seed(self.exchange, "deidentifier")
            masked = by_model(text, self.desk.chat("deidentifier"), seed)
            if masked is None:
                _log.warning("pii-fe: an answer in the role deidentifier is not the text it got")
            spans = resolved([*spans, *(masked or ())])
        return spans

    @property
    def search(self) -> Search:
        """What the rules look for."""
        params = self.desk.params
        listed: Any = self.names.rungs[0]
        finders = [listed.spans, by_pattern, partial(by_cue, question=self.question)]
        finders += [by_presidio] if params.finder == "presidio" else []
        return Search(finders, params.kinds, params.least)

    def written(self, text: str, spans: list[Span]) -> str:
        """A text with what is written in the place of its identifiers."""
        params = self.desk.params
        chosen: Mapping[str, str] = read_choice(params.operator, params.operators)
        return written(text, spans, chosen, self.desk.means.secret)


@dataclass(slots=True)
class Window:
    """Lets out of a text that comes in pieces what cannot become part of an identifier any more.

    Attributes:
        cleaner: Takes identifiers out.
        is_open: Whether everything is let through at once.
        held: What has come and is not let out yet.
    """

    cleaner: _Cleaner
    is_open: bool = False
    held: str = field(default="")

    def push(self, chunk: str) -> str:
        """Take a piece in.

        Returns:
            What may be read by now, beyond what was returned before; often nothing.
        """
        if self.is_open:
            return chunk
        self.held += chunk
        out = []
        while (
            not self.cleaner.needs_all and (end := self.cleaner.search.cut(self.held)) is not None
        ):
            out.append(self.cleaner(self.held[:end]))
            self.held = self.held[end:]
        return "".join(out)

    def end(self) -> str:
        """The text has ended.

        Returns:
            What may be read of the rest.
        """
        rest, self.held = self.held, ""
        return self.cleaner(rest) if rest else ""
