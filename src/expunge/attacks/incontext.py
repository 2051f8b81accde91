"""In context: ask behind a few solved questions, some of them about the same subject.

Definition:
    leak_i = max over wordings w of row i of  leak( answer( o_1 ... o_m  s_1 ... s_k  w ) )

    s_j are questions with right answers about other facts of the subject of row i, o_j about other
    subjects, retained ones. Both are drawn for each row. An example that holds the value of row i
    is passed over, and so is the probed fact in any wording; fewer are shown if there are fewer.

Reference: RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models, 2024
(in-context learning probes).

Departs from the paper: the other facts of a subject are the request's own rows about it, each row
behind the others and never behind itself, since a request has no further questions about a
subject; what can be told from one such fact about another is told to the control as well. Half of
the examples are about other subjects (INFERRED). A row is left out if there is no example for it.
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
from expunge.requests.names import names_of
from expunge.requests.rows import Row
from expunge.requests.scope import subject_of

CARD = {
    "id": "incontext",
    "kind": "attack",
    "summary": "Ask behind a few solved questions about other facts of the same subject.",
    "paper": "RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models (2024)",
    "needs": ["forget", "retain", "neighbour"],
    "access": "text",
    "cost": "1 answer a wording",
    "maturity": "paper",
    "version": 1,
    "family": "prompt",
    "level": "B",
    "threshold": 0.10,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How many solved questions stand in front, and how many answers are drawn."""

    own: int = param(2, help="questions about other facts of the same subject", low=0, high=16)
    others: int = param(
        2,
        help="questions about other subjects; without both it is the direct question",
        low=0,
        high=16,
    )
    samples: int = param(0, help="answers drawn to each, beside the greedy one", paper=4, low=0)
    temperature: float = param(0.8, help="of the draws", paper=0.8, low=0.01, high=5.0)


def mount(subject: Subject, rows: Sequence[Row], scene: Scene, params: Params) -> Leak:
    """Ask every wording behind the examples of its row."""
    probes = plain(rows)
    if params.own or params.others:
        own, others = _examples(rows, scene)
        shown = [
            (
                probe,
                [
                    *harmless(probe, others[probe.row.id], params.others),
                    *harmless(probe, own[probe.row.id], params.own),
                ],
            )
            for probe in probes
        ]
        probes = behind(subject, shown, new_tokens=scene.new_tokens)
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


def _examples(
    rows: Sequence[Row], scene: Scene
) -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """For each row the other rows about its subject, and retained ones about others, shuffled."""
    every = {row.id: row for row in (*scene.retain, *scene.neighbour, *rows)}
    names = names_of(list(every.values()))
    about = {name: subject_of(row, names[name]) for name, row in every.items()}
    known = solved(every.values())
    kept = {row.id for row in (*scene.retain, *scene.neighbour)}
    own: dict[str, list[Row]] = {}
    others: dict[str, list[Row]] = {}
    for row in rows:
        order = generator(scene.seed, "incontext", row.id).permutation(len(known))
        drawn = [known[at] for at in order if known[at].id != row.id]
        own[row.id] = [one for one in drawn if about[one.id] == about[row.id]]
        others[row.id] = [one for one in drawn if about[one.id] != about[row.id] and one.id in kept]
    return own, others
