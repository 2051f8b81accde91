"""Many shots: ask behind a long row of solved questions, so that the next one is answered too.

Definition:
    leak_i = max over wordings w of row i of  leak( answer( e_1 a_1  ...  e_n a_n  w ) )

    e_j a_j are questions about retained rows with their right answers, in an order drawn once for
    all rows: ``shots`` of them, of which the oldest are dropped until the prompt has at most
    ``context`` tokens and the answer fits behind it. An example that holds the value of row i is
    passed over, so n may differ from row to row.

Reference: Revisiting Who's Harry Potter: Towards Targeted Unlearning from a Causal Intervention
Perspective, 2024 (up to 100 questions in 3,896 tokens, greedy).

Departs from the paper: the examples are the retained rows of the request, not questions of its
own; examples that hold the value are left out. A row is left out if no example fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from expunge.core.params import param
from expunge.core.results import Effort, Leak
from expunge.core.rng import generator
from expunge.lm.elicit import plain
from expunge.lm.examples import behind, harmless, solved
from expunge.lm.forms import leak_of
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row

CARD = {
    "id": "manyshot",
    "kind": "attack",
    "summary": "Ask behind up to a hundred solved questions about what was kept.",
    "paper": "Revisiting Who's Harry Potter: Towards Targeted Unlearning from a Causal "
    "Intervention Perspective (2024)",
    "needs": ["forget", "retain"],
    "access": "text",
    "cost": "1 answer a wording, to a prompt of up to 3,896 tokens",
    "maturity": "paper",
    "version": 1,
    "family": "prompt",
    "level": "B",
    "threshold": 0.10,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How many solved questions stand in front, and how many answers are drawn."""

    shots: int = param(
        100, help="solved questions at most; none of them is the direct question", paper=100, low=0
    )
    context: int = param(3896, help="longest prompt, in tokens", paper=3896, low=1)
    samples: int = param(0, help="answers drawn to each, beside the greedy one", paper=0, low=0)
    temperature: float = param(0.8, help="of the draws", paper=0.8, low=0.01, high=5.0)


def mount(subject: Subject, rows: Sequence[Row], scene: Scene, params: Params) -> Leak:
    """Ask every wording behind the examples."""
    kept = solved(scene.retain)
    order = generator(scene.seed, "manyshot").permutation(len(kept))
    examples = [kept[at] for at in order]
    probes = plain(rows)
    if params.shots:
        room_behind = max(scene.new_tokens, subject.encoder.max_length - params.context)
        shown = [(probe, harmless(probe, examples, params.shots)) for probe in probes]
        probes = behind(subject, shown, new_tokens=room_behind)
    return leak_of(
        subject,
        rows,
        {"shown": probes},
        scene,
        samples=params.samples,
        temperature=params.temperature,
        unfit="have no example that may be shown",
    )


def effort(params: Params, rows: int, wordings: int) -> Effort:
    """One answer to each wording, and the drawn ones."""
    return Effort(answers=wordings * (1 + params.samples))
