"""Names of the labeling interface's controls, as regions carry them in `from_name` and `to_name`."""

IMAGE = "image"  # the Image tag, and the task's data key
BRUSH = "tag"  # BrushLabels: what predictions and clicks are drawn with
POINT = "point"  # smart keypoints and boxes: prompts for the interactive service, never labels
BOX = "box"
ORIGINAL = "original"  # the photo's address in task data where a copy is shown instead; absent otherwise
