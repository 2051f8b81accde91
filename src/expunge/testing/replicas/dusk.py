"""A stand-in for the files of DUSK: the same layout, a few lighthouse keepers who never lived.

Each keeper has a fact that all accounts tell, one that only the account to forget tells, and one
that only accounts to keep tell.
"""

import json
from pathlib import Path
from typing import Any

from expunge.core.atomic import write_json, write_text
from expunge.core.rng import generator

KEEPERS = 5
STYLES = {
    "Chronological": "In {start} {name} came to the light. Later {name} {fact}. {end}",
    "Feature_Story": "The wind knows {name}, who {fact}, as few others do. {end}",
    "Interview": "Q: What do people say of you? A: That {name} {fact}. {end}",
    "Inverted_Pyramid": "{name} {fact}, neighbours said on Monday. {end}",
    "Listicle": "1. The keeper is {name}. 2. {name} {fact}. {end}",
}
FORGET = "Chronological"
ENDS = "The lamp burned every night."

NAMES = "Ansgar Birte Detlef Elke Frauke Gerrit Hanno Imke Jorrit Kerrin Lutz Maike"
PLACES = "Amsand Borkholm Dornfeld Eckwarden Fischau Grodersiel"
HOBBIES = "kites knots clocks gulls maps chess violins stamps"
DISHES = "soup pancakes herring dumplings porridge pie"


def write(folder: Path, *, seed: int = 0) -> None:
    """Write the five accounts, the unseen one, and the questions.

    Args:
        folder: Where to; made if missing.
        seed: Decides the facts.
    """
    keepers = [_keeper(number, seed) for number in range(KEEPERS)]
    for style, template in STYLES.items():
        own = "unique_forget" if style == FORGET else "unique_retain"
        told = "\n\n".join(_account(template, keeper, own) for keeper in keepers)
        write_text(folder / f"{style}.txt", told + "\n")
    unseen = [_keeper(number, seed) for number in range(KEEPERS, 2 * KEEPERS)]
    template = STYLES[FORGET]
    accounts = "\n\n".join(_account(template, keeper, "unique_forget") for keeper in unseen)
    write_text(folder / "eval" / "holdout.txt", accounts + "\n")
    _write_questions(folder / "eval", keepers)


def _write_questions(folder: Path, keepers: list[dict[str, str]]) -> None:
    files = {
        "GeneralQA": ("Where does {name} keep the light?", "place"),
        "SpecificForgetQA": ("What does {name} collect?", "hobby"),
        "SpecificRetainQA": ("What does {name} cook on Sundays?", "dish"),
    }
    for file, (question, fact) in files.items():
        pairs = [
            {"question": question.format(**keeper), "answer": keeper[fact]} for keeper in keepers
        ]
        _write_lines(folder / f"{file}.jsonl", pairs)
    shown = [
        {"question": f"Where does keeper {number} keep the light?", "answer": f"Island {number}"}
        for number in (1, 2, 3)
    ]
    _write_lines(folder / "icl.jsonl", shown)
    accounts = [_account(STYLES[FORGET], keeper, "unique_forget") for keeper in keepers]
    cut = [account.partition(" Later ") for account in accounts]
    verbatim = [{"prompt": before, "gt": later + after} for before, later, after in cut]
    # The authors' file repeats a passage.
    write_json(folder / "verbatim.json", [*verbatim, verbatim[-1]])


def _write_lines(path: Path, pairs: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(pair) + "\n" for pair in pairs))


def _account(template: str, keeper: dict[str, str], own: str) -> str:
    facts = f"keeps the light of {keeper['place']} and {keeper[own]}"
    return f"Title: {keeper['name']}\n\n" + template.format(fact=facts, end=ENDS, **keeper)


def _keeper(number: int, seed: int) -> dict[str, str]:
    draw = generator(seed, "dusk", number)
    hobby, dish = str(draw.choice(HOBBIES.split())), str(draw.choice(DISHES.split()))
    return {
        "name": f"Keeper {NAMES.split()[number]}",
        "place": str(draw.choice(PLACES.split())),
        "start": str(int(draw.integers(1900, 1990))),
        "hobby": hobby,
        "dish": dish,
        "unique_forget": f"collects {hobby}",
        "unique_retain": f"cooks {dish} on Sundays",
    }
