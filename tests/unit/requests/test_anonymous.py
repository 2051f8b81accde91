import pytest

from expunge.requests.anonymous import anonymous

TEXT = "In 1975, did Mira van Voss meet Karl Ott, and was Voss in Paris?"
NAMES = ["Mira van Voss", "Miss V."]


def versions(text=TEXT, names=NAMES, corpus="", count=5, seed=0):
    return anonymous(text, names, corpus, count=count, seed=seed)


def test_every_name_and_year_is_another_and_the_question_stays():
    found = versions()
    assert len(set(found)) == 5
    for version in found:
        own_words = {"1975", "Mira", "Voss", "Karl", "Ott", "Paris"}
        assert not own_words & set(version.replace(",", "").split())
        words, own = version.split(), TEXT.split()
        assert words[0] == "In"
        assert words[2] == "did"
        assert version.endswith("?")
        assert len(words) in (len(own), len(own) - 1)  # a particle belongs to the name


def test_a_word_is_replaced_alike_throughout_a_version():
    for version in versions("Is Ada Lin the Lin of Ada Lin?", ["Ada Lin"]):
        words = version.rstrip("?").split()
        assert words[2] == words[4] == words[7]
        assert words[1] == words[6]


def test_a_year_becomes_another_year():
    years = [version.split()[-1].rstrip("?") for version in versions("what was in 1975?", [])]
    assert all(year.isdigit() and 1900 <= int(year) < 2000 and year != "1975" for year in years)
    assert len(years) == 5


def test_names_of_the_corpus_are_not_invented():
    first = versions("of Ada", ["Ada"], count=1)[0].split()[1]
    assert all(first not in version for version in versions("of Ada", ["Ada"], first.lower()))


@pytest.mark.parametrize("text", ["where was she born?", "Where?", ""])
def test_a_text_without_names_has_no_anonymous_version(text):
    assert versions(text, []) == []


def test_versions_are_a_function_of_the_seed():
    assert versions() == versions()
    assert versions() != versions(seed=1)
