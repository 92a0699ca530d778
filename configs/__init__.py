"""One config per method and data set: a screen of plain Python each."""
