"""`lewm report`: one self-contained HTML page about one evaluated run, or several side by side."""

from experiments.report.verb import report

__all__ = ["report"]
