"""Files that grow, in a bucket."""

import json
import threading
import time

import pytest

from vosr_jax.errors import UserError
from vosr_jax.files import to_path
from vosr_jax.files.mirror import Mirror, upload_before_leaving


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_folder_on_a_disk_is_used_itself(tmp_path):
    with Mirror(tmp_path) as mirror:
        assert mirror.folder == tmp_path
        (tmp_path / "a").write_text("1")
    assert (tmp_path / "a").read_text() == "1"


def test_what_is_written_is_in_the_bucket_at_the_end(bucket, tmp_path):
    home = to_path(f"{bucket}/{tmp_path.name}")
    with Mirror(home) as mirror:
        (mirror.folder / "metrics.jsonl").write_text('{"step": 1}\n')
        (mirror.folder / "samples").mkdir()
        (mirror.folder / "samples" / "1.png").write_bytes(b"png")
        (mirror.folder / ".2.png.part").write_bytes(b"half")
    assert not mirror.folder.exists()
    assert (home / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert (home / "samples" / "1.png").read_bytes() == b"png"
    assert not (home / ".2.png.part").exists()


def test_the_next_process_goes_on_with_the_lines_before(bucket, tmp_path):
    home = to_path(f"{bucket}/{tmp_path.name}")
    for step in range(3):
        with Mirror(home) as mirror, (mirror.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step}) + "\n")
    rows = [json.loads(line)["step"] for line in (home / "metrics.jsonl").read_text().splitlines()]
    assert rows == [0, 1, 2]


def test_a_killed_process_loses_no_more_than_its_latest_lines_and_no_half_ones(bucket, tmp_path):
    home = to_path(f"{bucket}/{tmp_path.name}")
    mirror = Mirror(home, every=0.1)
    with (mirror.folder / "metrics.jsonl").open("a", buffering=1) as file:
        file.write('{"step": 1}\n{"st')
        wait_for((home / "metrics.jsonl").exists)
        # As the bucket has it when the process is gone.
        assert (home / "metrics.jsonl").read_text() == '{"step": 1}\n'
        file.write('ep": 2}\n')
        wait_for(lambda: (home / "metrics.jsonl").read_text().endswith('{"step": 2}\n'))
    mirror.close()


def test_asked_for_it_uploads_before_its_time(bucket, tmp_path):
    home = to_path(f"{bucket}/{tmp_path.name}")
    with Mirror(home, every=1000) as mirror:
        (mirror.folder / "goodput.json").write_text("{}")
        mirror.push()
        wait_for((home / "goodput.json").exists)


def test_everything_below_is_brought_where_it_is_wanted(bucket, tmp_path):
    home = to_path(f"{bucket}/{tmp_path.name}")
    (home / "rows" / "a.json").write_text("{}")
    with Mirror(home, whole=True) as mirror:
        assert (mirror.folder / "rows" / "a.json").read_text() == "{}"
    with Mirror(home) as mirror:
        assert not (mirror.folder / "rows").exists()


def test_other_processes_upload_only_what_is_theirs(bucket, tmp_path):
    home = to_path(f"{bucket}/{tmp_path.name}")
    with Mirror(home, only=("plugins/",)) as mirror:
        (mirror.folder / "plugins").mkdir()
        (mirror.folder / "plugins" / "trace").write_text("t")
        (mirror.folder / "metrics.jsonl").write_text("\n")
    assert [p.name for p in home.iterdir()] == ["plugins"]


def test_a_bucket_that_goes_away_is_told_once_and_ends_nothing(bucket, tmp_path):
    said = []
    with Mirror(f"{bucket}/{tmp_path.name}", tell=said.append, every=0.1) as mirror:
        mirror._home = "gs://no-such-bucket/run"
        (mirror.folder / "metrics.jsonl").write_text("\n")
        wait_for(lambda: said)
        time.sleep(0.3)
    assert len(said) == 2 and "no-such-bucket" in said[0] and "lost" in said[1]


def test_where_nobody_is_told_a_lost_file_is_an_error(bucket, tmp_path):
    with pytest.raises(UserError, match="no-such-bucket"):
        with Mirror(f"{bucket}/{tmp_path.name}", every=1000) as mirror:
            mirror._home = "gs://no-such-bucket/run"
            (mirror.folder / "results.json").write_text("{}")


def test_a_bucket_that_is_not_there_is_an_error_at_the_start(bucket):
    with pytest.raises(UserError, match="no-such-bucket"):
        Mirror("gs://no-such-bucket/run")


def test_a_process_that_ends_at_once_can_upload_before(bucket, tmp_path):
    home = to_path(f"{bucket}/{tmp_path.name}")
    with Mirror(home, every=1000) as mirror:
        (mirror.folder / "train.log").write_text("stacks")
        upload_before_leaving()
        assert (home / "train.log").read_text() == "stacks"


def test_a_file_that_grows_while_it_is_sent_arrives_in_whole_lines(bucket, tmp_path):
    home = to_path(f"{bucket}/{tmp_path.name}")
    line = b'{"text": "' + b"x" * 200_000 + b'"}\n'
    with Mirror(home, every=0.05) as mirror:

        def write():
            with (mirror.folder / "metrics.jsonl").open("ab", buffering=0) as file:
                for part in [line[:100_000], line[100_000:]] * 60:
                    file.write(part)
                    time.sleep(0.002)

        writer = threading.Thread(target=write)
        writer.start()
        seen = []
        while writer.is_alive():
            if (home / "metrics.jsonl").exists():
                seen.append((home / "metrics.jsonl").read_bytes())
        writer.join()
    seen.append((home / "metrics.jsonl").read_bytes())
    assert all(len(one) % len(line) == 0 for one in seen)
    assert seen[-1] == line * 60
