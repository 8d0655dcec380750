"""Reports of a study: tables, plots, Markdown, HTML."""
