"""Analysis of recorded traces and results, from files only."""
