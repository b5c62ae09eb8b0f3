"""Long documents for context extension: whole books, manuals, repositories and threads, joined from their parts."""
