"""`lewm data ...`: look at, check, convert, merge and view data sets."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data_info import describe, describe_source
from experiments.runs import progress, provenance, say
from lewm.data import EpisodeReader
from lewm.data.convert import Choices, convert
from lewm.data.formats import Format, Source, detect, get_format, known_formats, pip_command
from lewm.data.store_source import StoreSource
from lewm.registry import load_plugins
from lewm.types import InputError, nearest

EPILOG = """examples:
  lewm data info data/two-room
  lewm data verify data/two-room
  lewm data view data/two-room --episodes 0,7 --out pictures
  lewm data convert pusht_expert_train.h5 data/pusht
  lewm data convert data/two-room exported --to lerobot --fps 10
  lewm data convert data/hurt data/healed --skip-damaged
  lewm data merge data/monday data/tuesday data/week"""


def data(arguments: Sequence[str]) -> int:
    """Run one of the sub-commands; returns the exit code."""
    options = _parser().parse_args(arguments or ["--help"])
    load_plugins(name for name in options.plugins.split(",") if name)
    return options.run(options) or 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("lewm data", description=__doc__, epilog=EPILOG, formatter_class=raw)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(name: str, run: Callable[[argparse.Namespace], Any], text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text, formatter_class=raw)
        verb.set_defaults(run=run)
        verb.add_argument("--plugins", default="", help="packages with formats of yours, separated by commas")
        return verb

    verb = add("info", _info, "columns, episodes, lengths, sizes, provenance; of foreign formats, too")
    verb.add_argument("paths", nargs="+", type=Path)

    verb = add("verify", _verify, "check every checksum and say which episodes are bad; exit code 1 if any is")
    verb.add_argument("paths", nargs="+", type=Path)

    verb = add("convert", _convert, "another format into a data set, or a data set into another format; resumes")
    verb.epilog = "`lewm data formats` lists what can be read and written."
    verb.add_argument("source", type=Path)
    verb.add_argument("out", type=Path)
    verb.add_argument("--from", dest="origin", metavar="NAME", help="format of the source, if it cannot be told")
    verb.add_argument("--to", metavar="NAME", help="format to write (default: a data set of ours)")
    verb.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="name of a column")
    verb.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="leave a column out")
    verb.add_argument(
        "--codec", action="append", default=[], metavar="COLUMN=CODEC", help="raw, zstd:3 (lossless) or jpeg:95"
    )
    verb.add_argument("--low", help="smallest action, numbers separated by commas, if the format states none")
    verb.add_argument("--high", help="largest action")
    verb.add_argument("--fps", type=float, default=10.0, help="steps per second, for formats that want it (10)")
    text = "of the format written, e.g. images=image for lerobot: PNG in place of video"
    verb.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help=text)
    verb.add_argument("--skip-damaged", action="store_true", help="of a damaged set, copy what is intact")

    add("formats", _formats, "the formats that `convert` reads and writes")

    verb = add("merge", _merge, "put data sets of the same columns into a new one; resumes")
    verb.add_argument("sources", nargs="+", type=Path)
    verb.add_argument("out", type=Path)

    verb = add("view", _view, "a contact sheet (PNG) and videos (MP4) of some episodes")
    verb.add_argument("path", type=Path)
    verb.add_argument("--episodes", default="", help="ids separated by commas (default: six spread over the set)")
    verb.add_argument("--out", type=Path, help="folder for the pictures (default: NAME-view, here)")
    verb.add_argument("--fps", type=float, default=10.0, help="frames per second of the videos (10)")
    return parser


def _formats(_: argparse.Namespace) -> None:
    for name, one in known_formats().items():
        can = "".join(
            word for word, there in (("read ", _has(one, "open")), ("write", _has(one, "write"))) if there
        )
        extra = f"  [{pip_command(one.extra)}]" if one.extra else ""
        say(f"{name:<18}{can:<12}{one.title}{extra}")


def _has(one: type[Format], method: str) -> bool:
    return getattr(one, method) is not getattr(Format, method)


def _info(options: argparse.Namespace) -> None:
    for path in options.paths:
        if (path / "dataset.json").exists() or not path.exists():
            say(describe(EpisodeReader(path)))
        else:
            one = detect(path)
            say(describe_source(path, one, one.open(path)))


def _verify(options: argparse.Namespace) -> int:
    return max([_verify_one(path) for path in options.paths])


def _verify_one(path: Path) -> int:
    try:
        reader = EpisodeReader(path, skip_damaged=True)
    except InputError as error:  # nothing of it can be read
        say(f"BAD       {error}")
        return 1
    with progress(len(reader), "verify", "episodes") as bar:
        faults = list(reader.verify(bar.update))
    for fault in faults:
        say(f"BAD       {fault.text}")
    for note in reader.leftovers():
        say(f"note      {note} (a killed writer's, its next start cuts it off)")
    hurt = sorted({fault.episode for fault in faults if fault.episode is not None})
    state = f"{len(faults)} faults; bad episodes: {hurt or 'see above'}" if faults else "every checksum matches"
    say(f"verify    {path}: {len(reader)} episodes, {reader.nbytes / 1e6:.1f} MB, {state}")
    return 1 if faults else 0


def _convert(options: argparse.Namespace) -> None:
    if options.to is not None:
        _export(options)
        return
    if options.option:
        raise InputError("--option is for the format that --to names")
    ours = options.origin is None and (options.source / "dataset.json").exists()
    if options.skip_damaged and not ours:
        raise InputError("--skip-damaged is for data sets of ours; a foreign file that is damaged has no checksums")
    source: Source = (
        StoreSource(options.source, skip_damaged=options.skip_damaged)
        if ours
        else (get_format(options.origin) if options.origin else detect(options.source)).open(options.source)
    )
    choices = Choices(
        rename=_pairs("--rename", options.rename),
        drop=tuple(options.drop),
        codecs=_pairs("--codec", options.codec),
        bounds=_bounds(options.low, options.high),
    )
    with progress(len(source), "convert", "episodes") as bar:
        convert(source, options.out, choices, creator=provenance(), tick=bar.update)
    if isinstance(source, StoreSource):
        for text in source.damaged:
            say(f"left out  {text}")
    reader = EpisodeReader(options.out)
    left = reader.info.source.get("left_out")
    say(f"convert   {len(reader)} episodes, {reader.nbytes / 1e6:.1f} MB in {options.out}")
    if left:
        say(f"          left out: {left}")
    _advise(reader)


def _advise(reader: EpisodeReader) -> None:
    """Say when frames look like a camera's: lossless compression buys little there."""
    for name, column in reader.info.columns.items():
        if column.image and column.codec.startswith("zstd"):
            place = reader.table.places[name]
            ratio = column.rows(int(reader.steps[0])) * column.row_bytes / int(place["end"][0] - place["begin"][0])
            if ratio < 2:
                say(
                    f"          '{name}' looks like a camera's (zstd saves only {ratio:.2f} times): convert with "
                    f"--codec {name}=jpeg:95 if you can do without the last bit"
                )


def _export(options: argparse.Namespace) -> None:
    used = [f"--{name}" for name in ("rename", "drop", "codec", "low", "high") if getattr(options, name)]
    if used or options.skip_damaged:
        raise InputError(
            f"{(used or ['--skip-damaged'])[0]} is for making data sets of ours: convert twice, "
            "first to a data set, then to the other format"
        )
    one = get_format(options.to)
    if not _has(one, "write"):
        can = [name for name, other in known_formats().items() if _has(other, "write")]
        raise InputError(f"{one.name} can be read only; formats that can be written: {', '.join(can)}")
    chosen = _pairs("--option", options.option)
    known = [p.name for p in signature(one.write).parameters.values() if p.default is not Parameter.empty]
    for key in chosen:
        if key not in known:
            raise InputError(f"{one.name} has no option '{key}': {nearest(key, known)}")
    reader = EpisodeReader(options.source)
    with progress(len(reader), "convert", "episodes") as bar:
        one.write(reader, options.out, fps=options.fps, tick=bar.update, **chosen)
    say(f"convert   {len(reader)} episodes to {options.out} ({one.title})")


def _merge(options: argparse.Namespace) -> None:
    if len(options.sources) < 2:
        raise InputError("merging needs at least two data sets, and a folder for the result")
    if options.out.resolve() in [source.resolve() for source in options.sources]:
        raise InputError(f"{options.out} is one of the sets to merge; name a new folder for the result")
    source = StoreSource(*options.sources)
    with progress(len(source), "merge", "episodes") as bar:
        convert(source, options.out, Choices(), creator=provenance(), tick=bar.update)
    reader = EpisodeReader(options.out)
    say(f"merge     {len(reader)} episodes, {reader.nbytes / 1e6:.1f} MB in {options.out}")


def _view(options: argparse.Namespace) -> None:
    from experiments.data_view import view  # matplotlib takes its time

    reader = EpisodeReader(options.path)
    try:
        asked = [int(part) for part in options.episodes.split(",") if part]
    except ValueError:
        raise InputError(f"--episodes takes ids separated by commas, got '{options.episodes}'") from None
    unknown = sorted(set(asked) - set(reader.ids.tolist()))
    if unknown:
        raise InputError(
            f"{options.path} has no episode {unknown[0]}; ids go from {reader.ids[0]} to {reader.ids[-1]}"
        )
    spread = np.unique(np.linspace(0, len(reader) - 1, 6).round().astype(int))
    positions = np.searchsorted(reader.ids, asked) if asked else spread
    view(reader, positions, options.out or Path(f"{options.path.resolve().name}-view"), options.fps)


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise InputError(f"{option} takes COLUMN=VALUE, got '{text}'")
    return dict(text.split("=", 1) for text in texts)


def _bounds(low: str | None, high: str | None) -> tuple[np.ndarray, np.ndarray] | None:
    if (low is None) != (high is None):
        raise InputError("--low and --high go together")
    if low is None or high is None:
        return None
    try:
        return np.array(low.split(","), float), np.array(high.split(","), float)
    except ValueError:
        raise InputError(f"--low and --high take numbers separated by commas, got '{low}' and '{high}'") from None
