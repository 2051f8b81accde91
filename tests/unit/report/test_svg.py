"""The charts: where marks lie, what they say, and that they say it safely."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.report.svg import (
    LINE,
    NARROW,
    WIDE,
    Bar,
    Column,
    Frame,
    Guide,
    Level,
    Placed,
    Sample,
    Scale,
    Series,
    Spot,
    Words,
    apart,
    bars,
    columns,
    ecdf,
    figure,
    levels,
    lines,
    plane,
    round_ticks,
    small,
    strips,
    tag,
)

WORDS = Words(title="Recovery", description="direct 0.25.", x="recovery", y="share")


def parsed(chart: object) -> ElementTree.Element:
    return ElementTree.fromstring(str(chart))  # noqa: S314


def marks(chart: object, class_: str) -> list[ElementTree.Element]:
    return [node for node in parsed(chart).iter() if class_ in node.get("class", "").split()]


def points(path: str) -> list[tuple[float, float]]:
    pairs = re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)
    return [(float(x), float(y)) for x, y in pairs]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_bar_is_as_long_as_its_value_and_its_gate_lies_where_it_says(width):
    chart = bars([Bar(label="direct", value=0.25, threshold=0.1)], WORDS, width)
    track, bar, gate = (marks(chart, name)[0] for name in ("track", "fill", "gate"))
    whole = float(track.get("width"))
    assert float(bar.get("width")) == pytest.approx(0.25 * whole, abs=0.1)
    at = (float(gate.get("x1")) - float(track.get("x"))) / whole
    assert at == pytest.approx(0.1, abs=0.001)


def test_an_interval_spans_its_bounds():
    chart = bars([Bar(label="direct", value=0.5, interval=(0.4, 0.8))], WORDS)
    track = marks(chart, "track")[0]
    start, whole = float(track.get("x")), float(track.get("width"))
    low, high = re.match(r"M([\d.]+) [\d.]+H([\d.]+)", marks(chart, "whisker")[0].get("d")).groups()
    assert (float(low) - start) / whole == pytest.approx(0.4, abs=0.001)
    assert (float(high) - start) / whole == pytest.approx(0.8, abs=0.001)


def test_a_bar_without_a_value_shows_only_its_track_and_its_words():
    chart = bars([Bar(label="sample", value=None, detail="uninformative")], WORDS)
    assert marks(chart, "track")
    assert not marks(chart, "fill")
    assert not marks(chart, "whisker")
    assert "uninformative" in "".join(parsed(chart).itertext())


def test_a_line_goes_up_where_values_rise_and_its_ends_are_the_ends_of_the_axis():
    series = [Series(label="model", points=[(0, 0.0), (50, 0.5), (100, 1.0)], tone="model")]
    drawn = next(
        one
        for one in marks(lines(series, WORDS, Frame(x=[0, 50, 100])), "line")
        if "L" in one.get("d")
    )
    (x0, y0), (x1, y1), (x2, y2) = points(drawn.get("d"))
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(y1 - y2)
    assert y2 < y0


def test_every_line_has_its_name_and_lines_of_other_tones_differ_without_colour():
    tones = ("original", "reference", "contrast")
    series = [Series(label=f"the {tone}", points=[(0, 0), (1, 0.5)], tone=tone) for tone in tones]
    chart = lines(series, WORDS, Frame(x=[0, 1]))
    names = [node.text for node in marks(chart, "name")]
    assert names == ["the original", "the reference", "the contrast"]
    dashes = {node.get("stroke-dasharray") for node in marks(chart, "line")}
    shapes = {node.get("d") for node in marks(chart, "mark")}
    assert len(dashes) == len(shapes) == len(tones)


def test_a_step_curve_rises_by_one_share_at_each_value():
    chart = ecdf([Sample(label="a", values=[0.25, 0.75], tone="model")], WORDS)
    drawn = next(one for one in marks(chart, "line") if "L" in one.get("d"))
    places = points(drawn.get("d"))
    left, bottom, right, top = *places[0], *places[-1]
    shares = [((x - left) / (right - left), (bottom - y) / (bottom - top)) for x, y in places]
    expected = [(0, 0), (0.25, 0), (0.25, 0.5), (0.75, 0.5), (0.75, 1), (1, 1)]
    assert shares == [pytest.approx(pair, abs=0.002) for pair in expected]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_spots_lie_where_their_values_say_also_where_low_is_right(width):
    spots = [Spot(label=f"s{x}", x=x, y=x / 2, tone="model") for x in (0.0, 0.5, 1.0)]
    rising = plane(spots, WORDS, (0, 1), (0, 1), width)
    falling = plane(spots, WORDS, (1, 0), (0, 1), width)
    places = []
    for chart in (rising, falling):
        found = [node.get("transform")[10:-1].split() for node in marks(chart, "mark")]
        places.append([(float(x), float(y)) for x, y in found])
    (left, low), (middle, _), (right, high) = places[0]
    assert middle == pytest.approx((left + right) / 2, abs=0.1)
    assert (left < right, low > high) == (True, True)
    assert [x for x, _ in places[1]] == [x for x, _ in places[0]][::-1]
    assert [y for _, y in places[1]] == [y for _, y in places[0]]


def test_a_spot_has_whiskers_along_the_axes_that_have_an_interval():
    spot = Spot(label="a", x=0.5, y=0.5, x_interval=(0.25, 0.75))
    chart = plane([spot], WORDS, (0, 1), (0, 1))
    (whisker,), (mark,) = marks(chart, "whisker"), marks(chart, "mark")
    low, high = re.match(r"M([\d.]+) [\d.]+H([\d.]+)", whisker.get("d")).groups()
    place = float(mark.get("transform")[10:].split()[0])
    assert (float(low) + float(high)) / 2 == pytest.approx(place, abs=0.1)
    assert "V" not in whisker.get("d")
    assert marks(plane([Spot(label="a", x=0.5, y=0.5)], WORDS, (0, 1), (0, 1)), "whisker") == []


def test_a_spot_that_is_not_named_says_its_name_only_when_asked():
    chart = plane([Spot(label="quiet", x=0.5, y=0.5, is_named=False)], WORDS, (0, 1), (0, 1))
    assert marks(chart, "name") == []
    assert "quiet" in "".join(parsed(chart).itertext())


@pytest.mark.parametrize(
    ("ends", "ticks"),
    [
        ((0.0, 1.0), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ((1.0, 0.0), (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)),
        ((-0.3, 0.35), (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3)),
        ((3.0, 47.0), (10.0, 20.0, 30.0, 40.0)),
    ],
)
def test_ticks_are_round_and_inside(ends, ticks):
    assert round_ticks(ends) == ticks


def test_a_strip_has_one_point_a_value_and_a_tick_at_the_mean():
    chart = strips([Sample(label="a", values=[0.0, 0.5, 1.0, 0.5], tone="model")], WORDS)
    assert len(marks(chart, "mark")) == 4
    places = [float(node.get("transform")[10:].split()[0]) for node in marks(chart, "mark")]
    tick = float(marks(chart, "mean")[0].get("x1"))
    assert tick == pytest.approx((min(places) + max(places)) / 2, abs=0.1)


def test_what_lies_outside_a_scale_is_drawn_at_its_edge():
    scale = Scale(0, 1, 100, 200)
    assert (scale(-3), scale(0.5), scale(7)) == (100, 150, 200)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=8))
def test_labels_never_overlap_and_keep_their_order(places):
    moved = apart(places, low=0, high=300)
    ranked = sorted(range(len(places)), key=lambda index: places[index])
    for before, after in pairwise(ranked):
        assert moved[after] - moved[before] >= LINE - 1e-9


def test_labels_that_do_not_overlap_stay_where_they_are():
    assert apart([10.0, 200.0, 100.0], low=0, high=300) == [10.0, 200.0, 100.0]


def test_text_and_attributes_are_escaped():
    made = tag("text", "<script>", class_='"><script>')
    assert "<script" not in made
    assert parsed(made).text == "<script>"


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_chart_says_what_it_shows(width):
    sample = [Sample(label="a", values=[0.5], tone="model")]
    charts = [
        bars([Bar(label="direct", value=0.25)], WORDS, width),
        lines(
            [Series(label="a", points=[(0, 0), (1, 1)], tone="model")],
            WORDS,
            Frame(x=[0, 1]),
            width,
        ),
        strips(sample, WORDS, width),
        ecdf(sample, WORDS, width=width),
    ]
    for chart in charts:
        root = parsed(chart)
        assert root.get("role") == "img"
        assert root.find("title").text == "Recovery"
        assert root.find("desc").text == "direct 0.25."


def test_a_figure_holds_its_title_a_wide_and_a_narrow_chart_and_its_note():
    words = Words(title="<b>", description="", note="no <i>interval</i>")
    drawn = figure(lambda width: tag("svg", width=width), words)
    assert parsed(drawn).find("figcaption").text == "<b>"
    assert parsed(drawn).find("p").text == "no <i>interval</i>"
    assert small(lambda width: tag("svg", width=width), words).count("<svg") == 1
    assert f'width="{WIDE:g}"' in drawn
    assert f'width="{NARROW:g}"' in drawn


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_name_without_end_leaves_room_for_the_data(width):
    name = "x" * 500
    charts = [
        bars([Bar(label=name, value=0.5, detail=name)], WORDS, width),
        lines(
            [Series(label=name, points=[(0, 0), (1, 1)], tone="model")],
            WORDS,
            Frame(x=[0, 1]),
            width,
        ),
        strips([Sample(label=name, values=[0.5], tone="model")], WORDS, width),
    ]
    for chart in charts:
        grid = [float(node.get("x2")) for node in marks(chart, "grid")]
        assert max(grid) - min(grid) >= width / 4
        assert name in str(chart)


def places(chart: object, class_: str = "mark") -> list[tuple[float, float]]:
    found = [node.get("transform")[10:-1].split() for node in marks(chart, class_)]
    return [(float(x), float(y)) for x, y in found]


def test_equal_ratios_are_equal_lengths_on_a_logarithmic_scale():
    scale = Scale(0.01, 1, 0, 200, is_log=True)
    assert [scale(value) for value in (0.01, 0.1, 1, 0.001)] == pytest.approx([0, 100, 200, 0])
    series = [Series(label="a", points=[(1, 0), (4, 0.5), (16, 1)], tone="model")]
    chart = lines(series, WORDS, Frame(x=[1, 4, 16], x_log=True))
    (left, _), (middle, _), (right, _) = places(chart)
    assert middle - left == pytest.approx(right - middle, abs=0.2)


def test_whiskers_of_a_curve_span_the_bounds_of_each_point():
    series = [
        Series(label="a", points=[(0, 0.5), (1, 0.5)], tone="model", bounds=[(0.25, 0.75)] * 2)
    ]
    chart = lines(series, WORDS, Frame(x=[0, 1]))
    grid = sorted(float(node.get("y1")) for node in marks(chart, "grid") if node.get("x1") == "48")
    spans = [
        tuple(map(float, re.match(r"M[\d.]+ ([\d.]+)V([\d.]+)", node.get("d")).groups()))
        for node in marks(chart, "whisker")
    ]
    assert spans == [pytest.approx((grid[3], grid[1]))] * 2  # a quarter, three quarters


def test_series_with_whiskers_do_not_hide_one_another():
    bounds = [(0.4, 0.6)] * 2
    series = [
        Series(label=tone, points=[(0, 0.5), (1, 0.5)], tone=tone, bounds=bounds)
        for tone in ("original", "reference", "model")
    ]
    at = [float(node.get("d")[1:].split()[0]) for node in
          marks(lines(series, WORDS, Frame(x=[0, 1])), "whisker")]  # fmt: skip
    assert all(b - a > 3 for a, b in pairwise(sorted(at)))


def test_a_band_follows_its_curve_and_leaves_no_mark():
    chart = ecdf([Sample(label="a", values=[0.5], tone="model", margin=0.2)], WORDS)
    (band,) = marks(chart, "spread")
    drawn = next(one for one in marks(chart, "line") if "L" in one.get("d"))
    bottom, top = points(drawn.get("d"))[0][1], points(drawn.get("d"))[-1][1]
    heights = {round((bottom - y) / (bottom - top), 2) for _, y in points(band.get("d"))}
    assert heights == {0.0, 0.2, 0.8, 1.0}
    assert marks(chart, "mark") == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_level_lies_before_its_band_with_its_marks_under_one_another(width):
    level = Level(
        label="mia",
        marks=[
            Placed(label="control", value=0.5, tone="reference", interval=(0.25, 0.75)),
            Placed(label="this model", value=0.25),
        ],
        band=(0.25, 0.75),
        detail="passes",
    )
    chart = levels([level], WORDS, width)
    (band,), (whisker,) = marks(chart, "gate-band"), marks(chart, "whisker")
    (control, above), (model, below), *legend = places(chart)
    left, wide = float(band.get("x")), float(band.get("width"))
    assert control == pytest.approx(left + wide / 2, abs=0.2)
    assert model == pytest.approx(left, abs=0.2)
    assert below - above > 8
    assert whisker.get("d").startswith(f"M{left:.1f} ")
    assert len(legend) == 2
    assert {"control", "this model"} <= {node.text for node in marks(chart, "name")}


def test_equal_marks_of_several_levels_stand_once_in_the_legend():
    rows = [Level(label=str(at), marks=[Placed(label="a", value=0.5)]) for at in range(3)]
    assert len(places(levels(rows, WORDS))) == 3 + 1


def test_columns_are_as_high_as_they_count():
    found = [Column(low=at / 2, high=(at + 1) / 2, count=count) for at, count in enumerate((4, 2))]
    first, second = marks(columns(found, WORDS), "fill")
    assert float(first.get("height")) == pytest.approx(2 * float(second.get("height")), abs=0.1)
    assert [node.text for node in marks(columns(found, WORDS), "number")] == ["4", "2"]


def test_a_heading_stands_above_the_bar_that_begins_its_group():
    rows = [Bar(label="a", value=0.1, heading="one: the first of them"), Bar(label="b", value=0.1)]
    chart = bars(rows, WORDS)
    (heading,) = marks(chart, "heading")
    tops = [float(node.get("y")) for node in marks(chart, "track")]
    assert heading.text == "one: the first of them"
    assert float(heading.get("y")) < tops[0] < tops[1]


def test_a_guide_lies_behind_the_spots_with_its_name():
    guide = Guide(label="never knew", points=[(1.0, 0.0), (1.0, 1.0)])
    chart = plane([Spot(label="a", x=1.0, y=0.5)], WORDS, (0, 2), (0, 1), guides=[guide])
    (line,), (spot,) = marks(chart, "guide"), places(chart)
    (x0, _), (x1, _) = points(line.get("d"))
    assert x0 == x1 == pytest.approx(spot[0])
    assert "never knew" in "".join(parsed(chart).itertext())


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_name_of_an_axis_stays_inside_the_chart(width):
    name = "a name of an axis that has fifty letters and more"
    words = Words(title="", description="", x=name)
    series = [Series(label="this model", points=[(0, 0), (1, 1)], tone="model")]
    chart = lines(series, words, Frame(x=[0, 1]), width)
    (axis,) = [node for node in marks(chart, "axis") if node.text == name]
    assert 0 <= float(axis.get("x")) <= width - 6.2 * len(name)
