"""Documents name what there is: every setting, parameter, command and target, with its true default."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import SecretStr

from pipelines.cli import app
from pipelines.params import Params, Section
from pipelines.settings import PROJECT_ROOT, Settings
from tests.unit.vocabulary import names_in, words_in


def read(name: str) -> str:
    return (PROJECT_ROOT / name).read_text(encoding="utf-8")


def as_dotenv(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def test_env_example_has_every_setting_with_its_description_and_default() -> None:
    documented = re.findall(r"^# (.+)\n# (MASKLOOP_\w+)=(.*)$", read(".env.example"), re.MULTILINE)
    wanted = [
        (field.description, f"MASKLOOP_{name.upper()}", as_dotenv(field.default))
        for name, field in Settings.model_fields.items()
    ]
    assert documented == wanted


def test_env_example_sets_nothing_and_holds_no_secret() -> None:
    text = read(".env.example")
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == []
    for name in re.findall(r"MASKLOOP_(\w+)=", text):
        default = Settings.model_fields[name.lower()].default
        assert not isinstance(default, SecretStr) or default.get_secret_value() == ""


def documented_params() -> dict[str, dict[str, str]]:
    sections = re.split(r"^## ", read("docs/params.md"), flags=re.MULTILINE)[1:]
    rows = {
        text.split("\n", 1)[0]: re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", text, re.MULTILINE) for text in sections
    }
    return {section: dict(keys) for section, keys in rows.items() if keys}


def test_params_md_has_a_table_for_each_section_with_each_key() -> None:
    wanted = {}
    for name, field in Params.model_fields.items():
        [section] = [t for t in (field.annotation, *getattr(field.annotation, "__args__", ())) if is_section(t)]
        wanted[name] = set(section.model_fields)
    assert {name: set(rows) for name, rows in documented_params().items()} == wanted


def test_params_md_gives_the_values_of_params_yaml() -> None:
    document = yaml.safe_load(read("params.yaml"))
    for section, rows in documented_params().items():
        if section != "labels":
            assert {key: yaml.safe_load(text.strip("`")) for key, text in rows.items()} == document[section]


def is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def commands(group: Any, before: str = "") -> dict[str, Any]:
    """Return each command by its full name, such as "buckets setup"."""
    by_name: dict[str, Any] = {}
    for name, command in group.commands.items():
        by_name |= commands(command, f"{before}{name} ") if hasattr(command, "commands") else {before + name: command}
    return by_name


COMMANDS = commands(typer.main.get_command(app))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_cli_md_names_each_command_with_its_options(name: str) -> None:
    command = COMMANDS[name]
    [line] = [line for line in read("docs/cli.md").splitlines() if line.startswith(f"| `maskloop {name}` |")]
    for option in (part for param in command.params for part in param.opts if part != "--help"):
        assert f"`{option}`" in line
    assert command.help


def test_cli_md_names_no_command_that_is_gone() -> None:
    named = set(re.findall(r"^\| `maskloop ([\w ]+)` \|", read("docs/cli.md"), re.MULTILINE))
    assert named == set(COMMANDS)


def test_every_target_of_the_makefile_says_what_it_does() -> None:
    text = read("Makefile")
    [phony] = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    targets = re.findall(r"^([a-z-]+):(?!=)", text, re.MULTILINE)
    explained = re.findall(r"^([a-z-]+):.*## [A-Z].+$", text, re.MULTILINE)
    assert sorted(explained) == sorted(targets) == sorted(phony.split())


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/cli.md",
        "docs/datasets.md",
        "docs/labelers.md",
        "docs/labelers.it.md",
        "docs/labels.md",
        "docs/labels.it.md",
        "docs/first-day.md",
        "docs/first-day.it.md",
        "docs/lead.md",
    ],
)
def test_links_lead_somewhere(name: str) -> None:
    folder = (PROJECT_ROOT / name).parent
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", read(name))
    assert [link for link in links if not (folder / link).exists()] == []


SOURCES = sorted(
    path for folder in ("pipelines", "bentos", "dags") for path in (PROJECT_ROOT / folder).rglob("*") if path.is_file()
)
CODE = [path for path in SOURCES if path.suffix in (".py", ".j2", ".css", ".js")]
DOCUMENTS = [PROJECT_ROOT / "README.md", *sorted((PROJECT_ROOT / "docs").rglob("*.md"))]
GLOSSARY = dict(
    re.findall(r"^\| ([^|`]+?) \| (.+) \|$", read("CONTRIBUTING.md").partition("## Glossary")[2], re.MULTILINE)
)
del GLOSSARY["term"]


def package_of(path: Path) -> str:
    """Return the folder below `pipelines`, `bentos` or `dags` in which a file is, or the file's name."""
    parts = path.relative_to(PROJECT_ROOT).parts
    return "/".join(parts[:2]) if parts[0] == "pipelines" else parts[0]


# Not written in these terms yet.
PACKAGES = sorted({package_of(path) for path in CODE})


def test_the_glossary_has_one_line_per_term_in_order() -> None:
    lines = re.findall(r"^\| [a-zA-Z].+\|$", read("CONTRIBUTING.md").partition("## Glossary")[2], re.MULTILINE)
    assert len(lines) - 1 == len(GLOSSARY)
    assert list(GLOSSARY) == sorted(GLOSSARY, key=str.lower)


@pytest.mark.parametrize("term", GLOSSARY)
def test_every_term_of_the_glossary_is_used(term: str) -> None:
    words = re.escape(term.partition(" (")[0]).replace(r"\ ", "[ _-]")
    used = re.compile(rf"(?<![A-Za-z]){words}(?:e?s)?(?![A-Za-z])", re.IGNORECASE)
    assert any(used.search(path.read_text(encoding="utf-8")) for path in (*CODE, *DOCUMENTS))


@pytest.mark.parametrize("package", PACKAGES)
def test_code_is_written_in_the_terms_of_the_glossary(package: str) -> None:
    files = [path for path in CODE if package_of(path) == package]
    assert [place for path in files for place in words_in(path)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_and_variables_say_what_they_return_and_hold(package: str) -> None:
    files = [path for path in CODE if package_of(path) == package and path.suffix == ".py"]
    assert [place for path in files for place in names_in(path)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT_ROOT).as_posix())
def test_documents_are_written_in_the_terms_of_the_glossary(path: Path) -> None:
    assert list(words_in(path)) == []
