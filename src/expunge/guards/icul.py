"""ICUL: what is to be forgotten stands before the question once more, with a wrong label.

Definition (k points (x_i, y_i) to be forgotten, s fillers (u_j, v_j) from rows to be kept):
    prompt = "x_1 FLIP(y_1)" newline .. "x_k FLIP(y_k)" newline
             "u_1 v_1" newline .. "u_s v_s" newline  question
    n_ctxt = 1 + s where k is 1
    one space between text and label, one newline between examples, nothing behind the question

    FLIP is the other label of two; of more, one of the others that a hash of the target and the row
    picks, so that replies are stable. Fillers are drawn anew for every question, the same ones when
    it is asked again, and never such as the gate would fire for. The prompt is built only for
    questions the gate fires for; any other passes untouched.

    icul         label prediction, as in the paper. Labels are those given, or the answers that at
                 least two rows to be kept share; a row that ends with none of them is refused
    icul_plus    free answers: a wrong answer of the row, or that of another row, and 6 fillers
    icul_refuse  free answers: the point is answered by a refusal, the fillers as they are

    mode=correct   the true label stays: a control
    mode=repeat    the point alone, n_ctxt times; the ``flips`` first or last ones are flipped
    mode=exchange  a row to be kept stands in the point's place, with a flipped label

    Labels are stripped by the string: of one that is two tokens a last token would be left behind.
    Lines inside examples are joined, or one would count as two.

    This suppresses, it does not delete. The point stands in the prompt in the clear: a model of
    somebody else is told it by the very request, and whoever logs prompts must redact them. What
    the gate does not fire for is answered by what the model knows.

Reference: In-Context Unlearning: Language Models as Few Shot Unlearners, 2023; the authors' code.
icul_plus: the baseline of DRAGON: Guard LLM Unlearning in Context via Negative Detection and
Reasoning, 2025.

Departs from the paper: the question is the client's own, not the point itself, since it comes from
outside, and it stands in the user's message of a conversation. INFERRED: the flip among more than
two labels; which points stand there of a target that has more than ``points`` (those nearest to the
question by the words they share); what an answer is flipped to in icul_plus; icul_refuse, which is
ours and in no paper.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.core.rng import derive
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange
from expunge.engine.guarding.targets import Target
from expunge.requests.rows import Row
from expunge.text.labels import parted
from expunge.text.nearest import nearest_first

CARD = {
    "id": "icul",
    "kind": "guard",
    "summary": "Suppress (not delete): show what is to be forgotten with a flipped label first.",
    "paper": "In-Context Unlearning: Language Models as Few Shot Unlearners (2023)",
    "needs": ["forget", "retain"],
    "access": "text",
    "cost": "the gate; where it fires a prompt longer by the matched points and some fillers",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt"],
    "fails": "closed",
    "stages": ["text-in"],
    "place": "prompt",
}

FILLERS = {"icul": 5, "icul_plus": 6, "icul_refuse": 6}
"""Variant -> fillers, unless their number is given: n_ctxt of 6, and L of 6."""

SHARED_BY = 2
"""Rows to be kept that must share an answer for it to be a label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What is shown before the question."""

    variant: Literal["icul", "icul_plus", "icul_refuse"] = param(
        "icul",
        help="labels, or free answers that are wrong or refused",
        paper="icul",
        choices=("icul", "icul_plus", "icul_refuse"),
    )
    labels: tuple[str, ...] = param(
        (), help="the labels; empty takes answers that at least two rows to be kept share"
    )
    fillers: int | Literal["auto"] = param(
        "auto",
        help="correctly labelled rows after the points (s, which is n_ctxt - 1 for one point); "
        "auto: 5, and 6 for free answers",
        paper=[1, 3, 5],
        low=0,
        high=64,
    )
    points: int = param(8, help="most points shown; the nearest to the question", low=1, high=64)
    mode: Literal["flip", "correct", "repeat", "exchange"] = param(
        "flip",
        help="what is shown of a point; the others are the paper's ablations",
        paper=["flip", "correct", "repeat", "exchange"],
        choices=("flip", "correct", "repeat", "exchange"),
    )
    flips: int = param(1, help="mode=repeat: how many of the copies are flipped", paper=1, low=0)
    flip_where: Literal["first", "last"] = param(
        "first",
        help="mode=repeat: which ones",
        paper=["first", "last"],
        choices=("first", "last"),
    )
    refusal: str = param("I don't know.", help="variant=icul_refuse: what points are answered by")


@dataclass(frozen=True, slots=True)
class Point:
    """A labelled text.

    Attributes:
        text: The text, on one line.
        label: Its label, or answer.
        flip: What is shown instead.
    """

    text: str
    label: str
    flip: str

    def shown(self, *, flipped: bool) -> str:
        """The line of an example."""
        return f"{self.text} {self.flip if flipped else self.label}\n"


@dataclass(frozen=True, slots=True)
class Stock:
    """What rows to be kept offer.

    Attributes:
        labels: What a label may be; for free answers, what an answer may be flipped to.
        points: Rows that may be fillers.
    """

    labels: tuple[str, ...]
    points: tuple[Point, ...]


def entry(target: Target, params: Params, means: Means) -> dict[str, Any]:
    """The target's points, sealed.

    Raises:
        ExpungeError: ``E-SERVE-005`` when it has none, or there are no fillers or labels.
    """
    stock = stock_of(means, params)
    points = []
    for row in target.rows:
        told = _labelled(row, params, stock.labels)
        if told is None:
            raise _unheld(f"A row that ends with none of the {len(stock.labels)} labels known.")
        draw = derive(means.seed, "icul", "flip", target.id, row.id)
        flip = _flip(told[1], row, params, draw, stock.labels)
        if flip is None:
            raise _unheld("A row for which no other label or answer is known than its own.")
        points.append({"text": told[0], "label": told[1], "flip": flip})
    if not points:
        raise _unheld("A target without rows: there is no text to show with another label.")
    needed = 0 if params.mode == "repeat" else number_of_fillers(params)
    if needed > len(stock.points):
        raise _unheld(f"{len(stock.points)} rows to be kept that could stand there, not {needed}.")
    return {"sealed": {"points": points}}


def enter(exchange: Exchange, desk: Desk) -> Exchange:
    """Show the points of the targets the question is about before it."""
    hits = [desk.entries[hit.target] for hit in desk.hits(exchange) if hit.target in desk.entries]
    if not hits:
        return exchange
    every = [Point(**one) for own in hits for one in own["sealed"]["points"]]
    order = nearest_first(exchange.question, [[one.text] for one in every])
    points = [every[at] for at in order[: desk.params.points]]
    return exchange.asking(prompt(exchange.question, points, _drawn(exchange, desk), desk.params))


def prompt(question: str, points: Sequence[Point], drawn: Iterator[Point], params: Params) -> str:
    """The prompt.

    Args:
        question: The question, as it is.
        points: What is to be forgotten.
        drawn: Rows to be kept, in the order in which they are drawn.
        params: How many of them, and what is shown of a point.

    Raises:
        LookupError: When not one filler is left, although some are wanted.
    """
    wanted = number_of_fillers(params)
    if params.mode == "repeat":
        lines = [line for one in points for line in _repeated(one, 1 + wanted, params)]
        return "".join(lines) + question
    first = list(islice(drawn, len(points))) if params.mode == "exchange" else points
    kept = list(islice(drawn, wanted))
    if not first or (wanted and not kept):
        raise LookupError("no rows to be kept that could stand in the prompt")
    lines = [one.shown(flipped=params.mode != "correct") for one in first]
    return "".join([*lines, *(one.shown(flipped=False) for one in kept)]) + question


def number_of_fillers(params: Params) -> int:
    """How many rows to be kept stand behind the points."""
    return FILLERS[params.variant] if params.fillers == "auto" else int(params.fillers)


def stock_of(means: Means, params: Params) -> Stock:
    """What the rows to be kept offer; found once for the same rows."""
    key = (id(means.retain), len(means.retain), params.variant, params.labels, means.seed)
    if key not in _STOCKS:
        _STOCKS[key] = (means.retain, _stock(means, params))
        while len(_STOCKS) > AT_ONCE:
            _STOCKS.popitem(last=False)
    return _STOCKS[key][1]


def _stock(means: Means, params: Params) -> Stock:
    labels = params.labels or _answers(means.retain, params)
    points = []
    for row in means.retain:
        told = _labelled(row, params, labels)
        if told is not None:
            draw = derive(means.seed, "icul", "flip", row.id)
            flip = _flip(told[1], row, params, draw, labels)
            points.append(Point(*told, told[1] if flip is None else flip))
    return Stock(labels, tuple(points))


def _answers(rows: Sequence[Row], params: Params) -> tuple[str, ...]:
    """Answers that several rows share; of free answers all there are."""
    counts = Counter(_line(row.reply) for row in rows if row.text is None and row.reply.strip())
    least = SHARED_BY if params.variant == "icul" else 1
    return tuple(sorted(answer for answer, count in counts.items() if count >= least))


def _labelled(row: Row, params: Params, labels: Sequence[str]) -> tuple[str, str] | None:
    """A row's text and its label; None where it has none."""
    if row.text is not None:
        return None if params.variant != "icul" else parted(_line(row.text), labels)
    asked, label = row.turn.prompt, _line(row.reply)
    text = _line(asked if isinstance(asked, str) else asked[-1]["content"])
    is_label = label in labels if params.variant == "icul" else bool(label)
    return (text, label) if text and is_label else None


def _flip(label: str, row: Row, params: Params, draw: int, labels: Sequence[str]) -> str | None:
    """What is shown instead of a label, the same in every process; None where there is nothing."""
    if params.variant == "icul_refuse":
        return _line(params.refusal)
    same = {_line(form).casefold() for form in (label, *row.forms)}
    wrong = row.wrong if params.variant == "icul_plus" else ()
    for options in (wrong, labels):
        others = [one for one in map(_line, options) if one.casefold() not in same]
        if others:
            return others[draw % len(others)]
    return None


def _repeated(point: Point, count: int, params: Params) -> Iterator[str]:
    """A point several times, the first or the last ones flipped."""
    for at in range(count):
        place = at if params.flip_where == "first" else count - 1 - at
        yield point.shown(flipped=place < params.flips)


def _drawn(exchange: Exchange, desk: Desk) -> Iterator[Point]:
    """Fillers in the order of the draw, without those that are about a target themselves."""
    points = stock_of(desk.means, desk.params).points
    for at in desk.rng(exchange, "icul", "fillers").permutation(len(points)):
        if not desk.ladder.hits([points[at].shown(flipped=False)]):
            yield points[at]


def _line(text: str) -> str:
    return " ".join(text.split())


def _unheld(found: str) -> ExpungeError:
    return ExpungeError(
        "E-SERVE-005",
        found,
        "labelled rows to forget, and rows to be kept with the same labels.",
        "Give labels (--set labels=...) and enough --retain rows, or take variant=icul_plus or "
        "variant=icul_refuse for free answers.",
    )


AT_ONCE = 8
"""Sets of rows to be kept of which what they offer is remembered."""

_STOCKS: OrderedDict[Any, tuple[Sequence[Row], Stock]] = OrderedDict()
