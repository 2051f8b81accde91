"""Latin letters written in other alphabets, by sound and one by one.

Good enough to be read and to be recognised as the same name; no language's spelling rules.
"""

import re
import unicodedata
from collections.abc import Mapping

_LATIN = "a b c d e f g h i j k l m n o p q r s t u v w x y z"


def _table(letters: str, more: str) -> dict[str, str]:
    """One spelling for each letter, and for groups of letters, given as ``group=spelling``."""
    table = dict(zip(_LATIN.split(), letters.split(), strict=True))
    return table | dict(pair.split("=") for pair in more.split())


SCRIPTS: Mapping[str, Mapping[str, str]] = {
    "cyrillic": _table(
        "а б к д е ф г х и дж к л м н о п к р с т у в в кс и з",
        "sch=ш sh=ш ch=ч kh=х zh=ж ts=ц ya=я yu=ю yo=ё ph=ф th=т ck=к",
    ),
    "greek": _table(
        "α β κ δ ε φ γ χ ι τζ κ λ μ ν ο π κ ρ σ τ ου β ου ξ υ ζ",
        "th=θ ph=φ ch=χ kh=χ ps=ψ ou=ου ck=κ",
    ),
    "armenian": _table(
        "ա բ կ դ ե ֆ գ հ ի ջ կ լ մ ն ո պ ք ր ս տ ու վ վ քս յ զ",
        "sch=շ sh=շ ch=չ kh=խ zh=ժ ts=ց gh=ղ th=թ ph=փ ck=կ",
    ),
    "georgian": _table(
        "ა ბ კ დ ე ფ გ ჰ ი ჯ კ ლ მ ნ ო პ ქ რ ს ტ უ ვ ვ ქს ი ზ",
        "sch=შ sh=შ ch=ჩ kh=ხ zh=ჟ ts=ც gh=ღ th=თ ph=ფ ck=კ",
    ),
}
"""Alphabet -> Latin letters and groups of letters -> what is written for them."""

_GROUPS = {
    script: re.compile("|".join(sorted(table, key=len, reverse=True)), re.IGNORECASE)
    for script, table in SCRIPTS.items()
}


def transliterate(text: str, script: str) -> str:
    """A text in another alphabet; what is no Latin letter stays as it is.

    Args:
        text: Any text. Accents are left out.
        script: One of `SCRIPTS`.

    Example:
        >>> transliterate("Mira Voss", "cyrillic"), transliterate("Mira Voss", "greek")
        ('Мира Восс', 'Μιρα Βοσς')
    """
    table = SCRIPTS[script]

    def written(found: re.Match[str]) -> str:
        new = table[found[0].lower()]
        return new[0].upper() + new[1:] if found[0][0].isupper() and script != "georgian" else new

    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return re.sub(r"σ\b", "ς", _GROUPS[script].sub(written, plain))
