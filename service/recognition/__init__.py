"""Who is in a picture: everything between a door and the models, the gallery and the database.

images      bytes → upright pixels (headers: what a file says of itself, before decoding)
quality     how much a face can be trusted
faces       a face, and what a picture was found to hold
pipeline    picture → faces, through the engines
decision    similarity → match or not, at a stated error rate
recognize   the verbs detect, embed, verify, identify
enroll      the verb enroll
gallery_sync   keeps the database and the galleries in memory equal
"""
