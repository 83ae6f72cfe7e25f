"""Take the screenshots of the documents from the running demo with headless Chromium: `make screenshots`."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

from pipelines.airflow_api import Airflow
from pipelines.contract import RETRAIN_DAG
from pipelines.errors import ConfigurationError
from pipelines.labelstudio.client import connect
from pipelines.labelstudio.project import find_project
from pipelines.labelstudio.tasks import list_tasks, tasks_with_masks
from pipelines.models.registry import Registry
from pipelines.params import load_params
from pipelines.settings import PROJECT_ROOT, Settings, get_settings
from scripts.labelers_guide import take_pictures

PICTURES = PROJECT_ROOT / "docs" / "pictures"
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def chromium(*more: str) -> Iterator[Browser]:
    """Start the system's Chromium, or Playwright's own when there is none, with `more` arguments."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("MASKLOOP_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET, *more])
        try:
            yield browser
        finally:
            browser.close()


def log_in_to_label_studio(page: Page, settings: Settings) -> None:
    """Log in by the login form."""
    page.goto(settings.url("label_studio") + "/user/login/")
    page.fill("input[name=email]", settings.label_studio_email)
    page.fill("input[name=password]", settings.label_studio_password.get_secret_value())
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "/user/login" not in url, wait_until="domcontentloaded")


def open_task(page: Page, settings: Settings, project: int, task: int) -> None:
    """Open a task in the editor and wait until photo and masks are drawn."""
    page.goto(f"{settings.url('label_studio')}/projects/{project}/data?task={task}")
    page.wait_for_selector(".konvajs-content canvas", timeout=60_000)
    page.wait_for_function(
        "() => [...document.querySelectorAll('img')].some(i => i.complete && i.naturalWidth > 300)", timeout=60_000
    )
    page.wait_for_timeout(2500)  # the editor draws strokes after the photo and does not signal when it is done


def label_studio(page: Page, settings: Settings) -> None:
    """Take an open task with the champion's masks."""
    labels, params = connect(settings), load_params(settings.params_path)
    project = find_project(labels, params)
    waiting = [task.id for task in list_tasks(labels, project) if not task.opened and task.prediction_versions]
    masks = tasks_with_masks(labels, project, waiting)
    if not masks:
        raise ConfigurationError("no open task has a pre-label; run `make demo` first")
    log_in_to_label_studio(page, settings)
    open_task(page, settings, project, min(masks))
    page.screenshot(path=PICTURES / "label-studio.png")


def airflow(page: Page, settings: Settings) -> None:
    """Take the newest run of the retraining DAG as a grid."""
    run = Airflow(settings).runs(RETRAIN_DAG)[0]["dag_run_id"]
    page.goto(settings.url("airflow") + "/auth/login/")
    page.wait_for_selector("input[name=username]")
    page.fill("input[name=username]", settings.airflow_user)
    page.fill("input[name=password]", settings.airflow_password.get_secret_value())
    page.click("button[type=submit]")
    page.wait_for_url(settings.url("airflow") + "/**")
    page.wait_for_timeout(1500)
    page.goto(f"{settings.url('airflow')}/dags/{RETRAIN_DAG}/runs/{run}")
    page.wait_for_timeout(4000)
    page.screenshot(path=PICTURES / "airflow.png")


def mlflow(page: Page, settings: Settings) -> None:
    """Take the run of the champion."""
    registry = Registry(settings)
    champion = registry.champion()
    if champion is None:
        raise ConfigurationError("there is no champion; run `make demo` first")
    experiment = registry.client.get_run(champion.run_id).info.experiment_id
    report = registry.client.list_artifacts(champion.run_id, "report")
    overlay = next(file.path for file in report if "overlay" in file.path)
    page.goto(
        f"{settings.url('mlflow')}/#/experiments/{experiment}/runs/{champion.run_id}/artifacts/{overlay}"
        "?workflowType=machine_learning"  # instead of MLflow's pages for language models
    )
    page.wait_for_timeout(6000)
    page.screenshot(path=PICTURES / "mlflow.png")


def main() -> None:
    """Take all screenshots."""
    settings = get_settings()
    PICTURES.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for take in (label_studio, airflow, mlflow):
            page = browser.new_page(viewport={"width": 1400, "height": 860})
            take(page, settings)
            page.close()
            print(f"docs/pictures/{take.__name__.replace('_', '-')}.png")
        take_pictures(browser, settings, PICTURES)
        print("docs/pictures/labelers-*.jpg")


if __name__ == "__main__":
    main()
