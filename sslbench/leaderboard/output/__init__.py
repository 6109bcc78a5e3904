"""Renders a board as text, Markdown, LaTeX, CSV, JSON and HTML. It imports the board."""
