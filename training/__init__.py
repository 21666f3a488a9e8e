"""Facet's training: data → embedder and detector → evaluation → export → a published bundle.

Floors, imports point down only: __main__ > publish > export > embedder | detector > evaluation > data | loop > config.
"""
