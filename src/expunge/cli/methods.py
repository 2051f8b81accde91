"""``expunge methods``: list the methods, or show one."""

from expunge.cli.catalogue import Id, answer
from expunge.cli.output import Answer, command
from expunge.core import registry


@command
def methods(id: Id = None) -> Answer:
    """List the methods, or show one: formula, parameters, paper, maturity."""
    return answer(registry.methods, id)
