"""The stack on one machine: the services of the Procfile under supervisord, with their environment and secrets.

`lifecycle` starts, sets up and stops them; `status` and `doctor` report on them and on the state of the loop.
"""
