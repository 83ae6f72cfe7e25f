"""Names of the files in a dataset's folder, relative to its root, as dvc.yaml names them.

data/annotations/<hh>.parquet  annotations as Label Studio gave them, with their photos' identities; see `shards`
data/masks/<hh>.parquet        index masks of upright photos as PNG; see `shards`
data/images/<sha256>           a photo's bytes at its generation; named by content, not by object name
data/photos.parquet            one row per photo
data/left_out.json             why annotations could not be used, by their UUIDs; git tracks it
data/before.parquet            the last published version's manifest; no bytes before there was one
data/manifest.parquet          data/photos.parquet with the group and the split of each photo
data/checks.json               the summary of the checks
data/version.json              numbers and hashes of a published version; git tracks it
"""

from pathlib import Path

ANNOTATIONS = Path("data/annotations")
IMAGES = Path("data/images")
MASKS = Path("data/masks")
PHOTOS = Path("data/photos.parquet")
LEFT_OUT = Path("data/left_out.json")
BEFORE = Path("data/before.parquet")
MANIFEST = Path("data/manifest.parquet")
NO_PHOTOS = b""  # data/before.parquet of the first version
CHECKS = Path("data/checks.json")
VERSION = Path("data/version.json")
START = Path("data/start")  # the network that a training starts from, if there is one
MODEL = Path("model")
CURVES = Path("curves.csv")
METRICS = Path("metrics.json")
REPORT = Path("report")
PROPOSALS = Path("proposals.json")  # which of the model's regions save time; stored beside the weights
STEPS = MODEL / "training.json"  # planned and done steps, and what the training started from
CLICKS = Path("clicks")  # the click model
CLICK_CURVES = Path("clicks.csv")
CLICK_STEPS = CLICKS / "training.json"
CLICK_METRICS = Path("clicks.json")
CLICK_REPORT = Path("clicks_report")
TRAINING = Path("training")  # checkpoints of an unfinished training
