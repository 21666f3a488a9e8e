"""The face detector: a slim ResNet RetinaNet with five landmarks (twin of `training.embedder`)."""
