"""Image files and arrays: reading, writing, quality metrics and contact sheets."""
