"""The one client through which every role that a language model plays for a guard goes.

A role is played by a server (`Remote`) or by a model of this process (`Local`). Either gives as
many texts as were asked for, or an error: a guard closes on it. What the texts say is not looked
at here.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError, nearest
from expunge.engine.guarding.chat import Chat, Messages
from expunge.engine.guarding.desk import ANY
from expunge.engine.guarding.posting import BODY_BYTES, TIMEOUT, Poster

if TYPE_CHECKING:
    from expunge.lm.subject import Subject

TOKEN = "EXPUNGE_CHAT_TOKEN"  # noqa: S105
"""The variable of the environment that holds the token of the servers."""

UNFINISHED = frozenset({"content_filter", "tool_calls", "function_call"})
"""Reasons for an end after which a text is not what the model had to say."""

_SPEC = re.compile(rf"(?:({re.escape(ANY)}|[a-z][a-z0-9_-]*)=)?(.*)", re.DOTALL)


class Remote:
    """A role played over HTTP, by any server with OpenAI's chat completions.

    The messages leave this process: whoever runs that server reads them.

    Args:
        url: Where the server's paths begin, for instance ``http://127.0.0.1:8000/v1``.
        model: Which of its models; empty lets the server choose.
        token: Sent as ``Authorization: Bearer``.
        timeout: Seconds that one call may take as a whole.
        most_bytes: Largest answer, in bytes.

    Raises:
        ExpungeError: As `Poster`.
    """

    def __init__(
        self,
        url: str,
        model: str = "",
        *,
        token: str | None = None,
        timeout: float = TIMEOUT,
        most_bytes: int = BODY_BYTES,
    ) -> None:
        self._model = model
        self._poster = Poster(url, token=token, timeout=timeout, most_bytes=most_bytes)

    def say(
        self,
        messages: Messages,
        *,
        samples: int = 1,
        temperature: float = 0.0,
        new_tokens: int = 256,
        seed: int = 0,
    ) -> list[str]:
        """Answer a conversation; see `Chat`.

        A server that gives fewer answers than asked for is asked for one at a time.
        """
        settings = {"temperature": temperature, "max_tokens": new_tokens}
        said = self._said(messages, settings, seed, samples)
        while len(said) < samples:
            said += self._said(messages, settings, seed + len(said), 1)
        return said

    def _said(
        self, messages: Messages, settings: Mapping[str, Any], seed: int, samples: int
    ) -> list[str]:
        body = {
            "messages": [{"role": m["role"], "content": m["content"]} for m in messages],
            **settings,
            "seed": seed % (1 << 31),  # servers keep it in 32 bits with a sign
            "stream": False,
        }
        body |= {"model": self._model} if self._model else {}
        body |= {"n": samples} if samples > 1 else {}
        answer = self._poster.post("chat/completions", body)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not 1 <= len(choices) <= samples:
            self._poster.fail(f"It gave no choices, or more than the {samples} asked for.")
        return [self._text(choice) for choice in choices]

    def _text(self, choice: Any) -> str:
        message = choice.get("message") if isinstance(choice, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(content, str):
            self._poster.fail("A choice of it holds no text.")
        if message.get("role", "assistant") != "assistant":
            self._poster.fail("A choice of it speaks in another role than the assistant's.")
        if choice.get("finish_reason") in UNFINISHED:
            self._poster.fail("A choice of it ends without being an answer.")
        if any("\ud800" <= char <= "\udfff" for char in content):
            self._poster.fail("A choice of it holds characters that are none.")
        return content


class Local:
    """A role played by a model of this process, past its gate.

    Args:
        subject: The model; it needs a chat template, which is what keeps the lines of a role
            apart.
        written: Whether a model without one is given the messages as one text instead.

    Raises:
        ExpungeError: ``E-MODEL-006`` when it has none, and is not to be written to.
    """

    def __init__(self, subject: "Subject", *, written: bool = False) -> None:
        from expunge.engine.runtime import without_gate

        self._subject, self._lock = without_gate(subject), Lock()
        added = subject.tokenizer.added_tokens_decoder.values()
        self._controls = [one.content for one in added if one.special and len(one.content) > 1]
        self._is_written = not self._subject.encoder.has_template
        if self._is_written and not written:
            raise ExpungeError(
                "E-MODEL-006",
                "A language model without a chat template in a role of a guard.",
                "a chat model.",
                "Take an instruction-tuned model for this role.",
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> "Local":
        return self  # see `Poster`

    def say(
        self,
        messages: Messages,
        *,
        samples: int = 1,
        temperature: float = 0.0,
        new_tokens: int = 256,
        seed: int = 0,
    ) -> list[str]:
        """Answer a conversation; see `Chat`."""
        from expunge.requests.rows import Turn

        told = tuple({**one, "content": self._plain(one["content"])} for one in messages)
        whole = "\n\n".join(one["content"] for one in told)
        turn = Turn(whole if self._is_written else told, "")
        try:
            with self._lock:
                if not self._subject.has_room(turn, new_tokens):
                    raise _mute("The messages leave it no room for an answer.")
                return self._subject.ask(
                    [turn],
                    new_tokens=new_tokens,
                    samples=samples,
                    temperature=temperature,
                    seed=seed,
                )[0]
        except ExpungeError as error:
            if error.code != "E-MODEL-006":
                raise
        raise _mute("Its chat template takes no such conversation.")

    def _plain(self, text: str) -> str:
        """A text in which no control token stands: it could end the message it stands in.

        The first character is parted from the rest, again and again, since taking a token apart
        may put another together.
        """
        while found := next((one for one in self._controls if one in text), None):
            text = text.replace(found, f"{found[0]} {found[1:]}")
        return text


def read_chats(
    specs: Iterable[str],
    *,
    known: Collection[str] = (),
    timeout: float = TIMEOUT,
    environ: Mapping[str, str] = os.environ,
    opened: "Callable[[str], Subject] | None" = None,
) -> dict[str, Chat]:
    """Who plays which role, as the command line says it.

    Args:
        specs: ``[ROLE=]URL[#MODEL]`` or ``[ROLE=]FOLDER`` each; without a role it plays all that
            nobody else does.
        known: Roles that there are; empty takes any.
        timeout: Seconds that one call of a server may take.
        environ: Where the token of the servers is looked up, under `TOKEN`.
        opened: Opens the folder of a model; default the door all models come through.

    Returns:
        For `Means.chats`.

    Raises:
        ExpungeError: ``E-USE-003`` for what is neither, and for roles that nobody asks for,
            ``E-USE-006`` for a role with two players, and whatever a model's folder has.
    """
    chats: dict[str, Chat] = {}
    folders: dict[Path, Chat] = {}
    for spec in specs:
        role, place = _SPEC.fullmatch(spec).groups(ANY)  # type: ignore[union-attr]  # fits any
        _check_role(role, place, known, chats)
        if "://" in place:
            url, _, model = place.partition("#")
            chats[role] = Remote(url, model, token=environ.get(TOKEN), timeout=timeout)
            continue
        folder = Path(place).resolve()
        if folder not in folders:
            folders[folder] = Local((opened or opened_model)(place))
        chats[role] = folders[folder]
    return chats


def _check_role(role: str, place: str, known: Collection[str], taken: Collection[str]) -> None:
    if not place or (known and role not in (*known, ANY)):
        raise ExpungeError(
            "E-USE-003",
            f"The role {role!r} of a language model." if place else "An empty place of a model.",
            "[ROLE=]URL[#MODEL] or [ROLE=]FOLDER, with a role of the guards in use.",
            nearest(role, (*known, ANY)) if place else "Name the server or the folder.",
        )
    if role in taken:
        raise ExpungeError(
            "E-USE-006",
            f"Two language models for the role {role!r}.",
            "one for each role.",
            "Leave one of them out, or give it another role: --chat ROLE=URL.",
        )


def opened_model(folder: str) -> "Subject":
    """A model that plays a role or decides, with what its folder puts into it, past its gate."""
    from expunge.engine.part_files import served
    from expunge.lm.folder import inspect_folder
    from expunge.lm.load import load
    from expunge.lm.subject import Subject

    loaded = load(folder)
    subject = Subject(loaded.model, loaded.tokenizer, digest=loaded.digest)
    return served(subject, inspect_folder(loaded.path))


def _mute(found: str) -> ExpungeError:
    return ExpungeError(
        "E-SERVE-001",
        f"A language model of this process gave no answer in a guard's role. {found}",
        "a chat model with room for the guard's messages.",
        "Take a model with more positions, or with another chat template, for this role.",
    )
