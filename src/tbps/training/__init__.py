"""Training: the objective, the schedule, the loop, and what a restart needs."""
