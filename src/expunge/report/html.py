"""Templates to pages: everything escaped, nothing fetched, nothing executed.

A page is one file. Its content policy allows its own style sheet and pictures inside the file, and
nothing else; it has no script to begin with. Text comes from data of unknown origin, so it is
cleaned of what could disturb a reader's view (control characters, marks that turn the direction of
writing) and then escaped by the templates, which do so for everything that is not markup of ours.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from expunge.report.words import count, interval, number, percent, seconds

if TYPE_CHECKING:
    from jinja2 import Environment

UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]"
)
"""Control characters, direction marks, zero-width characters, halves of characters."""

FILTERS: Mapping[str, Callable[..., str]] = {
    "number": number,
    "percent": percent,
    "interval": interval,
    "seconds": seconds,
    "count_words": count,
}


def page(template: str, **content: Any) -> str:
    """Fill a template.

    Args:
        template: Name of a template, without its endings.
        **content: What it shows; texts must have gone through `clean`.
    """
    return _environment().get_template(f"{template}.html.jinja").render(**content)


def clean(value: Any) -> Any:
    r"""A copy of a JSON value whose texts, keys included, show everything they hold.

    Example:
        >>> clean({"a": ["x\x00y"]})
        {'a': ['x\ufffdy']}
    """
    if isinstance(value, str):
        return UNSEEN.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {clean(key): clean(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [clean(part) for part in value]
    return value


@lru_cache(maxsize=1)
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("expunge.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment
