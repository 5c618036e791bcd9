"""A run on one page: `page` makes the file, `parts` what is on it."""
