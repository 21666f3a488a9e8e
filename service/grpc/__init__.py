"""The gRPC door: `facet.v1.FaceService` on the same core as REST; it translates and decides nothing.

server        puts the parts together: limits of the transport, health, reflection
interceptors  the gate before a message is read: caller, scope, room, time; and how an error leaves
call          what is known of one call: id, deadline, caller
servicer      the five verbs
convert       messages ↔ the core's values
errors        kind → status, and the trailing metadata
health        the standard health service, told by the phase the process is in
generated/    stubs from proto/facet/v1 (`make proto`; never edited)
"""
