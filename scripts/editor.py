"""Label Studio's labeling editor, used as labelers use it, for the browser tests and the pictures of the guide."""

from typing import Any

from playwright.sync_api import Page

from pipelines.labelstudio.controls import BOX, BRUSH, POINT
from pipelines.params import Params

_GROUPS = {BRUSH: 0, POINT: 1, BOX: 2}  # the order of the label lists beside the photo


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

    def drag(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Draw a box."""
        self.page.mouse.move(*self.at(x1, y1))
        self.page.mouse.down()
        self.page.mouse.move(*self.at((x1 + x2) / 2, (y1 + y2) / 2), steps=4)
        self.page.mouse.move(*self.at(x2, y2), steps=4)
        self.page.mouse.up()

    def wait_for_answers(self) -> None:
        """Wait until every click is answered and its mask is drawn."""
        self.page.wait_for_function("() => document.documentElement.dataset.maskloopAsking === '0'", timeout=60_000)
        self.page.wait_for_timeout(500)

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
