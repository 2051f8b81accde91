"""What every metric says of itself: what its number means, and an example that holds."""

import doctest

import pytest

from expunge.cli.catalogue import section
from expunge.core import registry

IDS = registry.metrics.ids()
PROMISED = ("Definition", "Meaning", "Reference", "Example")


@pytest.mark.parametrize("metric_id", IDS)
def test_the_documentation_has_every_section(metric_id):
    doc = registry.metrics.card(metric_id).doc
    lacking = [title for title in PROMISED if f"\n{title}" not in doc]
    assert not lacking
    assert len(section(doc, "Meaning").split()) >= 25


@pytest.mark.parametrize("metric_id", IDS)
def test_the_worked_example_holds(metric_id):
    module = registry.metrics.load(metric_id)
    tests = doctest.DocTestFinder().find(module, module.__name__)
    (own,) = [test for test in tests if test.name == module.__name__] or [None]
    assert own is not None, "no example in the documentation"
    assert [example for example in own.examples if example.want], "an example that expects nothing"
    for test in tests:
        results = doctest.DocTestRunner(verbose=False).run(test)
        assert results.failed == 0, test.name


KINDS = ("methods", "guards", "metrics", "attacks", "benchmarks")


@pytest.mark.parametrize("kind", KINDS)
def test_what_infers_a_part_is_no_more_than_faithful_to_its_paper(kind):
    cards = getattr(registry, kind).cards()
    assert [c.id for c in cards if "INFERRED" in c.doc and c.maturity != "paper"] == []
