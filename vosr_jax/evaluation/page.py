"""report.html: the table, the plots, and the best and worst images, in one standalone file."""

import base64
import html
import io
import json
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vosr_jax.errors import UserError
from vosr_jax.evaluation.pairs import Entry, EvalPair, enlarge
from vosr_jax.evaluation.plots import plots_of
from vosr_jax.evaluation.results import (
    PUBLISHED_COLUMNS,
    PUBLISHED_SOURCE,
    Outcome,
    Results,
    lpips_ratios,
    published,
)
from vosr_jax.evaluation.scores import Evaluator
from vosr_jax.files.photo_reading import read_photo

_SHOWN = 3  # number of best and of worst images
_MOST_PEERS = 3
_DETAIL = 64  # side of the enlarged part, pixels
_WIDEST = 360

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2024; max-width: 1240px; margin: 2rem auto;
  padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #e3e6e8; text-align: right;
  vertical-align: bottom; }
tbody td { vertical-align: top; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; position: sticky; left: 0;
  background: #fff; }
th { font-weight: 600; max-width: 9rem; }
td.best { font-weight: 700; } td small { color: #687076; font-weight: 400; }
.arrow { color: #687076; font-weight: 400; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots figure { margin: 0; max-width: 420px; }
.plots svg { width: 100%; height: auto; } figcaption { font-size: 12.5px; color: #4b5257; }
.case { margin: 1.2rem 0 2rem; } .case h3 { font-size: .95rem; margin: 0 0 .4rem; }
.strip { display: flex; gap: .5rem; overflow-x: auto; }
.strip figure { margin: 0; flex: 0 0 auto; width: 190px; }
.strip img { width: 190px; display: block; border-radius: 3px; }
.strip img.detail { image-rendering: pixelated; margin-top: .3rem; }
.note { color: #4b5257; font-size: 13px; } details pre { font-size: 11.5px; overflow-x: auto;
  background: #f6f7f8; padding: .8rem; }
"""


def page_of(results: Results, judge: Evaluator, entries: Sequence[Entry]) -> str:
    """Make the report.

    Args:
      results: results of the evaluation.
      judge: knows the paths of the restored images.
      entries: the cases; those that are shown are read again.
    """
    about = results.about
    count = max((len(outcome.rows) for outcome in results.outcomes), default=0)
    parts = [
        f"<h1>{_text(about['model'])}</h1>",
        f'<p class="note">{count} pictures, {about["samples"]} sample(s) each. '
        f"{_text(about['device'])}, {_text(results.date)}. "
        f"Weights sha256 <code>{about['weights_sha256'][:16]}</code>.</p>",
        "<h2>Means</h2>",
        _table(results),
        '<p class="note">Mean over the pictures and, small, half the 95% interval over '
        "photographs. Bold is the best of a column; the arrow says which way is better.</p>",
        _ratios(results),
        _published(results),
        _remarks(results),
    ]
    plots = [
        f"<figure>{svg}<figcaption>{_text(title)}</figcaption></figure>"
        for title, svg in plots_of(results)
    ]
    if plots:
        parts += ["<h2>Plots</h2>", f'<div class="plots">{"".join(plots)}</div>']
    parts += _pictures(results, judge, entries)
    config = json.dumps(
        {"config": about["config"], "versions": about["versions"]}, indent=1, sort_keys=True
    )
    parts.append(
        f"<h2>How it was made</h2><details><summary>Config and versions</summary>"
        f"<pre>{_text(config)}</pre></details>"
    )
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(about['model'])}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _table(results: Results) -> str:
    means, present = results.means, results.present
    better = {measure.key: measure.better for measure in results.measures} | {"seconds": "lower"}
    better["lpips_of_mean"] = "lower"
    best = {}
    for key in present:
        having = {n: v[key].mean for n, v in means.items() if key in v}
        pick = {
            "higher": lambda n, v=having: -v[n],
            "lower": lambda n, v=having: v[n],
            "one": lambda n, v=having: abs(v[n] - 1),
        }.get(better.get(key, "neither"))
        if pick is not None and len(having) > 1:
            best[key] = min(having, key=pick)
    arrows = {"higher": "↑", "lower": "↓", "one": "→ 1", "neither": ""}
    head = "".join(
        f"<th>{_text(results.columns[k][0])} "
        f'<span class="arrow">{arrows[better.get(k, "neither")]}</span></th>'
        for k in present
    )
    rows = []
    for name, values in means.items():
        cells = []
        for key in present:
            mean = values.get(key)
            if mean is None:
                cells.append("<td></td>")
                continue
            spec = results.columns[key][1]
            half = (mean.high - mean.low) / 2
            small = f" <small>±{format(half, spec)}</small>" if half else ""
            chosen = ' class="best"' if best.get(key) == name else ""
            cells.append(f"<td{chosen}>{format(mean.mean, spec)}{small}</td>")
        rows.append(f"<tr><td>{_text(name)}</td>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _ratios(results: Results) -> str:
    ratios = lpips_ratios(results.means)
    if not ratios:
        return ""
    told = ", ".join(f"{_text(name)} {ratio:.3f}" for name, ratio in ratios.items())
    return f'<p class="note">LPIPS over bicubic\'s: {told}.</p>'


def _published(results: Results) -> str:
    beside = published(results.protocol)
    if not beside:
        return ""
    head = "".join(f"<th>{_text(title)}</th>" for title in PUBLISHED_COLUMNS.values())
    rows = "".join(
        f"<tr><td>{_text(name)}</td>"
        + "".join(
            f"<td>{format(figures[k], 'g') if k in figures else ''}</td>" for k in PUBLISHED_COLUMNS
        )
        + "</tr>"
        for name, figures in beside.items()
    )
    return (
        f"<h2>Published figures for {_text(results.protocol)}</h2>"
        f'<p class="note">{_text(PUBLISHED_SOURCE)}.</p>'
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _remarks(results: Results) -> str:
    lines = [f"Not available: {_text(k)}: {_text(why)}" for k, why in results.unavailable.items()]
    lines += [f"Left out: {_text(name)}: {_text(why)}" for name, why in results.errors().items()]
    return "".join(f'<p class="note">{line}</p>' for line in lines)


def _pictures(results: Results, judge: Evaluator, entries: Sequence[Entry]) -> list[str]:
    """The best and worst images of the model's best row, beside the other methods' images."""
    ranked = _ranked(results)
    if ranked is None:
        return []
    chosen, key, names = ranked
    by_name = {entry.name: entry for entry in entries}
    shown = names if len(names) <= 2 * _SHOWN else names[:_SHOWN] + names[-_SHOWN:]
    worst = set(names[-_SHOWN:]) if len(names) > 2 * _SHOWN else set()
    others = [o for o in results.outcomes if not o.method.sampler]
    columns = [*others[:_MOST_PEERS], chosen]
    title = results.columns[key][0]
    parts = [
        f"<h2>Pictures of “{_text(chosen.method.name)}”, best and worst by {_text(title)}</h2>",
        f'<p class="note">Below each picture {_DETAIL} x {_DETAIL} pixels of it, enlarged: where '
        "the model changed its input most.</p>",
    ]
    for name in shown:
        try:
            case = by_name[name].load()
        except UserError:
            continue
        rank = "worst" if name in worst else "best"
        figure = {row["name"]: row for row in chosen.rows}[name][key]
        spec = results.columns[key][1]
        heading = f"{rank}: {_text(name)}, {_text(title)} {format(figure, spec)}"
        parts.append(
            f'<div class="case"><h3>{heading}</h3><div class="strip">'
            f"{_strip(case, columns, chosen, judge)}</div></div>"
        )
    return parts


def _ranked(results: Results) -> tuple[Outcome, str, list[str]] | None:
    """(the model's best row, the measure that ranks it, its cases from best to worst)."""
    models = [o for o in results.outcomes if o.method.sampler]
    means = results.means
    for key in ("lpips", "dists", "psnr", "niqe"):
        having = [o for o in models if key in means[o.method.name]]
        if not having:
            continue
        sign = -1 if key == "psnr" else 1
        chosen = min(having, key=lambda o: sign * means[o.method.name][key].mean)
        rows = [row for row in chosen.rows if key in row]
        names = [row["name"] for row in sorted(rows, key=lambda row: sign * row[key])]
        return chosen, key, names
    return None


def _strip(case: EvalPair, columns: Sequence[Outcome], chosen: Outcome, judge: Evaluator) -> str:
    height, width = case.size
    input_pixels = enlarge(case.source, case.size, "nearest")
    pictures = [("input", input_pixels)]
    for outcome in columns:
        path = judge.picture(outcome.method, case.name)
        if path.is_file():
            picture = np.asarray(read_photo(path).rgb)
            pictures.append((outcome.method.name, picture))
            if outcome is chosen:
                restored = picture
    if case.truth is not None:
        pictures.append(("truth", case.truth))
    row, column = _most_changed(enlarge(case.source, case.size), restored)
    side = min(_DETAIL, height, width)
    made = []
    for name, picture in pictures:
        detail = picture[row : row + side, column : column + side]
        made.append(
            f'<figure><img alt="{_text(name)}" src="{_whole(picture)}">'
            f'<img class="detail" alt="" src="{_png(detail)}">'
            f"<figcaption>{_text(name)}</figcaption></figure>"
        )
    return "".join(made)


def _most_changed(before: np.ndarray, after: np.ndarray) -> tuple[int, int]:
    """Find the upper left corner of the part that differs most."""
    difference = np.abs(before.astype(np.float32) - after.astype(np.float32)).mean(2)
    side = min(_DETAIL, *difference.shape)
    sums = np.pad(difference.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    row, column = np.unravel_index(np.argmax(total), total.shape)
    return int(row), int(column)


def _whole(picture: np.ndarray) -> str:
    image = Image.fromarray(picture)
    if image.width > _WIDEST:
        size = (_WIDEST, round(image.height * _WIDEST / image.width))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return _data(image, "JPEG", quality=88)


def _png(picture: np.ndarray) -> str:
    return _data(Image.fromarray(picture), "PNG")


def _data(image: Image.Image, kind: str, **options) -> str:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
