"""What is added to Label Studio's own server: accounts, login limit, label stream, report, request log and settings.

These modules run in Label Studio's environment, where this folder is on the path and `pipelines` is not installed.
"""
