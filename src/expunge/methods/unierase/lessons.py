"""What the token is trained on, and prompts that lead to it, as token ids.

question <UNL> refusal <UNL> end      supervised from the refusal on
question <UNL>                        supervised at the token
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from expunge.core.errors import ExpungeError
from expunge.core.rng import derive
from expunge.data.encode import IGNORED, Encoded, Encoder
from expunge.engine.datasets import reply_with
from expunge.engine.task import Task
from expunge.requests.rows import Turn
from expunge.text.refusal import REFUSALS


@dataclass(frozen=True, slots=True)
class Lesson:
    """One text.

    Attributes:
        token: Whose.
        plain: Whether the question stands as it is, not in the chat template.
        item: As token ids.
    """

    token: str
    plain: bool
    item: Encoded


@dataclass(frozen=True, slots=True)
class Lessons:
    """Texts to train on.

    Attributes:
        each: The texts.
    """

    each: Sequence[Lesson]

    def of(self, tokens: Collection[str]) -> "Lessons":
        """Those of some tokens."""
        return Lessons([one for one in self.each if one.token in tokens])

    @property
    def items(self) -> list[Encoded]:
        """All of them."""
        return [one.item for one in self.each]

    @property
    def plain(self) -> list[Encoded]:
        """The plain ones; all where there are none, as with conversations."""
        return [one.item for one in self.each if one.plain] or self.items


def lessons_of(
    task: Task,
    shares: Mapping[str, str],
    ids: Mapping[str, int],
    said: Mapping[str, str],
    *,
    styles: int,
    longest: int,
) -> Lessons:
    """The forget rows in all their wordings: plain, and through the chat template if there is one.

    Args:
        task: Whose rows.
        shares: Row id -> its token.
        ids: Token -> its id.
        said: Row id -> what is said behind the token; absent rows get a refusal of the pool.
        styles: How many of the pool are used.
        longest: Most tokens of a text.
    """
    plain = Encoder(task.tokenizer, task.encoder.max_length, chat="never")
    made = []
    for row in task.forget:
        token = shares[row.id], ids[shares[row.id]]
        for turn in row.turns:
            wanted = reply_with(turn, said.get(row.id) or refusal_of(asked(turn), styles))
            if isinstance(turn.prompt, str):
                made.append(Lesson(token[0], True, taught(plain, wanted, token, longest)))
            if task.encoder.has_template and not turn.running:
                made.append(Lesson(token[0], False, taught(task.encoder, wanted, token, longest)))
    return Lessons(made)


def taught(encoder: Encoder, turn: Turn, token: tuple[str, int], longest: int) -> Encoded:
    """A question, the token, a refusal, the token, and one token more, which ends the turn.

    Args:
        encoder: Rows to token ids.
        turn: The question with its refusal.
        token: How the token is written, and its id.
        longest: Most tokens; a longer question loses its beginning.

    Raises:
        ExpungeError: ``E-USE-003`` when the refusal leaves no room for a question.
    """
    name, at = token
    whole = encoder.encode(Turn("?", f"{name}{turn.completion}{name}")).ids
    last = len(whole) - 1 - whole[::-1].index(at)
    said = whole[whole.index(at) : last + 2]
    room = min(longest, encoder.max_length) - len(said)
    if room < 1:
        raise ExpungeError(
            "E-USE-003",
            f"What is said behind {name} has {len(said) - 2} tokens, with max_length={longest}.",
            "room for a question in front of it.",
            "Raise --set max_length, or give a shorter text.",
        )
    prompt = encoder.prompt(turn.prompt, turn.running)
    if len(prompt) > room:
        prompt = [*prompt[:1], *prompt[len(prompt) - room + 1 :]]
    labels = [IGNORED] * (len(prompt) + 1) + said[1:]
    return Encoded([*prompt, *said], labels, [(0, 0)] * (len(said) - 1), -1)


def leading(encoder: Encoder, ids: Mapping[str, int], turn: Turn) -> Encoded:
    """A prompt exactly as it is asked, and the token that its completion names straight behind."""
    prompt, at = encoder.prompt(turn.prompt, turn.running), ids[turn.completion.strip()]
    return Encoded([*prompt, at], [IGNORED] * len(prompt) + [at], [(0, 0)], -1)


def refusal_of(question: str, styles: int) -> str:
    """The refusal of the pool that a question gets, the same in every process and run."""
    return REFUSALS[derive(0, "refusal", question.strip()) % styles]


def asked(turn: Turn) -> str:
    """The question of a turn."""
    return turn.prompt if isinstance(turn.prompt, str) else turn.prompt[-1]["content"]
