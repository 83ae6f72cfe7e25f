"""From annotations to published dataset versions, in the order of the pipeline.

`mirror` copies annotations and photos, `compile` makes index masks of them, `checks` and `split` complete the manifest,
and `workspace` and `published` write and read versions with git and DVC. `pipeline.sync` runs all of it.
"""
