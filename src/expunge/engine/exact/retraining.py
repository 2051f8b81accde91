"""Exact unlearning by training anew: from the base model, on the rows that may stay."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.core.families import GradientParams
from expunge.core.registry import methods
from expunge.engine.exact.asking import own_base, parts_beside
from expunge.engine.plan import Plan
from expunge.engine.slots.sample import content_key
from expunge.lm.folder import Folder, inspect_folder
from expunge.requests.rows import Row
from expunge.text.normalise import all_words
from expunge.text.overlap import rouge_l

ALIKE = 0.8
"""From this ROUGE-L F1 on two rows say the same, but for one word in five."""

SHINGLE = 3
"""Rows that are alike share this many words in a row; only such pairs are compared."""


@dataclass(frozen=True, slots=True)
class Alike:
    """A row that stays and says nearly what a forget row says.

    Attributes:
        forget: Id of the forget row.
        kept: Id of the row that stays.
        overlap: ROUGE-L F1 of the two.
    """

    forget: str
    kept: str
    overlap: float


def base_for(
    method: str,
    params: GradientParams | None,
    folder: Folder,
    *,
    adapter: str | None,
    rows: Mapping[str, Sequence[Row]],
) -> tuple[Folder | None, list[ExpungeError]]:
    """The base model that a method of this kind starts from, and what is wrong with it.

    Args:
        method: Id of the method; of any other kind than ``exact`` it has no base.
        params: Its parameters, if they could be read.
        folder: The original.
        adapter: The adapter asked for, if any.
        rows: The rows given, by role.
    """
    if params is None or methods.card(method).kind != "exact":
        return None, []
    problems = []
    if adapter is not None:
        problems.append(_no_adapter(method))
    problems += missing_rows(method, rows)
    problems += parts_beside(method, folder)
    named: str | None = getattr(params, "base", None) or own_base(method, folder)
    base, wrong = named_base(method, named, folder)
    return base, problems + wrong


def named_base(
    what: str, named: str | None, folder: Folder
) -> tuple[Folder | None, list[ExpungeError]]:
    """The model that the original was trained from, and what is wrong with it; no weights load.

    Args:
        what: What begins from it, for messages.
        named: Its folder, if one is named.
        folder: The original.
    """
    if named is None:
        return None, [_no_base(what)]
    base = inspect_folder(named)
    problems = list(base.problems)
    if not base.problems and not folder.problems and _shape(base) != _shape(folder):
        problems.append(_other_shape(base, folder))
    return base, problems


def missing_rows(what: str, rows: Mapping[str, Sequence[Row]]) -> list[ExpungeError]:
    """``E-USE-007`` where no retain rows are given, which nothing can stand in for here."""
    return [] if rows.get("retain") else [_no_retain(what)]


def _shape(folder: Folder) -> tuple[Any, ...]:
    return folder.config.get("model_type"), folder.parameters, frozenset(folder.tensors)


def _no_base(method: str) -> ExpungeError:
    return ExpungeError(
        "E-USE-007",
        f"{method} without the model to begin from.",
        "the folder of the model as it was before it saw any of the rows.",
        "Give --set base=FOLDER.",
    )


def _no_retain(method: str) -> ExpungeError:
    return ExpungeError(
        "E-USE-007",
        f"{method} without retain rows.",
        "everything the original was trained on but the forget rows; nothing can stand in for it.",
        "Give --retain FILE.",
    )


def _no_adapter(method: str) -> ExpungeError:
    return ExpungeError(
        "E-USE-006",
        f"--adapter with {method}, which begins from the base model.",
        "whole weights: an adapter of the base is none of the original.",
        "Leave --adapter out.",
    )


def _other_shape(base: Folder, folder: Folder) -> ExpungeError:
    return ExpungeError(
        "E-USE-006",
        f"The base {base.path} ({base.config.get('model_type')}, {base.parameters} parameters) "
        f"is another kind of model than {folder.path} "
        f"({folder.config.get('model_type')}, {folder.parameters}).",
        "the model that the original was trained from.",
        "Name that one in --set base.",
    )


def kept_rows(plan: Plan) -> list[Row]:
    """D without F: the retain rows and the neighbours."""
    return [*plan.rows["retain"], *plan.rows.get("neighbour", ())]


def base_of(plan: Plan) -> Folder:
    """The base model of a plan of this kind."""
    assert plan.base is not None  # noqa: S101
    return plan.base


def record_of(plan: Plan, base_digest: str) -> dict[str, Any]:
    """What shows that the rows to be forgotten took no part, for the manifest.

    Returns:
        ``base`` (path and digest), ``stages`` in their order, ``rows`` (hash of the content of
        every row trained on), ``alike`` (rows among them that nearly say what a forget row says).
    """
    kept = kept_rows(plan)
    alike = near_duplicates(plan.rows["forget"], kept)
    if alike:
        first = alike[0]
        note(
            f"{len({pair.kept for pair in alike})} rows that stay nearly repeat forget rows "
            f"(the first: {first.kept!r} and {first.forget!r}): what they say is learnt again."
        )
    return {
        "base": {"path": str(base_of(plan).path.resolve()), "digest": base_digest},
        "stages": ["base", "retain"],
        "rows": sorted(content_key(row) for row in kept),
        "alike": [{"forget": a.forget, "kept": a.kept, "overlap": a.overlap} for a in alike],
    }


def near_duplicates(forget: Sequence[Row], kept: Sequence[Row]) -> list[Alike]:
    """Pairs of a forget row and a row that stays which say nearly the same.

    Args:
        forget: Rows to be forgotten.
        kept: Rows that are trained on.
    """
    texts = [_text(row) for row in forget]
    places: dict[tuple[str, ...], set[int]] = {}
    for place, text in enumerate(texts):
        for words in _shingles(text):
            places.setdefault(words, set()).add(place)
    return [
        Alike(forget[place].id, row.id, round(overlap, 4))
        for row in kept
        for place in _sharing(_text(row), places)
        if (overlap := rouge_l(_text(row), texts[place]).f1) >= ALIKE
    ]


def _sharing(text: str, places: Mapping[tuple[str, ...], set[int]]) -> list[int]:
    found: set[int] = set()
    return sorted(found.union(*(places.get(words, ()) for words in _shingles(text))))


def _shingles(text: str) -> Iterator[tuple[str, ...]]:
    words = all_words(text)
    for start in range(max(1, len(words) - SHINGLE + 1)):
        yield tuple(words[start : start + SHINGLE])


def _text(row: Row) -> str:
    turn = row.training
    asked = turn.prompt if isinstance(turn.prompt, str) else turn.prompt[-1]["content"]
    return f"{asked} {turn.completion}"
