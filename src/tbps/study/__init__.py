"""Studies: recipes, the paper's tables as lists of settings, their execution and reports."""
