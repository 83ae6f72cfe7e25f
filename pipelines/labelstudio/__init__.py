"""Label Studio: everything that knows its API, its JSON and its ML backend protocol.

`schema` types the JSON; `project`, `tasks`, `predictions`, `annotations` and `cursor` read and write the server's
state; `regions`, `shapes` and `brush_rle` turn regions into masks, and `render` masks into regions.
"""
