"""A strict reader of our pages: every element closed in order, nothing fetched or executed."""

import re
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img"}
FORBIDDEN = {"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject", "img"}
SECTION = re.compile("#[a-z]+")
"""A place in the page itself."""
FETCHING = {"src", "href", "xlink:href", "srcset", "action", "background", "poster", "data"}


class Page(HTMLParser):
    """Collects tags, attributes and text of one page, and complains about anything unsafe.

    Attributes:
        tags: Every element's name, in order.
        text: All text outside the style sheet.
        titles: Text of the ``title`` elements.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.titles: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        assert tag not in FORBIDDEN, f"<{tag}>"
        for name, value in attrs:
            assert not name.startswith("on"), f"{name} on <{tag}>"
            inside = name == "href" and tag == "a" and SECTION.fullmatch(value or "")
            assert inside or name not in FETCHING, f"{name} on <{tag}>"
            assert name != "style", f"a style on <{tag}>"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] == "title":
            self.titles.append(data)
