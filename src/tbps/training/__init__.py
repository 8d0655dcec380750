"""Training: objective, schedule, loop and checkpoints."""
