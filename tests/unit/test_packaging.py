"""What `make setup` installs: the lock names what is declared, licences are named, and no wheel is built."""

import importlib.util
import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import metadata, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from pipelines.settings import PROJECT_ROOT
from scripts.checkout_only import REASON
from scripts.notices import COPYLEFT, NOT_OPEN, THIRD_PARTY, direct_dependencies, licence, locked

PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
PYTHONS = ("3.11", "3.12", "3.13")
LOCKS = ("maskloop", "airflow", "serving", "label-studio", "bootstrap")


def read(name: str) -> str:
    return (PROJECT_ROOT / name).read_text(encoding="utf-8")


def pins(lock: str, python: str = "3.11") -> dict[str, str]:
    """Return the locked version of each package that one Python gets on x86_64 Linux."""
    machine = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    lines = re.findall(r"^([\w.-]+)==(\S+)(?: ; (.+?))? \\$", read(f"requirements/{lock}.txt"), re.MULTILINE)
    return {name: version for name, version, marker in lines if not marker or Marker(marker).evaluate(machine)}


def declared(*groups: str) -> list[Requirement]:
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][group] for group in groups)]
    return [Requirement(line) for lines in lists for line in lines]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("lock", "groups"), [("maskloop", ("server", "dev")), ("airflow", ("server",))])
def test_a_lock_names_what_is_declared_for_each_python(lock: str, groups: tuple[str, ...], python: str) -> None:
    versions = pins(lock, python)
    wrong = [str(wish) for wish in declared(*groups) if versions.get(wish.name) not in wish.specifier]
    assert wrong == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_a_hash_for_each_version_and_names_no_index(lock: str) -> None:
    text = read(f"requirements/{lock}.txt")
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    for block in re.split(r"\n(?=\w)", text.strip()):
        assert re.match(r"[\w.-]+==\S+( ; [^\\]+)? \\\n( +--hash=sha256:[0-9a-f]{64}( \\)?\n?)+$", block), block[:200]


def test_locks_agree_on_versions() -> None:
    everything = pins("maskloop", "3.13")
    for lock in ("airflow", "serving"):
        others = pins(lock, "3.13")
        assert {name: everything.get(name) for name in others} == others


def test_the_lock_is_for_the_pythons_that_are_declared() -> None:
    accepted = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in accepted] == list(PYTHONS)
    named = [line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert named == list(PYTHONS)
    assert "python_full_version < '3.14'" in PYPROJECT["tool"]["uv"]["environments"][0]


def test_the_makefile_takes_the_common_condition_off_each_line_of_a_lock() -> None:
    [condition] = PYPROJECT["tool"]["uv"]["environments"]
    [machine] = re.findall(r"^MACHINE := (.+)$", read("Makefile"), re.MULTILINE)
    parts = {*machine.split(" and "), "python_full_version < '3.14'"}
    assert parts == set(condition.split(" and "))
    assert not [lock for lock in LOCKS if "sys_platform" in read(f"requirements/{lock}.txt")]


def test_each_direct_dependency_is_named_with_its_licence() -> None:
    text = read(THIRD_PARTY.name)
    rows = dict(re.findall(r"^\| ([\w.-]+) \| (.+) \|$", text, re.MULTILINE))
    direct = {name for names in direct_dependencies().values() for name in names}
    assert {name: rows.get(name) for name in direct} == {name: licence(name) for name in direct}, "run `make notices`"
    assert set(rows) - direct - {"package"} <= locked(), "run `make notices`"


def test_copyleft_and_closed_packages_that_others_bring_are_named() -> None:
    installed = {canonicalize_name(name) for names in packages_distributions().values() for name in names}
    to_be_named = {
        name: text
        for name in locked() & installed
        if re.search(COPYLEFT, text := licence(name)) or NOT_OPEN.search(text)
    }
    rows = dict(re.findall(r"^\| ([\w.-]+) \| (.+) \|$", read(THIRD_PARTY.name), re.MULTILINE))
    assert {name: rows.get(name) for name in to_be_named} == to_be_named
    assert "certifi" in to_be_named


def test_packages_under_the_gpl_are_for_tests_only() -> None:
    groups = direct_dependencies()
    strict = {name for names in groups.values() for name in names if re.search(r"(?<!L)GPL", licence(name))}
    assert strict <= set(groups["dev"])


def test_the_project_states_its_licence() -> None:
    installed = metadata("maskloop")
    assert installed["License-Expression"] == PROJECT["license"] == "Apache-2.0"
    assert set(installed.get_all("License-File") or []) == {"LICENSE", "NOTICE", THIRD_PARTY.name}
    assert read("LICENSE").startswith("                                 Apache License\n")
    assert "END OF TERMS AND CONDITIONS" in read("LICENSE")
    assert "urls" not in PROJECT


def test_types_are_there_for_others() -> None:
    [folder] = importlib.util.find_spec("pipelines").submodule_search_locations or []  # type: ignore[union-attr]  # it is installed
    assert (Path(folder) / "py.typed").exists()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a build reads."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", *PROJECT["license-files"]):
        shutil.copy(PROJECT_ROOT / name, folder)
    shutil.copytree(PROJECT_ROOT / "scripts", folder / "scripts")
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "__init__.py").touch()
    return folder


def uv(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["uv", *arguments],
        cwd=folder,
        env={**os.environ, "UV_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", ["--wheel", "--sdist"])
def test_no_package_is_built_and_the_error_says_why_and_what_to_do(checkout: Path, kind: str) -> None:
    done = uv("build", "--no-build-isolation", kind, folder=checkout)

    assert done.returncode != 0
    assert REASON in done.stderr
    assert "make setup" in REASON and "dvc.yaml" in REASON
    assert not list(checkout.rglob("*.whl")) and not list(checkout.rglob("*.tar.gz"))


def test_an_editable_install_works_without_network_and_leads_to_the_checkout(checkout: Path) -> None:
    target = checkout.parent / "site"

    done = uv(
        "pip", "install", "--target", target, "--no-deps", "--no-build-isolation", "--editable", ".", folder=checkout
    )

    assert done.returncode == 0, done.stderr
    [pointer] = target.glob("*maskloop*.pth")
    assert pointer.read_text(encoding="utf-8").strip() == str(checkout)
    assert (target / "bin" / "maskloop").exists()
