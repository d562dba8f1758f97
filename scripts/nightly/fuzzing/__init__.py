"""Small archives and models, taken apart, altered, put together again and read."""
