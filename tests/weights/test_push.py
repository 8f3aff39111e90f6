"""An export becomes a card and a commit on the hub, and comes back byte for byte."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from tests.weights.hub_server import HubServer
from vosr_jax.cli import main
from vosr_jax.errors import UserError
from vosr_jax.weights.hub import fetch
from vosr_jax.weights.model_names import hub_model
from vosr_jax.weights.publish import CARD, push, write_card

SHIPPED = Path(__file__).parents[2] / "vosr_jax" / "pretrained" / "nano-onestep"
REPO = "someone/nano-here"


@pytest.fixture
def export(tmp_path):
    shutil.copytree(SHIPPED, tmp_path / "export")
    return tmp_path / "export"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    (tmp_path / "hub").mkdir()
    server = HubServer(REPO, tmp_path / "hub")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    # The loopback server speaks the plain protocol alone.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield server
    server.close()


def test_a_card_says_what_a_person_asks(export, tmp_path):
    results = {
        "date": "2026-11-27",
        "about": {"device": "cpu"},
        "measures": {"psnr": {"title": "PSNR", "better": "higher"}},
        "runs": [{"name": "ours", "means": {"psnr": {"mean": 24.5}}}],
    }
    write_card(
        export, "Nano", address=REPO, licence="apache-2.0", results=results, data="my own photos"
    )
    card = ModelCard.load(export / CARD)
    assert card.data.license == "apache-2.0" and card.data.pipeline_tag == "image-to-image"
    assert f"vosr upscale photo.jpg -o out/ -m {REPO}" in card.text
    assert "# Nano\n" in card.text and "Trained on: my own photos." in card.text
    assert f"--config.eval.model={REPO}`" in card.text
    assert "| ours | 24.5 |" in card.text and "| denoiser | apache-2.0 |" in card.text
    assert "4,098,307 parameters" in card.text and "## Limits" in card.text


def test_what_cannot_become_a_card_is_refused(export, tmp_path):
    with pytest.raises(UserError, match="give --licence"):
        write_card(export, REPO)
    with pytest.raises(UserError, match="--licence wtf is unknown"):
        write_card(export, REPO, licence="wtf")
    with pytest.raises(UserError, match="no export"):
        write_card(tmp_path, REPO)
    with pytest.raises(UserError, match="none of eval.py's results.json"):
        write_card(export, REPO, licence="mit", results={"runs": 3})
    missing = ["card", str(export), "--licence", "mit", "--photo", str(tmp_path / "none.jpg")]
    assert main(missing) == 1
    assert not (export / CARD).exists()


def test_pushed_files_come_back_byte_for_byte(export, hub, capsys):
    asked = ["--licence", "apache-2.0", "--name", "Nano of mine"]
    assert main(["push", str(export), REPO, *asked]) == 0
    assert f"-m {REPO}" in capsys.readouterr().out
    written = (export / CARD).read_text()
    assert "# Nano of mine\n" in written and f'from_pretrained("{REPO}")' in written
    assert hub.commits == ["Upload export with vosr_jax"]
    got = fetch(hub_model(REPO))
    for file in ("config.json", "model.safetensors", "provenance.json"):
        assert (got / file).read_bytes() == (export / file).read_bytes()
    assert (hub.folder / CARD).read_bytes() == (export / CARD).read_bytes()


@pytest.mark.parametrize("status, message", [(403, "does not let you write"), (500, "refused")])
def test_a_hub_that_refuses_gets_nothing(export, hub, status, message):
    write_card(export, REPO, licence="mit")
    hub.refuses = status
    with pytest.raises(UserError, match=f"{message}.*nothing was published"):
        push(export, REPO)
    assert hub.files() == [] and hub.commits == []


def test_an_upload_that_breaks_off_publishes_nothing(export, hub):
    write_card(export, REPO, licence="mit")
    hub.breaks = True
    with pytest.raises(UserError, match="nothing was published"):
        push(export, REPO)
    assert hub.files() == [] and hub.commits == []


def test_a_repository_needs_an_owner_and_a_folder_a_card(export):
    with pytest.raises(UserError, match="write owner/name"):
        push(export, "nano")
    with pytest.raises(UserError, match="vosr card"):
        push(export, REPO)
    assert main(["push", str(export), "nano", "--licence", "mit"]) == 1
    assert not (export / CARD).exists()
    assert json.loads((export / "config.json").read_text())
