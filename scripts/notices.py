"""Write THIRD-PARTY.md, the licences of what Maskloop installs: `make notices`.

Licences are read from the metadata of the installed packages, in this order: the SPDX expression, a licence field of
one line, the classifiers, the first line of the licence's file. Nothing is looked up elsewhere.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from pipelines.errors import ConfigurationError
from pipelines.settings import PROJECT_ROOT

THIRD_PARTY = PROJECT_ROOT / "THIRD-PARTY.md"
LOCK = PROJECT_ROOT / "requirements" / "maskloop.txt"
GROUPS = {
    "": "The pipelines, the services and the command line",
    "server": "The server for a team, besides",
    "dev": "Tests and checks, besides",
}
COPYLEFT = re.compile(r"\b[AL]?GPL|MPL|EPL|Mozilla|General Public|Artistic")
NOT_OPEN = re.compile(r"NVIDIA|Proprietary")
SPDX = {
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache Software License 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "2-clause BSD License": "BSD-2-Clause",
    "FreeBSD": "BSD-2-Clause",
    "BSD License": "BSD",
}
HEAD = """\
# Third-party packages

Maskloop itself is under the Apache License 2.0 (LICENSE). It contains no code of the packages below; `make setup`
downloads them from their makers, and their licences apply to whoever passes them on, inside an image for example.
This file is written by `make notices` from the metadata of the installed packages.
"""
COPYLEFT_TITLE = """\
## Copyleft, also among what these bring

Maskloop uses them as they are. krippendorff, under the GPL, is called by one test and must not move out of `dev`."""
NOT_OPEN_TITLE = """\
## Not open source

CUDA libraries that the locked PyTorch brings; `make setup TORCH=cpu` leaves them out."""
BESIDE = """\
## Programs that run beside it

Label Studio (Apache-2.0) is installed into an environment of its own by requirements/label-studio.txt. The server's
docker-compose.yml starts images of PostgreSQL (PostgreSQL License), Redis 7 (RSALv2 or SSPLv1 since 7.4, BSD-3-Clause
before: for use, not for selling as a service), Caddy, Prometheus (both Apache-2.0), Grafana (AGPL-3.0) and
fake-gcs-server (BSD-2-Clause).
"""


def direct_dependencies() -> dict[str, list[str]]:
    """Return the names of declared packages by group: "" for the main ones, else the extra's name."""
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {"": project["dependencies"], **project["optional-dependencies"]}
    return {group: [_name(line) for line in lines] for group, lines in declared.items()}


def licence(package: str) -> str:
    """Return the licence that an installed package states, as an SPDX identifier where it is a common one.

    Raises:
        PackageNotFoundError: The package is not installed.
    """
    installed = distribution(package)
    metadata = installed.metadata
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier") or []
        if text.startswith("License :: ") and text != "License :: DFSG approved"
    ]
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    stated = metadata["License"].strip() if "License" in metadata else ""
    if stated and stated != "UNKNOWN" and "\n" not in stated and len(stated) < 60:
        return SPDX.get(stated, stated).replace("|", "or")
    if classifiers:
        return " and ".join(SPDX.get(text, text) for text in classifiers)
    first = _first_line_of_licence(installed)
    return SPDX.get(first, first) or "not stated"


def locked() -> set[str]:
    """Return the names of packages that the lock holds for every supported Python."""
    return set(re.findall(r"^([\w.-]+)==\S+ \\$", LOCK.read_text(encoding="utf-8"), re.MULTILINE))


def render() -> str:
    """Return the text of THIRD-PARTY.md.

    Raises:
        ConfigurationError: A locked package is not installed.
    """
    direct = direct_dependencies()
    named = {package for packages in direct.values() for package in packages}
    try:
        licences = {package: licence(package) for package in named | locked()}
    except PackageNotFoundError as error:
        raise ConfigurationError(f"{error.name} is not installed; run `make setup TORCH=locked` first") from error
    parts = [HEAD]
    parts += [f"## {title}\n\n{_table(licences, direct[group])}" for group, title in GROUPS.items()]
    parts += [
        f"{title}\n\n{_table(licences, [name for name in licences if pattern.search(licences[name])])}"
        for title, pattern in ((COPYLEFT_TITLE, COPYLEFT), (NOT_OPEN_TITLE, NOT_OPEN))
    ]
    return "\n".join([*parts, BESIDE])


def _table(licences: Mapping[str, str], packages: Iterable[str]) -> str:
    lines = (f"| {package} | {licences[package]} |\n" for package in sorted(packages))
    return "| package | licence |\n|---|---|\n" + "".join(lines)


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _first_line_of_licence(installed: Distribution) -> str:
    for file in installed.files or ():
        if re.match(r"(licen[cs]e|copying)", file.name, re.IGNORECASE) and file.parent.as_posix().count(".dist-info"):
            return next((line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()), "")
    return ""


def main() -> None:
    """Write THIRD-PARTY.md."""
    THIRD_PARTY.write_text(render(), encoding="utf-8")
    print(THIRD_PARTY.name)


if __name__ == "__main__":
    main()
