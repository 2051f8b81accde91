"""ROUGE-L as the ``rouge`` package computes it: by sentences, spaces and sets of words.

Definition (sentences end at every full stop; words are what stands between spaces):
    common   union of the words of LCS(r, h) over all sentences r of the reference, h of the output
    recall = |common| / |words of the reference|       precision = |common| / |words of the output|

Words are sets: one that occurs twice counts once. Nothing is lower-cased or stemmed and commas
stay on their words, so ``paris`` and ``Paris,`` are both other words than ``Paris``; but ``Paris.``
is ``Paris``, and ``1.5`` are the words ``1`` and ``5``. Numbers made in this way do not compare
with those of `expunge.text.overlap`.

Reference: ROUGE: A Package for Automatic Evaluation of Summaries (2004), its union of common
subsequences.
"""

from collections.abc import Iterator, Sequence

from expunge.text.overlap import Overlap


def rouge_by_sentences(prediction: str, reference: str) -> Overlap:
    """Overlap of a text with a reference.

    Args:
        prediction: The text to score.
        reference: The text it should hold.

    Returns:
        All zeros when one of the two has no sentence, where the package refuses to answer.

    Example:
        >>> rouge_by_sentences("He was born in Turin. Or Genoa", "Genoa or Turin")
        Overlap(recall=0.6666666666666666, precision=0.2857142857142857, f1=0.4)
    """
    said, wanted = _sentences(prediction), _sentences(reference)
    in_said, in_wanted = _words(said), _words(wanted)
    common = {word for ours in wanted for theirs in said for word in _common(ours, theirs)}
    if not common:
        return Overlap(0.0, 0.0, 0.0)
    recall, precision = len(common) / len(in_wanted), len(common) / len(in_said)
    return Overlap(recall, precision, 2 * precision * recall / (precision + recall))


def _sentences(text: str) -> list[list[str]]:
    # A sentence of spaces alone has one word, the empty one; the package counts it.
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def _words(sentences: Sequence[Sequence[str]]) -> set[str]:
    return {word for sentence in sentences for word in sentence}


def _common(x: Sequence[str], y: Sequence[str]) -> Iterator[str]:
    """The words of one longest common subsequence; of several, the one the package takes."""
    lengths = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, ours in enumerate(x, 1):
        for j, theirs in enumerate(y, 1):
            longest = max(lengths[i - 1][j], lengths[i][j - 1])
            lengths[i][j] = lengths[i - 1][j - 1] + 1 if ours == theirs else longest
    i, j = len(x), len(y)
    while i and j:
        if x[i - 1] == y[j - 1]:
            i, j = i - 1, j - 1
            yield x[i]
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
