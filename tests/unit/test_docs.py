"""The papers around the project: generated pages, links, and every command line they show."""

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from expunge.cli.app import app
from expunge.core.errors import CODES, Exit
from expunge.requests.rows import Row

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
PAGES = sorted([*PROJECT.glob("*.md"), *DOCS.rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The fenced blocks of a page in one of some languages."""
    return (body for language, body in FENCE.findall(told(page)) if language in languages)


# --------------------------------------------------------------------------- generated pages


def test_generated_pages_are_what_the_generator_writes(generate) -> None:
    stale = [named(path) for path, text in generate.pages().items() if told(path) != text]
    assert stale == [], "run: python docs/generate.py"


def test_no_generated_page_is_left_of_a_component_that_is_gone(generate) -> None:
    assert set((DOCS / "reference").rglob("*.md")) <= generate.pages().keys()


def test_every_component_and_every_error_has_its_place(generate) -> None:
    made = {named(path): text for path, text in generate.pages().items()}
    assert {f"docs/reference/{name}.md" for name in SOME} <= made.keys()
    assert all(code in made["docs/errors.md"] for code in CODES)
    assert generate.EXITS.keys() == set(Exit)


SOME = ("methods/npo", "guards/lexical", "attacks/relearn-in", "benchmarks/tofu")


def test_a_bar_inside_a_cell_does_not_break_the_table(generate) -> None:
    assert generate.table(("a",), [["x | y"]]) == "| a |\n| --- |\n| x \\| y |"


# ------------------------------------------------------------------------------------- links


def slug(heading: str) -> str:
    """The anchor a heading gets where pages are shown."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.strip().replace(" ", "-")


def broken_links(page: Path) -> list[str]:
    text = FENCE.sub("", told(page))
    return [link for link in LINK.findall(text) if not resolves(page, link)]


def resolves(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or PROJECT not in (target, *target.parents):
        return False
    return not anchor or anchor in {slug(heading) for heading in HEADING.findall(told(target))}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere_inside_the_project(page: Path) -> None:
    assert broken_links(page) == []


def test_the_rule_of_links_bites(tmp_path: Path) -> None:
    page = DOCS / "errors.md"
    assert resolves(page, "../README.md")
    assert resolves(page, "#exit-codes")
    assert not resolves(page, "#no-such-heading")
    assert not resolves(page, "no-such-page.md")
    assert not resolves(page, str(tmp_path))


# ---------------------------------------------------------------------------------- commands


@cache
def tree() -> Any:
    return get_command(app)


def shell_lines(page: Path) -> Iterator[str]:
    """Command lines of ``expunge`` in fenced blocks, continued lines joined, comments left out."""
    for body in blocks(page, "", "sh", "bash", "console"):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and "=" in words[0] and not words[0].startswith("-"):
                del words[0]  # settings of the environment
            if words[:1] == ["expunge"]:
                yield shlex.join(words)


def mentioned(page: Path) -> Iterator[str]:
    """Commands named in running text: ``expunge check forget``, ``expunge audit --require``."""
    text = FENCE.sub("", told(page))
    return (line for line in re.findall(r"`(expunge [a-z][^`]*)`", text))


def leaf(words: list[str]) -> tuple[Any, list[str]]:
    """The command that some words name, and the words after it."""
    command = tree()
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def complaint(line: str, *, whole: bool) -> str:
    """Why a command line would be refused; empty when it would not.

    Args:
        line: The line, with ``expunge``.
        whole: Parse all of it; otherwise only the command and the names of options must exist.
    """
    command, rest = leaf(shlex.split(line)[1:])
    if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        return f"no command {rest[0]!r}"
    if not whole:
        known = {name for param in command.params for name in param.opts} | {"--help"}
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        return ", ".join(sorted(given - known))
    try:
        command.make_context(command.name, list(rest))
    except Exception as error:  # whatever the parser has to say
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_shown_is_one_the_program_takes(page: Path) -> None:
    wrong = {line: complaint(line, whole=True) for line in shell_lines(page)}
    wrong |= {line: complaint(line, whole=False) for line in mentioned(page)}
    assert {line: why for line, why in wrong.items() if why} == {}


def test_the_pages_show_the_main_commands() -> None:
    lines = [line for page in PAGES for line in shell_lines(page)]
    shown = {shlex.split(line)[1] for line in lines}
    assert {"forget", "audit", "guard", "check", "revert", "new"} <= shown


@pytest.mark.parametrize(
    "line",
    [
        "expunge forgt --model M",
        "expunge forget --model M",
        "expunge forget --model M --forget F --out D --sed 1",
        "expunge audit --model M --forget F --out D --require perfect",
        "expunge check everything",
    ],
)
def test_the_rule_of_commands_bites(line: str) -> None:
    assert complaint(line, whole=True)


def test_the_rule_of_commands_in_running_text_bites() -> None:
    assert complaint("expunge audit --sure", whole=False) == "--sure"
    assert complaint("expunge doctor", whole=False)
    assert not complaint("expunge audit --require CLASS", whole=False)


# --------------------------------------------------------------------------- code, rows, words


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_shown_is_python(page: Path) -> None:
    for body in blocks(page, "python"):
        ast.parse(body)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_rows_shown_are_rows(page: Path) -> None:
    for body in blocks(page, "jsonl"):
        for number, line in enumerate(body.splitlines(), start=1):
            Row.parse(json.loads(line), where=f"{page.name}:{number}")


def test_the_row_format_is_told_in_full() -> None:
    page = told(DOCS / "guides" / "own-data.md")
    assert [name for name in Row.__dataclass_fields__ if f"`{name}`" not in page] == []


PROMISES = re.compile(r"(?<!')\b(?:erased|guaranteed?|guarantees)\b", re.IGNORECASE)
"""Words for more than was measured; in single quotes they are a paper's own title."""


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_page_promises_more_than_was_measured(page: Path) -> None:
    assert PROMISES.findall(told(page)) == []
