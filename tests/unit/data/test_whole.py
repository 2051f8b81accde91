"""Whole files of strangers, and rows that stand twice."""

import json

import pytest

from expunge.core.errors import ExpungeError
from expunge.data.whole import distinct_ids, json_object, json_texts


def refused(read, path, text, *args):
    path.write_text(text)
    with pytest.raises(ExpungeError) as refusal:
        read(path, *args)
    assert path.name in refusal.value.found
    return refusal.value.code


def test_one_object_is_read(tmp_path):
    path = tmp_path / "log.json"
    path.write_text('\ufeff{"a": [1]}')
    assert json_object(path, "a log.") == {"a": [1]}


@pytest.mark.parametrize("text", ["", "[]", "{", '"a"', "[" * 100_000])
def test_anything_but_one_object_is_refused(tmp_path, text):
    assert refused(json_object, tmp_path / "log.json", text, "a log.") == "E-DATA-002"


def test_a_key_that_stands_twice_is_refused(tmp_path):
    """One of two rows of the same number would go unseen."""
    text = '{"rows": {"0": 1, "1": 2, "0": 3}}'
    assert refused(json_object, tmp_path / "log.json", text, "a log.") == "E-DATA-002"


def test_texts_are_read_in_order(tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(["b", "a\u2028c"]))
    assert json_texts(path) == ["b", "a\u2028c"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"a": "b"}', "E-DATA-002"),
        ('["a", ', "E-DATA-002"),
        ("[]", "E-DATA-005"),
        ('["a", 3]', "E-DATA-003"),
        ('["a", "  "]', "E-DATA-003"),
        ('["a", "b", "a"]', "E-DATA-007"),
    ],
)
def test_anything_but_a_list_of_different_texts_is_refused(tmp_path, text, code):
    assert refused(json_texts, tmp_path / "texts.json", text) == code


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ExpungeError) as refusal:
        json_texts(tmp_path / "texts.json")
    assert refusal.value.code == "E-DATA-001"


def test_repeats_get_ids_of_their_own_that_do_not_depend_on_the_order():
    names = distinct_ids(["a", "b", "a", "a"])
    assert names[:2] == ["a", "b"]
    assert len(set(names)) == 4
    assert set(distinct_ids(["a", "a", "b", "a"])) == set(names)
