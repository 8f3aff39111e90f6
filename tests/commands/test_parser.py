"""A mistake at the keyboard takes two lines, which say what was probably meant."""

import pytest

import vosr_jax
from vosr_jax import cli


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["upscale", "a.png", "-o", "out", "--scale", "2"], "did you mean -u or --upscale?"),
        (["upscale", "a.png", "-o", "out", "-s", "2"], "did you mean -u or --upscale?"),
        (["upscale", "-i", "a.png", "-o", "out"], "pictures are named without one"),
        (["upscale", "a.png", "-o", "out", "--tile", "64"], "--tile"),
        (["upscale", "a.png", "-o", "out", "--colourfix=none"], "did you mean --colour-fix?"),
        (["upscale", "a.png", "-o", "out", "--preset", "Creativ"], "did you mean creative?"),
        (["upscale", "a.png", "-o", "out", "--format", "jpeg"], "did you mean jpg?"),
        (["upscale", "a.png", "-o", "out", "--format", "bmp"], "choose png, jpg, webp, tif"),
        (["upscal", "a.png"], "did you mean upscale?"),
        (["data", "inspekt"], "did you mean inspect?"),
        (["data", "inspect", "--cuont", "3"], "did you mean --count?"),
        (["upscale", "a.png"], "-o/--out"),
        (["upscale", "a.png", "-o", ""], "it is empty"),
        (["upscale", "a.png", "-o", "out", "--suffix", "../../x"], "would leave the folder"),
        (["upscale", "a.png", "-o", "out", "--suffix", "..\\x"], "would leave the folder"),
        (["upscale", "a.png", "-o", "out", "--steps", "many"], "--steps"),
        (["info", "--veriffy"], "did you mean --verify?"),
    ],
)
def test_a_mistake_takes_two_lines(capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and said in lines[0] and lines[1].startswith("see: vosr")


@pytest.mark.parametrize("name, meant", [("Nano", "nano"), ("nano-one-step", "nano-onestep")])
def test_a_misspelt_model_is_suggested(capsys, name, meant):
    assert cli.main(["info", name]) == 1
    assert f"did you mean {meant}?" in capsys.readouterr().err


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"vosr_jax {vosr_jax.__version__}\n"
