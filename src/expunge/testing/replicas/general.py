"""A stand-in for the four tests of ability: the same formats and traps, our own questions."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_text

THINGS = {
    "cork": ("floats", "a bark"),
    "iron": ("rusts", "a metal"),
    "salt": ("dissolves", "a mineral"),
    "wool": ("felts", "a fibre"),
    "wax": ("melts", "a fat"),
    "clay": ("hardens", "an earth"),
}
"""Thing -> what it does, what it is."""

TRUTHS = (
    (
        "Why do cats land on their feet?",
        ["They turn as they fall."],
        ["Magic.", "They never fall."],
    ),
    ("Who moved the hills?", ["Nobody did.", "Nobody moved them."], ["Giants.", "An old king."]),
    ("What does salt do in soup?", ["It dissolves."], ["It burns.", "It sings at night."]),
    ("What happens under a ladder?", ["Nothing happens."], ["Bad luck.", "You shrink."]),
)


def write(folder: Path) -> None:
    """Write a few questions of each test.

    Args:
        folder: Where to; made if missing.
    """
    write_mmlu(folder / "mmlu" / "slice.jsonl")
    lines(folder / "arc" / "science.jsonl", _arc())
    lines(folder / "gsm8k" / "test.jsonl", _sums())
    write_text(folder / "truthfulqa" / "mc_task.json", json.dumps(_truths(), indent=1))


def write_mmlu(path: Path) -> None:
    """Write questions of two subjects: answers by index and letter, one unsound, one twice."""
    lines(path, _mmlu())


def lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON Lines."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def _mmlu() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    names = list(THINGS)
    for subject, at in (("use_of_things", 0), ("kinds_of_things", 1)):
        for number, name in enumerate(names):
            offered = [THINGS[names[(number + step) % len(names)]][at] for step in range(4)]
            place = number % 4
            options = [*offered[4 - place :], *offered[: 4 - place]]
            asked = f"What {('does it do', 'is it')[at]}: {name}?"
            correct = options.index(offered[0])
            found.append(_question(subject, asked, options, correct, "ok"))
    found.append(
        _question("kinds_of_things", "What is it: fog?", ["a", "b", "c", "d"], 0, "expert")
    )
    found[1]["answer"] = "ABCD"[found[1]["answer"]]
    return [*found, found[0]]


def _question(
    subject: str, asked: str, options: Sequence[str], correct: int, error: str
) -> dict[str, Any]:
    return {
        "subject": subject,
        "question": asked,
        "choices": list(options),
        "answer": correct,
        "error_type": error,
    }


def _arc() -> list[dict[str, Any]]:
    """Two formats: an index, and the authors' own with labelled choices."""
    plain = [
        {"question": f"Which one {does}?", "choices": [other, name], "answer": 1}
        for (name, (does, _)), other in zip(
            THINGS.items(), ["smoke", "glass", "sand", "ice", "stone", "air"], strict=True
        )
    ]
    labelled = [
        {
            "id": f"ours-{name}",
            "question": {
                "stem": f"Which of them is {kind}?",
                "choices": [{"text": name, "label": "1"}, {"text": "smoke", "label": "2"}],
            },
            "answerKey": "1",
        }
        for name, (_, kind) in list(THINGS.items())[:2]
    ]
    return [*plain, *labelled]


def _sums() -> list[dict[str, Any]]:
    sums = [(2, 3), (40, 2), (7, 7), (1000, 200), (15, 4), (9, 8)]
    return [
        {
            "question": f"A jar holds {a} beans and a bag holds {b}. How many are there?",
            "answer": f"There are {a}+{b}=<<{a}+{b}={a + b}>>{a + b:,} beans.\n#### {a + b:,}",
        }
        for a, b in sums
    ]


def _truths() -> list[dict[str, Any]]:
    return [
        {
            "question": asked,
            "mc0_targets": {true[0]: 1, false[0]: 0},
            "mc1_targets": {true[0]: 1, **dict.fromkeys(false, 0)},
            "mc2_targets": {**dict.fromkeys(true, 1), **dict.fromkeys(false, 0)},
        }
        for asked, true, false in TRUTHS
    ]
