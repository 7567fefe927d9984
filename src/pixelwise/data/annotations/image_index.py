"""Finding the images that annotations name. A name never leads out of the folders that the user gave."""

import difflib
import operator
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from pixelwise.data.folder import find_images
from pixelwise.errors import DataError


class ImageIndex:
    """The images in some folders, found by the ends of their paths.

    Files of annotations hold paths of other machines (``C:\\photos\\a.jpg``, ``/mnt/data/a.jpg``), addresses, or names
    alone. So a name is compared with the paths of the images that are there, from its end on.
    """

    def __init__(self, folders: Sequence[Path], *, empty: bool = False) -> None:
        """List the images.

        Args:
            empty: folders may hold no image, since the annotations embed them.

        Raises:
            DataError: a folder that is not there, cannot be read, or holds no image.
        """
        self.folders = tuple(folders)
        self.paths = list[Path]()
        for folder in folders:
            try:
                self.paths += find_images(folder)
            except DataError:
                if not (empty and folder.is_dir()):
                    raise
        self.paths = list(dict.fromkeys(self.paths))
        self._known = set(self.paths)
        self.renamed: list[tuple[str, Path]] = []
        """Names that were found with another suffix, and the images that were taken."""
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in self.paths:
            self._by_name.setdefault(path.name, []).append(path)
            self._by_stem.setdefault(path.stem, []).append(path)

    def __contains__(self, path: Path) -> bool:
        return path in self._known

    def told(self, name: str) -> str:
        """Return where images were looked for, for a message, and one whose name is near."""
        near = difflib.get_close_matches(
            PurePosixPath(name.replace("\\", "/")).name, list(self._by_name), n=1, cutoff=0.3
        )
        example = near[0] if near else next(iter(self._by_name), None)
        shown = f" ({len(self.paths)} images, such as {example})" if example else ""
        return f"in {', '.join(map(str, self.folders))}{shown}"

    def find(self, name: str) -> Path | None:
        """Return the image that a name means; None if there is none.

        The image at that place in a folder is meant; else the one whose path has most of the name's folders. If none
        has its suffix, one with its stem is.

        Raises:
            DataError: several images fit equally well.
        """
        parts = PurePosixPath(unquote(name.replace("\\", "/"))).parts or ("",)
        plain = PurePosixPath(name.replace("\\", "/")).parts or ("",)
        for wanted in dict.fromkeys((plain, parts)):
            exact = next((path for folder in self.folders if (path := folder.joinpath(*wanted)) in self._known), None)
            if exact is not None:
                return exact
            found = self._by_name.get(wanted[-1]) or self._by_stem.get(PurePosixPath(wanted[-1]).stem, [])
            if found:
                best = self._best(wanted, found, name)
                if best.suffix.lower() != PurePosixPath(wanted[-1]).suffix.lower() and "." in wanted[-1]:
                    self.renamed.append((name, best))
                return best
        return None

    def _best(self, parts: Sequence[str], found: list[Path], name: str) -> Path:
        if len(found) == 1:
            return found[0]

        def shared(path: Path) -> int:
            own = [path.name == parts[-1], *map(operator.eq, path.parts[-2::-1], parts[-2::-1])]
            return own.index(False) if False in own else len(own)

        most = max(map(shared, found))
        best = [path for path in found if shared(path) == most]
        if len(best) > 1:
            raise DataError(
                f"The annotations name {name!r}, which may be {best[0]} or {best[1]}. Give images names of their own, "
                "or name one folder in [data].images.",
                code="PW432",
            )
        return best[0]
