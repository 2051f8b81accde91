"""Who answers typed questions: a model here, a server, or a classifier of word pieces.

Definition:
    Local      P(option) = softmax over the options of the next-token logits of their labels (Yes
               and No; A, B, ...), after the question in the model's chat template
    SystemOne  POST {url}/systemone   questions ``noul``, ``choice``, ``score``
    Decisions  POST {url}/decisions   questions ``predicate``, ``choice``, ``score``
    Worded     logistic regression on n-grams (`expunge.text.classifier`), one for each question
               it was taught; any other question is an error
    Calibrated P' proportional to P^(1/T), and yes above a threshold t; T and t fitted on texts
               whose answers are known:
                   T = argmin of the mean -log P'(right answer), in [1/20, 20]
                   t = the lowest value that at most a share of the no-texts exceeds

A model that was not tuned to decide is not calibrated: its probabilities rank texts, and only
`calibrate` makes a threshold of them mean something. Whatever an answer is that is not exactly of
the form asked for, it is an error and never a low probability.

Reference: On Calibration of Modern Neural Networks (2017), for the temperature. The wire forms are
those of the transformers and OpenAI documentation of 2026; both are young and may move.
"""

import os
from collections.abc import Mapping

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.deciders.calibrated import Calibrated, calibrate
from expunge.engine.guarding.deciders.local import Local
from expunge.engine.guarding.deciders.questions import OPTIONS
from expunge.engine.guarding.deciders.remote import Decisions, SystemOne
from expunge.engine.guarding.deciders.worded import Worded
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.talking import TOKEN, opened_model

__all__ = [
    "OPTIONS",
    "Calibrated",
    "Decisions",
    "Local",
    "SystemOne",
    "Worded",
    "calibrate",
    "read_decider",
]

PATHS: Mapping[str, type[SystemOne] | type[Decisions]] = {
    "/systemone": SystemOne,
    "/decisions": Decisions,
}
"""How the address of a server ends -> how it is asked."""


def read_decider(spec: str, *, environ: Mapping[str, str] = os.environ) -> Decider:
    """Who decides, as the command line says it.

    Args:
        spec: ``URL/systemone[#MODEL]``, ``URL/decisions[#MODEL]``, or the folder of a chat model.
        environ: Where the token of a server is looked up, under `TOKEN`.

    Raises:
        ExpungeError: ``E-USE-003`` for an address that ends in neither, and whatever the address
            or the folder has.
    """
    if "://" not in spec:
        return Local(opened_model(spec))
    place, _, model = spec.partition("#")
    for path, kind in PATHS.items():
        if place.endswith(path):
            return kind(place.removesuffix(path), model, token=environ.get(TOKEN))
    raise ExpungeError(
        "E-USE-003",
        "A server that decides, whose address ends in neither /systemone nor /decisions.",
        "URL/systemone, URL/decisions, or the folder of a chat model.",
        "Write the path that the server answers typed questions at.",
    )
