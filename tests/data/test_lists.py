"""Lists of pictures and patterns of shards as people write them."""

import os
from pathlib import Path

import pytest

from tests.data.conftest import encoded, picture
from tests.data.test_source_kinds import FILES, write_array_records, write_tar
from vosr_jax.data.sources import parse_sources
from vosr_jax.data.sources.lists import base_folder, read_lines
from vosr_jax.data.sources.patterns import expand_braces, split_outside_braces
from vosr_jax.errors import UserError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder beside the folder `lists`, in which three pictures lie."""
    folder = tmp_path / "lists"
    (folder / "tree").mkdir(parents=True)
    for number in range(3):
        (folder / "tree" / f"p{number}.png").write_bytes(encoded(picture(number)))
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    return folder


def names(text):
    (source,) = parse_sources(str(text))
    return [source.record_name(position) for position in range(len(source))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_mark_that_an_editor_puts_in_front_costs_no_picture(place, encoding, ending):
    lines = [f"tree/p{number}.png" for number in range(3)]
    (place / "list.txt").write_bytes(ending.join(lines).encode(encoding))
    assert names(place / "list.txt") == [str(place / line) for line in lines]
    (source,) = parse_sources(str(place / "list.txt"))
    assert source.read(0).shape == (56, 72, 3)
    (place / "lists.txt").write_bytes(f"list.txt, 2{ending}".encode(encoding))
    assert len(names(place / "lists.txt")) == 6


def test_names_of_any_bytes_survive_a_list(place):
    (place / "list.txt").write_bytes(b"tree/\xff.png\ntree/p0.png\n")
    assert read_lines(str(place / "list.txt"))[0] == os.fsdecode(b"tree/\xff.png")


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_line_that_is_missing_on_disk_moves_no_other_line(place, missing):
    (place / "tree" / f"p{missing}.png").unlink()
    (place / "list.txt").write_text("".join(f"tree/p{number}.png\n" for number in range(3)))
    assert names(place / "list.txt") == [f"{place}/tree/p{number}.png" for number in range(3)]


def test_the_base_is_the_lists_folder_or_else_the_working_folder_for_the_whole_list(place):
    lines = [f"tree/p{number}.png" for number in range(3)]
    path = place / "list.txt"
    path.write_text("\n".join(lines))
    working = Path.cwd()
    (working / "tree").mkdir()
    (working / "tree" / "p0.png").write_bytes(FILES["p00.png"])
    assert names(path)[0] == f"{place}/tree/p0.png", "both have the first; the list's has more"
    for number in (1, 2):
        (working / "tree" / f"p{number}.png").write_bytes(FILES["p00.png"])
    assert names(path)[0] == f"{place}/tree/p0.png", "both have all; the list's is nearer"
    for number in range(3):
        (place / "tree" / f"p{number}.png").unlink()
    assert names(path) == [str(working / line) for line in lines]
    (working / "tree" / "p0.png").unlink()
    assert names(path) == [str(working / line) for line in lines]


def test_the_base_is_said_and_absolute_names_have_none(place):
    path = place / "list.txt"
    path.write_text("tree/p0.png\n")
    (source,) = parse_sources(str(path))
    assert source.about() == f"{path}: 1 pictures, relative paths counted from {place}"
    (place / "lists.txt").write_text("list.txt, 3\n")
    (source,) = parse_sources(str(place / "lists.txt"))
    assert source.about().endswith(f"3 pictures, relative paths counted from {place}")
    path.write_text(f"{place}/tree/p0.png\n")
    (source,) = parse_sources(str(path))
    assert source.about() == f"{path}: 1 pictures"


def test_of_a_long_list_few_names_are_looked_for(place, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "vosr_jax.data.sources.lists.exists", lambda path: asked.append(path) or "p0" in path
    )
    listed = ["tree/p0.png"] * 100_000
    assert base_folder(str(place / "list.txt"), listed) == str(place)
    assert len(asked) <= 200


def test_comments_may_stand_anywhere_and_a_picture_may_begin_like_one(place):
    (place / "#1.png").write_bytes(FILES["p00.png"])
    lines = ["# my photographs", "tree/p0.png", "", "#tree/p1.png", "#1.png", "# end"]
    (place / "list.txt").write_text("\n".join(lines))
    assert names(place / "list.txt") == [f"{place}/tree/p0.png", f"{place}/#1.png"]
    (place / "lists.txt").write_text("# lists\nlist.txt, 1\n#list.txt, 5\n")
    assert len(names(place / "lists.txt")) == 2


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a-{000..003}.tar", ["a-000.tar", "a-001.tar", "a-002.tar", "a-003.tar"]),
        ("a-{8..10}", ["a-8", "a-9", "a-10"]),
        ("a-{08..10}", ["a-08", "a-09", "a-10"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{0..6..3}", ["0", "3", "6"]),
        ("{a..c}x", ["ax", "bx", "cx"]),
        ("{x,y}/{0..1}", ["x/0", "x/1", "y/0", "y/1"]),
        ("{a,b{1..2}}", ["a", "b1", "b2"]),
        ("{alone}-{0..1}", ["{alone}-0", "{alone}-1"]),
        ("none", ["none"]),
        ("a{b,c", ["a{b,c"]),
    ],
)
def test_braces_stand_for_what_a_shell_makes_of_them(pattern, expected):
    assert expand_braces(pattern) == expected


def test_a_pattern_for_too_many_names_is_refused_at_once():
    with pytest.raises(UserError, match="more than 100,000"):
        expand_braces("a-{0..99999999}.tar")
    with pytest.raises(UserError, match="more than 100,000"):
        expand_braces("{0..9999}{0..9999}")


def test_a_comma_inside_braces_divides_no_sources():
    assert split_outside_braces("a-{x,y}.tar:2,b") == ["a-{x,y}.tar:2", "b"]
    assert split_outside_braces("a{b,c,d") == ["a{b", "c", "d"]


def test_shards_are_named_by_braces_and_stars_and_none_may_be_missing(tmp_path):
    items = list(FILES.items())
    for number in range(3):
        write_tar(tmp_path / f"a-{number:03d}.tar", dict(items[2 * number : 2 * number + 2]))
        write_array_records(tmp_path / f"r-{number}.array_record", [items[number][1]])
    (source, second) = parse_sources(f"{tmp_path}/a-{{000..002}}.tar:3,{tmp_path}/a-000.tar")
    assert (source.weight, len(source), len(second)) == (3, 6, 2)
    assert [os.path.basename(source.record_name(k)) for k in range(6)] == list(FILES)[:6]
    assert len(parse_sources(f"{tmp_path}/a-{{000,002}}.tar")[0]) == 4
    assert len(parse_sources(f"{tmp_path}/{{a-00[01],a-002}}.tar")[0]) == 6
    assert len(parse_sources(f"{tmp_path}/r-{{0..2}}.array_record")[0]) == 3
    with pytest.raises(UserError, match=r"there is no .*a-003\.tar, which .*a-\{000\.\.003\}"):
        parse_sources(f"{tmp_path}/a-{{000..003}}.tar")
    (tmp_path / "shards.txt").write_text("a-{000..001}.tar, 2\na-002.tar\n")
    first, second = parse_sources(f"{tmp_path}/shards.txt:3")
    assert (len(first), first.weight, len(second), second.weight) == (4, 2, 2, 1)


def test_a_file_whose_name_has_braces_is_itself(tmp_path):
    write_tar(tmp_path / "a-{0..1}.tar", FILES)
    assert len(parse_sources(f"{tmp_path}/a-{{0..1}}.tar")[0]) == len(FILES)


def test_folders_are_named_by_braces_too(place):
    (place / "more").mkdir()
    (place / "more" / "q.png").write_bytes(FILES["p00.png"])
    (source,) = parse_sources(f"{place}/{{tree,more}}:2")
    assert len(source) == 4 and source.weight == 2
    with pytest.raises(UserError, match="no folder .*less"):
        parse_sources(f"{place}/{{tree,less}}")
