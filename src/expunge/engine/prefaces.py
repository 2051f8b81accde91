"""More context in front of a row, without touching the tokens that are trained on."""

from dataclasses import replace

from expunge.core.errors import ExpungeError
from expunge.data.encode import IGNORED, Encoded, Encoder
from expunge.requests.rows import Turn


def prefaced(encoder: Encoder, origin: Encoded, turn: Turn, text: str) -> Encoded:
    """``origin`` with ``text`` in front of it.

    Plain text is put in front as tokens of its own, after the first special token, so nothing can
    merge across the seam. Where a chat template applies, it opens the message that asks.

    Args:
        encoder: That made ``origin``.
        origin: A row as tokens; its supervised tokens stay the same.
        turn: What it was made of.
        text: What stands in front.

    Raises:
        ExpungeError: ``E-MODEL-011`` when the template makes other tokens of the answer behind the
            text, ``E-DATA-011`` when the whole is too long.
    """
    if turn.running or (isinstance(turn.prompt, str) and not encoder.has_template):
        ids = _spliced(encoder, origin.ids, text)
    else:
        ids = encoder.encode(with_preface(turn, text)).ids
    answer = len(origin.ids) - _first(origin)
    if ids[-answer:] != origin.ids[-answer:]:
        raise ExpungeError(
            "E-MODEL-011",
            f"Behind the text {text[:40]!r} the answer {turn.completion[:40]!r} becomes other "
            "tokens.",
            "the same tokens, whatever stands in front of the question.",
            "Use a model whose chat template leaves answers alone, or another method.",
        )
    encoder.check_length(len(ids), turn, origin.row)
    labels = [IGNORED] * (len(ids) - answer) + origin.labels[-answer:]
    return replace(origin, ids=ids, labels=labels)


def with_preface(turn: Turn, text: str) -> Turn:
    """A turn whose prompt, or whose first message of the user, begins with ``text``."""
    if isinstance(turn.prompt, str):
        return replace(turn, prompt=text + turn.prompt)
    messages = [dict(message) for message in turn.prompt]
    asked = next((message for message in messages if message["role"] == "user"), messages[0])
    asked["content"] = text + asked["content"]
    return replace(turn, prompt=tuple(messages))


def _first(origin: Encoded) -> int:
    """Place of the first supervised token."""
    return next(at for at, label in enumerate(origin.labels) if label != IGNORED)


def _spliced(encoder: Encoder, ids: list[int], text: str) -> list[int]:
    opener = encoder.tokenizer.bos_token_id
    opened = 1 if opener is not None and ids[:1] == [opener] else 0
    own = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids[:opened], *own, *ids[opened:]]
