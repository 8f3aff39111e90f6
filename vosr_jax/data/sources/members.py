"""Choice of the members of a tar file that count as images of their own.

WebDataset writes a sample as members of one name with several suffixes: `7.json`, `7.png`,
`7.seg.png`. Its suffix is everything after the first dot. A tar of plain images has no such rule:
`photo.2024.01.01.png` and `photo.2024.01.02.png` are two images. So a suffix of several parts
counts as WebDataset's only if there is evidence for it.
"""

from collections.abc import Iterator, Sequence

from vosr_jax.data.pictures import is_picture_path

_Group = list[tuple[int, str]]


def split_names(name: str) -> tuple[str, str]:
    """(folder and file up to the first dot, the rest)."""
    folder, slash, file = name.rpartition("/")
    key, _, suffix = file.partition(".")
    return folder + slash + key, suffix


def first_pictures(names: Sequence[str]) -> list[int]:
    """List the indices of the members that count as images.

    Consecutive members with the same name up to the first dot may be one sample, whose first image
    counts. They are one sample

    - if their names differ in the last suffix alone: `a.json`, `a.png`, `a.jpg`;
    - if one is that name with a single suffix and not an image: `7.json`, `7.0.png`, `7.1.png`;
    - if the part in between is a word, not a number, and one is that name with a single suffix
      (`c.png`, `c.seg.png`), or other samples of the file have the same words (`1.input.png`,
      `1.target.png`, `2.input.png`, `2.target.png`).

    Args:
      names: names of all files in the tar, in its order.
    """
    fields = _shared_fields(names)
    chosen: list[int] = []
    for group in _groups(names):
        singles = [name for _, name in group if "." not in split_names(name)[1]]
        labelled = not all(map(is_picture_path, singles))
        samples: set[str] = set()
        for number, name in group:
            if not is_picture_path(name):
                continue
            key, suffix = split_names(name)
            is_field = "." not in suffix or labelled or _is_word(suffix, bool(singles), fields)
            sample = key if is_field else name.rpartition(".")[0]
            if sample not in samples:
                samples.add(sample)
                chosen.append(number)
    return chosen


def _is_word(suffix: str, beside_single: bool, fields: set[str]) -> bool:
    """Whether a suffix of several parts names a field of a sample."""
    return not suffix.partition(".")[0].isdecimal() and (beside_single or suffix in fields)


def _groups(names: Sequence[str]) -> Iterator[_Group]:
    group: _Group = []
    before = None
    for number, name in enumerate(names):
        key, _ = split_names(name)
        if group and key != before:
            yield group
            group = []
        group.append((number, name))
        before = key
    if group:
        yield group


def _shared_fields(names: Sequence[str]) -> set[str]:
    """Suffixes of several parts, such as input.png, that occur with more than one name."""
    keys: dict[str, str] = {}
    shared = set()
    for key, suffix in map(split_names, names):
        if "." in suffix and keys.setdefault(suffix, key) != key:
            shared.add(suffix)
    return shared
