"""Knowledge retention: entities still there, and nothing against them."""

from expunge.testing.metrics import measure

LONG = "She taught with Ada Birk in Rome until the war of 1914 began."


def rate(said, forms, **more):
    params = {name: more.pop(name) for name in ("threshold",) if name in more}
    return measure("knowledge-retention", {"generation": said, "forms": forms, **more}, **params)


def test_share_of_answers_that_name_the_entity():
    assert rate(["In Roma.", "In Bari."], [["Rome", "Roma"]] * 2).mean == 0.5


def test_it_must_be_above_the_threshold():
    assert rate(["Ada Birk in Rome."], [[LONG]], threshold=0.6).mean == 1
    assert rate(["Ada Birk in Rome."], [[LONG]], threshold=0.7).mean == 0


def test_a_contradiction_is_no_knowledge():
    assert rate(["Rome", "Rome"], [["Rome"]] * 2, contradicts=[False, True]).mean == 0.5


def test_it_is_no_mere_complement_of_forgetting():
    scores = {"generation": ["Ada Birk."], "forms": [[LONG]]}
    at = 1 / 3  # one of the three entities: neither below nor above
    assert measure("knowledge-retention", scores, threshold=at).mean == 0
    assert measure("knowledge-forgetting", scores, threshold=at).mean == 0
