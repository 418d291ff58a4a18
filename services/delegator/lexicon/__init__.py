"""The delegator's words, one TOML file a language. `english.toml` explains the format."""
