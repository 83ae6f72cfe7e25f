"""Label Studio's labeling editor, used as labelers use it, for the browser tests and the pictures of the guide."""

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page

from pipelines.labelstudio.controls import BOX, BRUSH, POINT
from pipelines.params import Params

_GROUPS = {BRUSH: 0, POINT: 1, BOX: 2}  # the order of the label lists beside the photo
LABEL_KEYS = "1234567890qrtyuiopasdfgjkl"  # beside the labels, in their order
_PATIENCE_MS = 60_000
# Whether so many masks are drawn. Every mask has a canvas of its own; a small picture of it shows whether it is empty.
MASKS_DRAWN = """count => {
  const regions = window.Htx?.annotationStore?.selected?.regions ?? [];
  if (regions.length < count) return false;
  return regions.every(region => {
    const canvas = region.layerRef?.canvas?._canvas;
    if (!canvas?.width) return false;
    const small = new OffscreenCanvas(32, 32).getContext("2d");
    small.imageSmoothingQuality = "medium";  // it averages, so that no small mask is missed
    small.drawImage(canvas, 0, 0, 32, 32);
    return small.getImageData(0, 0, 32, 32).data.some(value => value > 0);
  });
}"""
# Watch a mask from the release of the mouse on, until it has other pixels on the screen than before the answer. The
# picture before is taken ten times a second, because the editor may draw a mask anew when the mouse is over it.
_WATCH = """id => {
  const regionNow = () => window.Htx.annotationStore.selected.regions.find(region => region.cleanId === id);
  const picture = () => {
    const canvas = regionNow()?.layerRef?.canvas?._canvas;
    if (!canvas?.width) return 0;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let value = 0;
    for (const pixel of new Uint32Array(data.buffer)) value = (Math.imul(value, 31) + pixel) | 0;
    return value;
  };
  const before = regionNow()?.rle;
  let shown = picture(), shownAt = performance.now(), begun = 0, answered = 0;
  window.addEventListener("pointerup", () => { begun = performance.now(); }, { capture: true, once: true });
  window.maskloopDrawn = new Promise(resolve => {
    const poll = () => {
      const now = performance.now();
      const since = seconds => seconds && (seconds - begun) / 1000;
      if (begun && regionNow()?.rle !== before) answered ||= now;
      if (!answered && now - shownAt > 100) [shown, shownAt] = [picture(), performance.now()];
      if (answered && picture() !== shown)
        return resolve({ answered: since(answered), drawn: since(performance.now()) });
      const isWaiting = document.documentElement.dataset.maskloopAsking !== "0";
      if (begun && !isWaiting && now - (answered || begun) > 2000)
        return resolve({ answered: since(answered), drawn: 0 });
      setTimeout(poll, 20);
    };
    poll();
  });
}"""


@dataclass(frozen=True)
class ClickTimes:
    """Seconds from the release of the mouse until the page holds the new mask, and until it is drawn; None if never."""

    answered_s: float | None
    drawn_s: float | None


class Editor:
    """An open task; positions are shares (0..1) of the photo's width and height."""

    def __init__(self, page: Page, params: Params, photo_size: tuple[int, int]) -> None:
        self.page, self._params = page, params
        self._height, self._width = photo_size

    def label(self, group: str, label: str) -> None:
        """Select a label in one of the three lists."""
        names = list(self._params.region_ids)  # the ignore label is last
        place = self.page.locator(".lsf-label").nth(_GROUPS[group] * len(names) + names.index(label))
        place.scroll_into_view_if_needed()
        place.click()
        self.page.wait_for_timeout(200)

    def click(self, x: float, y: float, *, negative: bool = False) -> None:
        """Click on the photo; a negative click is made with Alt."""
        if negative:
            self.page.keyboard.down("Alt")
        self.page.mouse.click(*self.at(x, y))
        if negative:
            self.page.keyboard.up("Alt")

    def relabel(self, x: float, y: float) -> None:
        """Click on a mask with Shift, which gives it the label that is picked."""
        self.page.keyboard.down("Shift")
        self.page.mouse.click(*self.at(x, y))
        self.page.keyboard.up("Shift")
        self.page.wait_for_timeout(500)

    def pick(self, label: str) -> None:
        """Select a label by its key, in the list that was used last."""
        self.page.keyboard.press(LABEL_KEYS[list(self._params.region_ids).index(label)])
        self.page.wait_for_timeout(200)

    def timed_click(self, region_id: str, x: float, y: float, *, negative: bool = False) -> ClickTimes:
        """Click on the photo to change a mask, and wait until it is drawn anew, or no answer came that changes it."""
        self.page.evaluate(_WATCH, region_id)
        self.click(x, y, negative=negative)
        times = self.page.evaluate("() => window.maskloopDrawn")
        return ClickTimes(times["answered"] or None, times["drawn"] or None)

    def undo(self) -> None:
        """Take back the last change."""
        self.page.keyboard.press("Control+z")
        self.page.wait_for_timeout(500)

    def redo(self) -> None:
        """Make the change again that was taken back last."""
        self.page.keyboard.press("Control+Shift+z")
        self.page.wait_for_timeout(500)

    def drag(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Draw a box."""
        self.page.mouse.move(*self.at(x1, y1))
        self.page.mouse.down()
        self.page.mouse.move(*self.at((x1 + x2) / 2, (y1 + y2) / 2), steps=4)
        self.page.mouse.move(*self.at(x2, y2), steps=4)
        self.page.mouse.up()

    def wait_for_answers(self) -> None:
        """Wait until every click is answered and its mask is drawn."""
        answered = "() => document.documentElement.dataset.maskloopAsking === '0'"
        self.page.wait_for_function(answered, timeout=_PATIENCE_MS)
        self.page.wait_for_timeout(500)

    def wait_until_drawn(self, count: int) -> None:
        """Wait until all of so many masks are drawn."""
        self.page.wait_for_function(MASKS_DRAWN, arg=count, timeout=_PATIENCE_MS, polling=100)

    def masks(self) -> dict[str, dict[str, Any]]:
        """Return the masks as the page holds them: label, origin and rle by the region's id."""
        regions = self.page.evaluate(
            """() => window.Htx.annotationStore.selected.regions.map(region => (
                {id: region.cleanId, label: region.labels[0], origin: region.origin, rle: [...(region.rle ?? [])]}))"""
        )
        return {region["id"]: region for region in regions}

    def delete_all_regions(self) -> None:
        """Delete every region of the task."""
        self.page.locator("[data-maskloop=clear]").click()
        self.page.wait_for_timeout(300)

    def regions(self) -> list[str]:
        """Return the labels of the regions in the list, in order."""
        titles = self.page.locator(".lsf-outliner-item:visible .lsf-outliner-item__title")
        return [text.strip() for text in titles.all_inner_texts()]

    def submit(self) -> None:
        """Submit, and wait until Label Studio has stored the annotation."""
        with self.page.expect_response(lambda answer: "/annotations" in answer.url and answer.request.method == "POST"):
            self.page.get_by_text("Submit", exact=True).click()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the position on the screen, in pixels."""
        shown = self.page.locator(".konvajs-content").first.bounding_box()
        assert shown is not None
        height = shown["height"]
        return shown["x"] + x * height * self._width / self._height, shown["y"] + y * height
