"""Other tools on this cache: each module is one tool, and imports it when it is used."""
