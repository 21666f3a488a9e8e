"""Readers of labelled data, each giving numpy arrays; nothing here knows a model."""
