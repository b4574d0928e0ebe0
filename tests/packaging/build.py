"""The Debian package of the working tree, and the same as a newer version."""

import re
import shutil
from pathlib import Path

from tests.xen.process import REPOSITORY, run


def package() -> Path:
    """Build the package (root; minutes) and return its file."""
    done = run([REPOSITORY / "deploy/build-deb"], timeout_s=3000)
    return Path(done.stdout.split()[-1])


def newer(package: Path, folder: Path) -> Path:
    """Return the same package with a higher version, made in a folder."""
    run(["dpkg-deb", "--raw-extract", package, folder / "tree"])
    control = folder / "tree/DEBIAN/control"
    text = re.sub(r"^(Version: .*)$", r"\1+newer", control.read_text(), flags=re.MULTILINE)
    control.write_text(text)
    made = folder / "colod-newer.deb"
    build = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build"]
    run([*build, folder / "tree", made], timeout_s=600)
    shutil.rmtree(folder / "tree")
    return made
