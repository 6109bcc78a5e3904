"""A board as text, Markdown, LaTeX, CSV, JSON and a page. It imports the board."""
