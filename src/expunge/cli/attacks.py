"""``expunge attacks``: list the attacks, or show one."""

from expunge.cli.catalogue import Id, answer
from expunge.cli.output import Answer, command
from expunge.core import registry


@command
def attacks(id: Id = None) -> Answer:
    """List the attacks, or show one: formula, parameters, paper, maturity."""
    return answer(registry.attacks, id)
