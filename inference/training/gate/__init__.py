"""The pixel gate: what a radiograph shows and how it lies (:mod:`inference.gate` runs it)."""
