"""Deduplication over the whole corpus: exact and near-duplicate documents."""
