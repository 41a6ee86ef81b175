"""The cache, single flight and the ledger. Standard library only."""
