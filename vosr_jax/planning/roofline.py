"""Lower bound of a compiled step's time: arithmetic or memory limits each fusion.

    step >= sum over fusions and kernels of max(FLOPs / peak, bytes / HBM bandwidth)
            + collectives that nothing hides

This is a model, not a measurement: vector arithmetic, launches and tiling cost nothing, and the
peaks are the published ones.
"""

import dataclasses
import math
import re
from collections.abc import Callable

from vosr_jax.chips import Chip
from vosr_jax.planning.hlo import Computation, Instruction, Program, Shape

_FREE = frozenset(
    (
        *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "iota", "after-all"),
        *("partition-id", "replica-id", "copy-done", "slice-done", "all-gather-done"),
        *("all-reduce-done", "collective-permute-done", "opt-barrier"),
    )
)
# Copies between HBM and the chip that run beside other work.
_AHEAD = ("copy-start", "slice-start")
_KERNEL = 'custom_call_target="tpu_custom_call"'
# (operation, operands' shapes, results' shapes) -> FLOPs of a kernel opaque to the compiler.
KernelFlops = Callable[[str, list[Shape], tuple[Shape, ...]], int]
# Matrix products of an attention kernel's forward and backward pass.
_FORWARD_PRODUCTS, _BACKWARD_PRODUCTS = 2, 5


@dataclasses.dataclass(frozen=True)
class Work:
    """What one instruction does in a step.

    Attributes:
      name: of the instruction.
      operation: where it comes from in the traced program.
      times: how often it runs.
      flops: of its products, each time, multiplied by the bfloat16 passes that they need.
      bytes: between HBM and the chip, each time.
      ahead: a copy that runs beside other work.
    """

    name: str
    operation: str
    times: int
    flops: float
    bytes: float
    ahead: bool = False

    def seconds(self, chip: Chip) -> float:
        """Lower bound of its seconds per step."""
        return self.times * max(self.flops / chip.flops, self.bytes / chip.memory_bandwidth)

    def bound_by_memory(self, chip: Chip) -> bool:
        """Whether memory takes longer than arithmetic."""
        return self.bytes / chip.memory_bandwidth > self.flops / chip.flops


def work_of(program: Program, kernel_flops: KernelFlops) -> list[Work]:
    """Everything that takes time on a device, except collectives.

    Args:
      program: compiled.
      kernel_flops: counts a kernel's operations from its shapes.
    """
    found = []
    for times, name, instruction in program.executed():
        computation = program.computations[name]
        if instruction.opcode in _FREE or _is_collective(instruction):
            continue
        operands = [
            shape
            for operand in instruction.operands
            if operand in computation
            for shape in computation[operand].shapes
        ]
        if instruction.opcode == "custom-call" and _KERNEL in instruction.attributes:
            flops: float = kernel_flops(_operation(instruction), operands, instruction.shapes)
        else:
            flops = _flops(program, computation, instruction)
        moved = _bytes(program, computation, instruction)
        if flops or moved:
            ahead = instruction.opcode in _AHEAD
            operation = _operation(instruction)
            found.append(Work(instruction.name, operation, times, flops, moved, ahead))
    return found


def least_seconds(work: list[Work], chip: Chip) -> float:
    """Seconds of all work in sequence; copies ahead hide behind it within HBM's bandwidth."""
    in_turn = sum(one.seconds(chip) for one in work if not one.ahead)
    moved = sum(one.times * one.bytes for one in work)
    return max(in_turn, moved / chip.memory_bandwidth)


def kernel_flops(operation: str, operands: list[Shape], results: tuple[Shape, ...]) -> int:
    """Operations of an attention kernel from its shapes, [B, heads, N, d] and [B, heads, M, d]."""
    del results
    if "splash" not in operation:
        return 0
    query, key = [shape.sizes for shape in operands if len(shape.sizes) == 4][:2]
    products = _FORWARD_PRODUCTS if "fwd" in operation else _BACKWARD_PRODUCTS
    return products * 2 * query[0] * query[1] * query[2] * key[2] * query[3]


def slowest_lines(work: list[Work], chip: Chip, count: int) -> list[str]:
    """Lines about the operations that take the most time in a step."""
    slow = sorted(work, key=lambda one: -one.seconds(chip))[:count]
    return [
        f"{one.seconds(chip) * 1e3:8.2f} ms  {one.times:4} times  "
        f"{'memory' if one.bound_by_memory(chip) else 'arithmetic':10} "
        f"{one.flops / 1e9:9.1f} GFLOP {one.bytes / 1e6:9.1f} MB  {one.name}  {one.operation}"
        for one in slow
    ]


def _operation(instruction: Instruction) -> str:
    return instruction.attribute(r'op_name="([^"]*)"') or ""


def _is_collective(instruction: Instruction) -> bool:
    return instruction.opcode.startswith(
        ("all-", "reduce-scatter", "collective-", "async-")
    ) or any("all-reduce-scatter" in called for called in instruction.called)


def _flops(program: Program, computation: Computation, instruction: Instruction) -> float:
    if instruction.opcode == "convolution":
        return _passes(instruction) * _convolution_flops(computation, instruction)
    if instruction.opcode == "dot":
        return _passes(instruction) * _dot_flops(computation, instruction)
    if instruction.opcode == "fusion":
        return sum(
            _flops(program, program.computations[called], inner)
            for called in instruction.called
            for inner in program.computations[called].values()
        )
    return 0.0


def _passes(instruction: Instruction) -> int:
    """Passes of the bfloat16 unit for a product of this precision."""
    asked = instruction.attribute(r"operand_precision=\{(\w+)") or "default"
    return {"highest": 6, "high": 3}.get(asked, 1)


def _dot_flops(computation: Computation, instruction: Instruction) -> float:
    left = computation[instruction.operands[0]].shapes[0].sizes
    axes = instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}") or ""
    inner = math.prod(left[int(axis)] for axis in axes.split(",") if axis)
    return 2.0 * inner * instruction.shapes[0].elements


def _convolution_flops(computation: Computation, instruction: Instruction) -> float:
    """Operations on real elements; padding and the holes of dilation do not count."""
    labels = instruction.attribute(r"dim_labels=(\w+->\w+|\w+_\w+->\w+)") or ""
    left_labels, _, rest = labels.partition("_")
    right_labels, _, out_labels = rest.partition("->")
    left = computation[instruction.operands[0]].shapes[0].sizes
    right = computation[instruction.operands[1]].shapes[0].sizes
    out = instruction.shapes[0].sizes
    window = instruction.attribute(r"window=\{([^}]*)\}") or ""
    spatial = sorted(label for label in out_labels if label.isdigit())
    options = {key: value.split("x") for key, value in re.findall(r"(\w+)=([\w\-x]+)", window)}
    taps = 1.0
    for axis, label in enumerate(spatial):
        taps *= _taps(
            left[left_labels.index(label)],
            right[right_labels.index(label)],
            out[out_labels.index(label)],
            stride=int(options.get("stride", ["1"] * 9)[axis]),
            pad=int(options.get("pad", ["0_0"] * 9)[axis].split("_")[0]),
            left_dilate=int(options.get("lhs_dilate", ["1"] * 9)[axis]),
            right_dilate=int(options.get("rhs_dilate", ["1"] * 9)[axis]),
        )
    channels = right[right_labels.index("i")]
    return 2.0 * out[out_labels.index("b")] * out[out_labels.index("f")] * channels * taps


def _taps(
    left: int, right: int, out: int, *, stride: int, pad: int, left_dilate: int, right_dilate: int
) -> int:
    """Number of pairs of an output and a kernel position that meet a real element."""
    count = 0
    for tap in range(right):
        # place = output * stride + tap * right_dilate - pad, on the dilated input.
        for position in range(out):
            place = position * stride + tap * right_dilate - pad
            if 0 <= place <= (left - 1) * left_dilate and place % left_dilate == 0:
                count += 1
    return count


def _bytes(program: Program, computation: Computation, instruction: Instruction) -> float:
    """Bytes read and written in HBM; for a read slice of a stack, only the slice."""
    written = sum(shape.bytes for shape in instruction.shapes if not shape.on_chip)
    names = [name for name in instruction.operands if name in computation]
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return 2.0 * written
    if instruction.opcode == "dynamic-update-slice":
        update = computation[names[1]]
        return 2.0 * update.bytes
    if instruction.opcode in _AHEAD:
        # Source and copy come in either order; a slice-start lists its slice second.
        target = instruction.shapes[1 if instruction.opcode == "slice-start" else 0]
        source = computation[names[0]].shapes[0]
        return float(target.bytes * ((not source.on_chip) + (not target.on_chip)))
    if instruction.opcode == "custom-call" and _KERNEL not in instruction.attributes:
        return 0.0
    if instruction.opcode != "fusion":
        return float(written + sum(_in_hbm(computation[name]) for name in names))
    body = program.computations[instruction.called[0]]
    parameters = [inner for inner in body.values() if inner.opcode == "parameter"]
    read = 0.0
    for name, parameter in zip(names, _by_number(parameters), strict=False):
        read += _read_of(program, body, parameter.name, _in_hbm(computation[name]))
    for inner in body.values():
        if inner.opcode == "dynamic-update-slice" and inner.operands[1] in body:
            # The write is in place, so only the update moves.
            written -= max(_in_hbm(inner) - body[inner.operands[1]].bytes, 0)
    return read + max(written, 0)


def _in_hbm(instruction: Instruction) -> int:
    return sum(shape.bytes for shape in instruction.shapes if not shape.on_chip)


def _by_number(parameters: list[Instruction]) -> list[Instruction]:
    return sorted(parameters, key=lambda one: -1 if one.number is None else one.number)


def _read_of(program: Program, body: Computation, name: str, whole: float) -> float:
    """Bytes that a fusion reads of a parameter of `whole` bytes: all, or the slices it takes."""
    if not whole:
        return 0.0
    read = 0.0
    for user in body.values():
        if name not in user.operands:
            continue
        if user.opcode in ("dynamic-slice", "slice", "gather"):
            read += user.bytes
        elif user.opcode == "bitcast":
            read += _read_of(program, body, user.name, whole)
        elif user.opcode == "fusion":
            inner = program.computations[user.called[0]]
            parameters = _by_number([i for i in inner.values() if i.opcode == "parameter"])
            places = [k for k, operand in enumerate(user.operands) if operand == name]
            read += sum(_read_of(program, inner, parameters[k].name, whole) for k in places)
        elif not (user.opcode == "dynamic-update-slice" and user.operands[0] == name):
            return whole
    return min(read, whole)
