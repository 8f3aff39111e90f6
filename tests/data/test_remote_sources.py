"""Sources in a bucket: the records that a disk would give, read in parts."""

import json
import os
import pickle
import tarfile
import tracemalloc

import numpy as np
import pytest

from tests.data.test_source_kinds import (  # noqa: F401
    COUNT,
    FILES,
    kinds,
    write_array_records,
    write_tar,
)
from vosr_jax.data.pictures import UnreadablePicture, decode_picture
from vosr_jax.data.sources import parse_sources, tar
from vosr_jax.data.sources.storage import RangeFile
from vosr_jax.data.sources.tar import load_index
from vosr_jax.errors import UserError
from vosr_jax.files import to_path, write_text
from vosr_jax.files.paths import filesystem


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VOSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def home(bucket, tmp_path):
    return f"{bucket}/{tmp_path.name}"


def upload(folder, home):
    for file in folder.rglob("*"):
        if file.is_file():
            place = f"{home}/{file.relative_to(folder).as_posix()}"
            filesystem(home).put_file(str(file), place)


def test_every_kind_in_a_bucket_gives_the_records_of_the_disk(kinds, home, tmp_path):  # noqa: F811
    upload(tmp_path, home)
    write_text(f"{home}/list.txt", "".join(f"{home}/tree/{name}\n" for name in FILES))
    write_text(f"{home}/relative.txt", "".join(f"tree/{name}\n" for name in FILES))
    write_text(f"{home}/lists.txt", f"# photographs\n\n{home}/list.txt, 1\n")
    write_text(f"{home}/folders.txt", "tars, 3\n")
    expected = [decode_picture(data) for data in FILES.values()]
    texts = [text.replace(str(tmp_path), home) for text in kinds.values()]
    texts += [f"{home}/relative.txt", f"tar:{home}/tars", f"{home}/tars/s-{{0..1}}.tar"]
    for text in texts:
        (source,) = parse_sources(text)
        (travelled,) = pickle.loads(pickle.dumps((source,)))
        for one in (source, travelled):
            assert len(one) == COUNT, text
            for position in (7, COUNT - 1):
                assert np.array_equal(one.read(position), expected[position]), text
            assert "runs" in one.record_name(3)


def test_of_a_tar_only_the_picture_is_read(home, tmp_path, monkeypatch):
    write_tar(tmp_path / "s.tar", FILES)
    upload(tmp_path, home)
    (source,) = parse_sources(f"{home}/s.tar")
    store, asked = filesystem(home), []
    before = store.cat_file
    monkeypatch.setattr(
        store,
        "cat_file",
        lambda path, start, end: asked.append(end - start) or before(path, start, end),
    )
    source.open(5).read()
    assert asked == [len(FILES["p05.png"])]


def test_the_index_is_kept_beside_the_shard_and_made_again_when_that_changes(
    home, tmp_path, monkeypatch
):
    write_tar(tmp_path / "s.tar", FILES)
    upload(tmp_path, home)
    shard = f"{home}/s.tar"
    assert len(load_index(shard).names) == COUNT
    assert to_path(f"{shard}.index.npz").exists()
    made = []
    make = tar.make_index
    monkeypatch.setattr(tar, "make_index", lambda path: made.append(path) or make(path))
    assert len(load_index(shard).names) == COUNT and not made
    # As many bytes, another content.
    size = (tmp_path / "s.tar").stat().st_size
    write_tar(tmp_path / "s.tar", {name.replace("p03", "q03"): d for name, d in FILES.items()})
    assert (tmp_path / "s.tar").stat().st_size == size
    upload(tmp_path, home)
    assert "q03.png" in list(load_index(shard).names) and made == [shard]
    to_path(f"{shard}.index.npz").write_bytes(b"damaged")
    assert len(load_index(shard).names) == COUNT and len(made) == 2


def test_a_large_tar_is_indexed_in_bounded_memory(home, tmp_path):
    with tarfile.open(tmp_path / "large.tar", "w") as tar:
        for number in range(16):
            about = tarfile.TarInfo(f"p{number:02}.png")
            about.size = 4 << 20
            with open("/dev/urandom", "rb") as noise:
                tar.addfile(about, noise)
    upload(tmp_path, home)
    load_index(f"{home}/large.tar")  # imports, and the index is there
    to_path(f"{home}/large.tar.index.npz").unlink()
    tracemalloc.start()
    index = load_index(f"{home}/large.tar")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(index.names) == 16 and peak < 40e6, peak


def test_a_range_file_reads_like_a_file(home, tmp_path):
    data = bytes(range(256)) * 10
    (tmp_path / "f").write_bytes(data)
    upload(tmp_path, home)
    with open(tmp_path / "f", "rb") as local, RangeFile(f"{home}/f") as remote:
        for place, whence, size in ((0, 0, 10), (5, 1, 7), (-3, 2, 100), (9999, 0, 5), (20, 0, -1)):
            assert local.seek(place, whence) == remote.seek(place, whence)
            assert local.read(size) == remote.read(size)
            assert local.tell() == remote.tell()


def test_a_picture_that_is_gone_is_a_bad_record(home, tmp_path):
    write_text(f"{home}/list.txt", "gone.png\nthere.png\n")
    to_path(f"{home}/there.png").write_bytes(FILES["p00.png"])
    (source,) = parse_sources(f"{home}/list.txt")
    with pytest.raises(UnreadablePicture, match="no such file"):
        source.read(0)
    assert source.read(1).shape


@pytest.mark.parametrize(
    "text, said",
    [
        ("{home}/nowhere", "no photographs in gs://"),
        ("{home}/nowhere/*.tar", "no shards at gs://"),
        ("{home}/no.txt", "no.txt cannot be read"),
        ("gs://no-such-bucket/tree", "no-such-bucket"),
        ("tfds:photographs?data_dir={home}", "cannot be found in gs://"),
    ],
)
def test_what_is_not_in_the_bucket_is_named_in_one_sentence(home, text, said):
    with pytest.raises(UserError, match=said) as told:
        parse_sources(text.format(home=home))
    assert "\n" not in str(told.value)


def test_array_records_are_copied_once(kinds, home, tmp_path, cache):  # noqa: F811
    upload(tmp_path / "records", f"{home}/records")
    for _ in range(2):
        (source,) = parse_sources(f"{home}/records")
    shards = [p for p in cache.rglob("r.array_record*")]
    assert len(shards) == 2 and source.record_name(0) == f"{home}/records[0]"
    times = [os.stat(p).st_mtime_ns for p in shards]
    parse_sources(f"{home}/records")
    assert [os.stat(p).st_mtime_ns for p in shards] == times


def field(number, content):
    """A field of a protocol buffer that holds bytes."""
    length, size = len(content), b""
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def example(data):
    """A tf.train.Example with one feature, without TensorFlow, whose import takes seconds."""
    feature = field(1, field(1, data))
    return field(1, field(1, field(1, b"image") + field(2, feature)))


@pytest.fixture
def dataset(tmp_path):
    """A TensorFlow dataset with two splits, as ArrayRecord."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path / "datasets" / "small" / "1.0.0"
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(None, None, 3))})
    records = [example(data) for data in FILES.values()]
    splits = []
    for split, chosen in (("train", records), ("test", records[:2])):
        write_array_records(folder / f"small-{split}.array_record-00000-of-00001", chosen)
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        lengths = [str(len(chosen))]
        splits.append({"name": split, "shardLengths": lengths, "filepathTemplate": template})
    features.save_config(folder)
    about = {"name": "small", "version": "1.0.0", "fileFormat": "array_record", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(about))
    return folder


def test_a_tensorflow_dataset_in_a_bucket_is_copied_split_by_split(dataset, home, cache):
    upload(dataset, f"{home}/small/1.0.0")
    texts = (f"{home}/small/1.0.0", f"tfds:small?data_dir={home}")
    for text in texts:
        (source,) = parse_sources(text)
        assert len(source) == COUNT and text in source.record_name(2)
        assert np.array_equal(source.read(2), decode_picture(FILES["p02.png"]))
    assert not [p for p in cache.rglob("*small-test*")]
    (test,) = parse_sources(f"tfds:small?data_dir={home}&split=test")
    assert len(test) == 2
