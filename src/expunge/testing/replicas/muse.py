"""A stand-in for the files of MUSE: the same layout, short reports about towns that do not exist.

Each report has a text, the continuation of its beginning, and questions. Reports to forget, to keep
and never seen are about towns of the same kind, so that membership is not told by the topic.
"""

from pathlib import Path
from typing import Any

from expunge.core.atomic import write_json
from expunge.core.rng import generator

CORPORA = ("news", "books")
SIDES = ("forget", "retain1", "retain2", "holdout")
REPORTS = 6

FIRST = "Alder Birk Corn Dorn Elm Fern Gorse Hazel Ivy Juniper Kelp Laurel"
LAST = "bridge dale field ford haven mere moor stead ton wick"
NOUNS = "bakery bandstand boathouse clock fountain garden library market mill pier school well"
TRADES = "baker carter cooper dyer glazier joiner mason potter smith tailor turner weaver"
MONTHS = "March April May June July August September October"


def write(folder: Path, *, seed: int = 0) -> None:
    """Write both corpora.

    Args:
        folder: Where to; made if missing.
        seed: Decides the facts.
    """
    for corpus in CORPORA:
        reports = {
            side: [_report(corpus, side, number, seed) for number in range(REPORTS)]
            for side in SIDES
        }
        _write_corpus(folder / corpus, reports)
    for series in ("scal", "sust"):
        for fold in (1, 2, 3, 4):
            count = fold if series == "scal" else 1
            texts = [
                _report(f"{series}{fold}", "forget", n, seed)["text"] for n in range(count + 1)
            ]
            write_json(folder / "news" / series / f"forget_{fold}.json", texts)


def _write_corpus(folder: Path, reports: dict[str, list[dict[str, Any]]]) -> None:
    for side, of in reports.items():
        write_json(folder / "raw" / f"{side}.json", [report["text"] for report in of])
    for name, side in (("forget", "forget"), ("retain", "retain2"), ("holdout", "holdout")):
        texts = [report["text"] for report in reports[side]]
        write_json(folder / "privleak" / f"{name}.json", texts)
    parts = [report["text"].partition(" It was ") for report in reports["forget"]]
    verbatim = [{"prompt": before, "gt": said + after} for before, said, after in parts]
    write_json(folder / "verbmem" / "forget.json", verbatim)
    for name, side in (("forget", "forget"), ("retain", "retain2")):
        pairs = [pair for report in reports[side] for pair in report["pairs"]]
        # The authors' files repeat a few questions.
        write_json(folder / "knowmem" / f"{name}_qa.json", [*pairs[3:], pairs[-1]])
        write_json(folder / "knowmem" / f"{name}_qa_icl.json", pairs[:3])


def _report(corpus: str, side: str, number: int, seed: int) -> dict[str, Any]:
    draw = generator(seed, "muse", corpus, side, number)

    def one(words: str) -> str:
        return str(draw.choice(words.split()))

    town = f"{one(FIRST)}{one(LAST)}-on-{corpus.capitalize()} {side[0].upper()}{number}"
    place, trade, month = one(NOUNS), one(TRADES), one(MONTHS)
    year, cost = int(draw.integers(1900, 2000)), int(draw.integers(20, 90))
    text = (
        f"The {place} of {town} opened again in {month} after a long winter. It was built in "
        f"{year} by a {trade} who had never seen another one, and it cost {cost} crowns to mend. "
        f"People came from the hills with bread and lamps, and they stayed until the rain began."
    )
    pairs = [
        {"question": f"What opened again in {town}?", "answer": f"The {place}"},
        {"question": f"Who built the {place} of {town}?", "answer": f"A {trade}"},
        {"question": f"In which year was the {place} of {town} built?", "answer": f"{year}"},
        {"question": f"What did mending the {place} of {town} cost?", "answer": f"{cost} crowns"},
    ]
    return {"text": text, "pairs": pairs}
