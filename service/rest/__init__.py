"""The REST door: translates HTTP into calls of the core and the core's results into JSON; it decides nothing.

app         puts the parts together
door        request id, deadline, metrics and the last resort for errors, around everything (ASGI)
exchange    what is known of one request: id, deadline, caller
routing     a route that authenticates and checks its scope before the body is read
limits      bytes, time, memory
bodies      pictures and parameters out of a form, a raw picture or JSON  (multipart: the streaming parser)
parameters  what may be asked · schemas: what is answered · openapi: both, described
errors      kind → status, and the envelope
routes/     one noun a file
"""
