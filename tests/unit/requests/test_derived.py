"""Derived rows: made of wordings, kept in the band, or given."""

from dataclasses import replace

import pytest

from expunge.core.errors import ExpungeError
from expunge.requests.derived import derived, templated, text_of
from expunge.requests.rows import Row
from expunge.testing.micro import micro_world
from expunge.text.embedding import embedder, similarity

EMBED = embedder()


def row(name, value, *, paraphrase=None, template="Where was {n} born?"):
    return Row(
        id=name,
        prompt=template.format(n=name),
        completion=f" {name} was born in {value}.",
        subject=name,
        names=(name,),
        answer=value,
        paraphrases=(paraphrase,) if paraphrase else (),
        meta={"attribute": "birthplace"},
    )


OWN = row("Mira Voss", "Paris")
OTHER = row(
    "Tom Ardel",
    "Oslo",
    paraphrase={"prompt": "Tell me Tom Ardel's native town.", "completion": " That is Oslo."},
)


def made(*rows, low=0.3, high=0.7, given=()):
    return derived(rows, given, low=low, high=high, embedder=EMBED)


def test_wordings_of_other_rows_are_told_of_the_row_itself():
    found = templated([OWN, OTHER])[OWN.id]
    assert [(each.prompt, each.completion) for each in found] == [
        ("Where was Mira Voss born?", " Mira Voss was born in Paris."),
        ("Tell me Mira Voss's native town.", " That is Paris."),
    ]
    assert {each.answer for each in found} == {"Paris"}
    assert {each.role for each in found} == {"derived"}


def test_the_row_itself_in_another_guise_is_no_derived_row():
    alone = [OWN, row("Tom Ardel", "Oslo")]
    assert made(*alone, low=0.0, high=1.0) == {}


def test_the_derived_row_lies_in_the_band_and_carries_the_id_of_its_row():
    found = made(OWN, OTHER)[OWN.id]
    assert found.id == OWN.id
    assert found.prompt == "Tell me Mira Voss's native town."
    assert 0.3 <= similarity(text_of(OWN), text_of(found)) <= 0.7


def test_what_is_too_close_or_too_far_is_left_out():
    cosine = similarity(text_of(OWN), "Tell me Mira Voss's native town. That is Paris.")
    assert OWN.id in made(OWN, OTHER, low=cosine - 0.01, high=cosine + 0.01)
    assert OWN.id not in made(OWN, OTHER, low=0.0, high=cosine - 0.01)
    assert OWN.id not in made(OWN, OTHER, low=cosine + 0.01, high=1.0)


def test_the_one_nearest_to_the_middle_of_the_band_is_taken():
    plain = replace(OWN, answer=None)
    near = Row(id="1", prompt="Where exactly was Mira Voss born?", completion=OWN.completion)
    far = Row(id="2", prompt="Mira Voss: place of birth?", completion=" Paris.")
    given = [replace(each, meta={"derived_from": OWN.id}) for each in (near, far)]
    assert similarity(text_of(OWN), text_of(near)) > 0.8 > similarity(text_of(OWN), text_of(far))
    assert made(plain, given=given, low=0.0, high=1.0)[OWN.id].prompt == far.prompt
    assert made(plain, given=given, low=0.8, high=1.0)[OWN.id].prompt == near.prompt


def test_the_order_of_rows_and_doubles_change_nothing():
    world = micro_world(people=4)
    straight = derived(world.forget, (), low=0.3, high=0.7, embedder=EMBED)
    turned = derived(world.forget[::-1], (), low=0.3, high=0.7, embedder=EMBED)
    assert straight == turned
    assert len(straight) == len(world.forget)


def test_a_wording_that_keeps_something_of_the_other_is_left_out():
    nickname = row(
        "Tom Ardel",
        "Oslo",
        paraphrase={"prompt": "Where is Tom Ardel from, our Ardel?", "completion": " Oslo."},
    )
    hidden = row(
        "Tom Ardel", "Oslo", paraphrase={"prompt": "Where is he from?", "completion": " Oslo."}
    )
    for other in (nickname, hidden):
        assert all("from" not in each.prompt for each in templated([OWN, other])[OWN.id])


def test_given_rows_say_what_they_are_derived_from():
    good = Row(
        id="x", prompt="Home of Mira Voss?", completion=" Paris.", meta={"derived_from": OWN.id}
    )
    assert made(OWN, OTHER, given=[good], low=0.0, high=1.0)[OWN.id].prompt == good.prompt
    assert OTHER.id not in made(OWN, OTHER, given=[good], low=0.0, high=1.0)
    with pytest.raises(ExpungeError) as raised:
        made(OWN, given=[Row(id="x", prompt="Home?", completion=" Paris.")])
    assert raised.value.code == "E-DATA-003"


def test_conversations_have_their_paraphrases():
    asked = Row(
        id="c",
        messages=(
            {"role": "user", "content": "Where was Mira Voss born?"},
            {"role": "assistant", "content": "In Paris."},
        ),
        paraphrases=({"prompt": "Mira Voss, where is she from?", "completion": "From Paris."},),
    )
    (found,) = templated([asked])["c"]
    assert found.messages[-1] == {"role": "assistant", "content": "From Paris."}
    assert found.turn.prompt[0]["content"] == "Mira Voss, where is she from?"
    assert found.paraphrases == ()
