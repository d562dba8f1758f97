"""A second decoder of what models code, written from docs/format.md alone: numpy and the standard library, no torch.

It shares no line with ``coding`` that decides a byte: two decoders that agree on an archive agree on the document.
It also gets data back where torch cannot be installed. It decodes chains; ``archive`` finds them in a file.
"""
