"""Questions asked in several forms: what each form gets out of a model, and all of them together.

An attack that rewords questions in ways that can be told apart reports the leak of each way, and
answers for the rows that none of its ways could ask about.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from expunge.core.results import Leak
from expunge.lm.elicit import Heard, Probe, press, transcript, worst
from expunge.lm.legible import left_out
from expunge.lm.prompted import askable
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row


def leak_of(
    subject: Subject,
    rows: Sequence[Row],
    forms: Mapping[str, Sequence[Probe]],
    scene: Scene,
    *,
    samples: int = 0,
    temperature: float = 0.8,
    unfit: str = "",
) -> Leak:
    """Put every form to a model, greedily and by drawing.

    Args:
        subject: The model.
        rows: The attacked rows.
        forms: Name of a form -> its probes.
        scene: What the attack may use.
        samples: Answers drawn to each probe, beside the greedy one.
        temperature: Of the draws.
        unfit: What the note says of rows that have no probe ("have no name").

    Returns:
        What leaked; rows that the model has no positions or no template for are left out.
    """
    heard = {}
    for form, probes in forms.items():
        fitting = askable(subject, probes, scene.new_tokens)
        heard[form] = press(subject, fitting, scene, samples=samples, temperature=temperature)
    return leak_from(rows, heard, unfit=unfit)


def leak_from(
    rows: Sequence[Row], heard: Mapping[str, Sequence[Heard]], *, unfit: str = ""
) -> Leak:
    """The largest leak of each row, and beside it the mean leak of each of several forms.

    Args:
        rows: The attacked rows.
        heard: Name of a form -> what was heard.
        unfit: What the note says of rows about which nothing was heard.
    """
    place = {row.id: at for at, row in enumerate(rows)}
    every = [one for of_form in heard.values() for one in of_form]
    every.sort(key=lambda one: place[one.probe.row.id])
    per_row = worst(every)
    parts = {form: fmean(worst(own).values()) for form, own in heard.items() if own}
    why = " or ".join(filter(None, (unfit, "do not fit the model")))
    return Leak(
        per_row=per_row,
        transcript=transcript(every),
        parts=parts if len(heard) > 1 else {},
        note=left_out(len(rows), len(per_row), why),
    )
