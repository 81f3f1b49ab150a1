"""What draws a document in the browser: files of the npm package ``@asyncapi/react-component``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

VERSION: Final = "3.2.1"
"""Of the package, with which the pages are tested."""

_FILES: Final = {
    "index.js": "browser/standalone/index.js",
    "index.js.LICENSE.txt": "browser/standalone/index.js.LICENSE.txt",
    "default.min.css": "styles/default.min.css",
}
"""Names under which they are served, and where the package has them."""
_NEEDED: Final = ("index.js", "default.min.css")


class Renderer:
    """The files in a folder, looked for whenever they are asked for: they may be installed meanwhile.

    Args:
        folder: of the npm package itself, or of copies of its files beside each other.
        install: the command that puts them there.
    """

    def __init__(self, folder: Path | str | None, install: str | None = None) -> None:
        self._folder = Path(folder).absolute() if folder is not None else None
        self.install = install or f"npm install --ignore-scripts @asyncapi/react-component@{VERSION}"

    @property
    def there(self) -> bool:
        """Whether a page can be drawn."""
        return all(self.file(name) for name in _NEEDED)

    def file(self, name: str) -> Path | None:
        """A file of the package by the name under which it is served; None if it is none, or missing."""
        if self._folder is None or name not in _FILES:
            return None
        places = (self._folder / name, self._folder / _FILES[name])
        return next((place for place in places if place.is_file()), None)
