"""Fallback of deploy/Dockerfile: remove CUDA from the locked torch where PyTorch's CPU builds are not available.

The locked torch is built for CUDA and cannot be imported without its libraries. Those that are large and only used with
a GPU are replaced by empty libraries with the same names and symbols, which abort the process if one is called: 4 GB
less. CUDA's runtime stays, because torch uses it to find out that there is no GPU. Run this with the interpreter of the
environment to change; it needs a C compiler and binutils.
"""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_paths()["purelib"])
MIN_BYTES = 8_000_000  # smaller libraries stay as they are


def symbols(library: Path, *options: str) -> set[str]:
    """Return the names of a library's dynamic symbols, without their versions."""
    listed = subprocess.run(["nm", "-D", *options, str(library)], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].partition("@")[0] for line in listed.splitlines()}


def main() -> None:
    """Replace libraries that are only used with a GPU, remove those that torch does not load, and test the import."""
    torch = SITE / "torch" / "lib"
    wanted = set().union(*(symbols(library, "--undefined-only") for library in torch.glob("*.so*")))
    needed = subprocess.run(
        ["readelf", "-d", *map(str, torch.glob("*.so*"))], check=True, capture_output=True, text=True
    ).stdout
    for library in sorted((SITE / "nvidia").rglob("*.so*")):
        if library.stat().st_size < MIN_BYTES:
            continue
        provided = sorted(symbols(library, "--defined-only") & wanted)
        library.unlink()
        if f"[{library.name}]" not in needed:
            continue  # only loaded by another of these
        source = "void abort(void);\n" + "".join(f"void {name}(void) {{ abort(); }}\n" for name in provided)
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{library.name}", "-xc", "-", "-o", str(library)],
            input=source, text=True, check=True,
        )  # fmt: skip
    nvidia = SITE / "nvidia"
    for leftover in (SITE / "triton", SITE / "torch" / "include", *nvidia.rglob("*.a"), *nvidia.rglob("*.bc")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    check = (
        "import torch, torchvision; assert not torch.cuda.is_available(); "
        "torch.nn.Conv2d(3, 8, 3)(torch.ones(1, 3, 9, 9))"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


if __name__ == "__main__":
    main()
