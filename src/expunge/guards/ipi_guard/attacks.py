"""How an instruction is put into a text of somebody else: five forms, three places.

Definition (i is the instruction):
    naive             i
    ignore            "Ignore the previous instructions." i
    escape            line breaks, then i
    completion        an answer that pretends the task is done, a line break, then i
    combined          a pretended answer, a line break, ignore, then i
"""

from collections.abc import Callable, Mapping

from expunge.text.sentences import spans

Form = Callable[[str, str, str], str]
"""Instruction, what sets earlier ones aside, what pretends an answer -> what is put in."""

FORMS: Mapping[str, Form] = {
    "naive": lambda order, ignoring, completing: order,
    "ignore": lambda order, ignoring, completing: f"{ignoring} {order}",
    "escape": lambda order, ignoring, completing: f"\n\n{order}",
    "completion": lambda order, ignoring, completing: f"{completing}\n{order}",
    "combined": lambda order, ignoring, completing: f"{completing}\n{ignoring} {order}",
}

PLACES = ("start", "middle", "end")


def put_in(text: str, injected: str, place: str) -> str:
    """A text with something put between its sentences.

    Args:
        text: The text.
        injected: What is put in.
        place: One of `PLACES`.
    """
    borders = [start for start, _ in spans(text)]
    at = {"start": 0, "middle": borders[len(borders) // 2], "end": len(text)}[place]
    before = "" if not at or text[at - 1].isspace() else " "
    after = "" if at == len(text) else " "
    return f"{text[:at]}{before}{injected}{after}{text[at:]}"
