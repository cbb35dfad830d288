"""One HTML page that shows what runs recorded and how their networks score."""
