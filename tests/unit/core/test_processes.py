"""Which of several processes this is; the others keep quiet."""

import pytest

from expunge.cli import main
from expunge.core.processes import Place, place

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch):
    """Sets what a launcher says; None takes it away."""

    def launch(*values: str | None) -> None:
        for name, value in zip(NAMES, values, strict=True):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return launch


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((None, None, None), Place()),
        (("0", "1", "0"), Place()),
        ((None, "4", None), Place()),
        (("5", "8", "1"), Place(5, 8, 1)),
        (("1", "2", None), Place(1, 2, 1)),
        (("1", "two", None), Place()),
    ],
)
def test_the_place_is_what_the_launcher_says(launched, said, expected) -> None:
    launched(*said)
    assert place() == expected


def test_only_the_first_process_prints(launched, capsys) -> None:
    launched("1", "2", "1")
    assert main(["methods", "npo", "--json"]) == 0
    assert capsys.readouterr().out == ""
    launched("0", "2", "0")
    assert main(["methods", "npo", "--json"]) == 0
    assert '"npo"' in capsys.readouterr().out


def test_what_goes_wrong_in_another_process_stands_on_its_standard_error(launched, capsys) -> None:
    launched("1", "2", "1")
    assert main(["methods", "npoo", "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Process 1 of 2:\nError E-USE-001")
