"""What the tests of the page do on it."""

import base64
import io

from PIL import Image

COLOURS = {"dark": (20, 60, 120), "bright": (240, 180, 40), "water": (0, 150, 160)}
DARK, BRIGHT = 64, 192
"""Values of images. The tests' network is sure of both: the softmax of logits -2 and 2 is 1 / (1 + exp(-4)) = 98 %."""
FIELD = (150, 100, 450, 300)
"""Left, top, right and bottom of what is bright in the scene."""

DROP = """([name, content]) => {
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }));
  }
}"""


def drop(page, path):
    """Drop a file on the page and wait for its classes."""
    page.locator("#model-name:not(:empty)").wait_for()
    page.evaluate(DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])
    page.locator("#legend li").first.wait_for()


def place(page, x, y, size, whole="img.picture"):
    """Return where the middle of a pixel of the image is on the screen."""
    box = page.locator(whole).bounding_box()
    return box["x"] + (x + 0.5) / size[0] * box["width"], box["y"] + (y + 0.5) / size[1] * box["height"]


def seen(page, x, y):
    """Return the colour that the screen shows."""
    clip = {"x": int(x), "y": int(y), "width": 1, "height": 1}
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB").getpixel((0, 0))
