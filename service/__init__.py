"""Facet's server: pictures in, who is in them out, with a stated error rate.

    cli > server > rest | grpc | console > bootstrap > recognition > auth
        > inference | gallery | storage > telemetry > config > errors

A package imports from floors below its own only, and a door never decides. Nothing is imported here: heavy imports
stay with the part that needs them.
"""
