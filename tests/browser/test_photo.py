"""A photo is dropped, and its classes are looked at."""

import pytest
from on_page import BRIGHT, COLOURS, DARK, drop, place, seen

SIZE = (96, 64)


@pytest.fixture
def shown(page, photo):
    drop(page, photo)
    page.mouse.move(0, 0)
    return page


def test_a_dropped_photo_shows_which_classes_it_has(shown):
    lines = shown.locator("#legend li")
    assert [line.split("\n") for line in lines.all_inner_texts()] == [
        ["dark", "50 %"],
        ["bright", "50 %"],
        ["Not found: water"],
    ]
    assert shown.locator("#name").inner_text() == "half.png"
    assert "96 × 64" in shown.locator("#facts").inner_text()


def test_the_swipe_shows_the_photo_left_of_it_and_classes_right_of_it(shown):
    shown.locator("#opacity").fill("100")
    left, right = place(shown, 36, 30, SIZE), place(shown, 60, 30, SIZE)
    assert (seen(shown, *left), seen(shown, *right)) == ((DARK,) * 3, COLOURS["bright"])
    handle = shown.locator("#swipe i").bounding_box()
    shown.mouse.move(handle["x"] + 18, handle["y"] + 18)
    shown.mouse.down()
    shown.mouse.move(place(shown, 10, 30, SIZE)[0], handle["y"] + 18, steps=3)
    shown.mouse.up()
    assert (seen(shown, *left), seen(shown, *right)) == (COLOURS["dark"], COLOURS["bright"])
    shown.locator("#swipe").press("End")
    assert (seen(shown, *left), seen(shown, *right)) == ((DARK,) * 3, (BRIGHT,) * 3)
    shown.locator("#swipe-on").uncheck()
    assert seen(shown, *left) == COLOURS["dark"]


def test_the_opacity_mixes_photo_and_classes(shown):
    shown.locator("#swipe-on").uncheck()
    shown.locator("#opacity").fill("50")
    mixed = seen(shown, *place(shown, 70, 30, SIZE))
    assert mixed == pytest.approx([(BRIGHT + each) / 2 for each in COLOURS["bright"]], abs=1.5)


def test_the_pointer_tells_class_and_confidence(shown):
    reading = shown.locator("#reading")
    shown.mouse.move(*place(shown, 10, 20, SIZE))
    reading.get_by_text("dark", exact=True).wait_for()
    assert reading.inner_text().split() == ["dark", "98", "%", "·", "10,", "20"]
    shown.mouse.move(*place(shown, 80, 50, SIZE))
    reading.get_by_text("bright", exact=True).wait_for()
    assert reading.inner_text().split() == ["bright", "98", "%", "·", "80,", "50"]


def test_a_click_in_the_legend_hides_a_class_and_another_shows_it(shown):
    shown.locator("#opacity").fill("100")
    spot = place(shown, 70, 30, SIZE)
    button = shown.get_by_role("button", name="bright")
    button.click()
    assert (button.get_attribute("aria-pressed"), seen(shown, *spot)) == ("false", (BRIGHT,) * 3)
    button.click()
    assert (button.get_attribute("aria-pressed"), seen(shown, *spot)) == ("true", COLOURS["bright"])


def test_confidence_is_a_layer_of_its_own_with_a_scale(shown):
    shown.locator("#swipe-on").uncheck()
    shown.locator("#opacity").fill("100")
    shown.get_by_text("Confidence", exact=True).first.click()
    red, green, blue = seen(shown, *place(shown, 20, 30, SIZE))
    # 98 % is near the yellow end.
    assert min(red, green) > 200
    assert blue < 100
    assert shown.locator("#scale").is_visible()


@pytest.mark.parametrize(("text", "name"), [("Classes", "half.png"), ("Polygons", "half.geojson")])
def test_results_are_downloaded(shown, text, name):
    with shown.expect_download() as waiting:
        shown.locator("#downloads").get_by_text(text).click()
    assert waiting.value.suggested_filename == name
    start = waiting.value.path().read_bytes()[:8]
    assert start == b"\x89PNG\r\n\x1a\n" if name.endswith("png") else start.startswith(b"{")


def test_back_leads_to_the_start_which_lists_what_was_opened(shown):
    shown.go_back()
    shown.locator("#opened").get_by_role("link", name="half.png").click()
    shown.locator("#legend").wait_for()


def test_a_file_that_is_no_image_is_refused_in_a_sentence(new_page, served, tmp_path):
    page = new_page(served.url, allowed=("status of 422",))
    page.locator("#model-name:not(:empty)").wait_for()
    path = tmp_path / "letter.tif"
    path.write_text("Dear reader")
    page.set_input_files("#files", path)
    page.locator("#alert").wait_for()
    assert "letter.tif" in page.locator("#alert p").inner_text()
    page.get_by_role("button", name="Close the message").click()
    assert page.locator("#alert").is_hidden()
