"""What the guard `agent-mu` does to a scripted agent, level by level, for the page of results.

The agent is a script that obeys its prompt, so the numbers say what the instruction, the memory and
the checks achieve if they are followed; how well a language model follows them they do not say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from expunge.core.registry import guards
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.fitting import fitted
from expunge.engine.guarding.pipeline import TEXT, Pipeline
from expunge.engine.guarding.targets import targets_of
from expunge.guards.agent_mu.conversion import LEVELS, MODES
from expunge.lab.agents.adversary import Ask
from expunge.lab.agents.trial import World, accuracy, walked, world
from expunge.lab.agents.walker import Agent

EPISODES = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One way to forget, at one level.

    Attributes:
        level: What is forgotten: a state, a trajectory, an environment.
        agent: ``original``, ``never knew``, or the mode of the guard in front of the original.
        visits: Episodes through what was to be forgotten, of `EPISODES` in one world.
        success: Share of these episodes that arrived.
        accuracy: How often the adversary guesses what was forgotten.
        chance: How often by guessing blindly.
    """

    level: str
    agent: str
    visits: int
    success: float
    accuracy: float
    chance: float


def study(worlds: int = 200, seed: int = 0) -> list[Line]:
    """Watch all agents at all levels.

    Args:
        worlds: Worlds in which the adversary guesses; it walks in the first that tells something.
        seed: Of the first world.
    """
    agents: dict[str, Callable[[World], Ask]] = {
        "original": lambda one: Agent(one.original.say).ask,
        "never knew": lambda one: Agent(one.never_knew.say).ask,
        **{mode: _guarded(mode) for mode in MODES},
    }
    lines = []
    for level in LEVELS:
        many = [world(level, seed + at, 1) for at in range(worlds)]
        long = telling(level, seed)
        lines += [_line(name, made, long, many, seed) for name, made in agents.items()]
    return lines


def telling(level: str, seed: int = 0, episodes: int = EPISODES) -> World:
    """The first world in which the original agent does what is to be forgotten, if one has such."""
    tried = [world(level, seed + at, episodes) for at in range(9)]
    return max(tried, key=lambda one: walked(Agent(one.original.say).ask, one).visits > 0)


def unlearned(one: World, mode: str) -> Pipeline:
    """The guard, told to make the agent of a world forget what that is about."""
    params = guards.params("agent-mu", {"mode": mode, "when": "always"})
    means = Means(secret=bytes(32))
    return Pipeline([fitted("agent-mu", targets_of([one.row]), params, means)], offers=TEXT)


def _guarded(mode: str) -> Callable[[World], Ask]:
    return lambda one: Agent(one.original.say, None, unlearned(one, mode)).ask


def _line(
    name: str, made: Callable[[World], Ask], long: World, many: Sequence[World], seed: int
) -> Line:
    done = walked(made(long), long)
    return Line(
        level=long.level,
        agent=name,
        visits=done.visits,
        success=done.success,
        accuracy=accuracy(made, many, seed),
        chance=1 / len(long.candidates),
    )
