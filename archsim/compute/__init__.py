"""Matrix, vector and on-chip engines as frozen specs and pure functions: work in, femtoseconds out."""
