"""A scene is mapped, and looked at as tiles."""

import json
import re

import pytest
from on_page import COLOURS, DARK, FIELD, seen

SIZE = (700, 520)
WHOLE = "#swipe"  # as high as the map


@pytest.fixture(scope="module")
def job(browser, served, scene):
    """The address of a scene that was mapped once for all tests of this file."""
    page = browser.new_page(viewport={"width": 900, "height": 600})
    page.goto(served.url)
    page.locator("#model-name:not(:empty)").wait_for()
    page.set_input_files("#files", scene)
    page.locator("#legend li").first.wait_for(timeout=60_000)
    address = page.url
    page.close()
    return address


@pytest.fixture
def shown(new_page, served, job):
    page = new_page(served.url)
    page.goto(job)
    page.locator("#legend li").first.wait_for()
    page.locator("#swipe-on").uncheck()
    page.locator("#opacity").fill("100")
    return page


def middle(page):
    box = page.locator("#map").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def settled(page, x, y, colour):
    """Wait until a place has a colour: tiles come one by one."""
    for _ in range(600):
        if seen(page, x, y) == colour:
            return
        page.evaluate("() => new Promise(requestAnimationFrame)")
    raise AssertionError(f"{seen(page, x, y)} is not {colour}")


def test_a_scene_becomes_a_map_with_shares(shown):
    left, top, right, bottom = FIELD
    share = (right - left) * (bottom - top) / (SIZE[0] * SIZE[1]) * 100
    texts = [line.split("\n") for line in shown.locator("#legend li").all_inner_texts()]
    assert texts[1] == ["bright", f"{share:.0f} %"]
    assert texts[2] == ["Not found: water"]
    names = shown.locator("#downloads li").all_inner_texts()
    assert [name.split("\n")[0] for name in names] == ["Map", "Confidence", "Parcels"]


def test_zooming_and_moving_asks_for_the_tiles_that_come_into_view(shown):
    x, y = middle(shown)
    settled(shown, x, y, COLOURS["bright"])  # the middle of the scene is in the field
    for name, level in (("Zoom out", 0), ("Zoom in", 2)):
        with shown.expect_response(re.compile(rf"/tiles/map/{level}/\d+/\d+\.png")):
            for _ in range(2):
                shown.get_by_role("button", name=name).click()
    settled(shown, x, y, COLOURS["bright"])
    shown.mouse.move(x, y)
    shown.mouse.down()
    shown.mouse.move(x - 250, y - 100, steps=4)
    shown.mouse.up()
    settled(shown, x, y, COLOURS["dark"])  # right of the field and below it
    shown.get_by_role("button", name="bright").click()
    shown.get_by_role("button", name="dark").click()
    settled(shown, x, y, (DARK,) * 3)


def test_the_pointer_asks_the_server_for_a_pixel(shown):
    shown.mouse.move(*middle(shown))
    reading = shown.locator("#reading")
    reading.get_by_text("bright", exact=True).wait_for()
    shown.locator("#reading", has_text="98 %").wait_for()


def test_a_click_on_a_parcel_shows_its_attributes(shown):
    with shown.expect_response(re.compile("/parcels")):
        shown.locator("#parcels-on").check()
    card = shown.locator("#parcel")
    for _ in range(100):  # until the parcels are drawn
        shown.mouse.click(*middle(shown))
        if card.is_visible():
            break
    left, top, right, bottom = FIELD
    area, perimeter = (right - left) * (bottom - top), 2 * (right - left + bottom - top)
    text = card.inner_text()
    assert f"{area:,} m²" in text
    assert f"{perimeter:,} m" in text
    assert "bright" in text
    shown.locator("#parcels-on").uncheck()
    card.wait_for(state="hidden")


def test_a_scene_on_the_server_is_named(page):
    page.locator("#path").fill("valley.tif")
    page.get_by_role("button", name="Map it").click()
    page.locator("#legend li").first.wait_for()
    assert page.locator("#name").inner_text() == "valley.tif"


def test_a_job_tells_how_far_it_is_and_is_cancelled(new_page, served, job):
    page, number = new_page(served.url), job.rsplit("/", 1)[1]
    asked = []

    def answer(route):
        asked.append(route.request.method)
        state = "cancelled" if "DELETE" in asked else "running"
        progress = {"state": state, "stage": "Mapping", "progress": 0.42, "seconds_left": 200.0, "files": {}}
        route.fulfill(json={**json.loads(fixed), **progress})

    fixed = page.request.get(f"{served.url}jobs/{number}").text()
    page.route(f"**/jobs/{number}", answer)
    page.goto(f"{served.url}#/scene/{number}")
    page.get_by_text("Mapping · 42 % · about 3 min left").wait_for()
    assert page.locator("#job-bar").evaluate("bar => bar.value") == pytest.approx(0.42)
    assert page.locator("#legend").is_hidden()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled.").last.wait_for()
    assert asked.count("DELETE") == 1


def test_an_address_of_a_job_that_is_gone_leads_to_the_start(new_page, served):
    page = new_page(served.url, allowed=("status of 404",))
    page.locator("#model-name:not(:empty)").wait_for()
    page.goto(f"{served.url}#/scene/gone")
    page.locator("#alert").wait_for()
    assert "no such job" in page.locator("#alert p").inner_text()
    assert page.locator("#drop").is_visible()


def test_a_large_scene_on_its_way_is_stopped(page):
    page.locator("#model-name:not(:empty)").wait_for()
    page.route("**/jobs", lambda route: None if route.request.method == "POST" else route.continue_())
    page.set_input_files("#files", {"name": "large.tif", "mimeType": "image/tiff", "buffer": bytes(5_000_000)})
    page.get_by_text("Sending large.tif").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.locator("#sending").wait_for(state="hidden")
    assert page.locator("#alert").is_hidden()
    assert page.locator("#drop").is_visible()


def test_a_job_is_removed_from_the_list_after_a_question(page, served):
    page.locator("#path").fill("valley.tif")
    page.get_by_role("button", name="Map it").click()
    page.locator("#legend li").first.wait_for()
    number = page.url.rsplit("/", 1)[1]
    page.get_by_role("link", name="pixelwise").click()
    line = page.locator("#opened li", has=page.locator(f"a[href$='{number}']"))
    line.get_by_role("button").click()
    page.get_by_role("button", name="Keep").click()
    assert page.request.get(f"{served.url}jobs/{number}").ok
    line.get_by_role("button").click()
    with page.expect_response(lambda answer: answer.request.method == "DELETE"):
        page.get_by_role("button", name="Remove", exact=True).click()
    line.wait_for(state="detached")
    assert page.request.get(f"{served.url}jobs/{number}").status == 404
