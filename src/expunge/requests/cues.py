"""The form of a value, and the words that say of which kind it is."""

import re
from collections.abc import Iterable, Mapping

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_DATE = re.compile(
    r"\b\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b|\b\d{4}-\d{2}-\d{2}\b"
    r"|\b(?:January|February|March|April|May|June|July|August|September|October|November|December)"
    r" \d{1,2}(?:st|nd|rd|th)?,? \d{4}\b"
    r"|\b\d{1,2}(?:st|nd|rd|th)? (?:January|February|March|April|May|June|July|August|September"
    r"|October|November|December),? \d{4}\b"
)
_MONEY = re.compile(r"(?:[€£$¥₩₽₹]|\b[A-Z]{3})\s?\d[\d,.]*\d(?: on \d{1,2}/\d{1,2}/\d{4})?")
_STREETS = (
    "Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Terrace|Court|Ct|Way|Boulevard|Blvd|Place|Square"
    "|Row|Close|Crescent|Alley|Plaza|Highway"
)
_PLACE = re.compile(
    rf"\b\d{{1,5}}[A-Za-z]?\s+(?:[\w'.]+\s+){{0,4}}?(?:{_STREETS})\b\.?"
    r"(?:,\s*[A-Z][\w'.]*(?: [A-Z][\w'.]*)*)*"
    rf"|\b(?:[A-Z][\w'.]*\s+){{1,4}}?(?:{_STREETS})\s+\d{{1,4}}\b"
)
_NUMBER = re.compile(r"\b[A-Z]{0,4}\d[\dA-Z]*(?:(?: - |[ \-–])[\dA-Z]*\d[\dA-Z]*)*\b")
_GENDER = re.compile(r"\b(?:female|male|non-binary|woman|man)\b", re.IGNORECASE)
_SHAPES: Mapping[str, re.Pattern[str]] = {
    "email": _EMAIL,
    "date": _DATE,
    "money": _MONEY,
    "place": _PLACE,
    "number": _NUMBER,
    "gender": _GENDER,
}
"""Form -> what has it; what an earlier one has taken, a later one does not get."""

_CUES: Mapping[str, str] = {
    "phone": r"phone|mobile number|\bcall\b|contact number|reached (?:on|at)\b",
    "email": r"\be-?mail",
    "username": r"twitter|user ?name|handle|social media",
    "ssn": r"social security|\bssn\b",
    "passport": r"passport",
    "driver licence": r"driver'?s?'? licen[cs]e|driving licen[cs]e",
    "zip code": r"\bzip\b|postal code|postcode",
    "date of birth": r"\bborn\b|birth",
    "credit card": r"credit card|card number",
    "bank transaction": r"transaction|bank(?:ing)? activity|financial activity",
    "bank account": r"account number|bank account|\biban\b",
    "financial adviser": r"consultant|advis[eo]|financial guidance",
    "bank name": r"bank(?:ing|s)?\b(?! (?:account|transaction))|financial institution",
    "health insurance": r"insurance",
    "care provider": (
        r"doctor|physician|hospital|clinic\b|medical (?:institution|facility|center|care|services"
        r"|professional|attention)|\bcare (?:of|at|from)|healthcare (?:provider|professional)"
        r"|treated by\b"
    ),
    "medical": (
        r"medical condition|condition|diagnos|disease|treat(?:ment|ed (?:for|with))|medication"
        r"|prescri|therapy|suffer|monitored for|health (?:issue|problem)|medical records?"
    ),
    "occupation": (
        r"\brole\b|occupation|profession|\bjob\b|works? as|working as|serv\w+ as|position"
        r"|employed as|career"
    ),
    "work address": (
        r"work(?:place)? address|business address|\boffice\b|workplace|works at|\bwork\b"
        r"|employed at|work address|business location"
    ),
    "gender": r"gender|identif(?:y|ies) as|\bsex\b",
    "detailed address": (
        r"street address|home address|residential address|resid\w+|\blives at|\baddress\b|\bhome\b"
    ),
    "region address": r"\btown\b|\bcity\b|\blives in\b|resid\w+ in\b|region|country of",
    "name": r"^\s*who\b|full name|\bname of\b|names? is\b",
}
"""Kind -> words that announce it."""
CUED = {kind: re.compile(words, re.IGNORECASE) for kind, words in _CUES.items()}

WORDED = frozenset({
    "username", "financial adviser", "bank name", "care provider", "medical", "occupation",
    "region address", "name", "detailed address", "work address",
})  # fmt: skip
KINDS_OF_FORM: Mapping[str, frozenset[str]] = {
    "email": frozenset({"email"}),
    "date": frozenset({"date of birth", "passport", "bank transaction"}),
    "money": frozenset({"bank transaction"}),
    "place": frozenset({"detailed address", "work address"}),
    "number": frozenset({
        "phone", "ssn", "passport", "driver licence", "zip code", "credit card", "bank account",
        "health insurance",
    }),
    "gender": frozenset({"gender"}),
    "words": WORDED,
}  # fmt: skip
"""Form -> kinds that may have it."""

_SURE = (
    ("care provider", re.compile(r"(?:Dr|Doctor)\b\.? ?[A-Z]")),
    (
        "care provider",
        re.compile(
            r".*\b(?:Hospital|Clinic|[Kk]lini[kc]\w*|Medical (?:Cent(?:er|re)|Care)|Infirmary)\b"
        ),
    ),
    ("bank name", re.compile(r".*\b(?:Bank|Trust|Credit Union)$")),
    ("occupation", re.compile(r"(?:[A-Z]\w+ )+at [A-Z]")),
    ("username", re.compile(r"(?:@?[a-z]\w*(?:[._]\w+)+|@[\w.]+|[a-z]+\d{2,})$")),
    ("bank account", re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{10,30}")),
    ("ssn", re.compile(r"\d{3}-\d{2}-\d{4}")),
)
"""Kinds that the form of a value alone tells."""


def values_of(text: str) -> list[tuple[str, str]]:
    """What has the form of a value, with its form, in the order of the text.

    Example:
        >>> values_of("Born on 3 May 1931, she lives at 12 Mill Lane.")
        [('date', '3 May 1931'), ('place', '12 Mill Lane')]
    """
    taken: list[tuple[int, int, str]] = []
    for form, pattern in _SHAPES.items():
        for match in pattern.finditer(text):
            start, end = match.span()
            if all(end <= a or start >= b for a, b, _ in taken):
                taken.append((start, end, form))
    return [(form, text[start:end].rstrip(".")) for start, end, form in sorted(taken)]


def form_of(value: str) -> str:
    """The form of a value that stands alone; ``words`` where it has none of its own."""
    for form, pattern in _SHAPES.items():
        if pattern.fullmatch(value):
            return form
    if re.search(r"[^\W\d_][\w.]* .*\b\d{1,4}\b", value):
        return "place"
    return "words"


def kind_of(value: str, form: str, question: str, answer: str) -> str | None:
    """The kind of a value: by its own form, by the nearest cue, by what was asked.

    A cue behind the value is half as near as one before it.

    Args:
        value: The value.
        form: Its form, see `form_of`.
        question: What was asked.
        answer: Where the value is told.

    Returns:
        A kind that goes with the form; None where nothing says one.
    """
    fitting = KINDS_OF_FORM[form]
    sure = [kind for kind, shape in _SURE if kind in fitting and shape.match(value)]
    if len(fitting) == 1:
        (only,) = fitting
        return only if only != "gender" or cues_of(f"{question} {answer}", fitting) else None
    if sure:
        return sure[0]
    start = max(answer.find(value), answer.find(value.split(" on ", maxsplit=1)[0]))
    said = cues_of(answer, fitting) if start >= 0 else []
    end = start + len(value)
    apart = [
        (start - b if b <= start else 2 * (a - end) + 12, kind)
        for a, b, kind in said
        if b <= start or a >= end
    ]
    if apart:
        return min(apart)[1]
    asked = cues_of(question, fitting)
    return asked[0][2] if asked else None


def cues_of(text: str, kinds: Iterable[str]) -> list[tuple[int, int, str]]:
    """Cues of these kinds as (start, end, kind), in the order of the text; the longest first."""
    found = [(*m.span(), kind) for kind in kinds for m in CUED[kind].finditer(text)]
    return sorted(found, key=lambda cue: (cue[0], -cue[1], cue[2]))
