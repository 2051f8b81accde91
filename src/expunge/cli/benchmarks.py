"""``expunge benchmarks``: list the benchmarks, or show one."""

from expunge.cli.catalogue import Id, answer
from expunge.cli.output import Answer, command
from expunge.core import registry


@command
def benchmarks(id: Id = None) -> Answer:
    """List the benchmarks, or show one: formula, parameters, paper, maturity."""
    return answer(registry.benchmarks, id)
