"""Vectors of texts: by spelling, the same everywhere, and of a model where one is given."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from expunge.core.errors import ExpungeError
from expunge.text.embedding import DIMENSIONS, embed, embedder, similarity


def test_a_text_is_like_itself_whatever_its_case_order_and_punctuation():
    assert similarity("The old mill, by the river.", "by THE river the old mill") == pytest.approx(
        1
    )


def test_texts_without_a_common_piece_are_not_alike():
    assert similarity("alder birch", "quince") == 0.0


def test_texts_of_common_words_lie_between_and_more_common_words_lie_closer():
    whole = "Mira Voss was born in Paris"
    near, far = "Mira Voss was born in Oslo", "Tom Ardel keeps bees in Paris"
    assert 1 > similarity(whole, near) > similarity(whole, far) > 0


def test_words_of_one_stem_are_alike():
    assert similarity("painter", "painted") > 0.4 > similarity("painter", "cellar")


def test_repetition_counts_less_than_variety():
    assert similarity("mill mill mill mill", "mill") == pytest.approx(1.0)
    assert similarity("mill mill mill mill well", "mill") > similarity(
        "mill weir well lock", "mill"
    )


def test_a_text_without_words_is_like_nothing():
    assert similarity("", "mill") == similarity("...", "!") == 0.0
    assert not embed("").any()


def test_the_vector_is_the_same_on_every_machine():
    vector = embed("mill")
    assert vector.shape == (DIMENSIONS,)
    assert np.linalg.norm(vector) == pytest.approx(1.0)
    places = np.flatnonzero(vector).tolist()
    # <mi mil ill ll>, <mil mill ill>, <mill mill> by CRC-32.
    assert places == sorted(
        {
            zlib(piece) % DIMENSIONS
            for piece in ("<mi", "mil", "ill", "ll>", "<mil", "mill", "ill>", "<mill", "mill>")
        }
    )


def zlib(piece):
    from zlib import crc32

    return crc32(piece.encode())


def test_many_texts_at_once():
    vectors = embedder()(["mill", "well"])
    assert vectors.shape == (2, DIMENSIONS)
    assert vectors[0] @ vectors[1] == pytest.approx(similarity("mill", "well"))
    assert embedder()([]).shape == (0, DIMENSIONS)


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(ExpungeError) as raised:
        embedder("no/such/folder")
    assert raised.value.code == "E-MODEL-001"


def test_a_model_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "model2vec", None)
    with pytest.raises(ExpungeError) as raised:
        embedder(str(tmp_path))
    assert raised.value.code == "E-REQ-001"


def test_vectors_of_a_model_are_brought_to_length_one(tmp_path, monkeypatch):
    model = SimpleNamespace(encode=lambda texts: np.array([[3.0, 4.0], [0.0, 0.0]])[: len(texts)])
    package = SimpleNamespace(StaticModel=SimpleNamespace(from_pretrained=lambda folder: model))
    monkeypatch.setitem(sys.modules, "model2vec", package)
    vectors = embedder(str(tmp_path))(["mill", ""])
    assert vectors.tolist() == [[0.6, 0.8], [0.0, 0.0]]
