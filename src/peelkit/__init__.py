"""peelkit: self-calibrate a Measurement Set and peel bright sources from it."""

__version__ = "0.1.0"
