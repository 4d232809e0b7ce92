"""What the page runs on: pinned npm packages, checked, of which a few files are laid beside it."""

import base64
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from angels_share.errors import RunFailed, UserError

NPM = "npm"
_TIMEOUT = 600
_MIT = """MIT License

Copyright (c) {holder}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


@dataclass(frozen=True)
class Library:
    """An npm package at one version.

    Attributes:
        name: its name.
        version: its version.
        integrity: the SHA-512 of its archive, as npm writes it.
        files: files of the archive by the names that they get beside the page.
        holder: who holds the rights, where the licence is MIT's and the archive lacks its text.
    """

    name: str
    version: str
    integrity: str
    files: Mapping[str, str]
    holder: str | None = None

    @property
    def spec(self) -> str:
        """What npm is asked for."""
        return f"{self.name}@{self.version}"


LIBRARIES = (
    Library(
        "@huggingface/transformers",
        "4.3.2",
        "sha512-V3+dqf3iWlRYJ9I9GreM3zGQd0lAXnnoPeddmkOQYWAEE4l/+Fi6p7tx/qVUJlKQgLXGim2W76rTOzz+eC0i7g==",
        {
            "transformers.web.min.js": "dist/transformers.web.min.js",
            "transformers-LICENSE.txt": "LICENSE",
        },
    ),
    # The version that the one above depends on; its build without WebGPU has half the size.
    Library(
        "onnxruntime-web",
        "1.31.0-dev.20260914-8d85527a0",
        "sha512-Iy7rtadoBgxS/LLvDr3QW38DB1PNXRnr0GJMcL0TAt7c9qjgVQl83UlGCVyeAnK2InpmW8Uc3PL8XIuqtDeF6g==",
        {
            "ort.wasm.min.mjs": "dist/ort.wasm.min.mjs",
            "ort-wasm-simd-threaded.mjs": "dist/ort-wasm-simd-threaded.mjs",
            "ort-wasm-simd-threaded.wasm": "dist/ort-wasm-simd-threaded.wasm",
        },
        holder="Microsoft Corporation",
    ),
)
"""Both are to be raised together; `npm view NAME@VERSION dist.integrity` says the third column."""


def require_npm() -> str:
    """Return the path of npm.

    Raises:
        UserError: it isn't installed.
    """
    if (found := shutil.which(NPM)) is None:
        raise UserError(
            "npm is not installed: it fetches the libraries that the page runs on; install Node.js"
        )
    return found


def lay_beside(folder: Path, draft: Path) -> None:
    """Fetch the libraries and put the files that the page needs into a folder.

    Args:
        folder: the folder, which is there.
        draft: a folder for the archives.

    Raises:
        UserError: npm isn't installed, or can't fetch a library.
        RunFailed: an archive isn't the one that was pinned.
    """
    npm = require_npm()
    for library in LIBRARIES:
        _take_files(_fetched(npm, library, draft), library, folder)
        if library.holder is not None:
            text = _MIT.format(holder=library.holder)
            (folder / f"{library.name}-LICENSE.txt").write_text(text, encoding="utf-8")


def _fetched(npm: str, library: Library, draft: Path) -> Path:
    """Return a library's archive; `npm pack` unpacks nothing and runs no script of it."""
    place = draft / library.name.rpartition("/")[-1]
    place.mkdir()
    words = [npm, "pack", library.spec, "--ignore-scripts", "--pack-destination", str(place)]
    try:
        ended = subprocess.run(  # noqa: S603  (words of ours alone)
            words,
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"npm can't fetch {library.spec}: {error}") from error
    archives = sorted(place.glob("*.tgz"))
    if ended.returncode or len(archives) != 1:
        said = " ".join(ended.stderr.split())[:200] or "it wrote no archive"
        raise UserError(f"npm can't fetch {library.spec}: {said}; is there a network?")
    _require_integrity(archives[0], library)
    return archives[0]


def _require_integrity(archive: Path, library: Library) -> None:
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha512").digest()
    found = f"sha512-{base64.b64encode(digest).decode()}"
    if found != library.integrity:
        raise RunFailed(
            f"{library.spec} from npm is not what was pinned: {found[:23]}… instead of "
            f"{library.integrity[:23]}…; nothing of it was used"
        )


def _take_files(archive: Path, library: Library, folder: Path) -> None:
    """Write files of an archive under names of ours; nothing else in it is looked at."""
    with tarfile.open(archive) as opened:
        for name, inside in library.files.items():
            try:
                stream = opened.extractfile(f"package/{inside}")
            except KeyError:
                stream = None
            if stream is None:
                raise RunFailed(f"{library.spec} has no file {inside}")
            with stream, (folder / name).open("wb") as target:
                shutil.copyfileobj(stream, target)
