"""Where shipped files lie, and how a preset's name becomes a path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from archsim.config.errors import UserError, listed, nearest_name

_SUFFIXES = (".yaml", ".yml")
_LIKE = 0.7
"""How like a name a preset's has to be to be suggested: there are so many that something is always a little like it."""


def data_root() -> Path:
    """The folder that holds hwconfigs/, workloads/, traces/ and experiments/.

    In a source checkout that is the folder beside the package; in an installed wheel, archsim/_data.
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent


def resolve_preset(name: str, folder: Path, search: Sequence[Path] = ()) -> Path:
    """The file that a preset's name means.

    Looked up (1) as a path relative to `folder` (the folder of the file that names it), with or without .yaml,
    (2) in the folders of `search` and anywhere below their own hwconfigs/ (a folder of a user's may hold anything, so
    nothing else below it is looked at), (3) anywhere below the shipped hwconfigs/: by file name without .yaml, or by
    its last folders too ("memory/hbm3e"). Raises UserError naming the nearest presets, or, for a name that several
    files share, all of them.
    """
    for relative in _spellings(name):
        candidate = folder / relative
        if candidate.is_file():
            return candidate
    if Path(name).is_absolute() or name.startswith("."):
        raise UserError(f"there is no file '{name}'", nearest=nearest_name(Path(name).stem, _stems(folder)))
    for root, presets in _places(search):
        found = [path for path in presets if _matches(path, name)]
        if len(found) > 1:
            choices = ", ".join(path.relative_to(root).with_suffix("").as_posix() for path in found)
            raise UserError(f"'{name}' names several presets", expected=f"one of {choices}")
        if found:
            return found[0]
    known = preset_names(search) | _stems(folder)
    raise UserError(
        f"there is no preset '{name}'", expected=listed(sorted(known)), nearest=nearest_name(name, known, _LIKE)
    )


def preset_names(search: Sequence[Path] = ()) -> set[str]:
    """The names of all presets in the folders of `search`, their hwconfigs/ and the shipped hwconfigs/."""
    return {path.stem for _, presets in _places(search) for path in presets}


def _places(search: Sequence[Path]) -> Iterator[tuple[Path, list[Path]]]:
    """Folders to look in, in order, each with its presets."""
    for folder in search:
        yield folder, [*_presets_in(folder.glob("*")), *_presets_in((folder / "hwconfigs").rglob("*"))]
    shipped = data_root() / "hwconfigs"
    yield shipped, _presets_in(shipped.rglob("*"))


def _spellings(name: str) -> list[str]:
    return [name] if name.endswith(_SUFFIXES) else [name + suffix for suffix in _SUFFIXES]


def _presets_in(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix in _SUFFIXES)


def _matches(path: Path, name: str) -> bool:
    wanted = Path(name).with_suffix("") if name.endswith(_SUFFIXES) else Path(name)
    return path.with_suffix("").parts[-len(wanted.parts) :] == wanted.parts


def _stems(folder: Path) -> set[str]:
    return {path.stem for path in _presets_in(folder.glob("*"))}
