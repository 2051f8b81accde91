"""Foreign text without the parts that are about somebody: sentences, lines, values of JSON."""

import json
import re
from collections.abc import Callable
from typing import Any

Fires = Callable[[str], bool]

_PIECE = re.compile(r".+?(?:(?<=[.!?;])\s+|\n+|\Z)", re.DOTALL)
_GONE = object()


def pruned(text: str, fires: Fires) -> str:
    """What is left of a text without the parts that fire.

    Of a JSON value rows and members are left out, of any other text sentences and lines. Where
    what is left still fires as a whole, nothing is left.

    Args:
        text: What a tool or retrieval brought.
        fires: Whether a text is about a target.

    Example:
        >>> pruned("Ada sang. Bo slept.", lambda text: "Ada" in text)
        'Bo slept.'
        >>> pruned('[{"who": "Ada", "n": 1}, {"who": "Bo"}]', lambda text: "Ada" in text)
        '[{"who": "Bo"}]'
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict | list):
        rest = _kept(value, fires)
        left = "" if rest is _GONE else json.dumps(rest, ensure_ascii=False)
    else:
        left = "".join(piece for piece in _PIECE.findall(text) if not fires(piece))
    return "" if fires(left) else left


def _kept(value: Any, fires: Fires) -> Any:
    """A JSON value without what fires; a row of which a plain member fires is gone as a whole."""
    if isinstance(value, list):
        rows = [_kept(one, fires) for one in value]
        return [one for one in rows if one is not _GONE]
    if isinstance(value, dict):
        if any(fires(f"{name} {one}") for name, one in value.items() if not _is_nest(one)):
            return _GONE
        rest = {name: _kept(one, fires) for name, one in value.items() if not fires(name)}
        return {name: one for name, one in rest.items() if one is not _GONE}
    return _GONE if fires(str(value)) else value


def _is_nest(value: object) -> bool:
    return isinstance(value, dict | list)
