"""Folders and object-store prefixes -> the same in another form, on one machine or a Ray cluster.

`python -m service.bulk`; needs the extra `bulk` (Ray Data and pyarrow). The service does without it.

    places     where files are: listing, reading, writing whole
    manifest   what was done, as JSON lines; what a broken-off run left to do
    job        one file in a worker that has its models open
    run        files -> Ray Data -> manifest
    cli        the command
"""
