"""Models from a hub, here one on this machine: whole, checked, resumed, clear about failures."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.parity import goldens
from tests.weights.hub_server import COMMIT, HubServer
from vosr_jax.errors import UserError
from vosr_jax.restoration.loading import load_model
from vosr_jax.weights.model_names import HubModel, hub_model
from vosr_jax.weights.resolve import locate

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Make a server of a folder that this process takes for the hub; stopped at the end."""
    servers = []

    def serve(folder, repo="CSWRY/VOSR") -> HubServer:
        server = HubServer(repo, folder)
        servers.append(server)
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        return server

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def release(tmp_path, served):
    """A server of the goldens' small release, laid out as the official page."""
    folder = tmp_path / "release"
    shutil.copytree(goldens.folder("pipeline") / "preset/ckpts", folder)
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    return served(folder)


@pytest.fixture
def small(tmp_path, served):
    """A server of an export without meaning, in a folder of the repository me/nets."""
    folder = tmp_path / "nets"
    (folder / "one").mkdir(parents=True)
    (folder / "one/config.json").write_text("{}")
    (folder / "one/model.safetensors").write_bytes(np.arange(500, dtype=np.float32).tobytes())
    (folder / "other.txt").write_text("not asked for")
    return served(folder, "me/nets")


def locate_model(name: str) -> Path:
    return locate(name, f"model {name}")


def test_ids_and_names_are_told_from_paths():
    assert hub_model("0.5b-onestep") == HubModel("CSWRY/VOSR", "VOSR_0.5B_os")
    assert hub_model("1.4b@v1") == HubModel("CSWRY/VOSR", "VOSR_1.4B_ms", "v1")
    assert hub_model("me/nets:a/b@main") == HubModel("me/nets", "a/b", "main")
    assert hub_model("me/nets") == HubModel("me/nets")
    for name in ("nanno", "./me/nets", "/me/nets", "a/b/c"):
        assert hub_model(name) is None
    with pytest.raises(UserError, match="inside the repository"):
        hub_model("me/nets:../x")


def test_a_released_name_brings_the_files_that_it_needs_and_no_others(release):
    folder = locate_model("0.5b-onestep")
    assert sorted(release.downloads()) == [
        "VOSR_0.5B_os/args.json",
        "VOSR_0.5B_os/checkpoints/ema_model.safetensors",
        "sd21_lwdecoder.pth",
        "stable-diffusion-2-1-base/vae/config.json",
        "stable-diffusion-2-1-base/vae/diffusion_pytorch_model.safetensors",
        "torch_cache/checkpoints/dinov2_vitb14_pretrain.pth",
    ]
    assert load_model(folder).sampler.r_input
    release.requests.clear()
    assert locate_model("0.5b-onestep") == folder and not release.downloads()


def test_an_export_is_fetched_by_folder_and_revision(small):
    folder = locate_model("me/nets:one@v1")
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    original = small.folder / "one/model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == original.read_bytes()


def test_a_broken_connection_is_taken_up_where_it_broke(small):
    small.cut["one/model.safetensors"] = 700
    folder = locate_model("me/nets:one")
    original = small.folder / "one/model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == original.read_bytes()
    ranges = [r for method, path, r in small.requests if method == "GET" and "model.s" in path]
    assert ranges[0] is None and len(ranges) == 2


def test_a_wrong_checksum_is_named_and_the_file_not_kept(small):
    small.wrong.add("one/model.safetensors")
    with pytest.raises(UserError, match=r"one/model\.safetensors arrived with another checksum"):
        locate_model("me/nets:one")
    blobs = Path(constants.HF_HUB_CACHE) / "models--me--nets/blobs"
    assert len(list(blobs.iterdir())) == 1
    small.wrong.clear()
    assert (locate_model("me/nets:one") / "model.safetensors").is_file()


def test_a_file_that_others_put_into_the_cache_is_checked_too(small):
    import huggingface_hub

    name, revision = "one/model.safetensors", COMMIT
    place = Path(huggingface_hub.hf_hub_download("me/nets", name, revision=revision))
    blob = place.resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"x" * blob.stat().st_size)
    with pytest.raises(UserError, match="another checksum"):
        locate_model("me/nets:one")
    original = small.folder / name
    fetched = locate_model("me/nets:one") / "model.safetensors"
    assert fetched.read_bytes() == original.read_bytes()


def test_what_the_hub_does_not_have_is_named(release):
    with pytest.raises(UserError, match="no repository me/nothing"):
        locate_model("me/nothing:x")
    with pytest.raises(UserError, match="no revision v9"):
        locate_model("0.5b@v9")
    with pytest.raises(UserError, match="no folder VOSR_9B; it has .*VOSR_0.5B_ms"):
        locate_model("CSWRY/VOSR:VOSR_9B")
    with pytest.raises(UserError, match="neither an export .* nor args.json"):
        locate_model("CSWRY/VOSR:torch_cache")
    release.withheld.add("VOSR_0.5B_ms/checkpoints/ema_model.safetensors")
    with pytest.raises(UserError, match=r"lists VOSR_0\.5B_ms/checkpoints/ema_model.* not give"):
        locate_model("0.5b")


def test_a_part_that_the_repository_lacks_is_named(release):
    (release.folder / "sd21_lwdecoder.pth").unlink()
    with pytest.raises(UserError, match=r"needs preset/ckpts/sd21_lwdecoder\.pth, which"):
        locate_model("0.5b")


def test_a_hub_out_of_reach_is_one_sentence(small):
    small.close()
    with pytest.raises(UserError, match=r"me/nets:one cannot be fetched from http://127\.0\.0\.1"):
        locate_model("me/nets:one")


def test_offline_uses_what_is_there_and_says_what_is_not(small, monkeypatch):
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(UserError, match="not in the local cache and HF_HUB_OFFLINE is set"):
            locate_model("me/nets:one")
    folder = locate_model("me/nets:one")
    small.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate_model("me/nets:one") == folder and not small.requests
    with pytest.raises(UserError, match="two is not in the local cache"):
        locate_model("me/nets:two")


def test_without_the_package_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'vosr_jax\[hub\]'"):
        locate_model("0.5b")


def _environment(server: HubServer, cache: Path) -> dict[str, str]:
    return os.environ | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def test_a_killed_download_goes_on_where_it_stopped(tmp_path, small):
    path = "one/model.safetensors"
    content = np.random.default_rng(0).bytes(24 << 20)
    (small.folder / path).write_bytes(content)
    program = (
        "from vosr_jax.weights.hub import fetch; "
        "from vosr_jax.weights.model_names import hub_model; "
        "print(fetch(hub_model('me/nets:one')))"
    )
    command = [sys.executable, "-c", program]
    environment = _environment(small, tmp_path / "home")
    small.stall[path] = 15 << 20
    killed = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        assert small.stalled.wait(60)
        partial = tmp_path / "home/hub/models--me--nets/blobs"
        for _ in range(200):
            if any(f.stat().st_size for f in partial.glob("*.partial")):
                break
            killed.poll()
            small._closing.wait(0.05)
    finally:
        killed.kill()
        killed.wait()
    (kept,) = partial.glob("*.partial")
    arrived = kept.stat().st_size
    small.stall.clear()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "model.safetensors").read_bytes() == content
    ranges = [r for method, p, r in small.requests if method == "GET" and p.endswith(path)]
    assert 0 < arrived < len(content) and ranges == [None, f"bytes={arrived}-"]


def test_the_command_fetches_with_the_environment_alone(tmp_path, release):
    command = [sys.executable, "-m", "vosr_jax.cli", "info", "CSWRY/VOSR:VOSR_0.5B_os@main"]
    environment = _environment(release, tmp_path / "home")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "VOSR_0.5B_os, one-step" in done.stdout
