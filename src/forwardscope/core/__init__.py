"""What a lookup is, how it is answered, and how it is counted.

Standard library only: nothing here knows a model, a file format or a server.
"""
