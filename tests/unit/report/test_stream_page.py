"""The page of a stream: every request is there, the plot tells the numbers, strangers are safe."""

from typing import Any

from expunge.report import render_stream
from expunge.report.stream import still_known


def known(*shares: float) -> list[dict[str, float]]:
    return [{"nll": 1.0, "accuracy": share} for share in shares]


def after(kept: float, *shares: float) -> dict[str, Any]:
    return {"kept": {"retain": {"nll": 0.5, "accuracy": kept}}, "requests": known(*shares)}


def record(name: str = "gdpr-1") -> dict[str, Any]:
    looks = [after(0.97, 0.125, 0.875, 1.0), after(0.94, 0.25, 0.0625, 1.0)]
    requests: list[dict[str, Any]] = [
        {"id": f"{name}", "rows": 10, "status": "done", "out": "s/0001", "about": {},
         "summary": {"steps": 7}, "after": looks[0], "digest": "a"},
        {"id": "second", "rows": 30, "status": "unchanged", "out": "s/0001", "about": {},
         "summary": {"why": "nothing"}, "after": looks[1], "digest": "b"},
    ]  # fmt: skip
    return {
        "format": "unlearning-stream/1", "out": "s", "anchor": "previous", "method": "npo",
        "original": after(1.0, 0.98, 0.96, 1.0), "requests": requests, "model": "s/0001",
    }  # fmt: skip


def test_every_request_stands_there_with_its_numbers() -> None:
    html = render_stream(record())
    assert "gdpr-1" in html
    assert "nothing to do" in html
    for share in ("98%", "12", "6", "25%", "94%"):
        assert share in html


def test_the_plot_weighs_requests_by_their_rows() -> None:
    chart = str(still_known(record()))
    asked = (10 * 0.25 + 30 * 0.0625) / 40
    assert f"asked for so far {asked:.0%}" in chart
    assert "retain 94%" in chart


def test_without_requests_there_is_a_sentence() -> None:
    empty = {**record(), "requests": []}
    assert still_known(empty) is None
    assert "No plot" in render_stream(empty)


def test_a_name_cannot_write_into_the_page() -> None:
    html = render_stream(record("<script>alert(1)</script>\u202e"))
    assert "<script>alert" not in html
    assert "\u202e" not in html
