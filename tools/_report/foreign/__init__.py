"""Training logs of other systems: recognised by content, read line by line, never trusted.

`lines` cleans what comes from a file, `clock` reads time stamps, `record` takes what a log says
of a `run`, one module for each format turns its lines into records, `formats` lists them, `read`
drives.
"""
