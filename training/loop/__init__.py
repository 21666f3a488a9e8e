"""What every training run needs around its steps: checkpoints and schedules."""
