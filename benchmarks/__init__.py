"""Side-by-side timings, each against a named peer in the same run."""
