"""Which scenes of an evaluation the run learned from. Their scores say little about new scenes."""

from collections.abc import Sequence
from pathlib import Path

from pixelwise.config import Config
from pixelwise.data.footprints import overlapping_groups
from pixelwise.data.scenes import Scene
from pixelwise.data.split import open_split
from pixelwise.errors import PixelwiseError
from pixelwise.files import file_digest
from pixelwise.runs.run_folder import Run


def learned_scenes(run: Run, settings: Config, scenes: Sequence[Scene]) -> tuple[str, ...]:
    """Return the names of scenes that are training scenes, copies of one, or lie on the same ground.

    Args:
        settings: the run's. If its training data is gone, nothing is known, and nothing returned.
        scenes: what is evaluated.
    """
    try:
        training = open_split(settings, kept=run.split, may_be_gone=True)[1].training
    except PixelwiseError:
        return ()
    known = {scene.info.path.resolve() for scene in training}
    copies = _Copies(known)
    on_same_ground = _on_same_ground(training, scenes)
    return tuple(
        scene.name
        for i, scene in enumerate(scenes)
        if scene.info.path.resolve() in known or i in on_same_ground or copies.include(scene.info.path)
    )


def _on_same_ground(training: Sequence[Scene], scenes: Sequence[Scene]) -> set[int]:
    count, infos = len(training), [scene.info for scene in (*training, *scenes)]
    found = set()
    for group in overlapping_groups(infos):
        learned = [i for i in group if i < count]
        # Scenes of a group may meet only through others, so each pair is compared.
        for i in group:
            if i >= count and any(len(overlapping_groups([infos[j], infos[i]])) == 1 for j in learned):
                found.add(i - count)
    return found


class _Copies:
    """Finds files with the bytes of one of these. Only files of the same size are read."""

    def __init__(self, paths: set[Path]) -> None:
        self._by_size: dict[int, list[Path]] = {}
        self._digests: dict[Path, str] = {}
        for path in paths:
            if path.is_file():
                self._by_size.setdefault(path.stat().st_size, []).append(path)

    def include(self, path: Path) -> bool:
        rivals = self._by_size.get(path.stat().st_size, []) if path.is_file() else []
        return any(self._digest(path) == self._digest(rival) for rival in rivals)

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = file_digest(path)
        return self._digests[path]
