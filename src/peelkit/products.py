"""Products by the names that people give them."""

from pathlib import Path


def product(path: Path) -> Path:
    """Image of this name; else, where there is one, its first Taylor term, or the image with this stem.

    Of a wide band CASA calls ``x.image`` ``x.image.tt0``, and nobody knows before which it will be.
    """
    if path.name and not path.exists():
        for suffix in (".tt0", ".image", ".image.tt0"):
            longer = path.with_name(path.name + suffix)
            if longer.exists():
                return longer
    return path


def taylor_terms(path: Path) -> list[Path]:
    """All Taylor terms of a model ``x.model`` that is there as ``x.model.tt0`` and so on; else itself."""
    found: list[Path] = []
    while not path.exists():
        term = path.with_name(f"{path.name}.tt{len(found)}")
        if not path.name or not term.exists():
            break
        found.append(term)
    return found or [path]
