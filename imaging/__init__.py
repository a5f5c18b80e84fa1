"""Image files and arrays: reading, writing, measuring, sheets of pictures."""
