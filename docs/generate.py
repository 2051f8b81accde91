"""Writes ``docs/errors.md`` and ``docs/reference/`` from the error codes and the components' cards.

    python docs/generate.py

A test fails when a page is not what this would write.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from expunge.cli.catalogue import section
from expunge.core import registry
from expunge.core.atomic import write_text
from expunge.core.card import Card
from expunge.core.errors import CODES, Exit

DOCS = Path(__file__).parent
REFERENCE = DOCS / "reference"
NOTE = "<!-- written by docs/generate.py; edit the component or the error codes instead -->"

KINDS = {
    "methods": (registry.methods, "change the weights"),
    "guards": (registry.guards, "stand in front of the model"),
    "attacks": (registry.attacks, "try to get the content back"),
    "metrics": (registry.metrics, "measure"),
    "benchmarks": (registry.benchmarks, "compare methods on a fixed set of rows"),
}

EXITS = {
    Exit.DONE: "Done. An audit ends so whatever it finds, unless `--require` or `--min-utility` "
    "is given.",
    Exit.BELOW_REQUIRED: "The audit is finished; its verdict is below `--require`, or its utility "
    "below `--min-utility`.",
    Exit.BAD_INPUT: "The input or the command line is wrong.",
    Exit.UNSAFE: "Something unsafe was refused, or a hash does not verify.",
    Exit.MISSING_REQUIREMENT: "A package, memory or disk is missing.",
    Exit.INTERRUPTED: "Interrupted; the same command resumes.",
    Exit.RUN_FAILED: "The run failed its own check: nothing changed, it diverged, or it broke its "
    "budget.",
    Exit.INTERNAL: "A defect of expunge.",
}

ERRORS_INTRO = """\
Whatever goes wrong, a command says what it found, what it expected and what to do next, and ends
with the exit code of the error's class. Codes and exit codes are stable: scripts may rely on them.

Under `--json` the one value on standard output is
`{"error": {"code", "found", "expected", "next"}}`; where several problems were found at once,
`problems` beside it lists them all. Tracebacks are not shown; `EXPUNGE_TRACEBACK=1` in the
environment prints them on standard error."""


def pages() -> dict[Path, str]:
    """Every generated page and its content."""
    made = {DOCS / "errors.md": errors(), REFERENCE / "README.md": index()}
    for kind in KINDS:
        for card in own_cards(kind):
            made[REFERENCE / kind / f"{card.id}.md"] = component(card)
    return made


def own_cards(kind: str) -> Iterator[Card]:
    """The components of this project; those of installed plug-ins have pages of their own."""
    components, _ = KINDS[kind]
    room = DOCS.parent / "src" / "expunge" / kind
    for card in components.cards():
        module = room / card.id.replace("-", "_")
        if module.is_dir() or module.with_suffix(".py").is_file():
            yield card


def errors() -> str:
    """The page of error codes."""
    exits = ((code.value, words) for code, words in EXITS.items())
    codes = ((code, exit.value, words) for code, (exit, words) in CODES.items())
    return joined(
        "# Errors and exit codes",
        NOTE,
        ERRORS_INTRO,
        "## Exit codes",
        table(("code", "meaning"), exits),
        "## Error codes",
        table(("error", "exit code", "what was found"), codes),
    )


def index() -> str:
    """The list of all components."""
    parts = ["# Components", NOTE]
    for kind, (_, what) in KINDS.items():
        rows = (
            (f"[{card.id}]({kind}/{card.id}.md)", card.maturity, card.summary)
            for card in own_cards(kind)
        )
        parts += [
            f"## {kind.capitalize()}: they {what}",
            table(("id", "maturity", "summary"), rows),
        ]
    return joined(*parts)


def component(card: Card) -> str:
    """The page of one component."""
    facts = {
        "kind": card.kind,
        "maturity": card.maturity,
        "version": card.version,
        "paper": card.paper,
        "needs": card.needs,
        "access": card.access,
        "cost": card.cost,
        **card.extra,
    }
    parts = [f"# {card.id}", NOTE, card.doc.split("\n\n")[0].replace("\n", " ")]
    parts.append(table(("", ""), ((name, plain(value)) for name, value in facts.items())))
    if card.formula:
        parts += ["## Formula", f"```text\n{card.formula}\n```"]
    for title in ("Meaning", "Example", "Reference", "Departs from the paper"):
        if words := section(card.doc, title):
            parts += [f"## {title}", *paragraphs(words[0].upper() + words[1:])]
    if card.params:
        parts += ["## Parameters", parameters(card.params)]
    return joined(*parts)


def paragraphs(words: str) -> Iterator[str]:
    """The paragraphs of a section; examples stand in blocks of code."""
    block: list[str] = []
    for line in [*words.split("\n"), ""]:
        begins = line.startswith(">>>") and not (block and block[0].startswith(">>>"))
        if block and (begins or not line.strip()):
            is_code = block[0].startswith(">>>")
            text = "\n".join(block)
            yield f"```pycon\n{text}\n```" if is_code else text
            block = []
        if line.strip():
            block.append(line)


def parameters(params: Mapping[str, Mapping[str, object]]) -> str:
    """The table of parameters."""
    rows = (
        (
            f"`{name}`",
            "none" if facts["default"] is None else plain(facts["default"]),
            plain(facts["paper"]),
            allowed(facts),
            facts["help"],
        )
        for name, facts in params.items()
    )
    return table(("name", "default", "paper", "allowed", "meaning"), rows)


def allowed(facts: Mapping[str, object]) -> str:
    """What values a parameter takes."""
    if facts["choices"]:
        return plain(facts["choices"])
    low, high = facts["low"], facts["high"]
    bounds = [f"from {low}" if low is not None else "", f"to {high}" if high is not None else ""]
    return " ".join([f"`{facts['type']}`", *filter(None, bounds)])


def plain(value: object) -> str:
    """One value as a cell."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table; the bars inside cells are escaped."""
    lines = [list(heads), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def joined(*parts: str) -> str:
    """The parts of a page, an empty line between them."""
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write every page, and delete pages of components that are gone."""
    made = pages()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    for path in REFERENCE.rglob("*.md"):
        if path not in made:
            path.unlink()


if __name__ == "__main__":
    main()
