"""Language identification: paragraphs, scripts, models, and a second look at close relatives."""
