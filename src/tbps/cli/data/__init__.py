"""`tbps data`: write, check and describe data sets."""
