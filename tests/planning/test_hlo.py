"""Reading compiled programs: loops, slices, reduce-scatters, convolutions with holes."""

from pathlib import Path

import pytest

from vosr_jax.chips import CHIPS
from vosr_jax.planning.communication import collectives
from vosr_jax.planning.hlo import Shape, parse
from vosr_jax.planning.roofline import least_seconds, work_of

PROGRAM = Path(__file__).with_name("program.txt").read_text()


def test_a_loops_length_is_read_from_its_condition():
    program = parse(PROGRAM)
    times = {i.name: n for n, _, i in program.executed()}
    assert program.entry == "main"
    assert times["fusion.1"] == times["fusion.2"] == 28 and times["kernel.1"] == 1


def test_a_kernels_text_over_several_lines_is_one_instruction():
    kernel = parse(PROGRAM).computations["main"]["kernel.1"]
    assert kernel.attribute(r'op_name="([^"]*)"') == "jit(step)/splash_mha_fwd"
    assert len(parse(PROGRAM).computations["main"]) == 3


def test_a_fused_all_reduce_of_which_a_part_is_taken_is_a_reduce_scatter():
    found = {c.kind: c for c in collectives(parse(PROGRAM))}
    assert set(found) == {"all-gather", "reduce-scatter"}
    assert found["reduce-scatter"].total == 28 * 1024 * 64 * 4 * 7 / 8
    assert found["all-gather"].total == 28 * 1024 * 64 * 2 * 7 / 8
    assert found["all-gather"].members == tuple(range(8))
    assert not found["all-gather"].across


def test_a_group_that_reaches_over_slices_is_told_apart():
    assert all(c.across for c in collectives(parse(PROGRAM), devices_a_slice=4))


def test_of_a_stack_only_the_slice_is_read_and_what_lies_on_the_chip_is_free():
    asked = []

    def kernel_flops(operation, operands, results):
        asked.append((operation, results))
        return 1000

    work = {w.name: w for w in work_of(parse(PROGRAM), kernel_flops)}
    product = work["fusion.1"]
    assert product.times == 28 and product.flops == 2 * 16 * 64 * 1024
    assert product.bytes == 1024 * 64 * 2 + 4 + 16 * 64 * 2
    assert asked == [("jit(step)/splash_mha_fwd", (Shape("bf16", (8, 128)),))]
    assert work["kernel.1"].flops == 1000
    chip = CHIPS["v5e"]
    assert least_seconds(list(work.values()), chip) >= product.seconds(chip) > 0


@pytest.mark.parametrize(
    "line, flops",
    [
        # 3x3 with padding: the corners' taps outside do not count.
        (
            "%y = f32[1,4,4,8]{3,2,1,0} convolution(%a, %b), window={size=3x3 pad=1_1x1_1}, "
            "dim_labels=b01f_01io->b01f",
            2 * 8 * 4 * 10 * 10,
        ),
        # A batched product, its batch a dimension with holes.
        (
            "%y = f32[4,4,1,8]{3,2,1,0} convolution(%a, %b), window={size=4x1 pad=0_0x0_0 "
            "stride=3x1 lhs_dilate=4x1}, dim_labels=01bf_01io->01bf",
            2 * 4 * 4 * 1 * 8 * 4,
        ),
    ],
)
def test_padding_and_holes_of_a_convolution_are_no_work(line, flops):
    sizes = ("[1,4,4,4]", "[3,3,4,8]") if "3x3" in line else ("[4,4,1,4]", "[4,1,4,8]")
    text = (
        "ENTRY %main (a: f32[1], b: f32[1]) -> f32[1] {\n"
        f"  %a = f32{sizes[0]}{{3,2,1,0}} parameter(0)\n"
        f"  %b = f32{sizes[1]}{{3,2,1,0}} parameter(1)\n"
        f"  ROOT {line}\n"
        "}\n"
    )
    (found,) = work_of(parse(text), lambda *_: 0)
    assert found.flops == flops


def test_a_product_in_full_float32_takes_six_passes():
    text = (
        "ENTRY %main (a: f32[1], b: f32[1]) -> f32[1] {\n"
        "  %a = f32[8,16]{1,0} parameter(0)\n"
        "  %b = f32[16,4]{1,0} parameter(1)\n"
        "  ROOT %y = f32[8,4]{1,0} convolution(%a, %b), dim_labels=bf_io->bf, "
        "operand_precision={highest,highest}\n"
        "}\n"
    )
    (found,) = work_of(parse(text), lambda *_: 0)
    assert found.flops == 6 * 2 * 8 * 4 * 16


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("HloModule nothing")
