"""Segment Anything in the background: downloaded, checked and loaded while another segmenter answers the clicks."""

import logging
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import ModelError
from pipelines.segmentation.embeddings import BlobStore
from pipelines.segmentation.sam_checkpoints import Checkpoint, checkpoint_of, is_off

if TYPE_CHECKING:
    from pipelines.segmentation.interactive import InteractiveSegmenter
    from pipelines.segmentation.sam_model import PromptableModel

logger = logging.getLogger(__name__)

READY = "ready"
_OFF = "MASKLOOP_SAM_CHECKPOINT is none, so Segment Anything is not used"
_FAILED = "Segment Anything cannot be used: "
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 600.0  # between two tries to download; each pause is twice the last one


class SamLoader:
    """Loads the checkpoint of MASKLOOP_SAM_CHECKPOINT; see `load_sam` for the arguments."""

    def __init__(self, checkpoint: str, folder: Path, blob_store: BlobStore | None = None) -> None:
        self._checkpoint, self._folder, self._blob_store = checkpoint.strip(), folder, blob_store
        self._segmenter: PromptableModel | None = None
        self._tuned: tuple[Path | None, PromptableModel | None] = None, None  # the newest decoder, and who has it
        self._tuning = threading.Lock()
        self._stopped = threading.Event()
        self.state = _OFF if is_off(checkpoint) else "waiting to be loaded"

    @property
    def segmenter(self) -> "InteractiveSegmenter | None":
        """Return the segmenter, or None until it is loaded and its encoder is ready."""
        return self._segmenter

    def tuned(self, decoder: Path | None) -> "InteractiveSegmenter | None":
        """Return the segmenter with a tuned decoder; None without one, until it is loaded, and where it does not fit.

        The newest decoder stays loaded; the log says, once, why one does not fit.
        """
        if decoder is None or self._segmenter is None:
            return None
        with self._tuning:
            if self._tuned[0] != decoder:
                self._tuned = decoder, _with_decoder(self._segmenter, decoder)
            return self._tuned[1]

    def start(self) -> None:
        """Begin in a thread of its own, unless the setting turns Segment Anything off. Call this once."""
        if not is_off(self._checkpoint):
            threading.Thread(target=self._run, name="segment-anything", daemon=True).start()

    def stop(self) -> None:
        """End the tries to download; what has arrived stays for the next start."""
        self._stopped.set()

    def _run(self) -> None:
        from pipelines.segmentation.sam import load_sam

        try:
            chosen = checkpoint_of(self._checkpoint, self._folder)
            if self._downloaded(chosen):
                self.state = f"loading {chosen.name}"
                segmenter = load_sam(self._checkpoint, self._folder, self._blob_store)
                segmenter.warm_up()
                self._segmenter, self.state = segmenter, READY
                logger.info("%s answers clicks from now on", segmenter.version)
        except ModelError as error:
            self.state = f"{_FAILED}{error}"
            logger.error("%s", self.state)
        except Exception as error:  # such as too little memory: the thread's end must be seen in /health
            self.state = f"{_FAILED}an error of its own, see the log: {error!r}"
            logger.exception("Segment Anything cannot be loaded")

    def _downloaded(self, chosen: Checkpoint) -> bool:
        """Download what is missing, however long the network is away; return whether all is there."""
        from pipelines.segmentation.sam_download import DownloadError, download

        pause_s = _FIRST_PAUSE_S
        while not chosen.is_complete and not self._stopped.is_set():
            self.state = f"downloading {chosen.name}"
            try:
                download(chosen.files, chosen.folder, partial(self._report, chosen.name))
                return True
            except DownloadError as error:
                self.state = f"{chosen.name} is not downloaded yet: {error}; the next try is in {pause_s:.0f} s"
                logger.warning("%s", self.state)
            self._stopped.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return chosen.is_complete

    def _report(self, name: str, text: str) -> None:
        self.state = f"downloading {name}: {text}"


def _with_decoder(segmenter: "PromptableModel", decoder: Path) -> "PromptableModel | None":
    from pipelines.segmentation.sam_decoder import tuned

    try:
        return tuned(segmenter, decoder)
    except ModelError as error:
        logger.error("%s answers without the tuned decoder: %s", segmenter.version, error)
        return None


def is_failure(state: str) -> bool:
    """Return whether a loader's state says that Segment Anything will not come without a person's help."""
    return state.startswith(_FAILED)
