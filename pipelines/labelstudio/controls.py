"""Names of the labeling interface's controls, as regions carry them in `from_name` and `to_name`."""

IMAGE = "image"  # the Image tag, and the task's data key
BRUSH = "tag"  # BrushLabels: what predictions and clicks are drawn with
POINT = "point"  # smart keypoints and boxes: prompts for the interactive service, never labels
BOX = "box"
ORIGINAL = "original"  # the photo's address in task data where a copy is shown instead; absent otherwise
SHOWN_SIZE = ("shown_height", "shown_width")  # in task data, of a copy that is smaller than the photo; absent otherwise
DOUBT = "doubt"  # what a person who is in doubt about the photo writes
SKIP_REASON = "skip_reason"  # why a person skipped the photo; the page asks for it
