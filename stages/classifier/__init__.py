"""Model-based quality and domain: fastText classifiers per language, calibrated, as signals."""
