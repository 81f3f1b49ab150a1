"""The drawing: positions, labels, escaping, the legend, the small picture."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagas_framework.console.placing import edges, labels, scale
from sagas_framework.console.timeline import (
    Lane,
    Look,
    Mark,
    Picture,
    Pip,
    Shape,
    Span,
    Turn,
    draw,
    draw_pips,
    duration,
    legend,
)

DAY = 86400.0
HOSTILE = "<script>alert('x')</script> \"&\0\x1b[2J\ud800\u202egnp.exe\n"


def one(look: Look = Look.DONE, start: float = 0, end: float = 1, text: str = "", title: str = "") -> Picture:
    return Picture(
        "Timeline of order-1",
        "1 step done.",
        ("reserve",),
        (Span(0, Lane.FORWARD, look, start, end, text, title),),
    )


def drawn(picture: Picture) -> ElementTree.Element:
    """The picture, read back."""
    return ElementTree.fromstring(draw(picture))


def all_attributes(root: ElementTree.Element) -> list[tuple[str, str]]:
    return [pair for element in root.iter() for pair in element.attrib.items()]


def percents(root: ElementTree.Element) -> list[float]:
    return [float(value[:-1]) for _, value in all_attributes(root) if value.endswith("%")]


def words(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter() if element.tag.endswith("}text")]


# ---- lengths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.038, "38 ms"),
        (0.9996, "1 s"),
        (2.1, "2.1 s"),
        (30, "30 s"),
        (59.97, "1 min"),
        (252, "4 min 12 s"),
        (3599.8, "1 h"),
        (11100, "3 h 05 min"),
        (47.999 * 3600, "2 d"),
        (2 * DAY + 4 * 3600, "2 d 4 h"),
    ],
)
def test_a_length_is_told_in_two_units_at_most(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_twenty_milliseconds_stay_visible_beside_a_day() -> None:
    places = scale({0, 0.02, DAY})

    assert places[0.02] - places[0] > 5
    assert places[DAY] - places[0.02] > 5 * (places[0.02] - places[0])


def test_what_took_no_time_is_wide_enough_to_be_seen_even_at_the_end() -> None:
    picture = one(start=4, end=4)
    places = scale(picture.moments)

    left, right = edges(picture.spans[0], places)

    assert right - left == pytest.approx(0.7)
    assert right <= 100


# ---- what is safe ---------------------------------------------------------------------------------


def test_what_somebody_elses_code_said_stays_text() -> None:
    picture = Picture(
        name=HOSTILE,
        summary=HOSTILE,
        steps=(HOSTILE,),
        spans=(Span(0, Lane.FORWARD, Look.FAILED, 0, 40, HOSTILE, HOSTILE),),
        marks=(Mark(0, Lane.UNDO, Shape.STOP, 9, HOSTILE, HOSTILE),),
        turned=Turn(3, HOSTILE, HOSTILE),
    )

    svg = draw(picture)

    root = ElementTree.fromstring(svg)
    assert "<script" not in svg
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800-\udfff]", svg)
    assert svg.encode()
    assert any("<script>alert('x')</script>" in (element.text or "") for element in root.iter())


def test_the_label_of_the_small_picture_stays_text() -> None:
    root = ElementTree.fromstring(draw_pips([(Pip.DONE, Pip.NONE)], HOSTILE))

    assert root.get("aria-label", "").startswith("<script>alert('x')</script> \"&")


def test_a_strict_content_security_policy_holds() -> None:
    picture = Picture(
        "t", "s", ("a", "b"), (Span(0, Lane.UNDO, Look.FLIGHT, 0, 1, "x", "y"),), turned=Turn(1, "z"), now=2
    )

    names = {name for name, _ in all_attributes(drawn(picture))}

    assert "style" not in names
    assert "viewBox" not in names
    assert not any(name.startswith("on") or name.endswith("href") for name in names)


def test_a_page_with_picture_and_legend_has_every_id_once() -> None:
    picture = Picture(
        "t",
        "s",
        ("a",),
        tuple(Span(0, lane, look, n, n + 1) for n, look in enumerate(Look) for lane in Lane),
        tuple(Mark(0, Lane.UNDO, shape, n) for n, shape in enumerate(Shape)),
    )

    page = draw(picture) + "".join(sample for sample, _ in legend(picture))

    ids = re.findall(r' id="([^"]+)"', page)
    assert sorted(ids) == ["flight-fwd", "flight-undo", "hatch", "tl-name", "tl-text"]


def test_who_cannot_see_it_hears_name_and_summary() -> None:
    root = drawn(one())

    by_id = {element.get("id"): element.text for element in root.iter() if element.get("id")}
    assert [by_id[name] for name in root.get("aria-labelledby", "").split()] == [
        "Timeline of order-1",
        "1 step done.",
    ]


# ---- lines ----------------------------------------------------------------------------------------


def of_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if name in element.get("class", "").split()]


def test_an_ended_saga_has_no_line_for_now() -> None:
    root = drawn(one())

    assert of_class(root, "now") == []
    assert of_class(root, "turn") == []


def test_a_moving_saga_has_one() -> None:
    picture = Picture("t", "s", ("a",), now=5)

    (line,) = of_class(drawn(picture), "now")

    assert line.get("x1") == line.get("x2") == "98.0%"
    assert "now" in words(drawn(picture))


def test_now_at_the_very_beginning_is_said_to_the_right_of_its_line() -> None:
    (text,) = of_class(drawn(Picture("t", "s", ("a",), now=0)), "now-text")

    assert text.get("text-anchor") is None


def test_the_pivots_line_is_above_its_row() -> None:
    root = drawn(Picture("t", "s", ("a", "b", "c"), pivot=1))

    (line,) = of_class(root, "pivot")
    assert line.get("y1") == "80.5"


def test_where_it_turned_back_is_a_line_with_its_reason_and_a_tint_to_its_right() -> None:
    picture = Picture("t", "s", ("a",), (Span(0, Lane.FORWARD, Look.DONE, 0, 9),), turned=Turn(4, "because"))
    root = drawn(picture)

    (line,), (tint,), (text,) = (of_class(root, name) for name in ("turn", "back", "back-text"))
    assert tint.get("x") == line.get("x1")
    assert float(tint.get("x", "")[:-1]) + float(tint.get("width", "")[:-1]) == pytest.approx(100)
    assert text.text == "because"


def test_a_reason_stands_on_the_side_that_has_room_for_it() -> None:
    early = Picture("t", "s", ("a",), turned=Turn(1, "because of a reason"), now=DAY)
    late = Picture("t", "s", ("a",), turned=Turn(DAY, "because of a reason"), now=DAY + 1)

    sides = [of_class(drawn(picture), "back-text")[0].get("text-anchor") for picture in (early, late)]

    assert sides == [None, "end"]


def test_lengths_above_the_picture_have_room_and_are_not_said_twice() -> None:
    moments = (0.0, 0.02, 0.0201, 300.0, 300.001, 300.002, 600.0)
    picture = Picture("t", "s", ("a",), marks=tuple(Mark(0, Lane.FORWARD, Shape.LATE, at) for at in moments))

    told = [text.text for text in of_class(drawn(picture), "axis")]

    assert told == ["0", "+20 ms", "+5 min", "+10 min"]


def test_steps_that_were_never_reached_are_far() -> None:
    picture = Picture("t", "s", ("a", "b", "c"), (Span(0, Lane.FORWARD, Look.DONE, 0, 1),))

    assert picture.far == {"b", "c"}


# ---- labels ---------------------------------------------------------------------------------------


def test_labels_that_would_collide_stand_on_different_sides() -> None:
    picture = Picture(
        "t",
        "s",
        ("a",),
        (
            Span(0, Lane.FORWARD, Look.FAILED, 0, 300, "no answer in 5 min"),
            Span(0, Lane.FORWARD, Look.WAIT, 300, 310, "asked how it stands"),
        ),
        now=310,
    )
    places = scale(picture.moments)

    found = labels(picture, places)

    assert len(found) == 2
    first, second = (label.box(bold=True) for label in found.values())
    assert not first.meets(second)


def test_a_label_without_room_is_left_out_rather_than_drawn_over_another() -> None:
    spans = tuple(Span(0, Lane.FORWARD, Look.FAILED, n, n + 1, f"a long text {n}") for n in range(30))
    picture = Picture("t", "s", ("a",), spans)
    places = scale(picture.moments)

    found = labels(picture, places)

    assert 0 < len(found) < 30
    boxes = [label.box(bold=True) for label in found.values()]
    assert not any(one.meets(other) for one, other in combinations(boxes, 2))


def test_words_leave_the_picture_on_a_phone() -> None:
    root = drawn(one(text="38 ms"))

    (label,) = (element for element in root.iter() if element.text == "38 ms")
    assert "ann" in label.get("class", "").split()


# ---- the legend -----------------------------------------------------------------------------------


def test_the_legend_has_only_what_is_used() -> None:
    picture = Picture(
        "t",
        "s",
        ("a",),
        (Span(0, Lane.FORWARD, Look.DONE, 0, 1), Span(0, Lane.UNDO, Look.MANY, 1, 2)),
        (Mark(0, Lane.UNDO, Shape.LATE, 2),),
    )

    assert [text for _, text in legend(picture)] == [
        "forward, done",
        "failed or no answer",
        "late reply, changes nothing",
    ]


@pytest.mark.parametrize("shape", Shape)
def test_every_mark_is_in_the_legend_and_can_be_drawn(shape: Shape) -> None:
    picture = Picture("t", "s", ("a",), marks=(Mark(0, Lane.UNDO, shape, 2),))

    ((sample, text),) = legend(picture)

    assert text
    assert ElementTree.fromstring(sample).get("aria-hidden") == "true"
    assert percents(drawn(picture))


@pytest.mark.parametrize("lane", Lane)
@pytest.mark.parametrize("look", Look)
def test_every_bar_is_in_the_legend_and_can_be_drawn(look: Look, lane: Lane) -> None:
    picture = Picture("t", "s", ("a",), (Span(0, lane, look, 1, 2),))

    ((sample, text),) = legend(picture)

    assert text
    assert ElementTree.fromstring(sample).get("class") == "plot"


# ---- any picture ----------------------------------------------------------------------------------

moments = st.floats(0, 1e7)
lanes, texts = st.sampled_from(Lane), st.text(max_size=40)
spans = st.builds(
    lambda row, lane, look, ends, text: Span(row, lane, look, min(ends), max(ends), text, text),
    st.integers(0, 2),
    lanes,
    st.sampled_from(Look),
    st.tuples(moments, moments),
    texts,
)
marks = st.builds(Mark, st.integers(0, 2), lanes, st.sampled_from(Shape), moments, texts, texts)
pictures = st.builds(
    Picture,
    texts,
    texts,
    st.just(("a", "b", "c")),
    st.lists(spans, max_size=12).map(tuple),
    st.lists(marks, max_size=8).map(tuple),
    st.none() | st.integers(0, 2),
    st.none() | st.builds(Turn, moments, texts, texts),
    st.none() | moments,
)


@given(pictures)
def test_any_picture_is_well_formed_and_stays_within_its_place(picture: Picture) -> None:
    root = drawn(picture)

    assert all(0 <= percent <= 100 for percent in percents(root))
    for element in root.iter():
        if element.get("width", "").endswith("%"):
            assert float(element.get("x", "")[:-1]) + float(element.get("width", "")[:-1]) <= 100.01


# ---- the small picture ----------------------------------------------------------------------------


def test_the_small_picture_has_a_cell_per_step() -> None:
    cells = [(Pip.DONE, Pip.DONE), (Pip.FAILED, Pip.MOVING), (Pip.LEFT, Pip.NONE), (Pip.MOVING, Pip.FAILED)]

    root = ElementTree.fromstring(draw_pips(cells, "1 of 4 steps done"))

    classes = [element.get("class") for element in root]
    assert classes == ["f", "u", "x", "xo", "uo", "n", "fo", "x", "xo"]
    assert root.get("aria-label") == "1 of 4 steps done"
    assert root.get("viewBox") == "0 0 64 16"
