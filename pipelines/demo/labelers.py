"""Simulated labelers: they log in, take the next task, correct its pre-label towards the known truth, and submit.

They use only what Label Studio's API offers a person in the labeling stream, and nothing of Maskloop's own.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np

from pipelines.demo.savings import PhotoTime
from pipelines.errors import ServiceError
from pipelines.labelstudio.regions import compile_regions
from pipelines.labelstudio.render import region_json
from pipelines.labelstudio.schema import RegionJson, RegionValue
from pipelines.labelstudio.tasks import parse_image
from pipelines.params import IGNORE, Params
from pipelines.photos.copies import resample_mask
from pipelines.records import RegionMask


class Labeler:
    """One person's session in Label Studio, through the same login form and cookies as a browser.

    A person without an account signs up at `invitation`, the path of the invitation link that Label Studio gives its
    owner. `pace` multiplies the seconds of `params.effort`.
    """

    def __init__(
        self, url: str, email: str, password: str, invitation: str = "/user/signup/", pace: float = 1.0
    ) -> None:
        self.email, self.pace = email, pace
        self._http = httpx.Client(base_url=url, timeout=120, follow_redirects=True)
        self._http.event_hooks = {"response": [self._keep_cookies]}
        if not self._enter("/user/login/", email, password) and not self._enter(invitation, email, password):
            raise ServiceError(
                f"Label Studio at {url} accepts neither a login of {email} nor a sign-up at {invitation}"
            )

    def next_task(self, project_id: int, shown: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Return the next task of the labeling stream, locked for this person; None when none is left.

        `shown` are filters and ordering of a tab of the Data Manager, to take its tasks as they are displayed.
        """
        answer = self._post("/api/dm/actions", dict(shown or {}), id="next_task", project=project_id)
        return None if answer.status_code == 404 else dict(self._checked(answer))

    def submit(self, task: Mapping[str, Any], result: list[RegionJson], lead_time_s: float) -> None:
        """Submit an annotation that started from the task's first prediction, if it has one."""
        parent = next((prediction["id"] for prediction in task["predictions"]), None)
        body = {"result": result, "lead_time": lead_time_s, "parent_prediction": parent, "was_cancelled": False}
        self._checked(self._post(f"/api/tasks/{task['id']}/annotations/", body, project=task["project"]))

    def _enter(self, path: str, email: str, password: str) -> bool:
        page = self._http.get(path).text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        form = {"email": email, "password": password, "csrfmiddlewaretoken": token[1] if token else ""}
        self._http.post(path, data=form, headers={"Referer": str(self._http.base_url)})
        return self._http.get("/api/current-user/whoami").is_success

    def _keep_cookies(self, _: httpx.Response) -> None:
        """Send cookies without TLS as well: on a server the proxy has TLS, and the services behind it do not."""
        for cookie in self._http.cookies.jar:
            cookie.secure = False

    def _post(self, path: str, body: Any, **query: Any) -> httpx.Response:
        headers = {"X-CSRFToken": self._http.cookies.get("csrftoken") or "", "Referer": str(self._http.base_url)}
        return self._http.post(path, json=body, params=query, headers=headers)

    def _checked(self, answer: httpx.Response) -> Any:
        if not answer.is_success:
            raise ServiceError(
                f"Label Studio answered {self.email} with HTTP {answer.status_code}: {answer.text[:300]}"
            )
        return answer.json()


def correct(
    proposed: list[RegionJson], truth: np.ndarray, params: Params, pace: float = 1.0
) -> tuple[list[RegionJson], float]:
    """Correct a pre-label as a careful person does; return regions with their origins, and the seconds it took.

    `truth` is the true (H, W) uint8 index mask; pixels that are `IGNORE` in it count neither for nor against a region.
    `params.effort` decides what a person does with a region and how long it takes; `pace` multiplies the time. A region
    that fits no garment of its label gets the label of the garment that it fits best, if no better region shows that.
    """
    effort, seconds = params.effort, params.effort.look
    garments = {label: truth == label_id for label, label_id in params.label_ids.items()}
    missing = {label for label, garment in garments.items() if garment.any()}
    fits = _fits(proposed, garments, truth, params)
    result: list[RegionJson] = []
    kept: set[int] = set()
    for overlap, is_other, number, label in sorted(fits, key=lambda fit: (fit[1], -fit[0], fit[2])):
        if number in kept or label not in missing:
            continue
        kept.add(number)
        missing.remove(label)
        region = proposed[number]
        seconds += effort.relabel if is_other else 0.0
        if overlap < effort.accept_iou:
            result.append(_draw(label, garments[label], region["id"], "prediction-changed"))
            seconds += effort.correct
        elif is_other:
            value: RegionValue = {**region["value"], "brushlabels": [label]}
            result.append({**region, "value": value, "origin": "prediction-changed"})
        else:
            result.append({**region, "origin": "prediction"})
            seconds += effort.accept
    seconds += effort.delete * (len(proposed) - len(kept))
    for label, label_id in params.label_ids.items():
        if label in missing:
            result.append(_draw(label, garments[label], f"hand-{label_id}", "manual"))
            seconds += effort.draw
    return result, pace * seconds


def _fits(
    proposed: Sequence[RegionJson], garments: Mapping[str, np.ndarray], truth: np.ndarray, params: Params
) -> list[tuple[float, bool, int, str]]:
    """Return which region fits which garment well enough to be kept: IoU, other label?, the region's place, label."""
    fits, (height, width) = [], truth.shape
    for number, region in enumerate(proposed):
        compiled = compile_regions([region], params.label_ids, height, width, params.compile.alpha_threshold)
        mask = (compiled.mask > 0) & (truth != IGNORE)
        for label, garment in garments.items():
            overlap = np.count_nonzero(mask & garment) / max(1, np.count_nonzero(mask | garment))
            if overlap >= params.effort.correct_iou:
                fits.append((overlap, label != region["value"]["brushlabels"][0], number, label))
    return fits


def label_everything(
    labelers: list[Labeler], project_id: int, truth_of: Callable[[str], np.ndarray], params: Params,
    tick: Callable[[], None],
) -> list[PhotoTime]:  # fmt: skip
    """Let all labelers work at the same time until the stream is empty; return the time of each photo, in any order.

    `truth_of` maps a photo's sha256 to its (H, W) uint8 true index mask.
    """

    def work(labeler: Labeler) -> list[PhotoTime]:
        times = []
        while (task := labeler.next_task(project_id)) is not None:
            proposed = task["predictions"][0]["result"] if task["predictions"] else []
            image = parse_image(task["data"])
            truth = resample_mask(truth_of(image.sha256), *image.shown_size)
            result, seconds = correct(proposed, truth, params, labeler.pace)
            labeler.submit(task, result, seconds)
            times.append(PhotoTime(seconds, labeler.pace * seconds_by_hand(truth, params), bool(proposed)))
            tick()
        return times

    with ThreadPoolExecutor(len(labelers)) as pool:
        return [time for times in pool.map(work, labelers) for time in times]


def seconds_by_hand(truth: np.ndarray, params: Params) -> float:
    """Return the seconds in which a person draws all labels of a (H, W) uint8 index mask; see `correct`."""
    labels = np.isin(list(params.label_ids.values()), truth)
    return params.effort.look + params.effort.draw * int(labels.sum())


def _draw(label: str, mask: np.ndarray, region_id: str, origin: str) -> RegionJson:
    region = region_json(RegionMask(label, mask, 1.0), region_id)
    del region["score"]
    return {**region, "origin": origin}
