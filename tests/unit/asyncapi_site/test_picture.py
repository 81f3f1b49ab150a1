"""The picture of a system: well-formed, with a link for every side, and nothing of it is believed."""

from __future__ import annotations

from itertools import pairwise
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from sagas_framework.asyncapi import Operation, System, draw_system
from tests.unit.asyncapi.shop import of_the_kitchen, of_the_shop
from tests.unit.asyncapi_site.documents import answerer, asker, channel, document, operation

SVG: Final = "{http://www.w3.org/2000/svg}"


def address(operation: Operation) -> str:
    return f"http://docs.example/{operation.service}/#{operation.anchor}"


def drawn(system: System) -> Element:
    return ElementTree.fromstring(draw_system(system, address))


def links(picture: Element) -> list[tuple[str, str]]:
    """`(address, what is told of it)`, from the top down."""
    return [(link.get("href", ""), link.get("aria-label", "")) for link in picture.iter(f"{SVG}a")]


def words(picture: Element, kind: str) -> list[str]:
    return [text.text or "" for text in picture.iter(f"{SVG}text") if text.get("class") == kind]


def test_every_arrow_leads_into_the_page_of_the_service_on_its_side() -> None:
    picture = drawn(System.of({"shop": asker(), "kitchen": answerer()}))

    assert links(picture) == [
        ("http://docs.example/shop/#operation-request-send_kitchen.cook", "Shop sends kitchen.cook"),
        (
            "http://docs.example/kitchen/#operation-reply-receive_kitchen.cook",
            "Kitchen receives kitchen.cook",
        ),
        (
            "http://docs.example/kitchen/#operation-reply-receive_kitchen.cook",
            "Kitchen: answers to kitchen.cook: success, Closed, failure",
        ),
    ]


def test_services_queues_channels_and_answers_are_named() -> None:
    picture = drawn(System.of({"shop": asker(), "kitchen": answerer()}))

    assert words(picture, "name") == ["Shop", "Kitchen"]
    assert words(picture, "queue") == ["answers on shop.replies", "queue kitchen.commands"]
    assert words(picture, "label") == ["cook"]
    assert words(picture, "answers") == ["success, Closed, failure"]


def test_a_side_without_a_document_is_drawn_and_leads_nowhere() -> None:
    picture = drawn(System.of({"shop": asker(queue="elsewhere"), "kitchen": answerer()}))

    assert words(picture, "name") == ["Shop", "Received by nobody here", "Sent by nobody here", "Kitchen"]
    assert [told for _, told in links(picture)] == [
        "Shop sends kitchen.cook",
        "Shop: answers to kitchen.cook: success, Closed, failure",
        "Kitchen receives kitchen.cook",
        "Kitchen: answers to kitchen.cook: success, Closed, failure",
    ]
    nobody = [rect for rect in picture.iter(f"{SVG}rect") if "nobody" in rect.get("class", "")]
    assert len(nobody) == 2


def test_an_event_has_no_way_back() -> None:
    made = document("Any", operation("send", "note"), channels={"note": channel("notes", "note")})

    picture = drawn(System.of({"any": made}))

    assert words(picture, "answers") == []
    assert [told for _, told in links(picture)] == ["Any sends note"]


def test_what_undoes_and_what_asks_look_different() -> None:
    picture = drawn(System.of({"shop": of_the_shop(), "kitchen": of_the_kitchen()}))

    looks = {rect.get("class") for rect in picture.iter(f"{SVG}rect")}
    assert {"channel", "channel compensation", "channel settling"} <= looks


def test_rows_do_not_overlap_and_end_inside_the_picture() -> None:
    picture = drawn(System.of({"shop": of_the_shop(), "kitchen": of_the_kitchen()}))

    hits = [rect for rect in picture.iter(f"{SVG}rect") if rect.get("class") == "hit"]
    places = sorted({(int(hit.get("y", "")), int(hit.get("height", ""))) for hit in hits})
    bottom = [float(rect.get("y", "")) + float(rect.get("height", "")) for rect in picture.iter(f"{SVG}rect")]

    # A finger hits the right one: WCAG 2.2 asks for 24 pixels.
    assert {height for _, height in places} == {24}
    assert all(below - above >= 23 for (above, _), (below, _) in pairwise(places))
    assert max(bottom) <= float(picture.get("height", ""))


def test_a_long_name_is_cut_and_told_whole() -> None:
    name = "kitchen." + "very_" * 12 + "long"
    made = document("Any", operation("send", name), channels={name: channel("q", name)})

    picture = drawn(System.of({"any": made}))

    (label,) = words(picture, "label")
    assert label.endswith("…")
    assert len(label) < 35
    assert links(picture)[0][1] == f"Any sends {name}"


def test_whatever_a_document_holds_is_text() -> None:
    title = '<script>alert(1)</script> & "Söhne" \x00\u202e'
    made = document(title, operation("send", "note"), channels={"note": channel("<b>'\"&", "note")})
    system = System.of({"any": made})

    markup = draw_system(system, lambda _: "http://docs.example/?a=1&b=\"'<")

    picture = ElementTree.fromstring(markup)
    assert "<script" not in markup
    assert words(picture, "name")[
        0
    ] == '<script>alert(1)</script> & "Söhne" \N{REPLACEMENT CHARACTER}' * 1 + ("\N{REPLACEMENT CHARACTER}")
    assert links(picture)[0][0] == "http://docs.example/?a=1&b=\"'<"
    assert " style=" not in markup


def test_nothing_to_draw_is_an_empty_picture() -> None:
    assert links(drawn(System.of({}))) == []
