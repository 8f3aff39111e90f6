"""Paths on disks and in buckets."""

import http.server
import importlib.util
import os
import subprocess
import sys
import threading

import pytest
from etils import epath

from vosr_jax.errors import UserError
from vosr_jax.files import (
    absolute,
    is_remote,
    listing,
    reading,
    size_of,
    to_path,
    write_text,
    writing,
)


def test_a_local_path_is_an_epath_with_the_home_folder_filled_in():
    assert isinstance(to_path("a/b"), epath.Path)
    assert os.fspath(to_path("file:///a/b")) == "/a/b"
    assert os.fspath(to_path("~/run")) == os.path.expanduser("~/run")
    assert not is_remote("a/b") and is_remote("gs://a/b")


def test_an_address_in_a_bucket_keeps_its_scheme(bucket):
    path = to_path(f"{bucket}/run") / "config.json"
    assert os.fspath(path) == f"{bucket}/run/config.json"


def test_an_absolute_path_of_an_address_is_the_address(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert os.fspath(absolute(f"{bucket}/run")) == f"{bucket}/run"
    assert os.fspath(absolute("run")) == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "said"),
    [("hdfs://a/b", "gs://"), ("gs://", "names no bucket"), ("gs:///", "names no bucket")],
)
def test_an_address_of_no_use_is_refused_in_one_sentence(text, said):
    with pytest.raises(UserError, match=said):
        to_path(text)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "s3fs" else found(name, *a)
    )
    with pytest.raises(UserError, match=r"s3fs: pip install 'vosr_jax\[s3\]'"):
        to_path("s3://bucket/run")


def test_a_missing_bucket_is_an_error_that_names_it(bucket):
    path = "gs://no-such-bucket/run/config.json"
    with pytest.raises(UserError, match="bucket no-such-bucket exists"), reading(path):
        to_path(path).read_text()


class _Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"error": {"code": 401, "message": "Anonymous caller lacks access"}}')

    def log_message(self, *_):
        pass


def test_missing_rights_are_told_how_to_get_them():
    server = http.server.HTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    program = (
        "from vosr_jax.files import *\n"
        "try:\n"
        "  with reading('gs://bucket/file'): to_path('gs://bucket/file').read_text()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    place = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{server.server_port}"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | place, capture_output=True, text=True
    )
    server.shutdown()
    assert done.stdout.startswith("UserError gs://bucket/file cannot be read"), done
    assert "GOOGLE_APPLICATION_CREDENTIALS, with the right to use gs://bucket" in done.stdout
    assert done.stdout.count("\n") == 1


def test_programs_errors_are_not_taken_for_the_stores(bucket):
    with pytest.raises(KeyError), writing(f"{bucket}/x"):
        raise KeyError("mine")


def test_a_listing_shows_what_another_writer_has_just_put_there(bucket):
    folder = to_path(f"{bucket}/listing")
    (folder / "a").write_text("1")
    assert [p.name for p in folder.iterdir()] == ["a"]
    program = f"from vosr_jax.files import *; write_text('{folder}/b', '22')"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert sorted(p.name for p in folder.iterdir()) == ["a", "b"]
    assert size_of(folder / "b") == 2


def test_the_size_of_a_local_file(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    assert size_of(to_path(tmp_path / "a")) == 3


def test_tensorflow_is_not_asked_even_where_paths_were_used_before(bucket, tmp_path):
    program = (
        "import os, sys; from etils import epath\n"
        f"epath.Path('{tmp_path}').exists(); del os.environ['EPATH_USE_TF']\n"
        "from vosr_jax.files import to_path\n"
        f"print(to_path('{bucket}/nothing').exists(), 'tensorflow' in sys.modules)"
    )
    environment = os.environ | {"EPATH_USE_TF": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_a_folder_that_is_not_there_holds_nothing(bucket, tmp_path):
    for home in (tmp_path, to_path(f"{bucket}/{tmp_path.name}")):
        assert listing(home / "x") == []
        write_text(home / "x" / "b" / "deep", "")
        write_text(home / "x" / "a", "")
        assert listing(home / "x") == [to_path(home / "x" / "a"), to_path(home / "x" / "b")]
    with pytest.raises(UserError, match="no-such-bucket"):
        listing("gs://no-such-bucket/x")
