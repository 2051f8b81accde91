"""One tree of errors: each says what was found, what was expected and what to do next.

A code is stable: scripts may rely on it. Its exit code is that of its class
(see ``docs/errors.md``, generated from `CODES`).
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    BELOW_REQUIRED = 1
    BAD_INPUT = 2
    UNSAFE = 3
    MISSING_REQUIREMENT = 4
    INTERRUPTED = 5
    RUN_FAILED = 6
    INTERNAL = 70


CODES: dict[str, tuple[Exit, str]] = {
    "E-USE-001": (Exit.BAD_INPUT, "unknown component (method, metric, attack, benchmark, guard)"),
    "E-USE-002": (Exit.BAD_INPUT, "unknown or misspelt parameter"),
    "E-USE-003": (Exit.BAD_INPUT, "parameter value out of range or of the wrong type"),
    "E-USE-004": (Exit.BAD_INPUT, "output folder holds something else"),
    "E-USE-005": (Exit.BAD_INPUT, "output folder is in use by another run"),
    "E-USE-006": (Exit.BAD_INPUT, "options that do not go together"),
    "E-USE-007": (Exit.BAD_INPUT, "something required was not given"),
    "E-USE-008": (Exit.BAD_INPUT, "component file with a broken card"),
    "E-DATA-001": (Exit.BAD_INPUT, "file not found"),
    "E-DATA-002": (Exit.BAD_INPUT, "broken JSON"),
    "E-DATA-003": (Exit.BAD_INPUT, "missing or wrong column"),
    "E-DATA-004": (Exit.BAD_INPUT, "unknown column"),
    "E-DATA-005": (Exit.BAD_INPUT, "no rows"),
    "E-DATA-006": (Exit.BAD_INPUT, "the same row is in two roles"),
    "E-DATA-007": (Exit.BAD_INPUT, "duplicate id"),
    "E-DATA-008": (
        Exit.BAD_INPUT,
        "number that JSON does not allow (NaN, Infinity, too long)",
    ),
    "E-DATA-009": (Exit.BAD_INPUT, "line, nesting or object over the limit"),
    "E-DATA-010": (Exit.BAD_INPUT, "text that is not valid UTF-8 or has control characters"),
    "E-DATA-011": (Exit.BAD_INPUT, "row longer than the model's positions"),
    "E-DATA-012": (Exit.BAD_INPUT, "row with nothing to supervise"),
    "E-DATA-013": (Exit.BAD_INPUT, "rows of two logs do not match"),
    "E-DATA-014": (Exit.BAD_INPUT, "files of a benchmark that do not fit together"),
    "E-DATA-015": (Exit.BAD_INPUT, "kind of personal data that cannot be decided or scored"),
    "E-DATA-016": (Exit.BAD_INPUT, "folder that holds no finished run"),
    "E-MODEL-001": (Exit.BAD_INPUT, "model folder not found"),
    "E-MODEL-002": (Exit.BAD_INPUT, "not a model folder (no or broken config.json)"),
    "E-MODEL-003": (Exit.UNSAFE, "pickled weights, no safetensors"),
    "E-MODEL-004": (Exit.UNSAFE, "remote code"),
    "E-MODEL-005": (Exit.BAD_INPUT, "no tokenizer"),
    "E-MODEL-006": (Exit.BAD_INPUT, "no chat template where messages need one"),
    "E-MODEL-007": (Exit.BAD_INPUT, "architecture this component does not know"),
    "E-MODEL-008": (Exit.BAD_INPUT, "LoRA target not in the model"),
    "E-MODEL-009": (Exit.UNSAFE, "hash does not verify"),
    "E-MODEL-010": (Exit.UNSAFE, "broken or hostile safetensors file"),
    "E-MODEL-011": (Exit.BAD_INPUT, "tokenizer and model do not fit each other"),
    "E-PATH-001": (Exit.UNSAFE, "path leaves its folder"),
    "E-PATH-002": (Exit.BAD_INPUT, "no permission for a file or folder"),
    "E-REQ-001": (Exit.MISSING_REQUIREMENT, "optional package missing"),
    "E-REQ-002": (Exit.MISSING_REQUIREMENT, "not enough disk"),
    "E-REQ-003": (Exit.MISSING_REQUIREMENT, "not enough memory"),
    "E-CERT-001": (Exit.UNSAFE, "certificate that is cut off or not spelt as one"),
    "E-CERT-002": (Exit.UNSAFE, "certificate with a missing, unknown or unfitting field"),
    "E-CERT-003": (Exit.UNSAFE, "certificate of another format or version"),
    "E-CERT-004": (Exit.UNSAFE, "signature does not verify"),
    "E-CERT-005": (Exit.UNSAFE, "certificate signed with another key than the one given"),
    "E-CERT-006": (Exit.UNSAFE, "certificate expired, or issued in the future"),
    "E-CERT-007": (Exit.UNSAFE, "file that a certificate names is missing or changed"),
    "E-CERT-008": (Exit.UNSAFE, "certificate, audit record and summary do not agree"),
    "E-CERT-009": (Exit.UNSAFE, "model is not the one that was audited or certified"),
    "E-CERT-010": (Exit.UNSAFE, "model could not be checked, and its check was required"),
    "E-SERVE-001": (Exit.RUN_FAILED, "language model of a guard unreachable, or no usable answer"),
    "E-SERVE-002": (Exit.BAD_INPUT, "role of a guard that no language model plays"),
    "E-SERVE-003": (Exit.BAD_INPUT, "guard in front of a backend that lacks what it needs"),
    "E-SERVE-004": (Exit.BAD_INPUT, "guards that contradict each other"),
    "E-SERVE-005": (Exit.BAD_INPUT, "target that a guard cannot hold back"),
    "E-SERVE-006": (Exit.BAD_INPUT, "address, token or limit that a server must not start with"),
    "E-SERVE-007": (Exit.UNSAFE, "store of targets that does not open with this key"),
    "E-KEY-001": (Exit.BAD_INPUT, "not a key that can be used, or the wrong passphrase"),
    "E-KEY-002": (Exit.BAD_INPUT, "key file exists already; keys are never replaced"),
    "E-KEY-003": (Exit.UNSAFE, "private key that others can read"),
    "E-LOG-001": (Exit.UNSAFE, "log of certificates is broken: its chain does not verify"),
    "E-LOG-002": (Exit.UNSAFE, "certificate is not in the log"),
    "E-LOG-003": (Exit.UNSAFE, "log does not contain the head given: cut off or another log"),
    "E-RUN-001": (Exit.RUN_FAILED, "nothing changed"),
    "E-RUN-002": (Exit.RUN_FAILED, "diverged"),
    "E-RUN-003": (Exit.RUN_FAILED, "utility budget broken"),
    "E-RUN-004": (Exit.INTERRUPTED, "interrupted; the same command resumes"),
    "E-RUN-005": (Exit.RUN_FAILED, "no usable checkpoint where one was named"),
    "E-RUN-006": (Exit.INTERRUPTED, "another process of the run ended; the same command resumes"),
    "E-RUN-007": (Exit.RUN_FAILED, "the model could not write what the method trains on"),
    "E-INT-001": (Exit.INTERNAL, "internal error"),
}


class ExpungeError(Exception):
    """What went wrong, in three sentences.

    Attributes:
        code: A key of `CODES`.
        found: What was found.
        expected: What was expected.
        next: What to do.
    """

    def __init__(self, code: str, found: str, expected: str, next: str) -> None:
        self.code, self.found, self.expected, self.next = code, found, expected, next
        super().__init__(f"[{code}] {found} Expected: {expected} Next: {next}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.found, self.expected, self.next)

    @property
    def exit_code(self) -> Exit:
        """The exit code of this error's class."""
        return CODES[self.code][0]

    def as_json(self) -> dict[str, object]:
        """The value a command prints under ``--json``."""
        return {"error": self._fields()}

    def _fields(self) -> dict[str, str]:
        return {
            "code": self.code,
            "found": self.found,
            "expected": self.expected,
            "next": self.next,
        }


class Problems(ExpungeError):
    """Several problems found at once; the first one lends its code.

    Attributes:
        problems: All of them, in the order found.
    """

    def __init__(self, problems: Iterable[ExpungeError]) -> None:
        self.problems: Sequence[ExpungeError] = tuple(problems)
        first = max(self.problems, key=lambda problem: problem.exit_code == Exit.UNSAFE)
        super().__init__(first.code, first.found, first.expected, first.next)
        self.args = ("\n".join(str(problem) for problem in self.problems),)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)

    def as_json(self) -> dict[str, object]:
        """The first problem as ``error``, all of them as ``problems``."""
        return {"error": self._fields(), "problems": [p._fields() for p in self.problems]}


def raise_all(problems: Sequence[ExpungeError]) -> None:
    """Raise nothing, the one problem, or all of them together.

    Raises:
        ExpungeError: When ``problems`` is not empty.
    """
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise Problems(problems)


def nearest(name: str, known: Iterable[str]) -> str:
    """Up to three similar names as the end of a sentence, or the known ones.

    Example:
        >>> nearest("npoo", ["npo", "ga"])
        "Did you mean 'npo'?"
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(repr(c) for c in close)}?"
    shown = ", ".join(names[:20])
    return f"Known: {shown}{f' and {len(names) - 20} more' if len(names) > 20 else ''}."
