"""Which tasks come next, which of them get a model's masks, and the requests to the model services for these.

`strategies` chooses the next tasks, `blind` those that are drawn without masks, `pipeline` imports predictions, and
`embed` prepares photos for the first click.
"""
