"""The same pictures from every kind of source, and what is said of those that are damaged."""

import io
import logging
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import encoded, picture
from vosr_jax.data.pictures import UnreadablePicture, decode_picture
from vosr_jax.data.sources import parse_sources
from vosr_jax.data.sources.source import Names
from vosr_jax.data.sources.tar import load_index, make_index
from vosr_jax.errors import UserError

COUNT = 12
FILES = {f"p{number:02d}.png": encoded(picture(number)) for number in range(COUNT)}


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))


def write_array_records(path, records):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def halves():
    items = list(FILES.items())
    return dict(items[: COUNT // 2]), dict(items[COUNT // 2 :])


@pytest.fixture
def kinds(tmp_path):
    """Text for data.sources by kind of source; each holds the same pictures in the same order."""
    for folder in ("tree", "tars", "records"):
        (tmp_path / folder).mkdir()
    for name, data in FILES.items():
        (tmp_path / "tree" / name).write_bytes(data)
    for number, files in enumerate(halves()):
        write_tar(tmp_path / "tars" / f"s-{number}.tar", files)
        shard = tmp_path / "records" / f"r.array_record-{number:05d}-of-00002"
        write_array_records(shard, files.values())
    paths = [str(tmp_path / "tree" / name) for name in FILES]
    (tmp_path / "list.txt").write_text("\n".join(paths) + "\n")
    (tmp_path / "lists.txt").write_text(f"# photographs\n\n{tmp_path}/list.txt, 1\n")
    (tmp_path / "folders.txt").write_text(f"{tmp_path}/tars, 3\n")
    return {
        "tree": f"{tmp_path}/tree",
        "folder of tars": f"{tmp_path}/tars",
        "tars by pattern": f"{tmp_path}/tars/*.tar:2",
        "ArrayRecord": f"{tmp_path}/records",
        "list of files": f"{tmp_path}/list.txt",
        "official, lists": f"{tmp_path}/lists.txt",
        "official, folders": f"{tmp_path}/folders.txt",
    }


def test_every_kind_gives_the_same_records_also_in_another_process(kinds):
    expected = [decode_picture(data) for data in FILES.values()]
    for kind, text in kinds.items():
        (source,) = parse_sources(text)
        (travelled,) = pickle.loads(pickle.dumps((source,)))
        for one in (source, travelled):
            assert len(one) == COUNT, kind
            for position in (7, 0, COUNT - 1):
                assert np.array_equal(one.read(position), expected[position]), kind
            assert one.record_name(3)
            with pytest.raises(IndexError):
                one.open(COUNT)


def test_a_file_of_lists_repeats_them_and_a_file_of_folders_weighs_them(tmp_path, kinds):
    short = tmp_path / "short.txt"
    short.write_text("tree/p00.png\ntree/p01.png\n")
    (tmp_path / "two.txt").write_text(f"{short}, 3\n{tmp_path}/list.txt\n")
    (source,) = parse_sources(f"{tmp_path}/two.txt:5")
    assert source.weight == 5 and len(source) == 3 * 2 + COUNT
    names = [os.path.basename(source.record_name(position)) for position in range(len(source))]
    assert names[:6] == ["p00.png", "p01.png"] * 3 and names[6] == "p00.png"
    (tmp_path / "weighed.txt").write_text("tars, 3\nrecords, 1\n")
    first, second = parse_sources(f"{tmp_path}/weighed.txt:2")
    assert (first.weight, second.weight) == (1.5, 0.5)


@pytest.mark.parametrize(
    "content,message",
    [
        ("", "names nothing"),
        ("tars, 1\nlist.txt, 1\n", "both folders and lists"),
        ("list.txt, 1.5\n", "whole number"),
        ("list.txt, 1, 2\n", "whole number"),
        ("list.txt, 0\n", "whole number"),
        ("tree/p00.png, 2\n", "without a number"),
        ("nowhere, 1\n", "there is no"),
        ("empty.txt, 1\n", "names no pictures"),
    ],
)
def test_a_malformed_text_file_is_an_error_that_names_it(tmp_path, kinds, content, message):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bad.txt").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        parse_sources(str(tmp_path / "bad.txt"))
    assert "txt" in str(error.value)


def test_of_a_sample_with_several_files_the_first_picture_counts(tmp_path):
    one, other = list(FILES.values())[:2]
    files = {"a.json": b"{}", "a.png": one, "a.jpg": other, "b/c.seg.png": one, "b/c.png": other}
    write_tar(tmp_path / "s.tar", files)
    (source,) = parse_sources(f"{tmp_path}/s.tar")
    assert [source.record_name(k).rpartition("tar/")[2] for k in range(len(source))] == [
        "a.png",
        "b/c.seg.png",
    ]


def test_a_tar_is_indexed_once_and_again_when_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "s.tar"
    write_tar(path, FILES)
    assert len(load_index(str(path)).names) == COUNT
    assert (tmp_path / "s.tar.index.npz").exists()
    monkeypatch.setattr("vosr_jax.data.sources.tar.make_index", lambda path: 1 / 0)
    assert list(load_index(str(path)).names) == list(FILES)
    monkeypatch.undo()
    write_tar(path, dict(list(FILES.items())[:3]))
    assert len(load_index(str(path)).names) == 3
    (tmp_path / "s.tar.index.npz").write_bytes(b"damaged")
    assert len(load_index(str(path)).names) == 3
    assert not list(tmp_path.glob("*.part"))


def test_where_the_shards_folder_may_not_be_written_the_index_lies_in_the_cache_folder(
    tmp_path, monkeypatch
):
    write_tar(tmp_path / "s.tar", FILES)
    # The administrator may write everywhere, so the place itself is blocked.
    (tmp_path / "s.tar.index.npz").mkdir()
    monkeypatch.setenv("VOSR_CACHE", str(tmp_path / "cache"))
    load_index(str(tmp_path / "s.tar"))
    assert len(list((tmp_path / "cache").glob("*.index.npz"))) == 1
    monkeypatch.setattr("vosr_jax.data.sources.tar.make_index", lambda path: 1 / 0)
    assert len(load_index(str(tmp_path / "s.tar")).names) == COUNT


def test_a_tar_cut_in_the_middle_gives_what_it_has_and_a_warning(tmp_path, caplog):
    path = tmp_path / "s.tar"
    write_tar(path, FILES)
    index = make_index(str(path))
    cut = int(index.offsets[5]) + int(index.sizes[5]) // 2
    path.write_bytes(path.read_bytes()[:cut])
    with caplog.at_level(logging.WARNING):
        (source,) = parse_sources(str(path))
    assert "ends in the middle" in caplog.text and "s.tar" in caplog.text
    assert len(source) == 6 and source.read(4).shape == (56, 72, 3)
    with pytest.raises(UnreadablePicture, match="tar file ends"):
        source.read(5)


def test_a_whole_tar_gives_no_warning(tmp_path, caplog):
    write_tar(tmp_path / "s.tar", FILES)
    with caplog.at_level(logging.WARNING):
        parse_sources(f"{tmp_path}/s.tar")
    assert not caplog.text


def test_what_is_no_tar_or_has_no_pictures_is_an_error(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(UserError, match="a.tar cannot be read as a tar file"):
        parse_sources(f"{tmp_path}/a.tar")
    with tarfile.open(tmp_path / "b.tar", "w:gz") as tar:
        tar.add(__file__)
    with pytest.raises(UserError, match="uncompressed"):
        parse_sources(f"{tmp_path}/b.tar")
    write_tar(tmp_path / "c.tar", {"notes.txt": b"text"})
    with pytest.raises(UserError, match="hold no pictures"):
        parse_sources(f"{tmp_path}/c.tar")
    with pytest.raises(UserError, match="no shards"):
        parse_sources(f"{tmp_path}/nothing-*.tar")


def test_a_folder_of_several_kinds_needs_a_prefix(tmp_path, kinds):
    tars = tmp_path / "tars"
    (tars / "stray.png").write_bytes(FILES["p00.png"])
    with pytest.raises(UserError, match="prefix"):
        parse_sources(str(tars))
    assert len(parse_sources(f"tar:{tars}")[0]) == COUNT
    assert len(parse_sources(f"files:{tars}:2")[0]) == 1


def test_what_is_no_array_record_is_an_error_and_a_record_that_is_no_picture_is_bad(tmp_path):
    (tmp_path / "a.array_record").write_bytes(b"no records" * 100)
    with pytest.raises(UserError, match="a.array_record"):
        parse_sources(f"{tmp_path}/a.array_record")
    write_array_records(tmp_path / "b.array_record", [b"no picture", FILES["p00.png"]])
    (source,) = parse_sources(f"{tmp_path}/b.array_record")
    with pytest.raises(UnreadablePicture):
        source.read(0)
    assert source.read(1).shape == (56, 72, 3)


def test_a_dataset_that_is_not_there_is_an_error():
    with pytest.raises(UserError, match="tfds:no_such_photographs"):
        parse_sources("tfds:no_such_photographs?data_dir=/nowhere")
    with pytest.raises(UserError, match="unclear"):
        parse_sources("tfds:photographs?folder=/nowhere")


def test_names_keep_any_bytes_that_a_file_name_can_hold():
    given = ["a", "", "ä/ö.png", os.fsdecode(b"\xff.jpg")]
    names = pickle.loads(pickle.dumps(Names(given)))
    assert list(names) == given and names[1:3] == given[1:3]
    with pytest.raises(IndexError):
        names[4]


def test_a_link_to_a_folder_above_is_not_followed_for_ever(tmp_path):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "a.png").write_bytes(FILES["p00.png"])
    (tmp_path / "deeper" / "up").symlink_to(Path(tmp_path))
    assert len(parse_sources(str(tmp_path))[0]) == 1
