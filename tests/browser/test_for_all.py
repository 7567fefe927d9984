"""The page on narrow and wide screens, in light and dark, by keyboard and for screen readers."""

import pytest
from on_page import drop, place

TOO_WIDE = """() => [...document.querySelectorAll("body *")].filter((each) => {
  const box = each.getBoundingClientRect();
  return each.checkVisibility() && box.width && !each.closest(".leaflet-pane, .unseen, svg")
    && getComputedStyle(each).opacity !== "0" && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((each) => each.outerHTML.slice(0, 120))"""
# Contrast of two colours: WCAG 2.2, relative luminance.
PALE = """() => {
  const brush = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = colour;
    brush.fillRect(0, 0, 1, 1);
    return [...brush.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = rgba(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility() || element.closest(":disabled, .unseen")) continue;
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""
NAMELESS = (
    "- button\n",
    "- link\n",
    "- slider\n",
    "- combobox\n",
    "- switch\n",
    "- radio\n",
    "- checkbox\n",
    "- textbox\n",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_everything_fits_and_is_readable_and_has_a_name(new_page, served, photo, width, scheme):
    page = new_page(served.url, width=width, height=740, color_scheme=scheme)

    def good():
        assert page.evaluate(TOO_WIDE) == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        assert page.evaluate(PALE) == []
        snapshot = page.locator("body").aria_snapshot() + "\n"
        assert [kind for kind in NAMELESS if kind in snapshot] == []

    page.locator("#model-name:not(:empty)").wait_for()
    good()
    drop(page, photo)
    good()
    page.get_by_role("button", name="Correct labels").click()
    good()


def test_a_screen_reader_hears_shares_and_the_class_in_the_middle(page, photo):
    drop(page, photo)
    page.locator("#said", has_text="half.png: dark 50 %, bright 50 %").wait_for()
    page.locator("#swipe").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#swipe").get_attribute("aria-valuenow") == "48"
    page.keyboard.press("Shift+Tab")  # from the swipe to the map
    assert page.evaluate("document.activeElement.id") == "map"
    page.keyboard.press("ArrowLeft")
    page.locator("#said", has_text="dark, 98 %").wait_for()
    for _ in range(600):  # a key that is pressed while the map still moves does nothing
        page.keyboard.press("ArrowRight")
        if page.locator("#said").inner_text() == "bright, 98 %":
            break
        page.evaluate("() => new Promise(requestAnimationFrame)")
    else:
        raise AssertionError(page.locator("#said").inner_text())


def test_a_tap_tells_the_class(new_page, served, photo):
    page = new_page(served.url, width=360, height=740, has_touch=True)
    page.get_by_role("heading", name="Open a photo or a scene").wait_for()  # nobody drops on a phone
    drop(page, photo)
    page.touchscreen.tap(*place(page, 80, 30, (96, 64)))
    page.locator("#reading").get_by_text("bright", exact=True).wait_for()


def test_the_tab_key_walks_in_the_order_of_the_page(page, photo):
    drop(page, photo)
    page.get_by_role("button", name="Open").focus()
    walked = []
    for _ in range(12):
        page.keyboard.press("Tab")
        walked.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert walked[:3] == ["map", "swipe", ""]
    assert walked.index("opacity") < walked.index("swipe-on")


def test_a_server_with_a_token_is_asked_after_the_token_is_given(new_page, guarded, photo):
    page = new_page(guarded.url, allowed=("status of 401",))
    token = page.locator("#token input")  # a password has no role
    token.fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("That token is not the right one.").wait_for()
    token.fill("sesame")
    page.get_by_role("button", name="Go on").click()
    drop(page, photo)
    assert page.locator("#legend li").count() == 3
    page.reload()
    page.locator("#model-name:not(:empty)").wait_for()  # the token is remembered while the tab is open
