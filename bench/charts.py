"""Charts of ratios as SVG, which read on a light page and on a dark one."""

import math

WIDTH, LEFT, ROW, TOP = 820, 190, 34, 104
PANELS = ((LEFT, 270), (LEFT + 330, 270))  # x and width: requests/s, CPU
STYLE = """<style>
text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; fill: #1f2328; }
.faint { fill: #59636e; } .axis { stroke: #d1d9e0; } .card { fill: #ffffff; stroke: #d1d9e0; }
.ours { fill: #0969da; } .other { fill: #b6bec7; } .base { stroke: #59636e; stroke-dasharray: 3 3; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .faint { fill: #9198a1; } .axis { stroke: #3d444d; } .card { fill: #0d1117; stroke: #3d444d; }
.ours { fill: #4493f8; } .other { fill: #6e7681; } .base { stroke: #9198a1; } }
</style>"""


def is_ours(name):
    return name.startswith("keyauth") or name.startswith("1 ask") or "beside" in name


def scale(values):
    """The axis' end, at or above the largest value, and the distance of its round ticks."""
    most = max(values)
    unit = 10 ** math.floor(math.log10(most))
    steps = ((1, 0.5), (1.5, 0.5), (2, 1), (3, 1), (4, 2), (6, 2), (8, 4), (10, 5))
    return next((unit * full, unit * tick) for full, tick in steps if unit * full >= most)


def text(x, y, words, size=13, anchor="start", kind=""):
    weight = ' font-weight="600"' if size > 15 else ""
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" class="{kind}"{weight}>{words}</text>'


def panel(x, width, heading, rows):
    """Bars of one figure, with the base's line at 1."""
    full, step = scale([median for _, median in rows if not math.isnan(median)] or [1])
    bottom = TOP + len(rows) * ROW
    out = [text(x, TOP - 28, heading, 12, kind="faint")]
    for tick in (step * i for i in range(round(full / step) + 1)):
        at = x + tick / full * width
        out.append(f'<path class="axis" d="M{at:.1f} {TOP - 4}V{bottom}"/>')
        out.append(text(at, TOP - 10, f"{tick:g}", 11, "middle", "faint"))
    for i, (name, median) in enumerate(rows):
        median = 0 if math.isnan(median) else median
        y, length = TOP + i * ROW, max(median / full * width, 1)
        inside = length > width - 44
        out.append(
            f'<rect class="{"ours" if is_ours(name) else "other"}" x="{x}" y="{y + 4}" width="{length:.1f}" height="{ROW - 12}" rx="2"/>'
        )
        if not inside:
            out.append(text(x + length + 6, y + 20, f"{median:.2f}", 12))
        else:
            out.append(
                f'<text x="{x + length - 6:.0f}" y="{y + 20}" font-size="12" text-anchor="end" style="fill:#fff">{median:.2f}</text>'
            )
    out.append(f'<path class="base" d="M{x + width / full:.1f} {TOP - 4}V{bottom}"/>')
    return out


def draw(path, title, base, rows, about):
    """rows: name, quartiles of the rate's ratio, and of the CPU's."""
    base = "floor (parses nothing)" if base == "floor" else base
    height = TOP + len(rows) * ROW + 44
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{title}: ratios to {base}</title>",
        STYLE,
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
        text(24, 34, title, 18),
        text(24, 56, f"ratios to {base}; the dashed line is 1", 12, kind="faint"),
    ]
    for i, (name, _, _) in enumerate(rows):
        label = base if name == "floor" else name
        out.append(text(LEFT - 10, TOP + i * ROW + 20, label, 13, "end"))
    out += panel(
        *PANELS[0], "requests/s (longer is better)", [(name, rate[1]) for name, rate, _ in rows]
    )
    out += panel(
        *PANELS[1], "CPU a request (shorter is better)", [(name, cpu[1]) for name, _, cpu in rows]
    )
    out += [text(24, height - 14, about, 11, kind="faint"), "</svg>"]
    with open(path, "w") as f:
        f.write("\n".join(out) + "\n")
