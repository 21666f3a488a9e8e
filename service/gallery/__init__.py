"""The index of a gallery: who is most similar to a probe. A projection of the database that can be thrown
away.

    snapshot  what a search sees, immutable
    segment   some templates in one block of memory, and which of them are dead
    index     the writer's side: adds, removes, publishes the next snapshot
    compaction  gets rid of dead rows, off the event loop
"""
