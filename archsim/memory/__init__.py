"""Memory devices: standards, address maps, controllers and their checkers."""
