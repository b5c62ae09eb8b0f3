"""Training of the SuperBPE tokenizer."""
