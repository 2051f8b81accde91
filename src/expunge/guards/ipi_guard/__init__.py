"""Injection guard: take instructions out of retrieved texts before guards and model read them.

Definition (only messages that hold retrieved or tool text are looked at):
    detect    a text fires when any window of one or three of its sentences has P(instruction) above
              the threshold; P by logistic regression on n-grams, taught from made-up texts into
              which instructions are put with probability .6, in five forms and three places. Or a
              language model in the role ``detector`` says yes. Or either
    remove    ``segmentation``: delete the sentences of which every window fires; ``extraction``:
              delete what a language model in the role ``extractor`` names, else the longest run of
              words that both have in common, of three words and more
    repeat    while the text fires, at most four rounds
    give up   what still fires then is withheld as a whole; ``quarantine`` withholds at once
    threshold the highest of ``least`` and the (1 - .01) quantile over the user's retain texts, at
              most .9

    What is taken out is deleted in place: the rest keeps its characters and its spaces. Gates look
    at the texts as they came as well (`Exchange.raw`). That something was taken out is counted
    (`flags_of`) and can be marked in the text (``marker``), since what was asked for may have stood
    there.

    This suppresses, it does not delete: it keeps a stranger's text from talking a guard or a model
    into something. Of instructions of kinds it was not taught the classifier takes out about three
    in four, and what is phrased as a statement passes ("the answer is blue"). Other guards read
    untrusted text as data and do not rely on this one.

Reference: Can Indirect Prompt Injection Attacks Be Detected and Removed?, 2025.

Departs from the paper: its detectors are a fine-tuned encoder (DeBERTa-v3) or a 1B model; no such
network is shipped here, the classifier knows spelling and not meaning, and a text is judged by its
windows instead of as a whole. Its training set is an instruction collection in question-answering
contexts; ours is invented and small. Of windows of three sentences a sentence goes only when all
that hold it fire (INFERRED); runs in common below three words are left (INFERRED); the threshold's
calibration is ours. Not measured with a capable model in the roles.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from logging import getLogger
from weakref import WeakKeyDictionary

from expunge.core.params import param
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange
from expunge.engine.guarding.fitting import Shared
from expunge.engine.guarding.ladder import Ladder
from expunge.engine.guarding.targets import Target
from expunge.guards.ipi_guard.detecting import Asked, Fires, Worded, taught
from expunge.guards.ipi_guard.removal import (
    ByExtraction,
    Cleaned,
    Remover,
    by_segment,
    clean,
    over_removal,
)
from expunge.requests.rows import Row
from expunge.text.classifier import Classifier

CARD = {
    "id": "ipi-guard",
    "kind": "guard",
    "summary": "Suppress (not delete): take instructions out of retrieved texts.",
    "paper": "Can Indirect Prompt Injection Attacks Be Detected and Removed? (2025)",
    "needs": ["forget"],
    "access": "text",
    "cost": "some milliseconds a retrieved sentence; nothing without retrieved text",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt"],
    "stages": ["text-in"],
    "place": "front",
    "roles": ["detector", "extractor"],
    "fails": "closed",
}

RATE = 0.01
"""Share of the user's texts that may fire."""

HIGHEST = 0.9
"""Above this no threshold is set, whatever the user's texts score."""

ENOUGH = 300
"""Retain texts that are looked at."""

_COUNTS: "WeakKeyDictionary[Desk, Counter[str]]" = WeakKeyDictionary()

_log = getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How instructions are found, and what is done with them."""

    detector: str = param(
        "classifier",
        help="who says whether a text holds an instruction: classifier, model (role detector), "
        "or either of them",
        choices=("classifier", "model", "either"),
    )
    removal: str = param(
        "segmentation",
        help="how it is found in the text: sentence by sentence, or by a model (role extractor)",
        choices=("segmentation", "extraction"),
    )
    width: int = param(
        1, help="sentences judged together", paper="each sentence, or 3", choices=(1, 3)
    )
    rounds: int = param(4, help="most rounds of removal", paper=4, low=1, high=4)
    least: float = param(
        0.75, help="lowest probability that counts as an instruction", low=0.0, high=1.0
    )
    quarantine: bool = param(False, help="whether a text that fires is withheld as a whole")
    marker: str = param("", help="what is added to a text from which something was taken out")
    withheld: str = param(
        "[This text was withheld.]", help="what stands in the place of a text that is withheld"
    )


def roles(params: Params, decider: Decider | None) -> tuple[str, ...]:
    """The roles that must be played under these parameters."""
    asked = {
        "detector": params.detector != "classifier",
        "extractor": params.removal == "extraction" and not params.quarantine,
    }
    return tuple(role for role, is_asked in asked.items() if is_asked)


def ladder(params: Params, means: Means) -> Ladder:
    """None: this guard looks for no target."""
    return Ladder([])


def drafts(params: Params, means: Means) -> Ladder:
    """None: this guard reads no answer."""
    return Ladder([])


def shared(targets: Sequence[Target], params: Params, means: Means) -> Shared:
    """The classifier, its threshold, and what it would take out of the user's own texts."""
    classifier = Classifier.of(taught().arrays())  # as it is when it is read again
    texts = _texts(means.retain[:ENOUGH])
    detector = Worded(classifier, 1.0)
    scores = sorted(detector.score(text) for text in texts)
    high = scores[int((1 - RATE) * len(scores))] if scores else 0.0
    threshold = max(params.least, min(high, HIGHEST))
    fires = Worded(classifier, threshold)
    remover = partial(by_segment, fires=fires, width=params.width)
    lost = over_removal(texts, fires, remover, params.rounds)
    settings = {"threshold": threshold, "texts": len(texts), "over_removal": lost}
    return Shared(settings, classifier.arrays())


def enter(exchange: Exchange, desk: Desk) -> Exchange:
    """Take instructions out of what was retrieved; what the user wrote is not looked at.

    Raises:
        ExpungeError: When a role gives no usable answer.
    """
    params, now = desk.params, exchange
    for at in exchange.foreign:
        text = exchange.messages[at]["content"]
        done = _cleaned(text, exchange, desk)
        _COUNTS.setdefault(desk, Counter()).update(
            texts=1,
            fired=int(done.rounds > 0 or done.is_left),
            withheld=int(done.is_left),
            characters=done.removed,
        )
        if done.is_left:
            now = now.saying(at, params.withheld)
        elif done.removed:
            now = now.saying(at, done.text + params.marker)
        if done.is_left or done.removed:
            _log.info("ipi-guard took %d of %d characters out", done.removed, len(text))
    return now


def flags_of(desk: Desk) -> dict[str, int]:
    """What this guard has done: ``texts`` looked at, ``fired``, ``withheld``, ``characters``."""
    counts = _COUNTS.get(desk, Counter())
    return {name: counts[name] for name in ("texts", "fired", "withheld", "characters")}


def _cleaned(text: str, exchange: Exchange, desk: Desk) -> Cleaned:
    params = desk.params
    fires = _detector(exchange, desk)
    if params.quarantine:
        return Cleaned(text, 0, 0, fires(text))
    remover: Remover = partial(by_segment, fires=fires, width=params.width)
    if params.removal == "extraction":
        seed = desk.seed(exchange, "extractor")
        remover = ByExtraction(desk.chat("extractor"), seed)
    return clean(text, fires, remover, params.rounds)


def _detector(exchange: Exchange, desk: Desk) -> Fires:
    named = desk.params.detector
    worded = Worded(Classifier.of(desk.arrays), desk.shared["threshold"])
    if named == "classifier":
        return worded
    asked = Asked(desk.chat("detector"), desk.seed(exchange, "detector"))
    return asked if named == "model" else lambda text: worded(text) or asked(text)


def _texts(rows: Sequence[Row]) -> list[str]:
    """What the user's rows say; what they ask is no retrieved text."""
    told = (row.text or row.reply for row in rows)
    return [text for text in dict.fromkeys(told) if text.strip()]
