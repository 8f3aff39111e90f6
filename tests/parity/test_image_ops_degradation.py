"""Kernels, filter, resize, noise, JPEG and whole degradations against the recorded ones."""

import os

import numpy as np
import pytest

from tests.parity import goldens
from vosr_jax.data.degradation import colour, jpeg, kernels, noise, resize

CONTRACT = "image_ops/"


def load(name):
    """The described cases and the arrays of one part of image_ops, which may be left out."""
    folder = goldens.folder("image_ops")
    if not (folder / f"{name}.npz").exists() and not os.environ.get("VOSR_GOLDENS"):
        pytest.skip(f"no {name}.npz in {folder}; set VOSR_GOLDENS to a folder that has it")
    return goldens.read_json(folder / f"{name}.json"), goldens.arrays(folder / f"{name}.npz")


def hwc(array):
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))


def unit(levels):
    return levels.astype(np.float32) / np.float32(255)


def largest(ours, golden):
    assert ours.shape == golden.shape
    return float(np.abs(ours.astype(np.float64) - golden).max())


def kernel_of(entry):
    fields = {}
    for name in ("sigma_x", "sigma_y", "theta", "beta", "cutoff"):
        if entry.get(name) is not None:
            fields[name] = entry[name]
    return kernels.Kernel(entry["type"], entry["kernel_size"], **fields)


def test_every_kernel_has_the_recorded_values():
    described, data = load("kernels")
    worst = 0.0
    for entry in described["kernels"]:
        ours, golden = kernels.kernel_array(kernel_of(entry)), data[entry["key"]]
        pad = (golden.shape[0] - ours.shape[0]) // 2
        worst = max(worst, largest(np.pad(ours, pad), golden))
    goldens.record(CONTRACT + "kernels", worst, 1e-12)


def test_filtering_matches_for_all_kernel_sizes_and_is_not_flipped():
    _, data = load("filter2d")
    x, small = unit(data["x"]), unit(data["x_small"])
    asym = np.repeat(np.squeeze(data["y_delta_asym"])[None], 3, axis=0)
    impulse = np.zeros((*asym.shape[1:], 3), np.float32)
    impulse[asym.shape[1] // 2, asym.shape[2] // 2] = 1
    runs = [(x[i], data["kernels21"][i], data["y_per_sample"][i]) for i in range(len(x))]
    runs += [(x[i], data["kernel_shared"][0], data["y_shared"][i]) for i in range(len(x))]
    runs += [(small[i], data["kernels21"][i], data["y_small"][i]) for i in range(len(small))]
    sizes = [key.removeprefix("kernel_") for key in data if key.startswith("kernel_")]
    sizes = [size for size in sizes if size.isdecimal()]
    assert sizes
    runs += [(x[0], data[f"kernel_{n}"].squeeze(), data[f"y_{n}"].squeeze()) for n in sizes]
    runs.append((impulse, data["kernel_asym"].squeeze(), asym))
    worst = max(largest(kernels.filter2d(image, k), hwc(y)) for image, k, y in runs)
    goldens.record(CONTRACT + "filter2d", worst, 5e-6)


def resized(image, case):
    if "scale_factor" in case:
        return resize.resize_by(image, case["scale_factor"], case["mode"])
    return resize.resize_to(image, *case["size"], case["mode"])


@pytest.mark.parametrize("mode", resize.MODES)
def test_resizing_matches_in_sizes_and_values(mode):
    described, data = load("resize")
    cases = [case for case in described["cases"] if case["mode"] == mode]
    assert cases
    worst = max(largest(resized(unit(data[c["x"]]), c), hwc(data[c["key"]])) for c in cases)
    goldens.record(f"{CONTRACT}resize_{mode}", worst, 1e-5)


def noise_input(data, name):
    return [unit(x) for x in data[name]] if data[name].dtype == np.uint8 else map(hwc, data[name])


def noise_rows(case, data):
    """(amplitude, grey) of every image: stated, or to be worked out from recorded uniforms."""
    if "gray" in case:
        return list(zip(case.get("sigma") or case["scale"], map(bool, case["gray"]), strict=True))
    low, high = case.get("sigma_range") or case["scale_range"]
    amplitude, grey = (data[name] for name in case["draws"][:2])
    return [
        (float(u) * (high - low) + low, bool(g < case["gray_prob"]))
        for u, g in zip(amplitude, grey, strict=True)
    ]


def drawn_arrays(case, data, kind):
    return [data[name] for name in case["draws"] if name.endswith("_" + kind)]


def test_gaussian_noise_matches_from_recorded_draws():
    described, data = load("noise")
    worst = 0.0
    for case in described["cases"]:
        if not case["name"].endswith("gaussian"):
            continue
        normal = drawn_arrays(case, data, "randn")
        rows = noise_rows(case, data)
        for row, image in enumerate(noise_input(data, case["input"])):
            sigma, grey = rows[row]
            # The grey field, where any row asks for it, is drawn first and shared by the batch.
            draw = np.squeeze(normal[0]) if grey else hwc(normal[-1][row])
            ours = noise.add_gaussian_noise(image, sigma, draw.astype(np.float32))
            worst = max(worst, largest(ours, hwc(data[case["out"]][row])))
    goldens.record(CONTRACT + "noise_gaussian", worst, 1e-6)


def test_poisson_noise_matches_from_recorded_counts():
    described, data = load("noise")
    outliers = 0.0
    for case in described["cases"]:
        if not case["name"].endswith("poisson"):
            continue
        counts = drawn_arrays(case, data, "poisson")
        rows = noise_rows(case, data)
        for row, image in enumerate(noise_input(data, case["input"])):
            scale, grey = rows[row]
            rounded, white = noise.poisson_rate(image, grey)
            levels = case.get("vals_gray" if grey else "vals_color")
            assert levels is None or white == levels[row]
            draw = np.squeeze(counts[0][row]) if grey else hwc(counts[-1][row])
            ours = noise.add_poisson_noise(image, scale, rounded, white, draw)
            far = np.abs(ours - hwc(data[case["out"]][row])) > 1e-5
            outliers = max(outliers, float(far.any(axis=-1).mean()))
    goldens.record(CONTRACT + "noise_poisson_share_of_outliers", outliers, 1e-3)


def test_jpeg_matches_at_whole_and_fractional_qualities():
    described, data = load("jpeg")
    worst, flipped = 0.0, 0.0
    for case in described["cases"]:
        ours = jpeg.compress(unit(data[case["x"]]), case["quality"])
        difference = np.abs(ours - hwc(data[case["key"]]))
        flipped = max(flipped, float((difference > 1e-5).any(axis=-1).mean()))
        worst = max(worst, float(difference.max()))
    for key in data:
        if key.startswith("out_float_q"):
            quality = float(key.removeprefix("out_float_q"))
            ours = jpeg.compress(hwc(np.squeeze(data["x_float"])), quality)
            worst = max(worst, largest(ours, hwc(np.squeeze(data[key]))))
    goldens.record(CONTRACT + "jpeg_largest", worst, 1e-2)
    goldens.record(CONTRACT + "jpeg_share_of_flipped", flipped, 1e-2)


def test_jpeg_coefficients_are_the_recorded_whole_numbers():
    described, data = load("jpeg")
    different = 0.0
    for row in range(len(data["batch_quality"])):
        name = f"x{row}"
        quality = float(data["batch_quality"][row])
        assert abs(jpeg.quality_factor(quality) - data["batch_factor"][row]) < 1e-6
        rows, columns = data["batch_out"].shape[2:]
        image = unit(data[name][:rows, :columns])
        luma, chroma = jpeg.quantization_tables(quality)
        for plane, table, key in zip(
            jpeg.planes(image), (luma, chroma, chroma), ("y", "cb", "cr"), strict=True
        ):
            golden = data[f"batch_coef_{key}"][row].reshape(-1, 64)
            difference = np.abs(jpeg.quantized(plane, table) - golden)
            assert difference.max() <= 1
            different = max(different, float((difference > 0).mean()))
        worst = largest(jpeg.compress(image, quality), hwc(data["batch_out"][row]))
        assert worst < 1e-2
    goldens.record(CONTRACT + "jpeg_share_of_other_coefficients", different, 1e-3)


def test_the_real_jpeg_library_gives_the_recorded_picture():
    described, data = load("jpeg")
    worst = 0.0
    recorded = {key for key in data if key.startswith("opencv_")}
    described_ones = [case for case in described["cases"] if "opencv_bytes" in case]
    assert recorded >= {f"opencv_{case['x']}_q{case['quality']}" for case in described_ones}
    for key in recorded:
        name, quality = key.removeprefix("opencv_").split("_q")
        ours = jpeg.compress_with_libjpeg(unit(data[name]), int(quality))
        worst = max(worst, largest(ours, unit(data[key])))
    # Releases of the library differ in the last bit of a few pixels.
    goldens.record(CONTRACT + "jpeg_libjpeg", worst, 2.5 / 255)


def noisy(image, entry, row, data):
    grey, amplitude = bool(entry["gray"][row]), entry["amplitude"][row]
    kind = "normal" if entry["kind"] == "gaussian" else "count"
    drawn = data[entry[f"{kind}_gray" if grey else f"{kind}_color"]]
    if kind == "normal":
        normal = np.squeeze(drawn) if grey else hwc(drawn[row])
        return noise.add_gaussian_noise(image, amplitude, normal.astype(np.float32))
    counts = np.squeeze(drawn[row]) if grey else hwc(drawn[row])
    return noise.add_poisson_noise(image, amplitude, *noise.poisson_rate(image, grey), counts)


def operate(image, entry, row, trace, data):
    if entry["op"] == "filter2d":
        return kernels.blur(image, kernel_of(trace["kernels"][entry["which"]]))
    if entry["op"] == "resize":
        return resized(image, {key: v for key, v in entry.items() if key != "in_hw"})
    if entry["op"] == "noise":
        return noisy(image, entry, row, data)
    if entry["op"] == "jpeg":
        return jpeg.compress(image, entry["quality"][row])
    assert entry["op"] == "grayscale"
    return colour.turn_grey(image)


def outliers(ours, golden, tolerance):
    """The share of pixels that are farther away."""
    assert ours.shape == golden.shape
    return float((np.abs(ours - golden) > tolerance).any(axis=-1).mean())


def test_every_operation_of_a_degradation_does_what_the_recorded_one_did():
    described, data = load("degradation_traces")
    worst: dict[str, float] = {}
    for trace in described["traces"]:
        for row in range(trace["batch"]):
            image = unit(data[trace["hr"]][row])
            for entry in trace["ops"]:
                known = image
                # An operation whose input was left out of the record cannot be judged alone.
                recorded = data[entry["out"]][row] if entry.get("out") else None
                image = None if recorded is None else hwc(recorded)
                if known is None or image is None:
                    continue
                ours = operate(known, entry, row, trace, data)
                name = entry["op"] if entry["op"] != "noise" else entry["kind"]
                # Of rounding, one bit decides which way a coefficient or grey level goes.
                error = outliers(ours, image, 1e-5)
                worst[name] = max(worst.get(name, 0.0), error)
    rounding = {"jpeg": 1e-2, "poisson": 1e-2}
    for name, error in worst.items():
        goldens.record(f"{CONTRACT}operations/{name}", error, rounding.get(name, 0.0))
    assert worst


def test_whole_degradations_match_from_picture_to_pair():
    described, data = load("degradation_traces")
    for trace in described["traces"]:
        far, off = 0.0, 0.0
        for row in range(trace["batch"]):
            image = lr = unit(data[trace["hr"]][row])
            for entry in trace["ops"]:
                lr = image
                image = operate(image, entry, row, trace, data)
                if entry.get("out_hw"):
                    assert list(image.shape[:2]) == entry["out_hw"]
            golden = hwc(data[trace["lr"]][row])
            assert np.median(np.abs(lr - golden)) < 1e-5
            far = max(far, outliers(lr, golden, 1e-3))
            levels = np.abs(noise.eight_bits(image).astype(int) - hwc(data[trace["lq"]][row]))
            # A patch that differs in lr differs in lq, where it is wider by the resize's reach.
            flipped = outliers(lr, golden, 1e-5) * 4
            off = max(off, float((levels > 0).mean()) - flipped)
            assert (levels > 1).mean() <= flipped
        goldens.record(f"{CONTRACT}traces/{trace['id']}/lr_share_above_1e-3", far, 1e-2)
        goldens.record(f"{CONTRACT}traces/{trace['id']}/lq_share_off_by_one", max(off, 0.0), 1e-3)
