"""A second reader of archives, written from docs/format.md alone: numpy and the standard library, no torch.

It shares no line with ``coding`` that decides a byte: two readers that agree on an archive agree on the document.
It is also the way to get data back where torch cannot be installed (``vaedensity decompress --engine numpy``).
"""
