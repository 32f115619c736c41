"""The engine rooms: reading data, querying models, the attacks' statistics, the files on disk, the report.

Nothing here imports from the scripts above it; each room takes plain values, not flags."""
