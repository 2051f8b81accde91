"""``expunge metrics``: list the metrics, or show one."""

from expunge.cli.catalogue import Id, answer
from expunge.cli.output import Answer, command
from expunge.core import registry


@command
def metrics(id: Id = None) -> Answer:
    """List the metrics, or show one: formula, parameters, paper, maturity."""
    return answer(registry.metrics, id)
