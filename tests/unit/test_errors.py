"""Every error of Maskloop stands in the tree of the module's docstring, below its parent."""

import inspect
import re

from pipelines import errors


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    drawn: dict[str, str] = {}
    parents: list[str] = []
    for indent, name in re.findall(r"^([│├└─ ]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE):
        parents[len(indent) // 4 :] = [name]
        drawn[name] = parents[-2] if len(parents) > 1 else "Exception"
    real = {name: kind.__bases__[0].__name__ for name, kind in inspect.getmembers(errors, inspect.isclass)}
    assert drawn == real


def test_bad_input_is_a_value_error_too() -> None:
    assert issubclass(errors.DataError, ValueError)


def test_an_image_error_carries_a_code_for_reports() -> None:
    error = errors.ImageError("truncated", "the file ends early")
    assert (error.reason, str(error)) == ("truncated", "the file ends early")
