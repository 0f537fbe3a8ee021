"""What a user writes, read strictly: units, specs with sources, YAML with line numbers."""
