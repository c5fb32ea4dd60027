"""The benchmark's page: tables in Markdown and a bar plot, from the raw lines alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from experiments.cells import cells, made, table

LABELS = {
    "lewm": "**lewm** (zstd, memory-mapped: the default)",
    "lewm_compressed": "lewm, `cache=compressed`",
    "lewm_ram": "lewm, `cache=ram`",
    "lewm_raw": "lewm, raw codec",
    "floor_zstd": "_floor: zstd alone_",
    "floor_copy": "_floor: copying alone_",
    "lance": "stable-worldmodel Lance, as installed (Pillow decodes)",
    "lance_turbo": "stable-worldmodel Lance, libjpeg-turbo decodes",
    "lance_fetch": "_bound: Lance, nothing decoded_",
    "hdf5": "stable-worldmodel HDF5",
    "mp4_h264": "MP4 after LeRobot, H.264 (ours, PyAV)",
    "mp4_av1": "MP4 after LeRobot, AV1 (ours, PyAV)",
}
KILLED = {
    "lewm": "lewm, committed in groups of 10",
    "lance": "stable-worldmodel Lance, as its `World.collect` writes",
    "lance_each": "stable-worldmodel Lance, one commit per episode",
    "hdf5": "stable-worldmodel HDF5",
}
GOALS = {"lance": 10, "lance_turbo": 10, "hdf5": 5}
COLOURS, OTHERS = {"lewm": "#d64534", "floor": "#cbd5e1", "fetch": "#cbd5e1"}, "#64748b"

HEAD = """# Episode store: windows per second, beside others and its limits

Made by `lewm benchmark data`; the raw lines are in `data.jsonl` beside this page, every round of them.

**What is timed.** A batch of 64 random windows, from asking to having one array (theirs: one tensor, put together
by torch's `default_collate`) of uint8 frames, 4 per window and 5 steps apart, and one of the actions, 5 for each
frame. Everybody reads the same list of windows of the same Two-Room episodes, asks for `pixels` and `action` only,
and drops a batch before it asks for the next. One process per store, all on one core, one working at a time, in
turns; files in the page cache. Medians over the turns, smallest to largest in brackets. Frames and actions of the
first batch are compared with what was recorded: "error" is the mean and the largest difference of a frame's values.

**Who is measured.** stable-worldmodel's own writers and readers: Lance by `__getitems__`, a batch at once, HDF5
window by window as it has nothing else. Its package is imported without its `__init__` (simulators, torchvision).
Its Lance reader decodes with torchvision where it can; that does not load beside a CPU build of torch, so it falls
back to Pillow. "libjpeg-turbo decodes" puts simplejpeg in torchvision's place; "nothing decoded" bounds what any
decoder could give. MP4 is ours after LeRobot's defaults (one file, a key frame every 2nd frame, CRF 30), as lerobot
itself does not install beside this torch: seek and decode per frame with PyAV, actions from an array in memory.

**Floors.** "zstd alone" decompresses the frames of the same windows, one call each, and does nothing else;
"copying alone" copies the decoded frames within memory and does nothing else.
"""

SIZE = """## {size} pixels

{episodes} episodes of {steps} steps, {rounds} turns of at least {seconds} s each. Open: until open and, after that,
the first window (medians of {openings} fresh processes, imports done before). Memory: what a process grew by from
before opening to after 16 batches. A store's bytes are all its files, actions and states too.
"""

CRASH = """## Killed while writing

Episodes of {size} pixels go to the writer one by one; `kill -9` once it has taken so many; then its reader opens
what is left and reads the last episode (ours: checks every checksum).
"""

INDEX = """## As a set grows

Synthetic logs whose episodes all point to {real} real ones at {size} pixels, in shards of {per_shard} episodes as
1 GiB would hold. Each set is opened in a fresh process, twice (from 20,000 episodes on, the second time takes
`index.npz`); then all sets draw batches of 64 windows in turns: drawing, finding and reading them; and the same
with nothing read. "Peak" is what memory grew by, at most, while opening. Windows: 12 bytes an episode; the table of
episodes, which finds their bytes, is beside it.
"""


def write(out: Path) -> None:
    """`data.md`, and `data.png` where there are windows to draw."""
    log = out / "data.jsonl"
    found = cells(log)
    windows = [cell for cell in found if cell["cell"].startswith("windows")]
    sections = [HEAD]
    if windows:
        plot(windows, out / "data.png")
        sections.append("![Windows per second](data.png)\n")
    sections += [_windows(cell) for cell in windows]
    sections += [_crash(cell) for cell in found if cell["cell"] == "crash"]
    sections += [_index(cell) for cell in found if cell["cell"] == "index"]
    sections += made(log)
    (out / "data.md").write_text("\n".join(sections))


def _windows(cell: Mapping[str, Any]) -> str:
    settings, rows = cell["settings"], {row["store"]: row for row in cell["rows"]}
    speed = {store: median(row["windows_per_second"]) for store, row in rows.items()}
    titles = ("store", "windows/s", "lewm / it", "bytes per frame", "error", "open", "memory, of it private")
    body = []
    for store, row in rows.items():
        every = row["windows_per_second"]
        body.append(
            (
                LABELS[store],
                f"{speed[store]:,.0f} ({min(every):,.0f} to {max(every):,.0f})",
                f"{speed['lewm'] / speed[store]:.1f}",
                f"{row['bytes_per_frame']:,.0f}",
                _error(row),
                "" if store.startswith("floor") else _open(row),
                f"{row['rss_bytes'] / 1e6:.0f} MB, {row['anon_bytes'] / 1e6:.0f} MB",
            )
        )
    return "\n".join(
        [
            SIZE.format(**settings),
            table(titles, body),
            *_goals(speed, rows),
            *_floors(speed, settings),
            _versions(rows),
        ]
    )


def _error(row: Mapping[str, Any]) -> str:
    if row.get("mean_error") is None:
        return ""
    return "none" if row["max_error"] == 0 else f"{row['mean_error']:.2g}, {row['max_error']:.0f}"


def _open(row: Mapping[str, Any]) -> str:
    return f"{1e3 * median(row['open_seconds']):.1f} + {1e3 * median(row['first_seconds']):.1f} ms"


def _goals(speed: Mapping[str, float], rows: Mapping[str, Any]) -> list[str]:
    said = []
    for store, factor in GOALS.items():
        if store in speed:
            ratio = speed["lewm"] / speed[store]
            word = "met" if ratio >= factor else "missed"
            said.append(f"- at least {factor} times {LABELS[store]}: {ratio:.1f} times, {word}")
    if "lance" in rows:
        ours, theirs = rows["lewm"]["bytes_per_frame"], rows["lance"]["bytes_per_frame"]
        word = "met" if ours <= theirs and rows["lewm"]["max_error"] == 0 else "missed"
        said.append(
            f"- lossless at no more bytes per frame than their lossy JPEG: {ours:,.0f} of {theirs:,.0f}, {word}"
        )
    return ["Goals:\n", *said, ""] if said else []


def _floors(speed: Mapping[str, float], settings: Mapping[str, Any]) -> list[str]:
    moved = 4 * settings["size"] ** 2 * 3
    return [
        f"A window's frames are {moved / 1e3:,.0f} kB; copying alone moves "
        f"{speed['floor_copy'] * moved / 1e9:.1f} GB/s. The default reads at "
        f"{speed['lewm'] / speed['floor_zstd']:.0%} of the speed of zstd alone, "
        f"`cache=ram` at {speed['lewm_ram'] / speed['floor_copy']:.0%} of that of copying alone.\n"
    ]


def _versions(rows: Mapping[str, Any]) -> str:
    every = {name: number for row in rows.values() for name, number in row["versions"].items()}
    return f"Versions: {', '.join(f'{name} {number}' for name, number in every.items())}.\n"


def _crash(cell: Mapping[str, Any]) -> str:
    body = [
        (KILLED[row["writer"]], row["taken"], row["readable"], f"`{row['error'][:110]}`" if row["error"] else "")
        for row in cell["rows"]
    ]
    return "\n".join(
        [CRASH.format(**cell["settings"]), table(("writer", "taken", "readable afterwards", "its error"), body)]
    )


def _index(cell: Mapping[str, Any]) -> str:
    rows = cell["rows"]
    titles = (
        "episodes",
        "windows",
        "shards",
        "log",
        "opened first",
        "again",
        "peak, first and again",
        "bytes per episode: windows, table",
        "batch of 64",
        "of it the index",
        "stable-worldmodel's index",
    )
    body = [
        (
            f"{row['episodes']:,}",
            f"{row['windows']:,}",
            row["shards"],
            f"{row['log_mb']:.1f} MB",
            f"{row['open_seconds']:.2f} s",
            f"{row['again']['open_seconds']:.2f} s",
            f"{row['peak_bytes'] / 1e6:,.0f} MB, {row['again']['peak_bytes'] / 1e6:,.0f} MB",
            f"{row['windows_bytes'] / row['episodes']:.0f}, {row['table_bytes'] / row['episodes']:.0f}",
            f"{median(row['draw_ms']):.2f} ms ({min(row['draw_ms']):.2f} to {max(row['draw_ms']):.2f})",
            f"{median(row['index_ms']):.2f} ms",
            f"{row['peer']['bytes'] / 1e6:,.0f} MB, {row['peer']['seconds']:.1f} s" if "peer" in row else "",
        )
        for row in rows
    ]
    settings = cell["settings"]
    head = INDEX.format(real=settings["episodes"], size=settings["size"], per_shard=f"{rows[0]['per_shard']:,}")
    first, last = rows[0], rows[-1]
    growth = {key: median(last[key]) / median(first[key]) for key in ("draw_ms", "index_ms")}
    flat = (
        f"From {first['episodes']:,} to {last['episodes']:,} episodes a batch takes {growth['draw_ms']:.2f} times "
        f"as long, the index {growth['index_ms']:.2f} times.\n"
    )
    return "\n".join([head, table(titles, body), flat])


def plot(windows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Bars of windows per second, one panel per size of image."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    panels = figure.subplots(1, len(windows), sharey=True, squeeze=False)[0]
    for axis, cell in zip(panels, windows, strict=True):
        rows = list(reversed(cell["rows"]))
        for height, row in enumerate(rows):
            every = row["windows_per_second"]
            colour = next((COLOURS[word] for word in COLOURS if word in row["store"]), OTHERS)
            axis.barh(height, median(every), color=colour, height=0.7)
            axis.plot([min(every), max(every)], [height, height], color="#1f2937", lw=1.2)
            axis.text(1.12 * max(every), height, f"{median(every):,.0f}", va="center", fontsize=8)
        axis.set_yticks(
            range(len(rows)), [LABELS[row["store"]].translate({ord(c): None for c in "*_`"}) for row in rows]
        )
        speeds = [speed for row in rows for speed in row["windows_per_second"]]
        axis.set(xscale="log", title=f"{cell['settings']['size']} pixels", xlabel="windows per second, one core")
        axis.set_xlim(min(speeds) / 3, 5 * max(speeds))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
    figure.savefig(path, dpi=130)
