"""The embedder: backbones, margins, distillation and the run that trains it (twin of detector/)."""
