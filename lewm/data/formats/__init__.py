"""Other people's formats: one module each, all behind `Format` and `Source`."""

from lewm.data.formats.base import Format, Source, Tick, bounds_of, need

__all__ = ["Format", "Source", "Tick", "bounds_of", "need"]
