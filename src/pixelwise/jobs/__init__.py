"""Old homes of names that people's scripts import. They go with version 0.3 (`docs/versions.md`)."""
