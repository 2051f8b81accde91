"""The log of certificates: whatever is done to it afterwards is found."""

import json
import multiprocessing
from datetime import timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from certificates import NOW, make_desk
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core.errors import ExpungeError
from expunge.report.certificate import chain

ENTRIES = [sha256(bytes([number])).hexdigest() for number in range(12)]


def fill(path: Path, entries: list[str] = ENTRIES) -> list[str]:
    """Append all; the heads on the way."""
    return [
        chain.append(path, entry, NOW + timedelta(seconds=number)).head
        for number, entry in enumerate(entries)
    ]


def code_of(path: Path, certificate: str = ENTRIES[3], head: str | None = None) -> str:
    with pytest.raises(ExpungeError) as caught:
        chain.find(path, certificate, head)
    return caught.value.code


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    fill(path)
    return path.read_bytes().splitlines(keepends=True)


def test_every_certificate_is_found_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    heads = fill(path)
    for index, entry in enumerate(ENTRIES):
        assert chain.find(path, entry, heads[index]) == chain.Included(index, 12, heads[-1])
    assert code_of(path, "ab" * 32) == "E-LOG-002"
    assert code_of(path, head="ab" * 32) == "E-LOG-003"


def test_a_line_is_json_and_its_chain_can_be_computed_otherwise(lines: list[bytes]) -> None:
    previous = sha256(b"unlearning-log/1").hexdigest()
    for index, line in enumerate(lines):
        value = json.loads(line)
        named = value.pop("hash")
        assert (value["index"], value["previous"]) == (index, previous)
        spelt = json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
        assert named == sha256(spelt).hexdigest()
        previous = named


def test_the_first_hashes_stay_what_they_are(tmp_path: Path) -> None:
    assert fill(tmp_path / "log")[:2] == [
        "df6679ef0af86b7b6817c0ec51c71561ae5a6248204e3162655dbc56efd6bcbf",
        "13222a3bcd1f64558773d2be74b93ef469e43499370dc2532dc430c4a31e47da",
    ]


def is_found(data: bytes) -> bool:
    """Whether reading it to its end fails as it should."""
    with pytest.raises(ExpungeError) as caught:
        list(chain.checked(BytesIO(data), Path("log")))
    return caught.value.code == "E-LOG-001"


def test_every_changed_byte_is_found(lines: list[bytes]) -> None:
    data = b"".join(lines)
    assert len(list(chain.checked(BytesIO(data), Path("log")))) == len(lines)
    for at in range(len(data)):
        for bit in range(8) if at < 800 else [at % 8]:
            assert is_found(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]), at


def test_every_missing_byte_and_every_cut_inside_a_line_is_found(lines: list[bytes]) -> None:
    data = b"".join(lines[:6])
    for at in range(len(data)):
        assert is_found(data[:at] + data[at + 1 :]), at
        if not data[:at].endswith(b"\n"):
            assert is_found(data[:at]), at


@pytest.mark.parametrize("field", ["index", "previous"])
def test_a_last_line_that_is_whole_but_follows_another_is_found(
    lines: list[bytes], field: str
) -> None:
    value = json.loads(lines[-1])
    del value["hash"]
    value[field] = {"index": value["index"] + 1, "previous": "ab" * 32}[field]
    hash = sha256(json.dumps(value, separators=(",", ":"), sort_keys=True).encode()).hexdigest()
    spelt = json.dumps(value | {"hash": hash}, separators=(",", ":"), sort_keys=True).encode()
    assert is_found(b"".join(lines[:-1]) + spelt + b"\n")


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_lines_taken_out_put_in_or_swapped_are_found(
    lines: list[bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place = st.integers(0, len(lines) - 1)
    one, two = data.draw(place), data.draw(place)
    kind = data.draw(st.sampled_from(["out", "in", "swap", "twice"]))
    other = list(lines)
    match kind:
        case "out":
            del other[min(one, len(lines) - 2)]  # the last one is a cut: see the heads
        case "in":
            other.insert(one, data.draw(st.binary(max_size=1200)) + b"\n")
        case "swap":
            other[one], other[two] = other[two], other[one]
        case "twice":
            other.insert(one, other[two])
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(b"".join(other))
    if other == lines:
        assert chain.find(path, ENTRIES[3]).records == len(lines)
    else:
        assert code_of(path) == "E-LOG-001"


def test_a_cut_between_lines_is_found_by_whoever_kept_a_head(tmp_path: Path) -> None:
    path = tmp_path / "log"
    heads = fill(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(4, len(lines)):
        path.write_bytes(b"".join(lines[:kept]))
        assert chain.find(path, ENTRIES[3]).records == kept
        for index, head in enumerate(heads):
            if index < kept:
                chain.find(path, ENTRIES[3], head)
            else:
                assert code_of(path, head=head) == "E-LOG-003"


def test_two_logs_of_one_length_are_told_apart(tmp_path: Path) -> None:
    heads = fill(tmp_path / "a")
    forked = fill(tmp_path / "b", [*ENTRIES[:6], *reversed(ENTRIES[6:])])
    assert forked[5] == heads[5]
    assert code_of(tmp_path / "b", head=heads[-1]) == "E-LOG-003"


@pytest.mark.parametrize("data", [b"", b"\n", b"{}\n", b"x" * 5000, b"\xff\n"])
def test_what_is_no_log_is_neither_read_nor_extended(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(data)
    assert code_of(path) == "E-LOG-001"
    with pytest.raises(ExpungeError, match="E-LOG-001"):
        chain.append(path, ENTRIES[0], NOW)
    assert path.read_bytes() == data
    assert code_of(tmp_path / "missing") == "E-LOG-001"


def test_a_write_that_fails_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    fill(path, ENTRIES[:3])
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "disk full")

    monkeypatch.setattr(chain.shutil, "copyfile", fail)
    with pytest.raises(ExpungeError, match="E-REQ-002"):
        chain.append(path, ENTRIES[3], NOW)
    assert path.read_bytes() == before


def _append(path: Path, number: int) -> None:
    for step in range(5):
        chain.append(path, sha256(b"%d-%d" % (number, step)).hexdigest(), NOW)


def test_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = {link.certificate for link in chain.links(path)}
    assert len(found) == 20
    assert {worker.exitcode for worker in workers} == {0}


def test_a_link_to_the_log_stays_a_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "log")
    fill(link, ENTRIES[:2])
    assert link.is_symlink()
    assert chain.find(tmp_path / "log", ENTRIES[1]).records == 2


# ------------------------------------------------------------------------- with certificates


def test_a_certificate_is_logged_and_found_again(tmp_path: Path) -> None:
    desk, log = make_desk(tmp_path), tmp_path / "log.jsonl"
    signed = [desk.sign(days=days, log=log).log for days in (10, 20)]
    found = desk.verify(log=log)
    assert found.as_dict()["log"] == {"index": 1, "records": 2, "head": signed[1].head}
    assert any("--head" in note for note in found.notes())
    found = desk.verify(log=log, head=signed[0].head)
    assert not any("--head" in note for note in found.notes())


def test_one_that_was_not_logged_is_refused(tmp_path: Path) -> None:
    desk, log = make_desk(tmp_path), tmp_path / "log.jsonl"
    desk.sign(days=10, log=log)
    desk.sign(days=20)
    with pytest.raises(ExpungeError, match="E-LOG-002"):
        desk.verify(log=log)


def test_without_the_log_nothing_is_signed(tmp_path: Path) -> None:
    desk, log = make_desk(tmp_path), tmp_path / "log.jsonl"
    before = desk.certificate.read_bytes()
    log.write_text("broken")
    with pytest.raises(ExpungeError, match="E-LOG-001"):
        desk.sign(days=10, log=log)
    assert desk.certificate.read_bytes() == before


def test_a_head_needs_its_log(tmp_path: Path) -> None:
    with pytest.raises(ExpungeError, match="E-USE-006"):
        make_desk(tmp_path).verify(head="ab" * 32)
