"""The addresses that Label Studio answers, as it declares them itself."""

import re

# Run where Label Studio is installed, after lines that set the environment and the path to its applications.
WALK = """
import django
django.setup()
from django.urls import get_resolver
def walk(patterns, before=""):
    for one in patterns:
        if hasattr(one, "url_patterns"):
            yield from walk(one.url_patterns, before + str(one.pattern))
        else:
            yield before + str(one.pattern)
for one in walk(get_resolver().url_patterns):
    print("ROUTE", one)
"""
_VARIABLE = re.compile(r"<[^>]*>|\(\?P<[^)]*\)|\([^)]*\)")


def paths_in(printed: str) -> set[str]:
    """Return a path for each pattern that `WALK` printed, with 1 for what varies in it."""
    found = re.findall(r"^ROUTE (.*)$", printed, flags=re.MULTILINE)
    plain = [re.sub(r"[\^$?\\]|\\Z", "", _VARIABLE.sub("1", route)) for route in found]
    return {"/" + path.lstrip("/") for path in plain}
