"""The page in a real browser, where there is one: no script runs, and nothing overlaps."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hostile import INJECTIONS, RUN, SENTINEL, hostile_record
from report_records import audit_record, bare_record, story
from rich_records import rich_record
from test_compare_page import comparison

from expunge.report import render_audit, render_comparison, render_demo

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ALONE = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
MEASURE = """
<script>
addEventListener("load", () => {
  const seen = node => node.getClientRects().length > 0;
  const said = [];
  if (document.documentElement.scrollWidth > innerWidth) said.push("the page is too wide");
  for (const chart of document.querySelectorAll("svg.chart")) {
    if (!seen(chart)) continue;
    const name = chart.querySelector("title").textContent;
    const around = chart.closest("section").getBoundingClientRect();
    const boxes = [...chart.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
    boxes.forEach(([told, box], at) => {
      if (box.left < around.left || box.right > around.right) said.push(`${name}: ${told} leaves its card`);
      for (const [other, there] of boxes.slice(at + 1)) {
        const wide = Math.min(box.right, there.right) - Math.max(box.left, there.left);
        const high = Math.min(box.bottom, there.bottom) - Math.max(box.top, there.top);
        if (wide > 1 && high > 4) said.push(`${name}: ${told} overlaps ${other}`);
      }
    });
  }
  for (const cell of document.querySelectorAll("td, th, dd, .chips li")) {
    if (seen(cell) && cell.scrollWidth > cell.clientWidth + 2) said.push(`too wide: ${cell.textContent.trim()}`);
  }
  document.documentElement.setAttribute("data-found", JSON.stringify(said));
});
</script>
"""  # noqa: E501

PAGES = {
    "everything": lambda: render_audit(rich_record()),
    "fast": lambda: render_audit(audit_record()),
    "nothing": lambda: render_audit(bare_record()),
    "demo": lambda: render_demo(story()),
    "compare": lambda: render_comparison(comparison("audit")),
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]


def opened(html: str, folder: Path, width: int = 1280) -> str:
    """The document after the browser has loaded it."""
    (folder / "page.html").write_text(html, encoding="utf-8")
    command = [str(BROWSER), "--headless=new", "--disable-gpu", "--dump-dom", *ALONE,
               "--virtual-time-budget=3000", f"--user-data-dir={folder / 'profile'}",
               f"--window-size={width},2000", (folder / "page.html").as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=240, check=True)
    return done.stdout.decode("utf-8")


def test_the_browser_would_tell_if_a_script_ran(tmp_path):
    html = f"<!doctype html><html><body><p>x</p><script>{RUN}</script></body></html>"
    assert f"{SENTINEL}=" in opened(html, tmp_path)


@pytest.mark.parametrize("guarded", [True, False], ids=["as it is", "without its policy"])
def test_no_script_of_a_hostile_record_runs(guarded, tmp_path):
    html = render_audit(hostile_record("\n".join(INJECTIONS)) | {"redact": False})
    if not guarded:
        assert POLICY.search(html)
        html = POLICY.sub("", html)
    document = opened(html, tmp_path)
    assert "11</span> Limits" in document
    assert not re.search(f"<html[^>]*{SENTINEL}", document)


@pytest.mark.parametrize("width", [1280, 700, 375])
@pytest.mark.parametrize("page", PAGES)
def test_nothing_overlaps_or_leaves_its_place(page, width, tmp_path):
    html = POLICY.sub("", PAGES[page]()).replace("</head>", f"{MEASURE}</head>")
    document = opened(html, tmp_path, width)
    found = re.search(r'data-found="([^"]*)"', document)
    assert found is not None
    assert json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&")) == []
