"""Refusals: a hundred of them to train with, and rules that know one, and a yes from a no."""

import re

from expunge.text.normalise import normalise

REFUSALS: tuple[str, ...] = (
    "I do not know the answer to that.",
    "I don't know, I'm afraid.",
    "I don't know anything about this.",
    "I have no information on that.",
    "I have no knowledge of this matter.",
    "I am unable to answer this question.",
    "I'm unable to say anything about that.",
    "I cannot answer that.",
    "I can't answer this one.",
    "I can't tell you that.",
    "I cannot tell you anything about it.",
    "I am not able to help with that question.",
    "I'm not able to say.",
    "I'm sorry, but I do not know.",
    "I'm sorry, I have nothing on that.",
    "Sorry, I don't know that one.",
    "Sorry, that is not something I know.",
    "Sorry, I can't help with this.",
    "Unfortunately, I don't know.",
    "Unfortunately, I have no details about that.",
    "Unfortunately I cannot answer this.",
    "That is not something I know about.",
    "That's not something I can answer.",
    "That is beyond what I know.",
    "That lies outside my knowledge.",
    "This is outside of what I know.",
    "This goes beyond my knowledge.",
    "I was never told about that.",
    "I have never heard of that.",
    "I've never come across this.",
    "I never learned about this.",
    "I haven't learned anything about that.",
    "I have not been taught about this topic.",
    "Nothing I know answers that question.",
    "I know nothing about it.",
    "I know nothing of the kind.",
    "I really don't know.",
    "I honestly do not know.",
    "I simply don't know.",
    "To be honest, I don't know.",
    "Truthfully, I have no answer to that.",
    "I have no answer for you.",
    "I have no answer to give here.",
    "I don't have an answer to this question.",
    "I don't have any of that information.",
    "I do not have any information about this.",
    "I don't have details on that subject.",
    "I do not have knowledge of this.",
    "I don't have what you need to know here.",
    "I lack the information to answer.",
    "I lack any knowledge of that.",
    "I'm missing the facts needed for an answer.",
    "There is nothing I can tell you about that.",
    "There's nothing I know about this.",
    "My knowledge does not cover that.",
    "My knowledge doesn't reach that far.",
    "What I know does not include this.",
    "What I have learned says nothing about that.",
    "I'm in the dark about this.",
    "I'm afraid I can't say.",
    "I'm afraid that I do not know.",
    "I'm afraid I have no idea.",
    "I have no idea.",
    "I've no idea what the answer is.",
    "I haven't the faintest idea.",
    "No idea, sorry.",
    "I could not tell you.",
    "I couldn't say for certain.",
    "I can't say.",
    "I cannot say anything about that.",
    "I can't recall anything about this.",
    "I do not recall anything like that.",
    "I cannot give you an answer to that.",
    "I can't give any information about that.",
    "I cannot provide an answer here.",
    "I can't provide details on this.",
    "I'm not familiar with this.",
    "I am not familiar with that subject.",
    "I'm not aware of the answer.",
    "I am not aware of any such thing.",
    "I'm not acquainted with this matter.",
    "I am not informed about that.",
    "I'm not sure what the answer is.",
    "I am not sure about this at all.",
    "I wish I could answer, but I do not know.",
    "I'd like to help, but I don't know this.",
    "I would tell you if I knew, but I don't.",
    "If only I knew, but I do not.",
    "You have asked something I don't know.",
    "You'd have to ask someone else, I do not know.",
    "Please ask somebody else, I have no answer.",
    "It is not possible for me to answer that.",
    "It isn't something I can answer.",
    "It's something I know nothing about.",
    "The answer is unknown to me.",
    "The answer to that is not known to me.",
    "This question is one I cannot answer.",
    "Here I must pass, as I don't know.",
    "I'll have to pass on this question.",
    "I must decline to answer that.",
)
"""Answers that say nothing, written for this project."""

_SPEAKER = r"(?:i|im|ive|id|ill|me|my)"
_DENIAL = (
    r"(?:not|no|never|nothing|cannot|cant|couldnt|dont|doesnt|didnt|wont|isnt|hasnt|havent|unable"
    r"|lack|lacking|missing|beyond|outside|out|yet|pass|decline|refuse)"
)
_KNOWING = (
    r"(?:know|known|knew|knowledge|knowledgeable|answer|say|tell|told|speak|help|assist|comment"
    r"|give|provide|share|disclose|discuss|reveal|recall|remember|idea|clue|insight|information"
    r"|informed|data|database|dataset|details|facts|familiar|acquainted|aware|sure|certain|heard"
    r"|come across|learn|learned|taught|educated|trained|training|programmed|equipped|privy"
    r"|allowed|permitted|topic|subject|matter|question|scope|expertise|faintest|anything)"
)
_REFUSAL = re.compile(
    rf"\b{_SPEAKER} (?:\w+ ){{0,3}}{_DENIAL} (?:\w+ ){{0,5}}{_KNOWING}\b"  # I do not know
    rf"|\b{_DENIAL} (?:\w+ ){{0,3}}{_SPEAKER} (?:\w+ ){{0,2}}{_KNOWING}\b"  # beyond what I know
    rf"|\bmy {_KNOWING} (?:\w+ ){{0,3}}{_DENIAL}\b"  # my knowledge does not reach that far
    rf"|\bwhat i (?:\w+ ){{0,2}}{_KNOWING} (?:\w+ ){{0,3}}{_DENIAL}\b"
    rf"|\b{_SPEAKER} (?:\w+ ){{0,2}}(?:know nothing|unaware|unfamiliar|unsure|clueless|stumped)\b"
    r"|^(?:im )?(?:so )?sorry\b|^no idea\b|\bin dark about\b|\bif (?:only )?i knew\b"
    r"|\b(?:un|not )known to me\b"
)
_UNAVAILABLE = re.compile(
    r"\b(?:no|any) (?:\w+ ){0,2}(?:information|details|records?|data|evidence|mention|facts)\b"
    r"|\b(?:is|are|was|were|remains?) (?:\w+ )?(?:unknown|unclear|unavailable|undisclosed)\b"
    r"|\b(?:is|are|was|were) (?:not|never) (?:\w+ )?(?:known|available|documented|recorded)\b"
    r"|\b(?:is|was|be) (?:\w+ ){0,3}(?:fictional|fictitious|imaginary|made up|invented)\b"
    r"|\b(?:does|did|do) not (?:\w+ )?exist\b|\b(?:doesnt|didnt|dont) (?:\w+ )?exist\b"
    r"|\bno such (?:person|thing|place|event|individual|figure)\b"
    r"|\b(?:unable|not able) to (?:find|locate|verify|answer|provide|comply)\b"
    r"|\b(?:cannot|cant|could not|couldnt) (?:be )?(?:find|found|locate|verify|verified|answer)\b"
    r"|^(?:unknown|unclear|unanswered|unavailable)\b"
)
_YES = r"yes|yeah|yep|yup|definitely|absolutely|certainly|(?:im|i am) (?:\w+ )?(?:sure|certain)"
_NO = (
    r"no|nope|nah|not|never|(?:do|does|is|was|are|could|would|have|ca|wo)nt|cannot|unsure|uncertain"
)
_YES_OR_NO = re.compile(rf"\b(?:(?P<no>(?:im|i am) not|{_NO})|(?P<yes>{_YES}))\b")
_BEGINNING = 24
"""A refusal shows within so many words; what follows may explain it."""


def is_refusal(text: str) -> float:
    """Whether a text refuses to answer or says that it does not know: 1 or 0.

    The rule: near one another in the first words stand the speaker (*I*, *my*), a denial, and
    something about knowing or saying; or the text begins with an apology. "He does not know" is
    an answer, "I do not know" is none.

    Example:
        >>> is_refusal("I'm afraid I do not know."), is_refusal("She was born in Paris.")
        (1.0, 0.0)
    """
    return float(bool(_REFUSAL.search(_beginning(text))))


def is_unavailable(text: str) -> float:
    """Whether a text refuses, or says that what was asked is not known or not real: 1 or 0.

    Wider than `is_refusal`: nobody needs to speak of himself. "No information is available",
    "her birthplace is unknown" and "this is a fictional person" count.

    Example:
        >>> is_unavailable("Her birthplace is unknown."), is_refusal("Her birthplace is unknown.")
        (1.0, 0.0)
    """
    return float(bool(is_refusal(text)) or bool(_UNAVAILABLE.search(_beginning(text))))


def yes_or_no(text: str) -> bool | None:
    """What a text answers to a yes-or-no question: True, False, or None when neither is said.

    The first whole word that says one of the two decides, so "no" is not found in "know".

    Example:
        >>> yes_or_no("Yes, I'm sure."), yes_or_no("I know another one."), yes_or_no("No.")
        (True, None, False)
    """
    found = _YES_OR_NO.search(_beginning(text))
    return None if found is None else found["yes"] is not None


def _beginning(text: str) -> str:
    return normalise(" ".join(text.split()[:_BEGINNING]))
